"""Disks that are full, memory that is not to be had, and logs that nobody reads: an error
that says what and where and an exit code, or a service that goes on; never a crash. And
weights that the processes of a machine have once."""

import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import unittest

import e2e_case
from local_cluster import LOOPBACK, Cluster, free_port, get, wait_until

MIB = 1 << 20
LINE = json.dumps({"text": "Mexico City"}) + "\n"


def run(name, *arguments, limits=(), **more):
    """A program that ends by itself, under `limits`: pairs of RLIMIT_x and a number."""
    def set_limits():
        for which, value in limits:
            resource.setrlimit(which, (value, value))

    return subprocess.run([e2e_case.binary(name), *arguments], text=True,
                          stderr=subprocess.PIPE, preexec_fn=set_limits,
                          timeout=120 * e2e_case.SLOWER, **more)


def logits(out, *limits):
    return run("switchyard", "logits", "--model", e2e_case.DEMO, "--ids", "5,6,7",
               "--out", out, limits=limits)


class FullDisk(e2e_case.TestCase):
    def test_a_device_that_is_full(self):
        done = logits("/dev/full")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "cannot write /dev/full: No space left on device")
        # The device is still one.
        with self.assertRaises(OSError), open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    def test_a_file_that_may_not_grow(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "logits.npy")
            with open(path, "w", encoding="utf-8") as old:
                old.write("old")
            done = logits(path, (resource.RLIMIT_FSIZE, 4096))
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, f"cannot write {re.escape(path)} .*File too large")
            # The older file is whole, and nothing else is left behind.
            self.assertEqual(os.listdir(directory), ["logits.npy"])
            with open(path, encoding="utf-8") as old:
                self.assertEqual(old.read(), "old")

    def test_standard_output(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = run("switchyard", "tokenize", "--model", e2e_case.DEMO, input=LINE,
                       stdout=full)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "output cannot be written: No space left on device")


class ClosedPipes(e2e_case.TestCase):
    def test_an_output_that_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            done = run("switchyard", "tokenize", "--model", e2e_case.DEMO, input=LINE,
                       stdout=out)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "output cannot be written: Broken pipe")

    def test_a_log_that_nobody_reads(self):
        port = free_port()
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as log:
            server = subprocess.Popen(
                [e2e_case.binary("switchyard"), "serve", "--model", e2e_case.DEMO,
                 "--host", LOOPBACK, "--port", str(port)], stdout=log, stderr=log)
        self.addCleanup(server.wait, 30)
        self.addCleanup(server.kill)
        wait_until(lambda: get(port, "/readyz")[0] == 200 or server.poll() is not None,
                   "readiness", 60 * e2e_case.SLOWER)
        case, _ = e2e_case.evaluation()[0]
        answer = e2e_case.ask(port, e2e_case.chat_body(case))
        self.assertTrue(answer["choices"][0]["message"]["content"])
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(60 * e2e_case.SLOWER), 0)


def mapped_bytes(pid, path):
    """(resident, proportional) bytes of the file's mappings in a process: a page that n
    processes have counts whole in the first, and 1/n in the second."""
    sizes = {"Rss": 0, "Pss": 0}
    ours = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in sizes and ours:
                sizes[name] += int(rest.split()[0]) * 1024
            elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ours = line.rstrip().endswith(path)
    return sizes["Rss"], sizes["Pss"]


class OneCopyOfTheWeights(e2e_case.TestCase):
    def test_processes_of_one_machine_share_mapped_weights(self):
        path = os.path.join(os.path.realpath(e2e_case.DEMO), "model.safetensors")
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=("1/1", "1/1"),
                     expert_flags=["--weights", "map"],
                     attention_flags=["--weights", "map"]) as cluster:
            case, _ = e2e_case.evaluation()[0]
            e2e_case.ask(cluster.port, e2e_case.chat_body(case))
            experts = [mapped_bytes(worker.pid, path) for worker in cluster.experts]
            attention = mapped_bytes(cluster.attentions[0].pid, path)
        size = os.path.getsize(path)
        # Each expert worker has all experts, most of the file.
        for resident, _ in experts:
            self.assertGreater(resident, size / 2)
        self.assertLessEqual(sum(proportional for _, proportional in (*experts, attention)),
                             1.05 * size)


# A sanitizer reserves terabytes of address space.
@unittest.skipIf(e2e_case.SLOWER > 1, "needs a limit on address space")
class Memory(e2e_case.TestCase):
    def test_states_beyond_the_limit(self):
        done = run("switchyard-attention-worker", "--model", e2e_case.DEMO, "--host",
                   LOOPBACK, "--port", "0", "--metrics-port", "-1", "--state-memory",
                   str(8192 * MIB), limits=[(resource.RLIMIT_AS, 2048 * MIB)])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"states 8192\.0 MiB, but this process may use "
                                      r"2048\.0 MiB; .*--state-memory")

    def test_states_that_leave_no_room(self):
        # Planned to the last byte of the limit; the program itself needs some, too.
        done = run("switchyard-attention-worker", "--model", e2e_case.DEMO, "--host",
                   LOOPBACK, "--port", "0", "--metrics-port", "-1", "--state-memory",
                   str(2032 * MIB), limits=[(resource.RLIMIT_AS, 2048 * MIB)])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "RESOURCE_EXHAUSTED: cannot reserve address space .*"
                                      "--state-memory")

    def test_threads_beyond_the_limit(self):
        done = run("switchyard-expert-worker", "--model", e2e_case.DEMO, "--host",
                   LOOPBACK, "--port", "0", "--metrics-port", "-1", "--threads", "4096",
                   limits=[(resource.RLIMIT_AS, 2048 * MIB),
                           (resource.RLIMIT_STACK, 8 * MIB)])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "cannot start thread expert.*: .*--threads")


if __name__ == "__main__":
    e2e_case.main()
