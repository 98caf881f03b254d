"""`switchyard serve` has the front of a router: the same flags, which do the same."""

import hashlib
import http.client
import json
import os
import re
import ssl
import subprocess
import tempfile

import e2e_case
from local_cluster import LOOPBACK, OneProcess, Process, free_port, get, wait_until
from tls_test import Authority

# What one process has no use for: workers elsewhere.
ONLY_OF_A_ROUTER = {"--attention-workers", "--failover-timeout", "--grpc-port",
                    "--member-heartbeat", "--member-lease", "--worker-grace",
                    "--tls-ca-file", "--tls-cert-file", "--tls-key-file",
                    "--tls-peer-name"}
# Whose defaults or other uses differ.
OF_ITS_OWN = {"--host", "--port", "--model"}


def flags_of(*command):
    """{flag: (help, default)}"""
    text = subprocess.run([e2e_case.binary(command[0]), *command[1:], "--help"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    found = re.findall(r"^  (--\S+)\n      (.*)\n      default: (.*)$", text, re.MULTILINE)
    return {name: (meaning, default) for name, meaning, default in found}


class Serve(e2e_case.TestCase):
    def test_every_flag_of_a_router(self):
        router = flags_of("switchyard-router")
        serve = flags_of("switchyard", "serve")
        self.assertIn("--api-key-file", router)
        for name in sorted(set(router) - ONLY_OF_A_ROUTER):
            with self.subTest(flag=name):
                self.assertIn(name, serve)
                if name not in OF_ITS_OWN:
                    self.assertEqual(serve[name], router[name])

    def test_a_config_file(self):
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            path = os.path.join(folder, "serve.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"served-model-name": "of-the-file"}, file)
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                            flags=["--config", path]) as server:
                models = json.loads(get(server.port, "/v1/models")[1])
            self.assertEqual([m["id"] for m in models["data"]], ["of-the-file"])
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"no-such-flag": 1}, file)
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "serve", "--config", path], text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                timeout=60 * e2e_case.SLOWER)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("no-such-flag", done.stdout.replace("_", "-"))

    def request(self, path, body=None, key=None):
        """(status, text) over HTTPS."""
        connection = http.client.HTTPSConnection(
            LOOPBACK, self.port, context=self.context, timeout=60 * e2e_case.SLOWER)
        try:
            connection.request("POST" if body is not None else "GET", path,
                               json.dumps(body) if body is not None else None,
                               {"x-request-id": "mine-1",
                                **({"Authorization": f"Bearer {key}"} if key else {})})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()

    def spans(self):
        metrics = self.request("/metrics", key="chief")[1]
        return sum(float(line.split()[-1]) for line in metrics.split("\n")
                   if line.startswith("switchyard_trace_spans_total{"))

    def test_they_do_the_same(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        authority = Authority(directory.name, "ca")
        certificate, private_key = authority.sign("serve")
        self.context = ssl.create_default_context(cafile=authority.certificate)
        clients = os.path.join(directory.name, "clients")
        with open(clients, "w", encoding="utf-8") as file:
            file.write(f"ann {hashlib.sha256(b'of-ann').hexdigest()}\n"
                       f"bob {hashlib.sha256(b'of-bob').hexdigest()} rpm=1\n")
        self.port = free_port()
        server = Process("switchyard serve", [
            e2e_case.binary("switchyard"), "serve", "--model", e2e_case.DEMO, "--port",
            str(self.port), "--ssl-certfile", certificate, "--ssl-keyfile", private_key,
            "--api-key-file", clients, "--admin-api-key", "chief", "--strict-fields",
            "--log-level", "debug",
            "--otlp-traces-endpoint", f"{LOOPBACK}:1"])
        self.addCleanup(server.close)
        wait_until(lambda: self.request("/readyz")[0] == 200, "readiness",
                   60 * e2e_case.SLOWER, [server])
        self.assertIn(f"https://{LOOPBACK}:{self.port}", server.log())

        ask = {"model": "demo", "prompt": "a", "max_tokens": 2}
        self.assertEqual(self.spans(), 0)
        self.assertEqual(self.request("/v1/completions", ask)[0], 401)
        self.assertEqual(self.request("/v1/completions", ask, "of-ann")[0], 200)
        # A line is written behind the answer.
        wait_until(lambda: "request mine-1: POST /v1/completions answered with 200"
                   in server.log(), "the answer's line", 60 * e2e_case.SLOWER, [server])
        # That one's spans are the router's, and the worker's: whole, prefill, decode.
        wait_until(lambda: self.spans() >= 4, "spans of all parts",
                   60 * e2e_case.SLOWER, [server])
        self.assertEqual(self.request("/flush_cache", {}, "of-ann")[0], 403)
        self.assertEqual(self.request("/flush_cache", {}, "chief")[0], 200)
        self.assertEqual(self.request("/v1/completions", ask, "of-bob")[0], 200)
        self.assertEqual(self.request("/v1/completions", ask, "of-bob")[0], 429)

        status, text = self.request("/v1/completions", {**ask, "max_tokenz": 2}, "of-ann")
        self.assertEqual(status, 400)
        self.assertIn("max_tokenz", text)
        for flag, why in (("--max-body-mib=0", "--max-body-mib"),
                          ("--chat-format=none", "none")):
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "serve", "--model", e2e_case.DEMO, "--port",
                 "0", flag], stderr=subprocess.PIPE, text=True, timeout=60 * e2e_case.SLOWER)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)


if __name__ == "__main__":
    e2e_case.main()
