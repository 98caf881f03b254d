"""A very long prompt with real arithmetic: memory as budgeted, progress that shows, a
client that goes away is noticed within a chunk, the same tokens in other chunks, and a
refusal beyond the context. The nightly run takes 200,000 tokens."""

import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import tempfile

import e2e_case
from local_cluster import LOOPBACK, Cluster, HttpError, get, post, wait_until

TOKENS = int(os.environ.get("SWITCHYARD_TEST_LONG_PROMPT", "30000"))
CONTEXT = max(262144, TOKENS + 1000)
CHUNK = 512
MIB = 1 << 20
STATE_MIB = 96
# Attention over a prompt costs its length squared: one narrow head in one layer of four.
GEOMETRY = {"hidden_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1,
            "head_dim": 32, "partial_rotary_factor": 0.5, "num_experts": 8,
            "num_experts_per_tok": 2, "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2,
            "linear_num_value_heads": 2, "linear_key_head_dim": 32,
            "linear_value_head_dim": 32, "vocab_size": 1536,
            "max_position_embeddings": CONTEXT}


def metric(port, name):
    text = get(port, "/metrics")[1]
    return sum(float(value) for value in
               re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def resident_bytes(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) << 10


class LongPrompt(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.model = os.path.join(cls.directory.name, "model")
        settings = ",".join(f"{key}={value}" for key, value in GEOMETRY.items())
        subprocess.run([e2e_case.binary("switchyard"), "synth", "--layers", "4", "--format", "bf16", "--set",
                        settings, "--tokenizer", e2e_case.DEMO, "--out", cls.model],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        draw = random.Random(7)
        cls.prompt = [draw.randrange(1000) for _ in range(TOKENS)]

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def serve(self, chunk):
        return Cluster(e2e_case.BINARIES, self.model, deal=["1/1"], attention_flags=[
            "--chunked-prefill-size", str(chunk), "--state-memory", str(STATE_MIB * MIB),
            "--disable-radix-cache"], router_flags=["--request-timeout", "1h"])

    def body(self, **more):
        return {"model": "default", "prompt": self.prompt, "max_tokens": 8,
                "temperature": 0, "ignore_eos": True, "return_token_ids": True,
                "logprobs": 1, **more}

    def ask(self, port):
        choice = post(port, "/v1/completions", self.body(), timeout=3000)["choices"][0]
        return choice["token_ids"], choice["logprobs"]["token_logprobs"]

    def test_a_long_prompt(self):
        with self.serve(CHUNK) as cluster:
            worker = cluster.attention

            def of_worker(name):
                return metric(cluster.attention_metrics_port, name)

            def computed():
                return of_worker("vllm:prompt_tokens_total")

            # A client that goes away in the middle.
            with contextlib.closing(http.client.HTTPConnection(
                    LOOPBACK, cluster.port, timeout=60)) as gone:
                gone.request("POST", "/v1/completions", json.dumps(self.body(stream=True)),
                             {"Content-Type": "application/json"})
                wait_until(lambda: computed() >= 4 * CHUNK, "progress in the metrics",
                           300, [worker])
                self.assertEqual(of_worker("vllm:num_requests_running"), 1)
            wait_until(lambda: of_worker("vllm:num_requests_running") == 0,
                       "the abandoned request's end", 300, [worker])
            at_end = computed()
            self.assertLess(at_end, TOKENS)

            first = self.ask(cluster.port)
            self.assertEqual(len(first[0]), 8)
            # Nothing of the abandoned one was computed beside it.
            self.assertEqual(computed(), at_end + TOKENS)
            if e2e_case.SLOWER == 1:  # a sanitizer needs more
                self.assertLess(resident_bytes(worker), (STATE_MIB + 300) * MIB)

            with self.assertRaises(HttpError) as refused:
                post(cluster.port, "/v1/completions", self.body(prompt=[1] * (CONTEXT + 1)))
            self.assertEqual(refused.exception.status, 400)
            self.assertIn(str(CONTEXT), refused.exception.body)
        with self.serve(2048) as cluster:
            self.assertEqual(self.ask(cluster.port), first)


if __name__ == "__main__":
    e2e_case.main()
