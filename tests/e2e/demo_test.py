"""scripts/demo.py: what it prints, and that it leaves no process behind, however it
ends."""

import os
import re
import signal
import subprocess
import sys
import threading

import e2e_case
from demo import recall_case
from local_cluster import free_port, get, wait_until

DEMO_SCRIPT = os.path.join(e2e_case.ROOT, "scripts", "demo.py")


def _hear_interrupts():
    # A shell starts what it puts into the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """The demo as a process, with what it has printed so far."""

    def __init__(self, *flags):
        self.port = free_port()
        self.text = ""
        self.child = subprocess.Popen(
            [sys.executable, DEMO_SCRIPT, "--binaries", e2e_case.BINARIES, "--port",
             str(self.port), *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True, preexec_fn=_hear_interrupts)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.text += line

    def pids(self):
        """The services' pids, as the demo's own table prints them."""
        return [int(pid) for pid in
                re.findall(r"^  (?:router|attention worker|expert worker \d/\d) +(\d+) ",
                           self.text, re.M)]

    def end(self):
        code = self.child.wait(60 * e2e_case.SLOWER)
        self.reader.join(10)
        self.child.stdout.close()
        return code


def running(pid):
    """False for a zombie, too: nobody may be there to collect it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Demo(e2e_case.TestCase):
    def assert_gone(self, pids):
        self.assertEqual(len(pids), 4)
        wait_until(lambda: not any(map(running, pids)), "the end of every service", 30)

    def test_answers_are_right(self):
        demo = Running()
        self.assertEqual(demo.end(), 0, demo.text)
        self.assertIn("A KV cache stores the keys and values of past tokens", demo.text)
        self.assertIn("7+9=16; 6+8+1=15; 5+4+1=10\n567 + 489 = 1056.", demo.text)
        self.assertIn('-> calls set_timer({"duration": 24})', demo.text)
        self.assertIn("The timer is set for 24 minutes.", demo.text)
        self.assertIn(recall_case()["expected"]["content"], demo.text)
        self.assertEqual(len(re.findall(r"first token after \d+ ms, then \d+ tokens/s",
                                        demo.text)), 5)
        self.assert_gone(demo.pids())

    def keep(self):
        demo = Running("--keep")
        wait_until(lambda: "Ctrl-C stops everything." in demo.text or
                   demo.child.poll() is not None, "the demo", 120 * e2e_case.SLOWER)
        self.assertIsNone(demo.child.poll(), demo.text)
        self.assertEqual(get(demo.port, "/health")[0], 200)
        self.assertIn(f"curl http://127.0.0.1:{demo.port}/v1/chat/completions", demo.text)
        return demo

    def test_interrupt_stops_everything(self):
        demo = self.keep()
        os.killpg(demo.child.pid, signal.SIGINT)
        demo.end()
        self.assert_gone(demo.pids())

    def test_services_do_not_outlive_a_killed_demo(self):
        demo = self.keep()
        demo.child.kill()
        demo.end()
        self.assert_gone(demo.pids())


if __name__ == "__main__":
    e2e_case.main()
