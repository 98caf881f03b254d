"""Expert workers that hang, are verified, or are not there: the text stays the same."""

import concurrent.futures
import re
import signal

import e2e_case
from local_cluster import Cluster, get, wait_until

TOKENS = 200


def request(seed):
    return {"model": "default", "messages": [{"role": "user", "content": "Count on."}],
            "temperature": 1.0, "seed": seed, "max_tokens": TOKENS, "ignore_eos": True,
            "return_token_ids": True}


class ExpertFabric(e2e_case.TestCase):
    def start(self, deal, *attention_flags):
        self.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=deal,
                               attention_flags=attention_flags)
        self.cluster.start()
        self.addCleanup(self.cluster.close)

    def ask(self, seeds):
        """The token ids of these requests, all at once."""
        answers = e2e_case.ask_all(self.cluster.port, [request(s) for s in seeds], 4)
        return [answer["choices"][0]["token_ids"] for answer in answers]

    def metric(self, name, *labels):
        """The sum over all series of this name that have these labels."""
        total = 0.0
        for line in get(self.cluster.attention_metrics_port, "/metrics")[1].splitlines():
            match = re.fullmatch(re.escape(name) + r"(?:\{([^}]*)\})? (\S+)", line)
            if match and all(label in (match.group(1) or "") for label in labels):
                total += float(match.group(2))
        return total

    def state_is(self, index, state):
        return self.metric("switchyard_expert_worker_state", f'state="{state}"',
                           f'worker="{self.cluster.expert_address(index)}"') == 1

    def test_a_worker_that_hangs_is_left_alone_until_it_goes_on(self):
        self.start(("1/1", "1/1"))
        cluster = self.cluster
        expected = self.ask(range(4))
        generated = self.metric("vllm:generation_tokens_total")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(self.ask, range(4))
            wait_until(lambda: self.metric("vllm:generation_tokens_total")
                       > generated + 20, "tokens", 60, cluster.processes())
            cluster.experts[0].send_signal(signal.SIGSTOP)
            self.addCleanup(cluster.experts[0].send_signal, signal.SIGCONT)
            self.assertEqual(answers.result(240 * e2e_case.SLOWER), expected)
        # Whatever it was given has been seen to by others.
        self.assertEqual(self.ask(range(4)), expected)
        self.assertEqual(self.metric("switchyard_moe_failed_sequences_total"), 0)
        cluster.experts[0].send_signal(signal.SIGCONT)

        def back():
            self.assertEqual(self.ask([1]), expected[1:2])
            return self.state_is(0, "live") and self.state_is(1, "live")

        wait_until(back, "both workers to be live", 120 * e2e_case.SLOWER,
                   cluster.processes())
        self.assertEqual(self.metric("switchyard_moe_result_mismatch_total"), 0)

    def test_killed_workers_among_others_are_not_noticed(self):
        self.start(("1/1", "1/1", "1/1"))
        expected = self.ask(range(4))
        generated = self.metric("vllm:generation_tokens_total")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(self.ask, range(4))
            for index in (0, 1):
                generated += 40
                wait_until(lambda at=generated:
                           self.metric("vllm:generation_tokens_total") > at,
                           "tokens", 60, self.cluster.processes())
                self.cluster.experts[index].kill()
                self.cluster.start_expert(index)
            self.assertEqual(answers.result(240 * e2e_case.SLOWER), expected)
        self.assertEqual(self.metric("switchyard_moe_failed_sequences_total"), 0)

    def test_local_weights_stand_in_for_a_worker(self):
        self.start(("1/2", "2/2"), "--expert-fallback=local")
        cluster = self.cluster
        fallback = ("switchyard_expert_dispatch_calls_total", 'worker="fallback"')
        expected = self.ask(range(2))
        before = self.metric(*fallback)
        cluster.experts[1].kill()
        self.assertEqual(self.ask(range(2)), expected)
        # In every layer of every step.
        self.assertGreater(self.metric(*fallback), before + TOKENS)
        self.assertGreater(self.metric("switchyard_expert_fallback_reads_total"), 0)
        self.assertEqual(get(cluster.attention_metrics_port, "/readyz")[0], 200)
        cluster.start_expert(1)
        label = f'worker="{cluster.expert_address(1)}"'
        wait_until(lambda: self.metric("switchyard_expert_worker_connected", label) == 1,
                   "the worker", 60, cluster.processes())
        calls = self.metric("switchyard_expert_dispatch_calls_total", label)
        self.assertEqual(self.ask(range(2)), expected)
        self.assertGreater(
            self.metric("switchyard_expert_dispatch_calls_total", label), calls)

    def test_rows_that_are_computed_twice_agree(self):
        self.start(("1/1", "1/1"), "--verify-fraction=0.5")
        self.ask(range(2))
        self.assertGreater(
            self.metric("switchyard_moe_verified_pairs_total", 'result="agreed"'), 100)
        self.assertEqual(self.metric("switchyard_moe_result_mismatch_total"), 0)


if __name__ == "__main__":
    e2e_case.main()
