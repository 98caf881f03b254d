"""Drafted tokens: no answer changes by them, and they are right as often as the model's
training says."""

import itertools
import os
import re

import e2e_case
from local_cluster import Cluster, OneProcess, get

# Tokens of a verifying step with 1, 2 and 3 drafts, as the code that trained the model counts
# them (scripts/demo_model/evaluate_drafts.py; models/demo/README.md). Its later drafts attend to
# keys of their own pass, where a server's attend to those of the first: nearly the same.
STEP_TOKENS = {1: 1.93, 2: 2.81, 3: 3.59}
# Half of them greedy; the nightly run asks more.
PROMPTS = int(os.environ.get("SWITCHYARD_TEST_PROMPTS", "40"))
NONE = ["--speculative-algorithm", "NONE"]


def fixed(depth):
    return ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", str(depth),
            "--speculative-adaptive=false"]


def bodies(count, **more):
    """Half greedy, half sampled; all with logprobs."""
    pairs = e2e_case.evaluation()
    cases = [case for case, _ in pairs[::len(pairs) // count]][:count]
    return [e2e_case.chat_body(case, max_tokens=48, return_token_ids=True, logprobs=True,
                               top_logprobs=2,
                               **({"temperature": 0} if i % 2 == 0 else
                                  {"temperature": 0.8, "top_p": 0.95, "seed": i}), **more)
            for i, case in enumerate(cases)]


def essence(answer):
    choice = answer["choices"][0]
    return (choice["token_ids"], choice["finish_reason"],
            [(token["logprob"], [(top["token"], top["logprob"])
                                 for top in token["top_logprobs"]])
             for token in choice["logprobs"]["content"]])


def metric(port, name):
    text = get(port, "/metrics")[1]
    values = re.findall(rf"^{re.escape(name)}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    assert values, f"no metric {name}"
    return sum(map(float, values))


class Drafting(e2e_case.TestCase):
    def test_no_answer_changes(self):
        asked = bodies(PROMPTS)
        digests = {}
        flags = itertools.product((NONE, fixed(1), fixed(3)),
                                  ([], ["--disable-radix-cache"]), ("64", "512"), (1, 16))
        for drafts, cache, chunk, at_once in flags:
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=[
                    *drafts, *cache, "--chunked-prefill-size", chunk]) as server:
                for warm in (False, True):
                    answers = e2e_case.ask_all(server.port, asked, at_once)
                    digests[(drafts[-1], *cache, chunk, at_once, warm)] = (
                        list(map(essence, answers)))
        expected = next(iter(digests.values()))
        for arrangement, found in digests.items():
            with self.subTest(arrangement):
                self.assertEqual(found, expected)

    def test_over_processes(self):
        asked = bodies(24)
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=NONE) as server:
            expected = list(map(essence, e2e_case.ask_all(server.port, asked, 1)))
        for deal in (["1/2", "2/2"], ["1/3", "2/3", "3/3"]):
            with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=deal,
                         attention_flags=fixed(3)) as cluster:
                found = list(map(essence, e2e_case.ask_all(cluster.port, asked, 6)))
                drafts = metric(cluster.attention_metrics_port,
                                "vllm:spec_decode_num_drafts_total")
            self.assertEqual(found, expected)
            self.assertGreater(drafts, 50)

    def test_tokens_of_a_step(self):
        asked = [e2e_case.chat_body(case, temperature=0, max_tokens=320)
                 for case, _ in e2e_case.evaluation()]
        for depth, expected in STEP_TOKENS.items():
            with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"],
                         attention_flags=fixed(depth)) as cluster:
                e2e_case.ask_all(cluster.port, asked, at_once=8)
                port = cluster.attention_metrics_port
                drafts = metric(port, "vllm:spec_decode_num_drafts_total")
                drafted = metric(port, "vllm:spec_decode_num_draft_tokens_total")
                accepted = metric(port, "vllm:spec_decode_num_accepted_tokens_total")
            print(f"{depth} drafts: {1 + accepted / drafts:.3f} tokens a step, "
                  f"{accepted / drafted:.3f} of drafts right; reference {expected}")
            self.assertAlmostEqual(1 + accepted / drafts, expected, delta=0.05 * expected)


if __name__ == "__main__":
    e2e_case.main()
