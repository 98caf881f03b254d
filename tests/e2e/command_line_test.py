"""The tools of the `switchyard` program, as somebody would use them who compares Switchyard
with another implementation: plain files in, plain files out."""

import array
import json
import lzma
import os
import shutil
import struct
import subprocess
import tempfile

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


class Logits(e2e_case.TestCase):
    def logits(self, model, ids, *more):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "logits.npy")
            subprocess.run([e2e_case.binary("switchyard"), "logits", "--model", model,
                            "--ids", ",".join(map(str, ids)), "--out", path, *more],
                           check=True, timeout=120 * e2e_case.SLOWER,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return read_npy(path)

    def test_golden(self):
        for fixture in ("tiny_a_bf16", "tiny_b_fp32", "tiny_a_yarn"):
            for length in (1, 65, 200):
                with self.subTest(fixture=fixture, length=length):
                    ids, expected = golden(fixture, f"len{length}.input_ids",
                                           f"len{length}.logits")
                    shape, got = self.logits(os.path.join(FIXTURES, fixture), ids)
                    self.assertEqual(shape, (length, len(expected) // length))
                    largest = max(map(abs, expected))
                    worst = max(abs(a - b) for a, b in zip(got, expected))
                    self.assertLess(worst, 1e-3 * largest)

    def test_step_by_step_is_whole_prompt(self):
        model = os.path.join(FIXTURES, "tiny_b_fp32")
        ids, = golden("tiny_b_fp32", "len65.input_ids")
        whole = self.logits(model, ids)
        for prefill in ("1", "7", "64"):
            self.assertEqual(self.logits(model, ids, "--prefill", prefill), whole)
        self.assertEqual(self.logits(model, ids, "--isa", "scalar", "--threads", "1"), whole)


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
