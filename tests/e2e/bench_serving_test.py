"""`switchyard bench serving` on the demo model: what it counts holds, and many sessions
leave no memory behind."""

import json
import os
import subprocess
import tempfile

import e2e_case


class BenchServing(e2e_case.TestCase):
    def bench(self, *flags):
        """(done, what the JSON file holds or None)."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "serving.json")
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "bench", "serving", "--model",
                 e2e_case.DEMO, "--json", path, "--threads", "1", *flags],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=240 * e2e_case.SLOWER)
            if not os.path.exists(path):
                return done, None
            with open(path, encoding="utf-8") as file:
                return done, json.load(file)

    def test_what_is_read_again(self):
        done, found = self.bench("--only", "conversation,prefix", "--repeat", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(found["conversation"]["turns"]), 10)
        self.assertLessEqual(found["conversation"]["computed_per_new"], 1.05)
        for prefix in found["prefix"]:
            self.assertLessEqual(prefix["computed_tokens"],
                                 1.05 * prefix["least_tokens"])
        self.assertIn("conversation: 10 turns", done.stdout)
        self.assertIn("prefix", done.stderr)  # progress

    def test_memory_of_many_sessions(self):
        # One warm fifth, then four more.
        done, found = self.bench("--only", "mixed", "--sessions", "250")
        self.assertEqual(done.returncode, 0, done.stderr)
        mixed = found["mixed"]
        self.assertGreater(mixed["aborted"], 25)
        self.assertGreater(mixed["state_held_peak_bytes"], 0)
        self.assertLessEqual(mixed["state_held_peak_bytes"],
                             mixed["state_budget_bytes"])
        if e2e_case.SLOWER == 1:  # a sanitizer keeps what is freed for a while
            self.assertLessEqual(mixed["resident_growth_bytes"], 24 << 20)
            self.assertTrue(all(bar["met"] for bar in found["bars"]), done.stdout)

    def test_bad_flags(self):
        for flags, why in ((["--only", "everything"], "everything"),
                           (["--concurrency", "0"], "--concurrency"),
                           (["--stall-chunks", "x"], "--stall_chunks"),
                           (["--sessions", "0"], "--sessions"),
                           (["--model", "/no/such/model"], "/no/such/model")):
            done, found = self.bench(*flags)
            self.assertEqual(done.returncode, 1, flags)
            self.assertIn(why, done.stderr)
            self.assertIsNone(found)


if __name__ == "__main__":
    e2e_case.main()
