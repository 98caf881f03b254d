"""Real faults in a running cluster make alerts fire in a real Prometheus.

Time is lapsed: all windows and waits of the rules are a twentieth, and everything else is as it
is shipped. Each fault is caused, its alerts are waited for, and it is mended. What can't be
caused here in a minute (a rollout that is stuck for an hour, a disk that hangs, a pool that
is too busy) has its case in alert_cases.py alone; UNCAUSED names it.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import unittest

import manifests  # first: it makes scripts/ importable
import local_cluster
import monitoring

BINARIES = os.environ["SWITCHYARD_BINARIES"]
DEMO = os.path.join(manifests.ROOT, "models", "demo")
LAPSE = 20
PATIENCE = 120  # seconds for an alert to fire

UNCAUSED = {"SwitchyardLoadingStuck", "SwitchyardMixedVersions", "SwitchyardExpertPoolBusy",
            "SwitchyardExpertImbalance", "SwitchyardRowsResent", "SwitchyardExpertQueueFull",
            "SwitchyardDiskStateErrors", "SwitchyardWrongResults", "SwitchyardHedges",
            "SwitchyardWorkerDistrusted", "SwitchyardWorkerEjected",
            "SwitchyardRebalanceStuck", "SwitchyardExpertLoadsFail"}
SECONDS = {"s": 1, "m": 60, "h": 3600}


def lapsed(text):
    """"5m" as "15s"."""
    return f"{max(1, int(text[:-1]) * SECONDS[text[-1]] // LAPSE)}s"


def lapsed_groups():
    groups = copy.deepcopy(monitoring.rule_groups())
    for group in groups:
        for rule in group["rules"]:
            # Three scrapes are the least for a rate.
            rule["expr"] = re.sub(
                r"\[(\d+[smh])\]",
                lambda m: f"[{max(4, int(lapsed(m.group(1))[:-1]))}s]", rule["expr"])
            if "for" in rule:
                rule["for"] = lapsed(rule["for"])
    return groups


class Users:
    """`count` users who ask until they are stopped, and put up with any answer."""

    def __init__(self, port, count, tokens=32):
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port, tokens, index))
                         for index in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, port, tokens, index):
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                local_cluster.post(port, "/v1/completions", {
                    "model": "demo", "prompt": f"user {index}, question {turn}: why?",
                    "max_tokens": tokens, "seed": turn}, timeout=60)
            except (local_cluster.HttpError, OSError):
                self._stop.wait(0.05)


FIRED = set()


class FaultsTest(unittest.TestCase):
    """A cluster and a Prometheus for each class of faults."""

    @classmethod
    def watch(cls, targets):
        cls.prometheus = monitoring.Prometheus(cls.folder, targets, lapsed_groups())
        cls.addClassCleanup(cls.prometheus.close)
        cls.prometheus.wait_ready()

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)

    def fires(self, *names):
        """Waits until all of these have been seen firing at some time."""
        left = set(names)

        def seen():
            for alert in self.prometheus.api("alerts")["alerts"]:
                if alert["state"] == "firing":
                    left.discard(alert["labels"]["alertname"])
            return not left
        try:
            local_cluster.wait_until(seen, "alerts", PATIENCE, [self.prometheus.process])
        except local_cluster.ProcessFailed:
            self.fail(f"did not fire: {', '.join(sorted(left))}")
        FIRED.update(names)


class ElasticFaultsTest(FaultsTest):

    def test_a_death_that_the_others_have_no_room_for(self):
        # 288 (layer, expert) pairs twice: 192 for each of three, 288 for each of two.
        cluster = local_cluster.ElasticCluster(
            BINARIES, DEMO, expert_flags=["--replicas=2", "--experts-budget=200"])
        self.addCleanup(cluster.close)
        cluster.start(["a", "b", "c"])
        self.watch(monitoring.elastic_targets(cluster))
        cluster.kill_expert("c")
        self.fires("SwitchyardExpertsUnderReplicated")


class StaticFaultsTest(FaultsTest):

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
        """The attention worker stands still for `seconds`, works for `between`, and so on."""
        stop = threading.Event()

        def run():
            while not stop.is_set():
                self.cluster.attention.send_signal(signal.SIGSTOP)
                stop.wait(seconds)
                self.cluster.attention.send_signal(signal.SIGCONT)
                stop.wait(between)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def test_5_an_attention_worker_that_stands_still(self):
        # A share of all first tokens that counts: few come between.
        with Users(self.cluster.port, 4, tokens=1), \
                self.standing_still(11, between=0.02):
            self.fires("SwitchyardSlowFirstToken")
        with Users(self.cluster.port, 4, tokens=64), \
                self.standing_still(1.5, between=0.02):
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

    def test_8_every_alert_was_caused_or_is_named(self):
        self.assertEqual(set(monitoring.rules("alert")), FIRED | UNCAUSED)


if __name__ == "__main__":
    unittest.main()
