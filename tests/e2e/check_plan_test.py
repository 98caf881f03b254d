"""scripts/check_plan runs, says what it measured and predicted, and judges it. How near a
plan is cannot be told of a model as small as the demo's, nor on a busy machine."""

import json
import os
import tempfile

import e2e_case


class CheckPlan(e2e_case.TestCase):
    def check(self, *flags):
        return e2e_case.run_measurement(
            "check_plan", "--model", e2e_case.DEMO, "--format", "source", "--threads", "2",
            "--users", "1,2", "--steps", "4", "--repeat", "2", "--limit-seconds", "0", *flags)

    def test_tells_both_sides_and_their_ratio(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "found.json")
            done = self.check("--report", "--served", "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path, encoding="utf-8") as file:
                rows = json.load(file)["rows"]
        self.assertEqual([(row["what"], row["users"], row["counts"]) for row in rows], [
            ("one process", 1, True), ("one process", 2, True),
            ("2 expert processes, TCP", 1, True), ("2 expert processes, TCP", 2, True),
            ("served: one process", 1, False), ("served: one process", 2, False),
            ("served: 2 expert workers", 1, False), ("served: 2 expert workers", 2, False)])
        for row in rows:
            for what in ("measured", "predicted", "read_gbps", "int8_gops"):
                self.assertGreater(row[what], 0)
            self.assertAlmostEqual(row["ratio"], row["predicted"] / row["measured"])
            self.assertIn(f"{row['predicted'] / row['users']:.1f}", done.stdout)
        self.assertIn("of 4 predictions are within 15 %", done.stdout)

    def test_judges(self):
        self.assertEqual(self.check("--tolerance", "1e9").returncode, 0)
        done = self.check("--tolerance", "1e-12")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("0 of 4 predictions are within", done.stdout)
        done = self.check("--users", "3")
        self.assertEqual(done.returncode, 2)
        self.assertIn("3 is no power of two", done.stderr)


if __name__ == "__main__":
    e2e_case.main()
