"""Processes that die, hang, or hold other weights. The others stay up, and what was
asked is answered, or fails within its deadline naming the experts."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time

import e2e_case
from local_cluster import Cluster, HttpError, get, wait_until


def long_request(seed, tokens=400, **more):
    """A sampled answer that goes on for `tokens` tokens, the same for the same seed."""
    return {"model": "default", "messages": [{"role": "user", "content": "Count on."}],
            "temperature": 1.0, "seed": seed, "max_tokens": tokens, "ignore_eos": True,
            "return_token_ids": True, **more}


def token_ids(answer):
    return answer["choices"][0]["token_ids"]


def metric(port, name):
    """The sum over all labels of one metric."""
    total = 0.0
    for line in get(port, "/metrics")[1].splitlines():
        match = re.fullmatch(re.escape(name) + r"(?:\{[^}]*\})? (\S+)", line)
        if match:
            total += float(match.group(1))
    return total


class Failures(e2e_case.TestCase):
    def setUp(self):
        self.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO)
        self.cluster.start()
        self.addCleanup(self.cluster.close)

    def assert_alive(self, *processes):
        for process in processes:
            self.assertTrue(process.alive(), f"{process.name}:\n{process.log()}")

    def test_killed_expert_worker_comes_back(self):
        cluster = self.cluster
        expected = [token_ids(e2e_case.ask(cluster.port, long_request(seed)))
                    for seed in range(4)]
        others = [cluster.router.pid, cluster.attention.pid, cluster.experts[0].pid]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(e2e_case.ask, cluster.port, long_request(seed))
                       for seed in range(4)]
            before = metric(cluster.attention_metrics_port, "vllm:generation_tokens_total")
            wait_until(lambda: metric(cluster.attention_metrics_port,
                                      "vllm:generation_tokens_total") > before + 20,
                       "tokens of the four requests", 60, cluster.processes())
            cluster.experts[1].kill()
            self.assertFalse(all(answer.done() for answer in answers),
                             "the worker was killed too late to matter")
            cluster.start_expert(1)
            got = [token_ids(answer.result(120 * e2e_case.SLOWER)) for answer in answers]
        self.assertEqual(got, expected)
        self.assert_alive(*cluster.processes())
        self.assertEqual(others, [cluster.router.pid, cluster.attention.pid,
                                  cluster.experts[0].pid])

    def test_missing_expert_fails_by_name_within_the_deadline(self):
        cluster = self.cluster
        cluster.experts[1].kill()
        begin = time.monotonic()
        with self.assertRaises(HttpError) as failure:
            e2e_case.ask(cluster.port, long_request(1, timeout=3))
        took = time.monotonic() - begin
        self.assertIn(failure.exception.status, (503, 504))
        error = json.loads(failure.exception.body)["error"]
        self.assertRegex(error["message"], r"expert")
        self.assertRegex(error["message"], r"16|1[6-9]|2\d|3[01]")
        self.assertLess(took, 3 + 5 * e2e_case.SLOWER)
        self.assert_alive(cluster.router, cluster.attention, cluster.experts[0])

        cluster.start_expert(1)
        cluster.wait_ready()
        self.assertEqual(len(token_ids(e2e_case.ask(cluster.port, long_request(1)))), 400)

    def test_hung_expert_worker_costs_its_requests_only(self):
        cluster = self.cluster
        cluster.experts[1].send_signal(signal.SIGSTOP)
        self.addCleanup(cluster.experts[1].send_signal, signal.SIGCONT)
        with self.assertRaises(HttpError) as failure:
            e2e_case.ask(cluster.port, long_request(1, timeout=2))
        self.assertIn(failure.exception.status, (503, 504))
        cluster.experts[1].send_signal(signal.SIGCONT)
        self.assertEqual(len(token_ids(e2e_case.ask(cluster.port, long_request(1)))), 400)
        self.assert_alive(*cluster.processes())

    def test_client_that_goes_away_frees_its_sequence(self):
        cluster = self.cluster
        port = cluster.attention_metrics_port
        connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(
            {**long_request(1, tokens=3000), "stream": True}),
            {"Content-Type": "application/json"})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        answer.readline()
        wait_until(lambda: metric(port, "vllm:num_requests_running") == 1,
                   "a running request", 30, cluster.processes())
        answer.close()
        connection.close()
        wait_until(lambda: metric(port, "vllm:num_requests_running") == 0,
                   "the sequence to be freed", 30, cluster.processes())

    def test_router_restart_loses_no_worker(self):
        cluster = self.cluster
        expected = token_ids(e2e_case.ask(cluster.port, long_request(7, tokens=50)))
        cluster.router.kill()
        cluster.start_router()
        cluster.wait_ready()
        self.assertEqual(
            token_ids(e2e_case.ask(cluster.port, long_request(7, tokens=50))), expected)

    def test_attention_worker_restart(self):
        cluster = self.cluster
        cluster.attention.kill()
        failed = threading.Event()

        def refused():
            try:
                e2e_case.ask(cluster.port, long_request(7, tokens=5, timeout=2))
            except HttpError as error:
                self.assertIn(error.status, (503, 504))
                json.loads(error.body)["error"]["message"]
                failed.set()
                return True
            return False

        wait_until(refused, "a refusal while no attention worker is there", 30)
        cluster.start_attention()
        cluster.wait_ready()
        self.assertEqual(
            len(token_ids(e2e_case.ask(cluster.port, long_request(7, tokens=5)))), 5)
        self.assert_alive(cluster.router, *cluster.experts)


class UnixSockets(e2e_case.TestCase):
    def test_killed_workers_sockets_are_taken_over(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, unix_sockets=True) as cluster:
            expected = token_ids(e2e_case.ask(cluster.port, long_request(3, tokens=50)))
            cluster.experts[1].kill()
            cluster.start_expert(1)
            self.assertEqual(
                token_ids(e2e_case.ask(cluster.port, long_request(3, tokens=50))),
                expected)
            cluster.attention.kill()
            cluster.start_attention()
            cluster.wait_ready()
            self.assertEqual(
                token_ids(e2e_case.ask(cluster.port, long_request(3, tokens=50))),
                expected)


class OtherWeights(e2e_case.TestCase):
    def test_worker_of_another_model_never_gets_a_row(self):
        with tempfile.TemporaryDirectory() as directory:
            other = os.path.join(directory, "other")
            shutil.copytree(e2e_case.DEMO, other)
            with open(os.path.join(other, "model.safetensors"), "r+b") as weights:
                weights.seek(-2, os.SEEK_END)  # the last value's lower mantissa bits
                byte = weights.read(1)
                weights.seek(-2, os.SEEK_END)
                weights.write(bytes([byte[0] ^ 1]))
            cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO)
            cluster.start_expert(0)
            cluster.model = other
            cluster.start_expert(1)
            cluster.model = e2e_case.DEMO
            cluster.start_attention()
            cluster.start_router()
            self.addCleanup(cluster.close)
            def fingerprints_named():
                status, body = get(cluster.attention_metrics_port, "/readyz")
                # Its HTTP server answers 404 before it knows of /readyz.
                message = json.loads(body)["message"] if status in (200, 503) else ""
                return set(re.findall(r"\b[0-9a-f]{12,64}\b", message))

            wait_until(lambda: len(fingerprints_named()) == 2,
                       "both fingerprints in the attention worker's /readyz",
                       60 * e2e_case.SLOWER, cluster.processes())
            wait_until(lambda: get(cluster.port, "/readyz")[0] == 503,
                       "the router, which is not ready", 60 * e2e_case.SLOWER,
                       cluster.processes())

            cluster.experts[1].kill()
            cluster.start_expert(1)
            cluster.wait_ready()
            answer = e2e_case.ask(cluster.port, long_request(1, tokens=5))
            self.assertEqual(len(token_ids(answer)), 5)


if __name__ == "__main__":
    e2e_case.main()
