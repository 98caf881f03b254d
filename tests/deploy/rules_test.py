"""promtool accepts the rules; each alert fires under its fault, and not nearly under it."""

import math
import os
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

import manifests
import monitoring
from alert_cases import CASES, EXPERT, busy, counter


def promtool(*arguments):
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True,
                            timeout=120, check=False)
    return result.returncode, result.stdout + result.stderr


def rendered(text, case):
    """An annotation with labels and value in it, as Prometheus renders it."""
    labels = case.labels
    text = text.replace("{{ $value }}", case.value)
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: labels[m.group(1)], text)


def promtool_test(case, fires):
    rule = monitoring.rules("alert")[case.alert]
    expected = []
    if fires:
        expected = [{
            "exp_labels": {**case.labels, **rule["labels"]},
            "exp_annotations": {name: rendered(text, case)
                                for name, text in rule["annotations"].items()}}]
    series = case.fires if fires else case.quiet
    return {"interval": "10s",
            "input_series": [{"series": s, "values": v} for s, v in series.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert,
                                 "exp_alerts": expected}]}


class RulesTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.rules = self.write("rules.yaml", {"groups": monitoring.rule_groups()})

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file, sort_keys=False)
        return path

    def test_promtool_accepts_the_rules(self):
        code, text = promtool("check", "rules", "--lint=all", "--lint-fatal", self.rules)
        self.assertEqual(code, 0, text)

    def test_each_alert_fires_under_its_fault_and_only_then(self):
        tests = self.write("test.yaml", {
            "rule_files": [self.rules], "evaluation_interval": "10s",
            "tests": [promtool_test(case, fires)
                      for case in CASES for fires in (True, False)]})
        code, text = promtool("test", "rules", tests)
        self.assertEqual(code, 0, text)

    def test_what_scalers_read_is_what_its_comment_says(self):
        # Two workers, 0.9 and 0.1 busy; calls queue twice as long as they are computed.
        series = busy(0.9, 0.1)
        series |= counter("switchyard_expert_queue_seconds_sum", EXPERT, 20)
        series |= counter("switchyard_expert_compute_seconds_sum", EXPERT, 10)
        expected = {"switchyard:expert_workers:count": 2,
                    "switchyard:expert_busy_workers:sum": 1,
                    "switchyard:expert_pool_busy:ratio": 0.5,
                    "switchyard:expert_queue_pressure:ratio": 2,
                    "switchyard:expert_workers_desired:count": math.ceil(2 * 2 / 1.5),
                    "switchyard:expert_imbalance:ratio": 1.8}
        tests = self.write("test.yaml", {
            "rule_files": [self.rules], "evaluation_interval": "10s",
            "tests": [{
                "interval": "10s",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [
                    {"expr": name, "eval_time": "5m", "exp_samples": [
                        {"labels": f'{name}{{namespace="a"}}', "value": value}]}
                    for name, value in expected.items()]}]})
        code, text = promtool("test", "rules", tests)
        self.assertEqual(code, 0, text)

    def test_every_alert_has_a_case_and_a_runbook(self):
        alerts = monitoring.rules("alert")
        self.assertEqual({case.alert for case in CASES}, set(alerts))
        for name, rule in alerts.items():
            with self.subTest(alert=name):
                self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
                self.assertTrue(rule["annotations"]["summary"])
                self.assertGreater(len(rule["annotations"]["runbook"]), 40)

    def test_dashboards_are_what_their_source_says(self):
        result = subprocess.run(
            [sys.executable, os.path.join(manifests.ROOT, "scripts", "make_dashboards.py"),
             "--check"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
