"""Real faults in a running cluster make every alert fire in a real Prometheus.

Time is lapsed: all windows and waits of the rules are a twentieth, and everything else is as it
is shipped. Each fault is caused, its alerts are waited for, and it is mended. Faults of expert
workers are in expert_faults.py. Slow CPUs and hanging disks are control groups', which take
root; without it their alerts are named and skipped.
"""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import unittest

import faults  # first: it makes scripts/ importable
import expert_faults
import local_cluster
import monitoring
from faults import BINARIES, DEMO, Users


class StaticFaultsTest(faults.FaultsTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = local_cluster.Cluster(
            BINARIES, DEMO, router_flags=["--max-queued-requests=6"],
            attention_flags=["--expert-wait-timeout=2s"])
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.other_port = local_cluster.free_port()
        cls.watch(monitoring.targets(cls.cluster) + [
            ("switchyard-attention-worker", "attention-worker-1", cls.other_port)])

    def mended(self):
        self.cluster.wait_ready()

    def restart_attention(self, *flags):
        self.cluster.attention.kill()
        self.cluster.attention_flags += flags
        self.cluster.start_attention()
        self.mended()

    # In order of their names, so that the last one can compare.

    def test_1_a_dead_expert_worker(self):
        with Users(self.cluster.port, 3):
            self.cluster.experts[1].kill()
            self.fires("SwitchyardExpertsMissing", "SwitchyardTargetDown",
                       "SwitchyardSequencesFailed", "SwitchyardRequestsFail")
        self.cluster.start_expert(1)
        self.mended()

    def test_2_an_expert_worker_with_other_weights(self):
        other = os.path.join(self.folder, "other")
        shutil.copytree(DEMO, other)
        path = os.path.join(other, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config["rms_norm_eps"] *= 2
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.cluster.experts[1].kill()
        right, self.cluster.model = self.cluster.model, other
        self.cluster.start_expert(1)
        self.fires("SwitchyardWrongWeights")
        self.cluster.experts[1].kill()
        self.cluster.model = right
        self.cluster.start_expert(1)
        self.mended()

    def test_3_a_dead_attention_worker(self):
        with Users(self.cluster.port, 3):
            self.cluster.attention.kill()
            self.fires("SwitchyardNoAttentionWorkerReady")
            self.cluster.start_attention()
            self.fires("SwitchyardReplays")
        self.mended()

    def test_4_more_users_than_the_queue_has_room_for(self):
        with Users(self.cluster.port, 12):
            self.fires("SwitchyardRequestsRefused")

    @contextlib.contextmanager
    def standing_still(self, seconds, between):
        """The attention worker stands still for `seconds`, works while `between` runs, and
        so on."""
        stop = threading.Event()

        def run():
            while not stop.is_set():
                self.cluster.attention.send_signal(signal.SIGSTOP)
                stop.wait(seconds)
                self.cluster.attention.send_signal(signal.SIGCONT)
                between()
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def test_5_an_attention_worker_that_stands_still(self):
        # A share of all first tokens that counts: those that waited, and few besides.
        with Users(self.cluster.port, 4, tokens=1) as users, \
                self.standing_still(11, lambda: users.wait_answers(4, timeout=10)):
            self.fires("SwitchyardSlowFirstToken")
        with Users(self.cluster.port, 4, tokens=64), \
                self.standing_still(1.5, lambda: time.sleep(0.02)):
            self.fires("SwitchyardSlowTokens")
        self.mended()

    def test_6_another_type_of_keys_and_values(self):
        other = local_cluster.Process("attention-worker-1", [
            os.path.join(BINARIES, "switchyard-attention-worker"), "--model", DEMO,
            "--host", local_cluster.LOOPBACK, "--port", "0",
            "--metrics-port", str(self.other_port), "--kv-cache-dtype", "int8"])
        self.addCleanup(other.close)
        self.fires("SwitchyardMixedKvCacheTypes")

    def test_7_too_little_state_memory(self):
        self.restart_attention("--state-memory=1500000")
        with Users(self.cluster.port, 6, tokens=200):
            self.fires("SwitchyardStateMemoryFull")


class EveryAlertTest(unittest.TestCase):
    """Last."""

    def test_every_alert_was_caused(self):
        self.assertEqual(set(monitoring.rules("alert")),
                         faults.FIRED | set(faults.NOT_HERE))


CASES = (StaticFaultsTest, expert_faults.ElasticFaultsTest, expert_faults.UnevenFaultsTest,
         expert_faults.FullFaultsTest, expert_faults.BusyFaultsTest,
         expert_faults.WrongFaultsTest, expert_faults.DiskFaultsTest, EveryAlertTest)


def load_tests(loader, *unused):
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, CASES))


if __name__ == "__main__":
    unittest.main()
