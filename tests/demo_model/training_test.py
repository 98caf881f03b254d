"""Two steps of training a tiny geometry: the delta rule in matrix form is the one that is
defined token by token, the compiled operations are the torch ones, training goes on where
it was stopped, and what it exports is served by `switchyard` with the model's logits.

Skipped where torch is missing. Where Transformers is there, its logits are compared too.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = os.path.join(ROOT, "scripts", "demo_model")
sys.path.insert(0, SOURCES)
DEMO = os.path.join(ROOT, "models", "demo")
SKIPPED = 77
MISSING = [name for name in ("torch", "numpy", "safetensors", "tokenizers")
           if importlib.util.find_spec(name) is None]
if MISSING:
    print(f"skipped: no {', '.join(MISSING)} here", file=sys.stderr)
    sys.exit(SKIPPED)

import numpy  # noqa: E402
import torch  # noqa: E402

import architecture  # noqa: E402
import checkpoint  # noqa: E402
import delta_rule  # noqa: E402
import native_ops  # noqa: E402
from geometry import Geometry  # noqa: E402

BINARIES = os.environ.get("SWITCHYARD_BINARIES", os.path.join(ROOT, "build/release/bin"))
TINY = Geometry(hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
                num_key_value_heads=1, head_dim=32, linear_num_key_heads=1,
                linear_num_value_heads=2, num_experts=8, num_experts_per_tok=2,
                moe_intermediate_size=16, shared_expert_intermediate_size=16)
LENGTHS = [37, 1, 58]


def save_tiny(directory, seed=1):
    torch.manual_seed(seed)
    model = architecture.DemoModel(TINY)
    with open(os.path.join(DEMO, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    checkpoint.save(model, directory, {"end_of_text": config["bos_token_id"],
                                       "end_of_turn": config["eos_token_id"]})
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                 "chat_template.jinja"):
        shutil.copy(os.path.join(DEMO, name), directory)


def command(start, work, tokens, *more):
    return [sys.executable, os.path.join(SOURCES, "train.py"), "--start", start, "--work", work,
            "--tokens", str(tokens), "--row-tokens", "512", "--rows-per-step", "2",
            "--longest", "1024", "--drafts-every", "2", "--log-every", "1", *more]


def train(*arguments):
    subprocess.run(command(*arguments), check=True)


def trainers(work):
    """The processes of a trainer that was started with DEMO_MODEL_TEST=`work`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if os.fsencode(f"DEMO_MODEL_TEST={work}") in file.read():
                    found.append(int(pid))
        except OSError:
            continue  # it has ended
    return found


def weights(work):
    state = torch.load(os.path.join(work, "state.pt"), weights_only=True)
    return state["model"], state["position"]


def read_log(work):
    with open(os.path.join(work, "log.jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def packed_loss(model):
    torch.manual_seed(3)
    ids = torch.randint(0, 1500, (sum(LENGTHS),))
    packing = architecture.Packing(LENGTHS, model.geometry)
    logits = model.states(ids, packing, []) @ model.head.t()
    loss = torch.nn.functional.cross_entropy(logits, ids.roll(-1), reduction="sum")
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()
                         if p.grad is not None}, logits.detach(), ids


class Training(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="demo-model-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.start = os.path.join(self.folder, "start")
        save_tiny(self.start)

    def test_delta_rule_is_the_step_by_step_one(self):
        torch.manual_seed(5)
        heads, tokens, size = 2, 96, 8
        q, k = (torch.nn.functional.normalize(torch.randn(heads, tokens, size), dim=-1)
                for _ in range(2))
        v = torch.randn(heads, tokens, size)
        g, beta = -torch.rand(heads, tokens), torch.rand(heads, tokens)
        border = 41  # a second sequence starts here
        packed = g.clone()
        packed[:, border] -= delta_rule.RESET
        out = delta_rule.gated_delta_rule(q, k, v, packed, beta)
        state = torch.zeros(heads, size, size)
        for t in range(tokens):
            state = state * (0 if t == border else g[:, t, None, None].exp())
            lacking = v[:, t] - torch.einsum("hkv,hk->hv", state, k[:, t])
            write = beta[:, t, None] * lacking
            state = state + k[:, t, :, None] * write[:, None]
            expected = torch.einsum("hkv,hk->hv", state, q[:, t])
            torch.testing.assert_close(out[:, t], expected, atol=2e-5, rtol=1e-4)

    def test_compiled_operations_are_the_torch_ones(self):
        if not shutil.which("g++"):
            self.skipTest("no g++")
        model = checkpoint.load(self.start)
        loss, gradients, _, _ = packed_loss(model)
        usual = architecture.DeltaNet.forward
        self.addCleanup(setattr, architecture.DeltaNet, "forward", usual)
        native_ops.use(self.folder)
        native_loss, native_gradients, _, _ = packed_loss(model)
        self.assertAlmostEqual(loss, native_loss, delta=1e-3)
        for name, gradient in gradients.items():
            with self.subTest(name):
                torch.testing.assert_close(native_gradients[name], gradient,
                                           atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)

    def test_stopped_training_goes_on(self):
        one, two = (os.path.join(self.folder, name) for name in ("one", "two"))
        steady = ["--decay", "0.001", "--warm-up", "1"]
        train(self.start, one, 3000, *steady)
        train(self.start, two, 1000, *steady)
        stopped = weights(two)[1]
        self.assertLess(stopped["tokens"], weights(one)[1]["tokens"])
        train(self.start, two, 3000, *steady)
        (in_one_go, position), (in_two, position_two) = weights(one), weights(two)
        self.assertEqual(position["sample"], position_two["sample"])
        self.assertEqual(position["tokens"], position_two["tokens"])
        for name, value in in_one_go.items():
            torch.testing.assert_close(in_two[name], value, msg=name)
        log = read_log(one)
        self.assertEqual([line["step"] for line in log], list(range(1, position["step"] + 1)))
        before = dict(checkpoint.load(self.start).named_parameters())
        for name, value in in_one_go.items():
            self.assertFalse(torch.equal(value, before[name]), f"{name} was not trained")

    def test_two_processes_do_what_one_does(self):
        one, two = (os.path.join(self.folder, name) for name in ("one", "two"))
        more = ["--drafts-every", "1", "--warm-up", "1"]
        train(self.start, one, 1500, *more)
        train(self.start, two, 1500, "--processes", "2", *more)
        (alone, position), (together, position_two) = weights(one), weights(two)
        self.assertGreater(position["step"], 1)
        for key in ("step", "row", "sample", "tokens"):
            self.assertEqual(position[key], position_two[key])
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-3, msg=name)
        for line, other in zip(read_log(one), read_log(two)):
            self.assertAlmostEqual(line["loss"], other["loss"], delta=2e-3)
        with self.assertRaises(subprocess.CalledProcessError):  # rows that no one computes
            train(self.start, two, 3000, "--processes", "2", "--rows-per-step", "3")

    def test_processes_end_with_the_first(self):
        work = os.path.join(self.folder, "work")
        first = subprocess.Popen(
            command(self.start, work, 10**9, "--processes", "2"),
            env={**os.environ, "DEMO_MODEL_TEST": work})
        self.addCleanup(first.kill)
        deadline = time.monotonic() + 120
        while not os.path.exists(os.path.join(work, "log.jsonl")):
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(first.poll())
            time.sleep(0.1)
        self.assertGreaterEqual(len(trainers(work)), 3)
        with self.assertRaises(subprocess.CalledProcessError):  # one state, one training
            train(self.start, work, 1000)
        first.kill()
        first.wait()
        while trainers(work):
            self.assertLess(time.monotonic(), deadline + 60)
            time.sleep(0.1)

    def test_goes_on_from_a_checkpoint(self):
        one, two = (os.path.join(self.folder, name) for name in ("one", "two"))
        train(self.start, one, 1000)
        train(os.path.join(one, "checkpoint"), two, 1000)
        before, after = weights(one)[1], weights(two)[1]
        self.assertGreater(after["sample"], before["sample"])
        self.assertEqual(after["tokens"], before["tokens"] + after["schedule_tokens"])
        self.assertEqual(read_log(two)[:len(read_log(one))], read_log(one))

    def test_exported_checkpoint_is_served(self):
        if not os.path.exists(os.path.join(BINARIES, "switchyard")):
            self.skipTest(f"no switchyard in {BINARIES}")
        work = os.path.join(self.folder, "work")
        train(self.start, work, 1500)
        exported = os.path.join(work, "checkpoint")
        model = checkpoint.load(exported)
        _, _, logits, ids = packed_loss(model)
        first = ids[:LENGTHS[0]].tolist()
        out = os.path.join(self.folder, "logits.npy")
        subprocess.run([os.path.join(BINARIES, "switchyard"), "logits", "--model", exported,
                        "--ids", ",".join(map(str, first)), "--out", out], check=True)
        served = torch.from_numpy(numpy.load(out))
        torch.testing.assert_close(served, logits[:LENGTHS[0]], atol=2e-3, rtol=1e-3)
        if importlib.util.find_spec("transformers"):
            from transformers import Qwen3NextForCausalLM
            theirs = Qwen3NextForCausalLM.from_pretrained(exported, dtype=torch.float32)
            theirs = theirs.eval()(torch.tensor([first])).logits[0]
            torch.testing.assert_close(theirs, logits[:LENGTHS[0]], atol=2e-3, rtol=1e-3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
