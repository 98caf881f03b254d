"""The scalers' files agree with one another and with the series they read, and do what they
should with a pool."""

import dataclasses
import importlib.machinery
import importlib.util
import os
import tempfile
import unittest

import yaml

import manifests  # first: it makes scripts/ importable
import autoscaling
import monitoring


def load_simulator():
    path = os.path.join(manifests.ROOT, "scripts", "autoscale_simulate")
    loader = importlib.machinery.SourceFileLoader("autoscale_simulate", path)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("autoscale_simulate", loader))
    loader.exec_module(module)
    return module


SIMULATOR = load_simulator()
RECORDED = os.path.join(os.path.dirname(__file__), "recorded_trace.csv")
BUSY = autoscaling.SERIES["switchyard_expert_busy_workers"]
PRESSURE = autoscaling.SERIES["switchyard_expert_queue_pressure"]


def seen(busy, pressure=0.0):
    return {BUSY: busy, PRESSURE: pressure}


class FilesTest(unittest.TestCase):

    def test_hpa_and_keda_say_the_same(self):
        for pool in ("expert-worker", "attention-worker"):
            with self.subTest(pool=pool):
                self.assertEqual(autoscaling.load("hpa", pool),
                                 autoscaling.load("keda", pool))

    def test_targets_are_those_of_the_recorded_forecast(self):
        forecast = monitoring.rules("record")["switchyard:expert_workers_desired:count"]
        for metric in autoscaling.load().metrics:
            self.assertIn(f"/ {metric.target:g}", forecast["expr"])

    def test_the_adapter_serves_what_scalers_ask_for(self):
        path = os.path.join(monitoring.FOLDER, "prometheus-adapter-values.yaml")
        with open(path, encoding="utf-8") as file:
            rules = yaml.safe_load(file)["rules"]["external"]
        served = {rule["name"]["as"]: rule["seriesQuery"].split('"')[1] for rule in rules}
        self.assertEqual(served, autoscaling.SERIES)
        recorded = set(monitoring.rules("record"))
        self.assertEqual(set(served.values()) - recorded, set())


class ScalerTest(unittest.TestCase):
    """Against numbers worked out by hand from the controller's documentation."""

    def setUp(self):
        self.rules = autoscaling.load()
        self.scaler = autoscaling.Scaler(self.rules)

    def test_demand_over_target_rounded_up(self):
        # 4.3 workers' worth at 0.6 each: 7.17, so 8.
        self.assertEqual(self.scaler.desired(0, 4, seen(4.3)), 8)

    def test_within_the_tolerance_nothing_changes(self):
        # 10 pods at 0.62: 3 % above the target; 5 % is allowed.
        self.assertEqual(self.scaler.desired(0, 10, seen(6.2)), 10)
        self.assertEqual(self.scaler.desired(15, 10, seen(6.4)), 11)

    def test_the_greater_proposal_counts(self):
        # Half busy, but calls queue twice as long as the target: twice the pods.
        self.assertEqual(self.scaler.desired(0, 6, seen(3.0, 3.0)), 12)

    def test_growth_is_bounded_by_the_larger_policy(self):
        # 100 % of 6, not four pods; half a minute later 100 % of those 12.
        self.assertEqual(self.scaler.desired(0, 6, seen(60)), 12)
        self.assertEqual(self.scaler.desired(15, 12, seen(60)), 12)
        self.assertEqual(self.scaler.desired(30, 12, seen(60)), 24)

    def test_shrinks_only_after_the_window_and_one_a_minute(self):
        self.scaler.desired(0, 10, seen(6))
        for now in range(15, 120, 15):
            self.assertEqual(self.scaler.desired(now, 10, seen(3)), 10)
        self.assertEqual(self.scaler.desired(120, 10, seen(3)), 9)
        self.assertEqual(self.scaler.desired(165, 9, seen(3)), 9)
        self.assertEqual(self.scaler.desired(180, 9, seen(3)), 8)

    def test_never_below_the_floor_or_above_the_most(self):
        pods = 5
        for now in range(0, 1200, 15):
            pods = self.scaler.desired(now, pods, seen(0))
        self.assertEqual(pods, self.rules.least)
        for now in range(1200, 1800, 15):
            pods = self.scaler.desired(now, pods, seen(1000))
        self.assertEqual(pods, self.rules.most)


class SimulationTest(unittest.TestCase):

    def run_trace(self, trace, start=20):
        return SIMULATOR.simulate(autoscaling.load(), trace, start)

    def test_constant_load_changes_nothing(self):
        got = self.run_trace([6.0] * 3600)
        self.assertEqual(got.reversals, 0)
        self.assertAlmostEqual(got.pod_hours, 10, places=6)
        self.assertEqual(got.time_to_slo, 0)

    def test_a_step_is_caught_up_with_in_minutes_without_swinging(self):
        got = self.run_trace(SIMULATOR.step_trace())
        self.assertGreater(got.time_to_slo, 20)  # no pod computes sooner
        self.assertLess(got.time_to_slo, 180)
        self.assertLessEqual(got.reversals, 1)

    def test_slow_pods_cost_time(self):
        fast = self.run_trace(SIMULATOR.step_trace(), start=10)
        slow = self.run_trace(SIMULATOR.step_trace(), start=120)
        self.assertLess(fast.time_to_slo, slow.time_to_slo)

    def test_a_day_costs_little_more_than_foresight(self):
        got = self.run_trace(SIMULATOR.diurnal_trace())
        self.assertEqual(got.time_to_slo, 0)
        self.assertLess(got.pod_hours, 1.1 * got.ideal_pod_hours)

    def test_a_recorded_trace(self):
        # By scripts/autoscale_local --record, of real workers: one user, eight, one, while
        # other programs took their CPUs at times.
        trace = SIMULATOR.read_trace(RECORDED)
        self.assertGreater(len(trace), 1200)
        rules = dataclasses.replace(autoscaling.load(), least=2)
        got = SIMULATOR.simulate(rules, trace, 20)
        self.assertGreater(got.most, 3)
        self.assertLess(got.time_to_slo, 180)
        # Down waits two minutes, so what swings faster than that is not followed.
        self.assertLess(got.reversals, len(trace) / 120)

    def test_traces_that_make_no_sense_are_refused_by_their_line(self):
        for text, expected in (("0,1\n5\n", ":2: not"), ("0,1\n0,2\n", ":2: seconds"),
                               ("0,1\n9,-2\n", ":2: seconds"), ("0,1\n", "two lines")):
            with self.subTest(text=text), tempfile.NamedTemporaryFile("w") as file:
                file.write(text)
                file.flush()
                with self.assertRaisesRegex(SystemExit, expected):
                    SIMULATOR.read_trace(file.name)


if __name__ == "__main__":
    unittest.main()
