"""scripts/check_decode_floor runs, says what it measured, and judges it. What a machine
reaches cannot be told of a model as small as the demo's, nor on a busy one."""

import json
import os
import tempfile

import e2e_case


class CheckDecodeFloor(e2e_case.TestCase):
    def check(self, *flags):
        return e2e_case.run_measurement(
            "check_decode_floor", "--model", e2e_case.DEMO, "--isa", "avx2", "--threads", "2",
            "--steps", "4", "--repeat", "2", "--limit-seconds", "0", *flags)

    def test_tells_what_it_measured(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "found.json")
            done = self.check("--floor", "0", "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path, encoding="utf-8") as file:
                (row,) = json.load(file)["rows"]
        self.assertEqual(row["isa"], "avx2")
        self.assertAlmostEqual(row["share"],
                               row["bytes_per_second"] / row["read_bytes_per_second"])
        self.assertIn(f"{row['tokens_per_second']:.1f}", done.stdout)
        self.assertIn("1 of 1 are at 0 % or above", done.stdout)

    def test_judges(self):
        done = self.check("--floor", "1e9")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("0 of 1 are at", done.stdout)

    def test_says_what_is_wrong(self):
        done = self.check("--isa", "neon")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("unknown instruction set", done.stderr)
        done = self.check("--format", ",")
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    e2e_case.main()
