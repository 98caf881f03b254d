"""TLS: HTTPS for clients, and certificates on both ends between the services."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile

import e2e_case
from local_cluster import LOOPBACK, Cluster, Process, free_port, get, post, wait_until

QUESTION = {"model": "default", "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 8, "temperature": 0}


class Authority:
    """A CA, and certificates that it signs, in files of `directory`."""

    def __init__(self, directory, name):
        self.directory = directory
        self.certificate = os.path.join(directory, f"{name}.crt")
        self.key = os.path.join(directory, f"{name}.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
                      "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                      f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def sign(self, name, alternative="DNS:switchyard.test,IP:127.0.0.1"):
        """Paths of a new certificate and its key."""
        path = os.path.join(self.directory, name)
        extensions = f"{path}.ext"
        with open(extensions, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={alternative}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-subj", f"/CN={name}", "-keyout", f"{path}.key", "-out",
                      f"{path}.csr")
        self._openssl("x509", "-req", "-in", f"{path}.csr", "-CA", self.certificate,
                      "-CAkey", self.key, "-CAcreateserial", "-days", "30", "-extfile",
                      extensions, "-out", f"{path}.crt")
        return f"{path}.crt", f"{path}.key"


def flags(authority, pair):
    return ["--tls-cert-file", pair[0], "--tls-key-file", pair[1], "--tls-ca-file",
            authority.certificate]


class Tls(e2e_case.TestCase):
    def setUp(self):
        self._directory = tempfile.TemporaryDirectory()
        self.addCleanup(self._directory.cleanup)
        self.directory = self._directory.name
        self.authority = Authority(self.directory, "ca")

    def context(self, authority):
        return ssl.create_default_context(cafile=authority.certificate)

    def https(self, port, context, method="GET", path="/readyz", body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context,
                                                 timeout=60 * e2e_case.SLOWER)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def served_certificate(self, port, context):
        with socket.create_connection((LOOPBACK, port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                return secure.getpeercert(binary_form=True)

    def test_https(self):
        certificate, key = self.authority.sign("router")
        port = free_port()
        context = self.context(self.authority)
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"]) as cluster:
            expected = post(cluster.port, "/v1/chat/completions", QUESTION)
            command = [e2e_case.binary("switchyard-router"), "--model", e2e_case.DEMO,
                       "--attention-workers", f"{LOOPBACK}:{cluster.attention_port}",
                       "--port", str(port), "--ssl-certfile", certificate,
                       "--ssl-keyfile", key]
            router = Process("https router", command)
            try:
                def ready():
                    try:
                        return self.https(port, context)[0] == 200
                    except ConnectionRefusedError:
                        return False
                wait_until(ready, "readiness", 60 * e2e_case.SLOWER, [router])
                status, body = self.https(port, context, "POST", "/v1/chat/completions",
                                          json.dumps(QUESTION))
                self.assertEqual(status, 200)
                self.assertEqual(json.loads(body)["choices"][0]["message"],
                                 expected["choices"][0]["message"])
                # A stream, and a body of many records.
                status, body = self.https(port, context, "POST", "/v1/chat/completions",
                                          json.dumps({**QUESTION, "stream": True}))
                self.assertTrue(body.endswith(b"data: [DONE]\n\n"))
                long = json.dumps({**QUESTION, "max_tokens": 1, "messages": [
                    {"role": "user", "content": "a b " * 30000}]})
                self.assertEqual(self.https(port, context, "POST",
                                            "/v1/chat/completions", long)[0], 400)
                # Nobody is answered in the clear, and one who doubts goes.
                self.assertEqual(get(port, "/readyz")[0], 0)
                with self.assertRaises(ssl.SSLCertVerificationError):
                    self.https(port, self.context(Authority(self.directory, "other")))
                self.assertEqual(self.https(port, context)[0], 200)

                # A renewed certificate counts without a restart; a wrong one does not.
                old = self.served_certificate(port, context)
                new_certificate, new_key = self.authority.sign("renewed")
                shutil.copy(new_key, key)
                shutil.copy(new_certificate, certificate)
                wait_until(lambda: self.served_certificate(port, context) != old,
                           "the renewed certificate", 60, [router])
                with open(certificate, "w", encoding="utf-8") as file:
                    file.write("nonsense")
                wait_until(lambda: self.https(port, context)[0] == 200 and
                           "is used on" in router.log(), "a word on the wrong file", 60,
                           [router])
            finally:
                router.close()

    def test_between_services(self):
        pair = self.authority.sign("service")
        secure = flags(self.authority, pair)
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO) as cluster:
            expected = post(cluster.port, "/v1/chat/completions", QUESTION)
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, router_flags=secure,
                     attention_flags=secure, expert_flags=secure) as cluster:
            answer = post(cluster.port, "/v1/chat/completions",
                          {**QUESTION, "return_token_ids": True})
            self.assertEqual([choice["message"] for choice in answer["choices"]],
                             [choice["message"] for choice in expected["choices"]])
            self.check_sessions(cluster.attention_address(), answer, secure)
            for address in (cluster.attention_port, cluster.expert_ports[0]):
                # TLS 1.3 tells a client that its certificate is missing only when it
                # reads.
                context = self.context(self.authority)
                context.set_alpn_protocols(["h2"])
                with socket.create_connection((LOOPBACK, address), timeout=20) as plain:
                    with self.assertRaises((ssl.SSLError, ConnectionError)):
                        with context.wrap_socket(plain,
                                                 server_hostname="127.0.0.1") as stream:
                            stream.settimeout(20)
                            if not stream.recv(1):
                                raise ConnectionError("closed")

    def check_sessions(self, address, answer, secure):
        """`switchyard session` speaks as the services do, or not at all."""
        tokens = os.path.join(self.directory, "answer.json")
        with open(tokens, "w", encoding="utf-8") as file:
            json.dump(answer, file)
        state = os.path.join(self.directory, "session.state")
        for more, code in (([], 1), (secure, 0)):
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "session", "save", "--from", address,
                 "--tokens", tokens, "--to", state, *more],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=60 * e2e_case.SLOWER)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(os.path.exists(state), code == 0)

    def test_strangers_are_not_spoken_to(self):
        secure = flags(self.authority, self.authority.sign("service"))
        stranger = Authority(self.directory, "stranger")
        wrong = flags(stranger, stranger.sign("elsewhere"))
        misnamed = flags(self.authority, self.authority.sign("named", "DNS:other.test"))
        for expert_flags in (wrong, misnamed, []):
            cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"],
                              attention_flags=secure, expert_flags=expert_flags)
            try:
                cluster.start_expert(0)
                wait_until(lambda c=cluster: get(c.expert_metrics_ports[0],
                                                 "/readyz")[0] == 200,
                           "an expert worker", 60 * e2e_case.SLOWER, cluster.experts)
                cluster.start_attention()
                wait_until(lambda c=cluster: re.search(
                    "handshake failed|Hostname Verification",
                    get(c.attention_metrics_port, "/readyz")[1]),
                           "a refusal that says why", 60 * e2e_case.SLOWER,
                           [cluster.attention])
            finally:
                cluster.close()
        # A name that all services share, wherever they are.
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"],
                     router_flags=[*secure, "--tls-peer-name", "other.test"],
                     attention_flags=[*misnamed, "--tls-peer-name", "other.test"],
                     expert_flags=misnamed) as cluster:
            post(cluster.port, "/v1/chat/completions", QUESTION)

    def test_bad_files(self):
        certificate, key = self.authority.sign("service")
        other_key = self.authority.sign("other")[1]
        for arguments, why in (
                (["--tls-cert-file", certificate], "--tls-key-file is not set"),
                (flags(self.authority, (certificate, other_key)), "is not that of"),
                (flags(self.authority, ("/no/such.crt", key)), "/no/such.crt"),
                (flags(self.authority, (key, key)), "no certificate in PEM")):
            done = subprocess.run(
                [e2e_case.binary("switchyard-expert-worker"), "--model", e2e_case.DEMO,
                 "--port", "0", "--metrics-port", "-1", *arguments],
                stderr=subprocess.PIPE, text=True, timeout=60 * e2e_case.SLOWER)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
        for arguments in (["--ssl-certfile", certificate],
                          ["--ssl-certfile", certificate, "--ssl-keyfile", other_key]):
            done = subprocess.run(
                [e2e_case.binary("switchyard-router"), "--model", e2e_case.DEMO, "--port",
                 "0", "--attention-workers", "127.0.0.1:1", *arguments],
                stderr=subprocess.PIPE, text=True, timeout=60 * e2e_case.SLOWER)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, "keyfile|key")


if __name__ == "__main__":
    e2e_case.main()
