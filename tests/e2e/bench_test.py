"""`switchyard bench` on the demo model: in process, and with real expert workers."""

import json
import os
import subprocess
import tempfile

import e2e_case


class Bench(e2e_case.TestCase):
    def bench(self, *flags):
        """(done, what the JSON file holds or None)."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "bench.json")
            done = subprocess.run(
                [e2e_case.binary("switchyard"), "bench", "--model", e2e_case.DEMO,
                 "--json", path, "--limit-seconds", "0", "--repeat", "2", "--steps",
                 "3", *flags],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=120 * e2e_case.SLOWER)
            if not os.path.exists(path):
                return done, None
            with open(path, encoding="utf-8") as file:
                return done, json.load(file)

    def test_in_process(self):
        done, found = self.bench("--batch", "1,2", "--context", "0,64", "--prompt",
                                 "100")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            [(m["phase"], m["batch"], m["context"]) for m in found["measurements"]],
            [("decode", 1, 0), ("decode", 2, 0), ("decode", 1, 64),
             ("decode", 2, 64), ("prefill", 1, 0)])
        for m in found["measurements"]:
            self.assertGreater(m["tokens_per_second"]["min"], 0)
        self.assertIn("decode  2 x 64", done.stdout)
        self.assertIn("5 of 5:", done.stderr)  # progress

    def test_expert_workers(self):
        for transport in ("tcp", "unix"):
            with self.subTest(transport):
                done, found = self.bench(
                    "--batch", "1", "--context", "0", "--only", "decode",
                    "--expert-workers", "2", "--transport", transport)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(found["setting"]["transport"], transport)
                self.assertEqual(found["setting"]["expert_workers"], 2)
                self.assertGreater(found["memory"]["worker_resident_bytes"], 0)
                (m,) = found["measurements"]
                self.assertGreater(m["dispatch_seconds_per_layer"], 0)
                # What the workers say that they computed.
                self.assertGreater(
                    m["parts"]["routed_experts"]["seconds_per_step"], 0)
                self.assertEqual([s["spin"] for s in found["raw_sockets"]],
                                 [False, True])
                for socket in found["raw_sockets"]:
                    self.assertGreater(socket["median_seconds"], 0)
                self.assertIn("us of dispatch a layer", done.stdout)

    def test_bad_flags(self):
        for flags, why in ((["--batch", "1,x"], "--batch"),
                           (["--batch", "0"], "--batch"),
                           (["--only", "everything"], "everything"),
                           (["--transport", "pigeon", "--expert-workers", "1"],
                            "pigeon"),
                           (["--model", "/no/such/model"], "/no/such/model")):
            done, found = self.bench(*flags)
            self.assertEqual(done.returncode, 1, flags)
            self.assertIn(why, done.stderr)
            self.assertIsNone(found)


if __name__ == "__main__":
    e2e_case.main()
