"""A real Prometheus scrapes a running cluster: every query of every dashboard, rule and alert
finds its series there."""

import os
import tempfile
import threading
import unittest

import manifests  # first: it makes scripts/ importable
import local_cluster
import monitoring

BINARIES = os.environ["SWITCHYARD_BINARIES"]
DEMO = os.path.join(manifests.ROOT, "models", "demo")
PATIENCE = 120  # seconds


class Load:
    """A few users, until it is stopped."""

    def __init__(self, port, users=3):
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(index,))
                         for index in range(users)]
        for thread in self._threads:
            thread.start()

    def _run(self, index):
        turn = 0
        while not self._stop.is_set():
            turn += 1
            local_cluster.post(self._port, "/v1/completions", {
                "model": "demo", "prompt": f"user {index % 2} says hello again",
                "max_tokens": 24, "seed": turn})

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class MonitoringTest(unittest.TestCase):
    """One cluster and one Prometheus for all tests: starting them is what takes time."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cluster = local_cluster.ElasticCluster(
            BINARIES, DEMO, expert_flags=["--replicas=2"])
        cls.addClassCleanup(cluster.close)
        cluster.start(["a", "b", "c"])
        cls.prometheus = monitoring.Prometheus(
            folder.name, monitoring.elastic_targets(cluster), monitoring.rule_groups())
        cls.addClassCleanup(cls.prometheus.close)
        cls.prometheus.wait_ready()
        load = Load(cluster.port)
        cls.addClassCleanup(load.stop)
        # Two scrapes of everything while requests run are what a rate needs.
        local_cluster.wait_until(
            lambda: cls.prometheus.query(
                "switchyard:expert_pool_busy:ratio > 0 and on (namespace) "
                "rate(vllm:generation_tokens_total{job='switchyard-router'}[15s]) > 0"),
            "load in Prometheus", PATIENCE, [cls.prometheus.process])

    def missing(self, queries):
        """Those of (where, expression) that give nothing or NaN."""
        bad = []
        for where, text in queries:
            values = [r["value"][1] if isinstance(r, dict) else r[1]
                      for r in self.prometheus.query(text)]
            if not values or all(v == "NaN" for v in values):
                bad.append(f"{where}: {text}")
        return bad

    def until_nothing_is_missing(self, queries):
        """A first value may take some scrapes: asks until all are there."""
        left = list(queries)

        def done():
            left[:] = [q for q in left if self.missing([q])]
            return not left
        try:
            local_cluster.wait_until(done, "data", PATIENCE, [self.prometheus.process])
        except local_cluster.ProcessFailed:
            self.fail("no data for:\n" + "\n".join(map(str, left)))

    def test_every_panel_shows_something(self):
        queries = list(monitoring.panel_queries())
        self.assertGreater(len(queries), 60)
        self.until_nothing_is_missing(queries)

    def test_every_recorded_series_is_there(self):
        self.until_nothing_is_missing(
            (name, name) for name in monitoring.rules("record"))

    def test_every_rule_is_healthy_and_none_fires(self):
        def evaluated():
            groups = self.prometheus.api("rules")["groups"]
            return all(rule["health"] != "unknown"
                       for group in groups for rule in group["rules"])
        local_cluster.wait_until(evaluated, "rules", PATIENCE, [self.prometheus.process])
        for group in self.prometheus.api("rules")["groups"]:
            for rule in group["rules"]:
                with self.subTest(rule=rule["name"]):
                    self.assertEqual(rule["health"], "ok", rule.get("lastError"))
                    self.assertNotEqual(rule.get("state"), "firing")

    def test_alerts_ask_for_series_that_exist(self):
        known = set(self.prometheus.api("label/__name__/values"))
        for name, rule in monitoring.rules("alert").items():
            with self.subTest(alert=name):
                names = monitoring.metric_names(rule["expr"])
                self.assertTrue(names)
                self.assertEqual(names - known, set())

    def test_a_query_of_what_is_not_there_is_missing(self):
        self.assertEqual(len(self.missing([("nowhere", "switchyard_no_such_metric")])), 1)


if __name__ == "__main__":
    unittest.main()
