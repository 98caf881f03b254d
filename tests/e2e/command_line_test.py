"""The tools of the `switchyard` program, as somebody would use them who compares Switchyard
with another implementation: plain files in, plain files out."""

import array
import contextlib
import json
import lzma
import os
import shutil
import struct
import subprocess
import tempfile
import time

import e2e_case
from local_cluster import OneProcess

FIXTURES = os.path.join(e2e_case.ROOT, "tests", "fixtures")


def run_jsonl(objects, *arguments):
    """One output object for each input object."""
    done = subprocess.run([e2e_case.binary("switchyard"), *arguments],
                          input="".join(json.dumps(o) + "\n" for o in objects),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120 * e2e_case.SLOWER)
    return [json.loads(line) for line in done.stdout.splitlines()], done


def read_npy(path):
    """(shape, little-endian floats) of an .npy file."""
    with open(path, "rb") as file:
        assert file.read(6) == b"\x93NUMPY"
        major = file.read(2)[0]
        size = struct.unpack("<H", file.read(2))[0] if major == 1 else struct.unpack(
            "<I", file.read(4))[0]
        header = file.read(size).decode()
        assert "'<f4'" in header and "'fortran_order': False" in header, header
        shape = tuple(int(n) for n in
                      header.split("'shape': (")[1].split(")")[0].split(",") if n.strip())
        values = array.array("f")
        values.frombytes(file.read())
    return shape, values


def golden(fixture, *names):
    """Arrays of a fixture's golden.safetensors, flat."""
    with open(os.path.join(FIXTURES, fixture, "golden.safetensors"), "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        arrays = []
        for name in names:
            begin, end = header[name]["data_offsets"]
            file.seek(8 + size + begin)
            values = array.array({"F32": "f", "I32": "i"}[header[name]["dtype"]])
            values.frombytes(file.read(end - begin))
            arrays.append(values)
    return arrays


class Text(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        for name in ("vocab.json", "merges.txt"):
            with lzma.open(os.path.join(FIXTURES, "tokenizer", name + ".xz")) as packed, open(
                    os.path.join(cls.directory.name, name), "wb") as out:
                shutil.copyfileobj(packed, out)
        shutil.copy(os.path.join(FIXTURES, "tokenizer", "tokenizer_config.json"),
                    cls.directory.name)

    def test_tokenize(self):
        cases = e2e_case.read_jsonl(os.path.join(FIXTURES, "tokenizer_cases.jsonl"))
        got, _ = run_jsonl([{"text": case["text"]} for case in cases], "tokenize",
                           "--model", self.directory.name)
        self.assertEqual([g["ids"] for g in got], [case["ids"] for case in cases])

    def test_decode(self):
        cases = e2e_case.read_jsonl(os.path.join(FIXTURES, "tokenizer_decode_cases.jsonl"))
        for flags, key in (([], "decoded"), (["--skip-special"], "decoded_skip_special")):
            got, _ = run_jsonl([{"ids": case["ids"]} for case in cases], "tokenize",
                               "--decode", *flags, "--model", self.directory.name)
            self.assertEqual([g["text"] for g in got], [case[key] for case in cases])

    def test_render(self):
        formats = {"instruct.jinja": "instruct", "thinking.jinja": "thinking",
                   "coder_next.jinja": "coder"}
        cases = e2e_case.read_jsonl(os.path.join(FIXTURES, "chat_cases.jsonl"))
        for template, name in formats.items():
            chosen = [case for case in cases if case["template"] == template]
            self.assertTrue(chosen)
            got, _ = run_jsonl([{key: case[key] for key in ("messages", "tools", "kwargs")}
                                for case in chosen], "render", "--format", name)
            for case, result in zip(chosen, got):
                with self.subTest(id=case["id"]):
                    if "error" in case:
                        self.assertTrue(result["error"])
                    else:
                        self.assertEqual(result["rendered"], case["rendered"])

    def test_parse(self):
        cases = e2e_case.read_jsonl(os.path.join(FIXTURES, "parse_cases.jsonl"))
        for name in ("json", "xml", "think", "nothink"):
            chosen = [case for case in cases if case["format"] == name]
            self.assertTrue(chosen)
            got, _ = run_jsonl([{key: case[key] for key in ("text", "tools")}
                                for case in chosen], "parse", "--format", name)
            for case, result in zip(chosen, got):
                expected = {key: value for key, value in case.items()
                            if key not in ("format", "text", "tools")}
                with self.subTest(text=case["text"]):
                    self.assertEqual({key: result.get(key) for key in expected}, expected)

    def test_a_bad_line_does_not_stop_the_others(self):
        done = subprocess.run([e2e_case.binary("switchyard"), "render", "--format",
                               "instruct"], input='{"messages": [\n' + json.dumps(
                                   {"messages": [{"role": "user", "content": "x"}]}) + "\n",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first, second = (json.loads(line) for line in done.stdout.splitlines())
        self.assertTrue(first["error"])
        self.assertIn("<|im_start|>user\nx", second["rendered"])
        self.assertEqual(done.returncode, 1)


def logits(model, ids, *more):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "logits.npy")
        subprocess.run([e2e_case.binary("switchyard"), "logits", "--model", model,
                        "--ids", ",".join(map(str, ids)), "--out", path, *more],
                       check=True, timeout=120 * e2e_case.SLOWER,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return read_npy(path)


class Logits(e2e_case.TestCase):
    def test_golden(self):
        for fixture in ("tiny_a_bf16", "tiny_b_fp32", "tiny_a_yarn"):
            for length in (1, 65, 200):
                with self.subTest(fixture=fixture, length=length):
                    ids, expected = golden(fixture, f"len{length}.input_ids",
                                           f"len{length}.logits")
                    shape, got = logits(os.path.join(FIXTURES, fixture), ids)
                    self.assertEqual(shape, (length, len(expected) // length))
                    largest = max(map(abs, expected))
                    worst = max(abs(a - b) for a, b in zip(got, expected))
                    self.assertLess(worst, 1e-3 * largest)

    def test_step_by_step_is_whole_prompt(self):
        model = os.path.join(FIXTURES, "tiny_b_fp32")
        ids, = golden("tiny_b_fp32", "len65.input_ids")
        whole = logits(model, ids)
        for prefill in ("1", "7", "64"):
            self.assertEqual(logits(model, ids, "--prefill", prefill), whole)
        self.assertEqual(logits(model, ids, "--isa", "scalar", "--threads", "1"), whole)

    def test_bf16_activations(self):
        model = os.path.join(FIXTURES, "tiny_a_bf16")
        ids, expected = golden("tiny_a_bf16", "len65.input_ids", "len65.logits")
        flags = ["--activations", "bfloat16"]
        shape, whole = logits(model, ids, *flags)
        self.assertEqual(logits(model, ids, *flags, "--isa", "scalar", "--prefill", "7"),
                         (shape, whole))
        self.assertNotEqual(logits(model, ids), (shape, whole))
        # Near the reference, but not as near as f32: some experts are others.
        worst = max(abs(a - b) for a, b in zip(whole, expected))
        self.assertLess(worst, 0.2 * max(map(abs, expected)))


def switchyard(*arguments):
    return subprocess.run([e2e_case.binary("switchyard"), *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120 * e2e_case.SLOWER)


def contents(directory):
    found = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as file:
            found[name] = file.read()
    return found


class Convert(e2e_case.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.out = os.path.join(directory.name, "converted")

    def convert(self, *more, model=e2e_case.DEMO):
        return switchyard("convert", "--model", model, "--out", self.out, *more)

    def test_convert_verify_compute(self):
        done = self.convert("--format", "q8", "--experts", "q4", "--threads", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("experts q4, dense q8, lm_head q8", done.stderr)
        done = switchyard("verify", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("checksums are right", done.stderr)

        ids = e2e_case.evaluation()[0][1]["prompt_ids"]
        shape, exact = logits(e2e_case.DEMO, ids)
        converted = logits(self.out, ids)
        self.assertEqual(converted[0], shape)
        largest = max(map(abs, exact))
        square = sum((a - b) ** 2 for a, b in zip(converted[1], exact)) / len(exact)
        self.assertGreater(square ** 0.5, 0)
        self.assertLess(square ** 0.5, 0.03 * largest)

    def test_damage_is_named(self):
        self.assertEqual(self.convert("--format", "q4").returncode, 0)
        path = os.path.join(self.out, "experts-00003.safetensors")
        with open(path, "r+b") as file:
            file.seek(-5000, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        done = switchyard("verify", self.out)
        self.assertEqual(done.returncode, 1)
        self.assertIn(path, done.stderr)
        self.assertIn("model.layers.3.mlp.experts.31 is damaged", done.stderr)
        self.assertIn("1 of ", done.stderr)
        # Who loads it refuses it too.
        done = switchyard("logits", "--model", self.out, "--ids", "1", "--out",
                          os.path.join(os.path.dirname(self.out), "x.npy"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("model.layers.3.mlp.experts.31 is damaged", done.stderr)

    def test_killed_and_run_again(self):
        whole = tempfile.TemporaryDirectory()
        self.addCleanup(whole.cleanup)
        expected = os.path.join(whole.name, "expected")
        self.assertEqual(switchyard("convert", "--model", e2e_case.DEMO, "--out", expected,
                                    "--format", "q4-q8").returncode, 0)
        command = [e2e_case.binary("switchyard"), "convert", "--model", e2e_case.DEMO,
                   "--out", self.out, "--format", "q4-q8", "--threads", "1"]
        journal = os.path.join(self.out, "conversion.journal")
        # Killed once each when it has begun, and when it has one file more.
        for lines in (1, 2, 5):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60 * e2e_case.SLOWER
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(FileNotFoundError), open(journal) as file:
                    if file.read().count("\n") >= lines:
                        break
            process.kill()
            process.wait()
            if os.path.exists(os.path.join(self.out, "switchyard.json")):
                break  # it was faster than its murderer
            done = switchyard("logits", "--model", self.out, "--ids", "1", "--out",
                              os.path.join(whole.name, "x.npy"))
            self.assertEqual(done.returncode, 1)
            self.assertIn("unfinished conversion", done.stderr)
        else:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        found = contents(self.out)
        found.pop("conversion.journal", None)
        self.assertEqual(found, contents(expected))

    def test_refusals(self):
        for arguments, message in (
                ((), "--format is missing"),
                (("--format", "q5"), "q4-q8"),
                (("--format", "q4", "--lm-head", "int8"), "--lm-head"),
                (("--format", "q4", "--threads", "-1"), "--threads")):
            done = self.convert(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(message, done.stderr)
        self.assertFalse(os.path.exists(self.out))
        os.mkdir(self.out)
        with open(os.path.join(self.out, "notes.txt"), "w"):
            pass
        done = self.convert("--format", "q4")
        self.assertEqual(done.returncode, 1)
        self.assertIn("notes.txt", done.stderr)
        self.assertEqual(os.listdir(self.out), ["notes.txt"])
        done = switchyard("verify", e2e_case.DEMO)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SHA256SUMS", done.stderr)

    def test_synth(self):
        small = ("hidden_size=128,num_experts=16,num_experts_per_tok=4,vocab_size=512,"
                 "moe_intermediate_size=64,shared_expert_intermediate_size=64")
        for form in ("hf-bf16", "bf16dot", "q4-q8"):
            out = os.path.join(os.path.dirname(self.out), form)
            done = switchyard("synth", "--layers", "4", "--set", small, "--format", form,
                              "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            shape, values = logits(out, range(100, 120))
            self.assertEqual(shape, (20, 512))
            self.assertTrue(all(abs(v) < 100 for v in values))
            self.assertGreater(max(values), 0.1)
        with OneProcess(e2e_case.BINARIES, out) as server:
            answer = e2e_case.ask(server.port, {
                "model": "default", "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 5})
            self.assertEqual(len(answer["choices"]), 1)
            self.assertGreater(answer["usage"]["completion_tokens"], 0)


class Chat(e2e_case.TestCase):
    def test_conversation(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "chat", "--port", str(server.port)],
                input="Tell me the capital of Mexico.\nExplain a KV cache.\n/exit\n",
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=60 * e2e_case.SLOWER)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("The capital of Mexico is Mexico City.", done.stdout)
        self.assertIn("KV cache", done.stdout)

    def test_nobody_there(self):
        done = subprocess.run([e2e_case.binary("switchyard"), "chat", "--port", "1"],
                              input="Hello\n", stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("127.0.0.1:1", done.stderr)


if __name__ == "__main__":
    e2e_case.main()
