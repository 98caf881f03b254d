"""scripts/compare_hosts makes hosts, gets the same answers from both arrangements, says
what it measured, and leaves nothing behind. What is faster cannot be told of a model as
small as the demo's. Exit status 77, which ctest shows as skipped: no control groups or
network namespaces here."""

import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

import e2e_case
import control_groups
import network_namespaces

SCRIPT = os.path.join(e2e_case.ROOT, "scripts", "compare_hosts")
MIB = 1 << 20
# A sanitizer's process takes several times as much.
MEMORY = int(256 * MIB * min(8, e2e_case.SLOWER))
# Six experts of 16 KiB, of 288: read again and again.
EXPERTS_MEMORY = 6 * 16 * 1024
TOKENS = 400
ROUNDS = 1


def processes_with(text):
    """Ids of those whose command line has it."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if text.encode() in file.read():
                    found.append(int(path.split("/")[2]))
        except OSError:
            pass  # it has ended
    return found


class CompareHosts(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="switchyard-")
        cls.addClassCleanup(folder.cleanup)
        cls.model = os.path.join(folder.name, "model")
        cls.report = os.path.join(folder.name, "report.json")
        subprocess.run([e2e_case.binary("switchyard"), "convert", "--model", e2e_case.DEMO,
                        "--out", cls.model, "--format", "q4"], check=True,
                       capture_output=True, timeout=120 * e2e_case.SLOWER)

    def command(self, *flags):
        return [sys.executable, SCRIPT, "--binaries", e2e_case.BINARIES, "--model",
                self.model, "--reserve", str(MEMORY - 3 * MIB), "--tokens", str(TOKENS),
                "--rounds", str(ROUNDS), "--json", self.report, *flags]

    def left(self, pid):
        """Groups, namespaces, cables and processes of a run that has ended."""
        name = f"switchyard-hosts-{pid}"
        devices = os.listdir("/sys/class/net")
        return (glob.glob(f"{control_groups.ROOT}/{name}*") +
                glob.glob(f"{control_groups.ROOT}/*/{name}*") +
                glob.glob(f"/run/netns/{name}*") +
                [device for device in devices if device.startswith(f"sy{pid % 1000000}-")] +
                processes_with(self.model))

    def run_it(self, *flags):
        child = subprocess.Popen(self.command(*flags), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        out, log = child.communicate(timeout=250 * e2e_case.SLOWER)
        self.assertEqual(self.left(child.pid), [])
        return child.returncode, out, log

    def check_row(self, row, alone):
        rate = row["tokens_per_second"]
        self.assertGreater(rate["min"], 0)
        self.assertLessEqual(rate["min"], rate["median"])
        self.assertLessEqual(rate["median"], rate["max"])
        self.assertEqual(len(row["cpus"]), 1 if alone else 3)
        for cpus in row["cpus"]:
            self.assertGreater(cpus, 0)
        self.assertGreater(row["step_seconds"], 0)
        self.assertGreaterEqual(min(row["part_seconds"].values()), 0)
        self.assertGreater(row["network_share"], 0)
        self.assertLess(row["network_share"], 1)
        sent = sum(row["call_seconds"].get(phase, 0) for phase in ("wire_out", "wire_back"))
        self.assertEqual(sent == 0, alone)

    def test_measures_both_and_their_answers_agree(self):
        code, out, log = self.run_it("--memory", f"{MEMORY},{2 * MEMORY}",
                                     "--experts-memory", str(EXPERTS_MEMORY),
                                     "--streams", "1,2")
        self.assertEqual(code, 0, out + log)
        with open(self.report, encoding="utf-8") as file:
            found = json.load(file)
        self.assertIn("a network namespace", found["hosts"]["network"])
        self.assertEqual([s["memory_bytes"] for s in found["scenarios"]],
                         [MEMORY, 2 * MEMORY])
        for told, holds in zip(found["scenarios"], (False, True)):
            self.assertEqual(told["holds_model"], holds)
            self.assertEqual(told["experts_memory_bytes"],
                             None if holds else EXPERTS_MEMORY)
            self.assertEqual([(row["arrangement"], row["streams"]) for row in told["rows"]],
                             [("1 host alone", 1), ("1 + 2 hosts", 1),
                              ("1 host alone", 2), ("1 + 2 hosts", 2)])
            for row in told["rows"]:
                self.check_row(row, row["arrangement"] == "1 host alone")
            for ratio in told["ratios"].values():
                self.assertGreater(ratio["min"], 0)
                self.assertIn(f"{ratio['median']:.2f} times", out)
            for peak in sum(told["peak_memory_bytes"].values(), []):
                if peak is not None:  # older kernels do not say
                    self.assertGreater(peak, MIB)
                    self.assertLessEqual(peak, told["memory_bytes"])
            self.assertEqual(told["differing"], 0)
            self.assertEqual(len(told["answers"]), 2 * (ROUNDS + 1))
            for answer in told["answers"]:
                self.assertEqual([len(ids) for ids in answer["1 host alone"]],
                                 [TOKENS + 4] * answer["streams"])
                self.assertEqual(answer["1 host alone"], answer["1 + 2 hosts"])
        # One machine's answers do not depend on its memory either, and prompts differ.
        first, second = (s["answers"] for s in found["scenarios"])
        self.assertEqual(first, second)
        self.assertNotEqual(first[0]["1 host alone"], first[2]["1 host alone"])

    def test_judges(self):
        code, out, log = self.run_it("--memory", str(MEMORY), "--streams", "1",
                                     "--experts-memory", str(EXPERTS_MEMORY),
                                     "--at-least", "1e9")
        self.assertEqual(code, 1, out + log)
        self.assertIn("TOO SLOW, 1e+09 was asked for: 1 streams", out)

    def test_without_namespaces(self):
        code, out, log = self.run_it("--memory", str(2 * MEMORY), "--streams", "1",
                                     "--rounds", "1", "--network", "loopback")
        self.assertEqual(code, 0, out + log)
        self.assertIn("loopback", out)
        self.assertIn("each could hold the model", out)

    def test_puts_all_away_when_it_is_told_to_end(self):
        with subprocess.Popen(
                self.command("--memory", str(2 * MEMORY), "--streams", "1", "--rounds",
                             "100000"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True) as child:
            watchdog = threading.Timer(120 * e2e_case.SLOWER, child.kill)
            watchdog.start()
            log = ""
            for line in child.stderr:
                log += line
                if line.startswith("round 1 "):
                    break
            self.assertIn("round 1 ", log)
            self.assertNotEqual(self.left(child.pid), [])
            child.send_signal(signal.SIGTERM)
            child.stderr.read()
            self.assertEqual(child.wait(), 143)
            watchdog.cancel()
        self.assertEqual(self.left(child.pid), [])

    def test_says_what_cannot_be(self):
        def refused(why, *flags, prefix=()):
            done = subprocess.run([*prefix, *self.command(*flags)], capture_output=True,
                                  text=True, timeout=60 * e2e_case.SLOWER, check=False)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
            self.assertIn(why, done.stderr)

        refused("the joined ones need", "--memory", str(16 * MIB))
        refused("fewer --layers", "--memory", str(1 << 51), "--reserve", str(1 << 50))
        refused("is no model", "--model", e2e_case.DEMO)
        # A machine whose control groups are out of reach, as in most containers.
        refused("no control group", "--memory", str(2 * MEMORY), prefix=(
            "unshare", "--mount", "sh", "-c",
            f'mount -t tmpfs -o ro none {control_groups.ROOT} && exec "$@"', "sh"))


def why_not():
    """What keeps hosts from being made here, if anything does."""
    if os.getuid() != 0:
        return "needs root"
    try:
        control_groups.ControlGroup(f"switchyard-hosts-{os.getpid()}", cpus=1,
                                    memory=MIB).close()
        network_namespaces.Namespace(f"switchyard-hosts-{os.getpid()}").close()
    except (control_groups.Unavailable, OSError, subprocess.CalledProcessError) as error:
        return network_namespaces.why(error)
    return None


if __name__ == "__main__":
    e2e_case.main(why_not())
