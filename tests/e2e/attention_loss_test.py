"""Attention workers that are killed, hang, or are told to go, under load. No client
sees more than a pause: no request fails, and no token, logprob or count changes."""

import concurrent.futures
import os
import re
import signal
import time

import e2e_case
import checked_load
from local_cluster import Cluster, get, wait_until

DRAFTS = ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3",
          "--speculative-adaptive=false"]
# More for a measurement; one needs 20 for a percentile.
KILLS = int(os.environ.get("SWITCHYARD_TEST_KILLS", "4"))
# Of new requests, which have no worker to lose.
WAITS = "switchyard_router_waits_for_worker_total"
# How far behind a fault its silence may begin: a hung worker's last tokens may still be
# on their way.
WINDOW = 0.5


def metric(port, name):
    match = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(port, "/metrics")[1], re.M)
    return float(match.group(1))


class AttentionLoss(e2e_case.TestCase):
    def start(self, drafts=True, streams=6, workers=2, tokens=200, router_flags=()):
        self.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, num_attention=workers,
                               attention_flags=DRAFTS if drafts else (),
                               router_flags=router_flags)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        for index in range(workers):
            self.cluster.wait_attention_ready(index)
        self.load = checked_load.CheckedLoad(
            self.cluster.port, checked_load.requests(32, tokens), streams,
            timeout=120 * e2e_case.SLOWER).expect()
        self.load.start()

    def wait_for_events(self, count):
        """So many more; the streams are in the middle of something then."""
        before = self.load.num_events()
        deadline = time.monotonic() + 60 * e2e_case.SLOWER
        while self.load.num_events() < before + count:
            self.assertLess(time.monotonic(), deadline, "no events come")
            time.sleep(0.01)

    def finish(self, moments, what):
        self.load.stop()
        self.assertEqual(self.load.failures, [])
        self.assertEqual(self.load.changed, [])
        stalls = self.load.stalls(moments, WINDOW)
        self.assertNotIn(None, stalls)
        print(f"{what}: {len(self.load.done)} answers, longest silences "
              f"{[round(s * 1000) for s in sorted(stalls)]} ms, p50 "
              f"{checked_load.percentile(stalls, 0.5) * 1000:.0f} ms, p99 "
              f"{checked_load.percentile(stalls, 0.99) * 1000:.0f} ms "
              f"(load {os.getloadavg()[0]:.1f})")

    def test_killed(self):
        for drafts in (False, True):
            with self.subTest(drafts=drafts):
                self.start(drafts)
                moments = []
                for kill in range(KILLS):
                    self.wait_for_events(100)
                    moments.append(time.monotonic())
                    self.cluster.attentions[kill % 2].kill()
                    self.wait_for_events(100)
                    self.cluster.start_attention(kill % 2)
                    self.cluster.wait_attention_ready(kill % 2)
                self.finish(moments, f"{KILLS} kills, drafts {drafts}")
                self.cluster.close()

    def test_hung(self):
        self.start()
        moments = []
        for number in range(2):
            self.wait_for_events(100)
            worker = self.cluster.attentions[number % 2]
            moments.append(time.monotonic())
            worker.send_signal(signal.SIGSTOP)
            self.addCleanup(worker.send_signal, signal.SIGCONT)
            # Only the other one can bring these: all six streams go on there.
            done = self.load.num_done()
            deadline = time.monotonic() + 60 * e2e_case.SLOWER
            while self.load.num_done() < done + 12:
                self.assertLess(time.monotonic(), deadline, "streams hang")
                time.sleep(0.01)
            worker.send_signal(signal.SIGCONT)
            self.wait_for_events(100)
        self.finish(moments, "2 hung workers")

    def test_rolling_restart(self):
        self.start()
        moments = []
        for number in range(4):
            self.wait_for_events(100)
            worker = self.cluster.attentions[number % 2]
            moments.append(time.monotonic())
            worker.send_signal(signal.SIGTERM)
            # It ends when its streams are elsewhere, not when they are done.
            self.assertEqual(worker.exit_code(60 * e2e_case.SLOWER), 0)
            worker.close()
            self.cluster.start_attention(number % 2)
            self.cluster.wait_attention_ready(number % 2)
        self.finish(moments, "4 restarts")
        self.assertGreater(metric(self.cluster.port, "switchyard_router_states_moved_total"),
                           0)

    def test_new_requests_wait_for_the_only_worker(self):
        """It is told to go, or killed, and starts again: a pause, and no error."""
        self.start(streams=8, workers=1, tokens=20,
                   router_flags=["--worker-grace", f"{int(60 * e2e_case.SLOWER)}s"])
        port = self.cluster.port
        for number in range(4):
            self.wait_for_events(100)
            if number % 2:
                self.cluster.attention.kill()
            else:
                self.cluster.attention.send_signal(signal.SIGTERM)
                self.assertEqual(
                    self.cluster.attention.exit_code(60 * e2e_case.SLOWER), 0)
                self.cluster.attention.close()
            wait_until(lambda: get(port, "/readyz")[0] == 503, "the loss to be seen",
                       60 * e2e_case.SLOWER)
            # The streams of a killed worker are not new: this one is.
            before = metric(port, WAITS)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                late = pool.submit(e2e_case.ask, port, checked_load.requests(1)[0] |
                                   {"stream": False, "max_tokens": 5})
                wait_until(lambda: metric(port, WAITS) > before, "a request that waits",
                           60 * e2e_case.SLOWER)
                self.cluster.start_attention()
                self.assertEqual(late.result()["usage"]["completion_tokens"], 5)
        self.load.stop()
        self.assertEqual(self.load.failures, [])
        self.assertEqual(self.load.changed, [])

    def test_the_last_worker_finishes_what_it_has(self):
        cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO)
        self.addCleanup(cluster.close)
        cluster.start()
        load = checked_load.CheckedLoad(
            cluster.port, checked_load.requests(4, tokens=300), streams=4).expect()
        load.start()
        deadline = time.monotonic() + 60 * e2e_case.SLOWER
        while load.num_events() < 40:
            self.assertLess(time.monotonic(), deadline, "no events come")
            time.sleep(0.01)
        load.finish_soon()
        cluster.attention.send_signal(signal.SIGTERM)
        load.stop()
        self.assertEqual(load.failures, [])
        self.assertEqual(load.changed, [])
        self.assertEqual(cluster.attention.exit_code(60 * e2e_case.SLOWER), 0)


if __name__ == "__main__":
    e2e_case.main()
