"""scripts/conversion_memory converts in less memory than the model has bytes, to the same
files, tells the figures, and puts all away. Exit status 77, which ctest shows as skipped:
no control groups with memory here."""

import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import e2e_case
import control_groups

SCRIPT = os.path.join(e2e_case.ROOT, "scripts", "conversion_memory")
MIB = 1 << 20
# 105 MB of BF16, nearly all of it experts.
GEOMETRY = ("--model-config", os.path.join(e2e_case.DEMO, "config.json"), "--set",
            "hidden_size=512,num_experts=64,moe_intermediate_size=512")


def checksums(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


class ConversionMemory(e2e_case.TestCase):
    def setUp(self):
        # On a disk: files of a tmpfs would be memory that the group has to keep.
        folder = tempfile.TemporaryDirectory(prefix="switchyard-", dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.work = folder.name
        self.report = os.path.join(self.work, "report.json")

    def run_it(self, *flags, prefix=()):
        child = subprocess.Popen(
            [*prefix, sys.executable, SCRIPT, "--work", self.work, "--switchyard",
             e2e_case.binary("switchyard"), "--threads", "2", "--json", self.report,
             *GEOMETRY, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, log = child.communicate(timeout=200 * e2e_case.SLOWER)
        name = f"switchyard-conversion-{child.pid}"
        self.assertEqual(glob.glob(f"{control_groups.ROOT}/{name}") +
                         glob.glob(f"{control_groups.ROOT}/*/{name}"), [])
        return child.returncode, out, log

    def check_run(self, limit, kind, *flags):
        code, out, log = self.run_it("--limit", f"{limit // MIB}MiB", "--keep", *flags)
        self.assertEqual(code, 0, out + log)
        with open(self.report, encoding="utf-8") as file:
            found = json.load(file)
        self.assertEqual(found["limit_bytes"], limit)
        self.assertGreater(found["source_bytes"], 2 * limit)
        self.assertLess(found["result_bytes"], 0.7 * found["source_bytes"])
        if found["group_peak_bytes"] is not None:  # older kernels do not say
            self.assertLessEqual(found["group_peak_bytes"], limit)
        for what, size in (("convert", "source_bytes"), ("verify", "result_bytes")):
            row = found[what]
            self.assertGreater(row["seconds"], 0)
            self.assertGreater(row["own_memory_bytes"], 0)
            self.assertLess(row["own_memory_bytes"], limit)
            self.assertIn(f"{found[size] / 1e9:.3f}", out)
        self.assertRegex(found["verify"]["said"], "all [0-9]+ checksums are right")
        self.assertIn(found["verify"]["said"], out)
        # As without a limit, byte for byte.
        source, limited = (os.path.join(self.work, f"conversion-1-{kind}")
                           for kind in (kind, "q4"))
        usual = os.path.join(self.work, "usual")
        subprocess.run([e2e_case.binary("switchyard"), "convert", "--model", source, "--out",
                        usual, "--format", "q4"], check=True, capture_output=True,
                       timeout=100 * e2e_case.SLOWER)
        self.assertEqual(checksums(limited), checksums(usual))
        # What is there is nobody's to overwrite.
        code, out, log = self.run_it(*flags)
        self.assertEqual(code, 1)
        self.assertIn("is there already", log)
        self.assertTrue(os.path.exists(os.path.join(limited, "switchyard.json")))

    def test_converts_in_less_memory_than_the_model_has_bytes(self):
        self.check_run(48 * MIB, "hf-bf16")

    def test_the_same_from_fp8(self):
        self.check_run(24 * MIB, "hf-fp8", "--fp8")
        with open(os.path.join(self.work, "conversion-1-hf-fp8", "config.json"),
                  encoding="utf-8") as file:
            self.assertEqual(json.load(file)["quantization_config"]["quant_method"], "fp8")
        self.assertEqual([name for name in os.listdir(self.work) if "bf16" in name], [])

    def test_too_little_memory_is_told_and_all_is_deleted(self):
        code, _, log = self.run_it("--limit", "1MiB")
        self.assertEqual(code, 1)
        self.assertIn("the limit is too low", log)
        self.assertEqual(os.listdir(self.work), [])

    def test_says_why_there_is_nothing_to_convert(self):
        code, _, log = self.run_it("--model-config", "/nowhere/config.json")
        self.assertEqual(code, 1)
        self.assertIn("/nowhere/config.json", log)
        self.assertEqual(os.listdir(self.work), [])

    def test_says_what_cannot_be(self):
        # A machine whose control groups are out of reach, as in most containers.
        code, _, log = self.run_it(prefix=(
            "unshare", "--mount", "sh", "-c",
            f'mount -t tmpfs -o ro none {control_groups.ROOT} && exec "$@"', "sh"))
        self.assertEqual(code, 2)
        self.assertIn("no control group", log)
        self.assertEqual(os.listdir(self.work), [])
        code, _, log = self.run_it("--limit", "384 MB")
        self.assertEqual(code, 2)
        self.assertIn("384MiB", log)


def why_not():
    """What keeps groups from being made here, if anything does."""
    try:
        control_groups.ControlGroup(f"switchyard-conversion-{os.getpid()}",
                                    memory=MIB).close()
    except control_groups.Unavailable as error:
        return str(error)
    return None


if __name__ == "__main__":
    e2e_case.main(why_not())
