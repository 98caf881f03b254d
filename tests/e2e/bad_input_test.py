"""Wrong files, flags and ports: every binary ends with code 1 and says what was wrong,
where, and what to do. Wrong requests: a 4xx with an error object, and the server stays."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile

import e2e_case
from local_cluster import HttpError, OneProcess, free_port, get, post


def run(*command, timeout=60):
    """(exit code, stdout and stderr) of a command that is expected to end by itself."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=timeout * e2e_case.SLOWER,
                          text=True, errors="replace")
    return done.returncode, done.stdout


def loaders(model):
    """The commands that read a checkpoint, each as a process of its own."""
    port, metrics = str(free_port()), str(free_port())
    return {
        "expert worker": [e2e_case.binary("switchyard-expert-worker"), "--model", model,
                          "--slice", "1/1", "--host", "127.0.0.1", "--port", port,
                          "--metrics-port", metrics],
        "attention worker": [e2e_case.binary("switchyard-attention-worker"), "--model",
                             model, "--host", "127.0.0.1", "--port", port,
                             "--metrics-port", metrics],
        "one process": [e2e_case.binary("switchyard"), "serve", "--model", model,
                        "--host", "127.0.0.1", "--port", port],
        "logits": [e2e_case.binary("switchyard"), "logits", "--model", model, "--ids",
                   "5,17,3", "--out", os.path.join(tempfile.gettempdir(), "unused.npy")],
    }


class CheckpointCase(e2e_case.TestCase):
    """Has a copy of the demo model to spoil."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.model = os.path.join(self.directory.name, "model")
        shutil.copytree(e2e_case.DEMO, self.model)
        self.weights = os.path.join(self.model, "model.safetensors")

    def edit_config(self, **changes):
        path = os.path.join(self.model, "config.json")
        with open(path, encoding="utf-8") as config:
            values = {**json.load(config), **changes}
        with open(path, "w", encoding="utf-8") as config:
            json.dump(values, config)


class BadCheckpoints(CheckpointCase):
    def assert_refused(self, *said, without=()):
        for name, command in loaders(self.model).items():
            if name in without:
                continue
            with self.subTest(name=name):
                code, output = run(*command)
                self.assertEqual(code, 1, output)
                for text in said:
                    self.assertIn(text, output)

    def test_missing_directory(self):
        shutil.rmtree(self.model)
        self.assert_refused(self.model)

    def test_missing_weights(self):
        os.remove(self.weights)
        self.assert_refused("model.safetensors")

    def test_cut_weights(self):
        os.truncate(self.weights, os.path.getsize(self.weights) - 1000)
        self.assert_refused("model.safetensors")

    def test_header_with_a_flipped_bit(self):
        with open(self.weights, "r+b") as weights:
            length = struct.unpack("<Q", weights.read(8))[0]
            header = bytearray(weights.read(length))
            at = header.index(b'"data_offsets":[') + len(b'"data_offsets":[')
            header[at] ^= 0x40  # a digit is no digit any more
            weights.seek(8)
            weights.write(header)
        self.assert_refused("model.safetensors")

    def test_weights_with_a_flipped_bit_and_checksums(self):
        names = ["model.safetensors", "config.json"]
        sums = subprocess.run(["sha256sum", *names], cwd=self.model, check=True,
                              stdout=subprocess.PIPE).stdout
        with open(os.path.join(self.model, "SHA256SUMS"), "wb") as out:
            out.write(sums)
        with open(self.weights, "r+b") as weights:
            middle = os.path.getsize(self.weights) // 2
            weights.seek(middle)
            byte = weights.read(1)
            weights.seek(middle)
            weights.write(bytes([byte[0] ^ 0x10]))
        for name in ("expert worker", "attention worker", "one process"):
            with self.subTest(name=name):
                code, output = run(*loaders(self.model)[name], "--verify-checksums")
                self.assertEqual(code, 1, output)
                self.assertIn("model.safetensors", output)

    def test_another_architecture(self):
        self.edit_config(model_type="llama", architectures=["LlamaForCausalLM"])
        self.assert_refused("llama", "qwen3_next")

    def test_tensor_of_the_wrong_shape(self):
        self.edit_config(moe_intermediate_size=48)
        self.assert_refused("experts", "48")

    def test_tokenizer_that_does_not_fit(self):
        self.edit_config(vocab_size=1531)
        command = [e2e_case.binary("switchyard-router"), "--model", self.model, "--host",
                   "127.0.0.1", "--port", str(free_port()), "--attention-workers",
                   "127.0.0.1:1"]
        code, output = run(*command)
        self.assertEqual(code, 1, output)
        self.assertIn("1531", output)
        self.assertIn("1536", output)


class LongContext(CheckpointCase):
    """YaRN is loud: a context beyond the model's is refused at start, and the factor that
    allows it is shown."""

    FLAGS = ["--context-length", "16384"]

    def test_beyond_the_models_context(self):
        for name, command in loaders(self.model).items():
            if name not in ("attention worker", "one process"):
                continue
            with self.subTest(name=name):
                code, output = run(*command, *self.FLAGS)
                self.assertEqual(code, 1, output)
                for text in ("--context-length", "16384", "8192", "YaRN"):
                    self.assertIn(text, output)

    def test_with_yarn(self):
        self.edit_config(rope_scaling={"rope_type": "yarn", "factor": 2.0,
                                       "original_max_position_embeddings": 8192})
        with OneProcess(e2e_case.BINARIES, self.model, flags=self.FLAGS) as server:
            info = json.loads(get(server.port, "/server_info")[1])
        self.assertEqual(info["context_length"], 16384)
        self.assertEqual(info["rope_scaling"]["factor"], 2.0)
        self.assertEqual(info["rope_scaling"]["original_max_position_embeddings"], 8192)


class BadCommandLines(e2e_case.TestCase):
    def test_unknown_flag_names_the_nearest(self):
        for name, flag, nearest in (
                ("switchyard-router", "--atention-workers=x", "attention-workers"),
                ("switchyard-attention-worker", "--chunked-prefil-size=3",
                 "chunked-prefill-size"),
                ("switchyard-expert-worker", "--slise=1/2", "slice"),
                ("switchyard", "--prefil=3", "prefill")):
            with self.subTest(name=name):
                arguments = ["logits", flag] if name == "switchyard" else [flag]
                code, output = run(e2e_case.binary(name), *arguments)
                self.assertEqual(code, 1, output)
                self.assertIn(nearest, output.replace("_", "-"))

    def test_unknown_command_names_the_nearest(self):
        code, output = run(e2e_case.binary("switchyard"), "tokenise")
        self.assertEqual(code, 1, output)
        self.assertIn("tokenize", output)

    def test_bad_slice(self):
        for value in ("0/2", "3/2", "1", "a/b", "1/0"):
            with self.subTest(value=value):
                code, output = run(e2e_case.binary("switchyard-expert-worker"), "--model",
                                   e2e_case.DEMO, "--slice", value, "--port", "0",
                                   "--metrics-port", "0")
                self.assertEqual(code, 1, output)
                self.assertIn(value, output)

    def test_port_in_use(self):
        with contextlib.closing(socket.socket()) as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = str(holder.getsockname()[1])
            for name, command in {
                    "router": [e2e_case.binary("switchyard-router"),
                               "--attention-workers", "127.0.0.1:1"],
                    "attention": [e2e_case.binary("switchyard-attention-worker"),
                                  "--metrics-port", "0"],
                    "expert": [e2e_case.binary("switchyard-expert-worker"), "--slice",
                               "1/1", "--metrics-port", "0"],
                    "serve": [e2e_case.binary("switchyard"), "serve"]}.items():
                with self.subTest(name=name):
                    code, output = run(*command, "--model", e2e_case.DEMO, "--host",
                                       "127.0.0.1", "--port", port)
                    self.assertEqual(code, 1, output)
                    self.assertIn(port, output)


class BadRequests(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = OneProcess(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.server.close)

    def refusal(self, body, path="/v1/chat/completions"):
        with self.assertRaises(HttpError) as failure:
            post(self.server.port, path, body)
        error = json.loads(failure.exception.body)["error"]
        for key in ("message", "type", "param", "code"):
            self.assertIn(key, error)
        self.assertTrue(self.server.process.alive(), self.server.process.log())
        return failure.exception.status, error

    def tearDown(self):
        user = [{"role": "user", "content": "Tell me the capital of Mexico."}]
        answer = post(self.server.port, "/v1/chat/completions",
                      {"model": "default", "messages": user})
        self.assertIn("Mexico City", answer["choices"][0]["message"]["content"])

    def test_bodies_that_are_no_request(self):
        for body in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": "x"}',
                     b'{"messages": []}', b'{"messages": [{"role": "king", "content": ""}]}',
                     b'{"messages": [{"content": "x"}]}', b'{"messages": [3]}',
                     b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}',
                     b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
                     b'{"messages": [{"role": "user", "content": "x"}], "top_p": 7}',
                     b'{"messages": [{"role": "user", "content": {"a": 1}}]}',
                     b"[" * 100000, b'{"a":' * 100000):
            with self.subTest(body=body[:60]):
                status, error = self.refusal(body)
                self.assertEqual(status, 400, error)

    def test_ten_megabytes_of_text(self):
        status, error = self.refusal({"messages": [
            {"role": "user", "content": "word " * 2_000_000}]})
        self.assertIn(status, (400, 413))
        self.assertRegex(error["message"], r"\d")

    def test_prompt_beyond_the_context(self):
        status, error = self.refusal({"prompt": [5] * 9000, "max_tokens": 5},
                                     "/v1/completions")
        self.assertEqual(status, 400)
        self.assertIn("8192", error["message"])
        self.assertIn("9000", error["message"])

    def test_token_ids_outside_the_vocabulary(self):
        for ids in ([1536], [-1], [2**40]):
            with self.subTest(ids=ids):
                status, _ = self.refusal({"prompt": ids, "max_tokens": 5},
                                         "/v1/completions")
                self.assertEqual(status, 400)

    def test_unknown_paths_and_methods(self):
        status, body = get(self.server.port, "/v1/embeddings")
        self.assertEqual(status, 404)
        self.assertIn("message", json.loads(body)["error"])
        status, body = get(self.server.port, "/v1/chat/completions")
        self.assertEqual(status, 405)
        self.assertIn("message", json.loads(body)["error"])

    def test_bytes_that_are_no_http(self):
        for data in (b"\x00" * 64, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 200000 + b"\r\n\r\n"):
            with self.subTest(data=data[:40]), contextlib.closing(
                    socket.create_connection(("127.0.0.1", self.server.port))) as raw:
                raw.settimeout(30)
                try:
                    raw.sendall(data)
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(4096):
                        pass
                except ConnectionError:
                    pass  # a reset is an answer, too
            self.assertTrue(self.server.process.alive())


if __name__ == "__main__":
    e2e_case.main()
