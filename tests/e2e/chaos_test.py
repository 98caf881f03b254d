"""Short runs of scripts/chaos and scripts/slow_worker, and whether their checker sees
what it must."""

import json
import os
import tempfile
import time

import e2e_case
import checked_load
from local_cluster import OneProcess

SECONDS = 20


class Chaos(e2e_case.TestCase):
    def test_short_run(self):
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            report = os.path.join(folder, "report.json")
            done = e2e_case.run_measurement(
                "chaos", "--seconds", str(SECONDS), "--json", report,
                "--model", e2e_case.DEMO, "--streams", "8", timeout=280)
            print(done.stdout)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(report, encoding="utf-8") as file:
                result = json.load(file)
        self.assertEqual(result["failed"], [])
        self.assertEqual(result["changed"], [])
        self.assertGreater(result["answers"], 0)
        faults = sum(row["count"] for kind, row in result["silences"]["any_stream"].items()
                     if kind != "none")
        self.assertGreaterEqual(faults, 3)

    def test_slow_worker(self):
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            report = os.path.join(folder, "report.json")
            done = e2e_case.run_measurement(
                "slow_worker", "--seconds", "3", "--json", report,
                "--model", e2e_case.DEMO, timeout=280)
            print(done.stdout)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(report, encoding="utf-8") as file:
                results = json.load(file)
        for how, result in results.items():
            self.assertGreater(result["answers"], 0)
            for row in result["rows"].values():
                self.assertGreater(row["calls"], 0)
                # The share, and what may be saved up for a burst.
                most = 0.05 * row["calls"] + 4 if how == "hedging" else 0
                self.assertLessEqual(row["hedged"] * row["calls"], most)

    def test_mistakes_are_refused(self):
        done = e2e_case.run_measurement("chaos", "--faults", "kill,lightning", timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("lightning", done.stderr)

    def test_the_checker_sees_what_changes_and_what_fails(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            load = checked_load.CheckedLoad(server.port, checked_load.requests(8, tokens=8),
                                            streams=2).expect()
            load._expected[3].token_ids[5] += 1
            load._expected[6].logprobs.append(None)
            load.start()
            deadline = time.monotonic() + 60 * e2e_case.SLOWER
            while load.num_done() < 16:
                self.assertLess(time.monotonic(), deadline, "no answers come")
                time.sleep(0.01)
            load.stop()
            self.assertEqual(load.failures, [])
            self.assertEqual({change[0] for change in load.changed}, {3, 6})
            lost = checked_load.CheckedLoad(server.port, checked_load.requests(2, tokens=3000),
                                            streams=2, timeout=30)
            lost._expected = [checked_load.Answer()] * 2
            lost.start()
            while lost.num_events() < 10:
                self.assertLess(time.monotonic(), deadline, "no events come")
                time.sleep(0.01)
            lost.finish_soon()
            server.process.kill()
            lost.stop()
            self.assertEqual(len(lost.failures), 2)


if __name__ == "__main__":
    e2e_case.main()
