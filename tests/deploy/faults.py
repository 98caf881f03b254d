"""What the tests of alerts share: lapsed rules, users, and waiting for an alert to fire."""

import copy
import os
import re
import shutil
import tempfile
import threading
import time
import unittest

import manifests  # first: it makes scripts/ importable
import local_cluster
import monitoring

BINARIES = os.environ["SWITCHYARD_BINARIES"]
DEMO = os.path.join(manifests.ROOT, "models", "demo")
LAPSE = 20
LONGEST_WAIT = 30  # seconds, of a lapsed rule's `for`: else an hour is three minutes
PATIENCE = 180  # seconds for an alert to fire

FIRED = set()  # names of alerts, over all classes
NOT_HERE = {}  # name of an alert: why this machine cannot cause its fault

SECONDS = {"s": 1, "m": 60, "h": 3600}


def lapsed(text):
    """"5m" as 15."""
    return max(1, int(text[:-1]) * SECONDS[text[-1]] // LAPSE)


def lapsed_groups():
    groups = copy.deepcopy(monitoring.rule_groups())
    for group in groups:
        for rule in group["rules"]:
            # Three scrapes are the least for a rate.
            rule["expr"] = re.sub(r"\[(\d+[smh])\]",
                                  lambda m: f"[{max(4, lapsed(m.group(1)))}s]",
                                  rule["expr"])
            rule["expr"] = re.sub(r"(process_start_time_seconds >) (\d+)",
                                  lambda m: f"{m.group(1)} {int(m.group(2)) // LAPSE}",
                                  rule["expr"])
            if "for" in rule:
                rule["for"] = f"{min(LONGEST_WAIT, lapsed(rule['for']))}s"
    return groups


class Users:
    """`count` users who ask until they are stopped, and put up with any answer. Each prompt
    is of about `words` words, and none begins like another."""

    def __init__(self, port, count, tokens=32, words=4):
        self._stop = threading.Event()
        self._answered = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, args=(port, tokens, words, index))
            for index in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_answers(self, count, timeout):
        """Until so many more have come than were waited for so far."""
        deadline = time.monotonic() + timeout
        for _ in range(count):
            self._answered.acquire(timeout=max(0, deadline - time.monotonic()))

    def _run(self, port, tokens, words, index):
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                local_cluster.post(port, "/v1/completions", {
                    "model": "demo", "max_tokens": tokens, "seed": turn,
                    "prompt": f"user {index}, question {turn}:" + " why" * (words - 3)},
                    timeout=60)
                self._answered.release()
            except (local_cluster.HttpError, OSError):
                self._stop.wait(0.05)


class FaultsTest(unittest.TestCase):
    """A folder of its own, and a Prometheus, for each class of faults."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)

    @classmethod
    def watch(cls, targets):
        folder = tempfile.mkdtemp(dir=cls.folder)
        cls.prometheus = monitoring.Prometheus(folder, targets, lapsed_groups())
        cls.addClassCleanup(cls.prometheus.close)
        cls.prometheus.wait_ready()

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

    def not_here(self, why, *names):
        """Skips the test: this machine does not let these alerts' fault be caused."""
        for name in names:
            NOT_HERE[name] = why
        self.skipTest(f"{', '.join(names)}: {why}")
