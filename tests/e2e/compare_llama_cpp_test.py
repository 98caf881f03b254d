"""scripts/compare_llama_cpp with stand-ins for llama.cpp's programs, and the GGUF files
that it writes for them."""

import json
import os
import re
import struct
import subprocess
import sys
import tempfile

import e2e_case
import random_gguf

SCRIPT = os.path.join(e2e_case.ROOT, "scripts", "compare_llama_cpp")
LAYERS = 4

# Says what it was asked, and answers as the real one does.
LLAMA_BENCH = """#!/bin/sh
echo "$0 $@" >> "{log}"
echo '[{{"n_prompt": 40, "n_gen": 0, "avg_ts": 100.0}},'
echo ' {{"n_prompt": 0, "n_gen": 6, "avg_ts": 20.0}}]'
"""
LLAMA_BATCHED_BENCH = """#!/bin/sh
echo "$0 $@" >> "{log}"
echo 'loading...'
echo '{{"pl": 3, "speed_tg": 50.0, "speed": 60.0}}'
"""


def read_gguf(path):
    """(metadata, {name: (dims, type, offset)}, start of the data) of a GGUF file."""
    with open(path, "rb") as file:
        data = file.read(1 << 20)
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size:at].decode()

    assert data[:4] == b"GGUF"
    at = 4
    version, tensors, pairs = take("IQQ")
    assert version == 3
    metadata = {}
    for _ in range(pairs):
        key = text()
        kind = take("I")
        metadata[key] = text() if kind == 8 else take({4: "I", 6: "f"}[kind])
    found = {}
    for _ in range(tensors):
        name = text()
        dims = take("Q" * take("I"))
        dims = dims if isinstance(dims, tuple) else (dims,)
        found[name] = (dims, *take("IQ"))
    return metadata, found, at + -at % random_gguf.ALIGNMENT


class RandomGguf(e2e_case.TestCase):
    def test_every_tensor_is_where_the_header_says(self):
        geometry = random_gguf.geometry(
            LAYERS, os.path.join(e2e_case.DEMO, "config.json"))
        for kind, block in (("q8_0", 34), ("q4_0", 18)):
            with tempfile.TemporaryDirectory() as directory:
                path = os.path.join(directory, "a.gguf")
                random_gguf.write(path, geometry, kind)
                metadata, tensors, start = read_gguf(path)
                size = os.path.getsize(path)
                self.assertEqual(os.listdir(directory), ["a.gguf"])
                with open(path, "rb") as file:
                    content = file.read()
            self.assertEqual(metadata["general.architecture"], "qwen3next")
            self.assertEqual(metadata["qwen3next.block_count"], LAYERS)
            self.assertEqual(metadata["qwen3next.expert_count"],
                             geometry["num_experts"])
            end = 0
            for name, (dims, number, offset) in tensors.items():
                count = 1
                for n in dims:
                    count *= n
                self.assertEqual(offset, end, name)
                self.assertEqual(offset % random_gguf.ALIGNMENT, 0)
                bytes_ = 4 * count if number == 0 else count // 32 * block
                end += bytes_ + -bytes_ % random_gguf.ALIGNMENT
                if number == 0:
                    values = struct.unpack_from(f"<{count}f", content, start + offset)
                    self.assertTrue(all(abs(v) < 10 for v in values), name)
                else:
                    scale, = struct.unpack_from("<e", content, start + offset)
                    self.assertTrue(1e-4 < scale < 1e-2, name)
            self.assertEqual(start + end, size)
            # One full layer in four, and the experts of each.
            self.assertEqual(sum("attn_q.weight" in t for t in tensors), 1)
            self.assertEqual(sum("ssm_out" in t for t in tensors), LAYERS - 1)
            self.assertEqual(
                tensors["blk.0.ffn_down_exps.weight"][0],
                (geometry["moe_intermediate_size"], geometry["hidden_size"],
                 geometry["num_experts"]))


class Compare(e2e_case.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        self.log = os.path.join(self.directory, "log")
        self.bin = os.path.join(self.directory, "bin")
        os.mkdir(self.bin)
        for name, text in (("llama-bench", LLAMA_BENCH),
                           ("llama-batched-bench", LLAMA_BATCHED_BENCH)):
            path = os.path.join(self.bin, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text.format(log=self.log))
            os.chmod(path, 0o700)

    def compare(self, *flags):
        return subprocess.run(
            [sys.executable, SCRIPT, "--work", self.directory, "--switchyard",
             e2e_case.binary("switchyard"), "--llama-bin", self.bin, "--layers",
             str(LAYERS), "--config", os.path.join(e2e_case.DEMO, "config.json"),
             "--threads", "1", "--prompt", "40", "--generate", "6", "--batch", "3",
             "--batched-generate", "2", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=240 * e2e_case.SLOWER)

    def test_rounds_alternate_and_ratios_are_ours_over_theirs(self):
        path = os.path.join(self.directory, "figures.json")
        done = self.compare("--types", "q4", "--rounds", "3", "--json", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path, encoding="utf-8") as file:
            rounds = json.load(file)["q4"]
        self.assertEqual(len(rounds), 3)
        for figures in rounds:
            self.assertEqual(
                figures["llama.cpp"],
                {"prefill 40": 100.0, "decode 1": 20.0, "decode 3": 50.0})
            self.assertEqual(set(figures["switchyard"]), set(figures["llama.cpp"]))
        ratios = sorted(f["switchyard"]["decode 1"] / 20.0 for f in rounds)
        line = next(line for line in done.stdout.splitlines()
                    if line.startswith("decode 1 "))
        self.assertIn(f"{ratios[1]:.2f}x ({ratios[0]:.2f}-{ratios[2]:.2f})", line)
        order = re.findall(r"round \d of 3, (\S+):", done.stderr)
        self.assertEqual(order, ["llama.cpp", "switchyard", "switchyard",
                                 "llama.cpp", "llama.cpp", "switchyard"])
        with open(self.log, encoding="utf-8") as file:
            asked = file.read()
        self.assertEqual(asked.count("llama-bench -m "), 3)
        self.assertIn(f"random-{LAYERS}-q4_0.gguf -t 1 -p 40 -n 6", asked)

    def test_a_program_that_fails_ends_it_with_its_words(self):
        # A model that is there is not made again.
        ours = os.path.join(self.directory, f"switchyard-{LAYERS}-q4")
        os.mkdir(ours)
        open(os.path.join(ours, "switchyard.json"), "w", encoding="utf-8").close()
        done = self.compare("--types", "q4", "--llama-run",
                            "sh -c 'echo no such backend >&2; exit 3'")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ended with 3", done.stderr)
        self.assertIn("no such backend", done.stderr)
        done = self.compare("--types", "q5")
        self.assertEqual(done.returncode, 2)
        self.assertIn("q5", done.stderr)


if __name__ == "__main__":
    e2e_case.main()
