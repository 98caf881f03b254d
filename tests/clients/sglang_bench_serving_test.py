"""SGLang's public load tester (sglang.bench_serving), unmodified: its report on a cluster
counts what the cluster counted, has the latencies, and its texts are the reference's.

Runs in the virtual environment that scripts/install_test_clients makes.
"""

import json
import os
import subprocess
import sys
import tempfile

import e2e_case
from local_cluster import Cluster, get, post

REQUESTS = 20
CONCURRENCY = 4
END = "<|im_end|>"  # a token; no text has it
MARGIN = 0.001  # models/demo/README.md: above it, fp32 engines agree


def cases():
    """The reference's first short answers."""
    found = [answer for case, answer in e2e_case.evaluation()
             if not case["tools"] and answer["ended"] and answer["min_margin"] > MARGIN
             and 4 < len(answer["output_ids"]) < 40]
    return found[:REQUESTS]


class SglangBenchServing(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.cluster.close)
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = directory.name
        cls.cases = cases()
        cls.dataset = os.path.join(cls.directory, "sharegpt.json")
        with open(cls.dataset, "w", encoding="utf-8") as out:
            json.dump([{"conversations": [
                {"from": "human", "value": cls.prompt(case["prompt_ids"])},
                {"from": "gpt", "value": case["text"]}]} for case in cls.cases], out)

    @classmethod
    def prompt(cls, ids):
        return post(cls.cluster.port, "/detokenize", {"tokens": ids})["text"]

    def generated(self):
        """What the attention worker says that it generated, ever."""
        text = get(self.cluster.attention_metrics_port, "/metrics")[1]
        return sum(float(line.split()[-1]) for line in text.splitlines()
                   if line.startswith("vllm:generation_tokens_total"))

    def run_load(self, backend):
        """(the report, what it printed)"""
        report = os.path.join(self.directory, backend + ".jsonl")
        done = subprocess.run(
            [sys.executable, "-m", "sglang.bench_serving", "--backend", backend,
             "--base-url", f"http://127.0.0.1:{self.cluster.port}",
             "--model", e2e_case.DEMO, "--dataset-name", "sharegpt",
             "--dataset-path", self.dataset, "--num-prompts", str(REQUESTS),
             "--max-concurrency", str(CONCURRENCY), "--disable-tqdm",
             "--output-file", report, "--output-details"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120 * e2e_case.SLOWER)
        self.assertEqual(done.returncode, 0, done.stdout)
        reports = e2e_case.read_jsonl(report)
        self.assertEqual(len(reports), 1, done.stdout)
        return reports[0], done.stdout

    def check(self, backend):
        before = self.generated()
        report, printed = self.run_load(backend)
        self.assertEqual(report["errors"], [""] * REQUESTS, printed)
        self.assertEqual(report["completed"], REQUESTS, printed)
        self.assertRegex(printed, rf"Successful requests: +{REQUESTS}\b")
        # It asks for as many tokens as a text of the data set has, the end's among them.
        tokens = sorted(len(case["output_ids"]) for case in self.cases)
        self.assertEqual(sorted(report["output_lens"]), tokens)
        self.assertEqual(report["total_output_tokens"], sum(tokens))
        warmup = report["output_lens"][0]  # it sends the first one twice
        self.assertEqual(self.generated() - before, sum(tokens) + warmup)
        self.assertEqual(report["total_input_tokens"],
                         sum(len(case["prompt_ids"]) for case in self.cases))
        self.assertEqual(sorted(report["generated_texts"]),
                         sorted(case["text"].removesuffix(END) for case in self.cases))
        self.assertEqual(len(report["ttfts"]), REQUESTS)
        self.assertGreater(min(report["ttfts"]), 0)
        # Texts came in pieces; a draft's tokens share one.
        self.assertGreater(min(len(itl) for itl in report["itls"]), 0)
        for name in ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p99_itl_ms",
                     "mean_e2e_latency_ms", "output_throughput"):
            self.assertGreater(report[name], 0, name)

    def test_native(self):
        self.check("sglang")

    def test_openai_completions(self):
        self.check("vllm")


if __name__ == "__main__":
    e2e_case.main()
