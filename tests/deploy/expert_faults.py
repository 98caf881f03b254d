"""Faults of expert workers: too slow, uneven, full, wrong, or with weights that do not load.

Run by alerts_fire_test.py.
"""

import contextlib
import glob
import json
import os
import random
import shutil
import signal
import subprocess

import faults  # first: it makes scripts/ importable
import chaos_faults
import local_cluster
import monitoring
from faults import BINARIES, DEMO, Users


class Cluster(local_cluster.Cluster):
    """With the demo model."""

    def __init__(self, deal, expert_flags=(), attention_flags=(), num_attention=1):
        super().__init__(BINARIES, DEMO, deal=deal, expert_flags=expert_flags,
                         attention_flags=attention_flags, num_attention=num_attention)


class ElasticFaultsTest(faults.FaultsTest):
    """Workers that share the experts out among themselves."""

    def start(self, *expert_flags, model=DEMO):
        cluster = local_cluster.ElasticCluster(
            BINARIES, model, expert_flags=["--replicas=2", *expert_flags])
        self.addCleanup(cluster.close)
        return cluster

    def test_a_death_that_the_others_have_no_room_for(self):
        # 288 (layer, expert) pairs twice: 192 for each of three, 288 for each of two.
        cluster = self.start("--experts-budget=200").start(["a", "b", "c"])
        self.watch(monitoring.elastic_targets(cluster))
        cluster.kill_expert("c")
        self.fires("SwitchyardExpertsUnderReplicated")

    def test_damaged_weights_on_one_node(self):
        right = os.path.join(self.folder, "converted")
        subprocess.run([os.path.join(BINARIES, "switchyard"), "convert", "--model", DEMO,
                        "--out", right, "--format", "source"], check=True,
                       stderr=subprocess.DEVNULL)
        damaged = os.path.join(self.folder, "damaged")
        shutil.copytree(right, damaged)
        # A byte of each page: no expert stays whole, and headers do.
        for path in glob.glob(os.path.join(damaged, "experts-*.safetensors")):
            with open(path, "r+b") as file:
                for at in range(16384, os.path.getsize(path), 4096):
                    file.seek(at)
                    byte = file.read(1)
                    file.seek(at)
                    file.write(bytes([byte[0] ^ 1]))
        cluster = self.start(model=right).start(["a", "b"])
        cluster.model = damaged
        cluster.add_expert("c")
        self.watch(monitoring.elastic_targets(cluster))
        self.fires("SwitchyardExpertLoadsFail", "SwitchyardRebalanceStuck")

    def test_two_versions_side_by_side(self):
        # A build that is the same but for its version.
        other = os.path.join(self.folder, "binaries")
        os.mkdir(other)
        name = "switchyard-expert-worker"
        with open(os.path.join(BINARIES, name), "rb") as file:
            program = file.read()
        version = b"\x000.1.0\x00"
        self.assertEqual(program.count(version), 1)
        with open(os.path.join(other, name), "wb") as file:
            file.write(program.replace(version, b"\x000.0.9\x00"))
        os.chmod(os.path.join(other, name), 0o755)
        cluster = self.start().start(["a", "b"])
        cluster.add_expert("c", binaries=other)
        self.watch(monitoring.elastic_targets(cluster))
        self.fires("SwitchyardMixedVersions")


class UnevenFaultsTest(faults.FaultsTest):
    """Two expert workers that both hold everything, behind relays."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = Cluster(("1/1", "1/1"))
        cls.addClassCleanup(cls.cluster.close)
        cls.relays = [chaos_faults.Relay(port) for port in cls.cluster.expert_ports]
        for index, relay in enumerate(cls.relays):
            cls.addClassCleanup(relay.close)
            cls.cluster.expert_seen_at[index] = f"{local_cluster.LOOPBACK}:{relay.port}"
        cls.cluster.start()
        cls.watch(monitoring.targets(cls.cluster))

    def test_1_a_network_that_now_and_then_is_late(self):
        for relay in self.relays:
            relay.say("jitter 0.1 0.03")  # more, and it seems to hang
        with Users(self.cluster.port, 3):
            self.fires("SwitchyardHedges")
        for relay in self.relays:
            relay.say("jitter 0 0")

    def test_2_a_worker_that_hangs(self):
        with Users(self.cluster.port, 3):
            self.cluster.experts[0].send_signal(signal.SIGSTOP)
            self.addCleanup(self.cluster.experts[0].send_signal, signal.SIGCONT)
            self.fires("SwitchyardWorkerEjected")


class FullFaultsTest(faults.FaultsTest):

    def test_long_prompts_for_queues_that_hold_a_mebibyte(self):
        cluster = Cluster(("1/1", "1/1"), expert_flags=["--max-queue-mib=1"],
                          num_attention=2)
        self.addCleanup(cluster.close)
        cluster.start()
        self.watch(monitoring.targets(cluster))
        with Users(cluster.port, 8, tokens=1, words=800):
            self.fires("SwitchyardExpertQueueFull", "SwitchyardRowsResent")


class Throttle(chaos_faults.Throttle):
    """A quarter of a CPU: slow, but Prometheus gets its answers."""

    CPUS = 0.25


class BusyFaultsTest(faults.FaultsTest):
    """Wide experts, computed slowly, are nearly all of a step, as the 80B's are."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = os.path.join(cls.folder, "demo")
        subprocess.run([os.path.join(BINARIES, "switchyard"), "synth", "--layers", "4",
                        "--model-config", os.path.join(DEMO, "config.json"),
                        "--set", "moe_intermediate_size=256", "--tokenizer", DEMO,
                        "--format", "hf-bf16", "--out", cls.model], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fires_when_slow(self, name, *deal):
        """`name` fires when the first expert worker has a quarter of a CPU."""
        throttle = Throttle()
        why = throttle.unavailable()
        if why:
            self.not_here(why, name)
        self.addCleanup(throttle.close)
        # Small batches: a worker says that it was busy when a batch is done.
        cluster = Cluster(deal, ["--threads=1", "--isa=scalar"],
                          ["--threads=1", "--chunked-prefill-size=16"], num_attention=3)
        cluster.model = self.model
        self.addCleanup(cluster.close)
        cluster.start()
        self.watch(monitoring.targets(cluster))
        throttle.begin(chaos_faults.Target(cluster, "expert", 0), random.Random(1))
        with Users(cluster.port, 9, tokens=1, words=800):
            self.fires(name)

    def test_one_slow_worker(self):
        self.fires_when_slow("SwitchyardExpertImbalance", "1/2", "2/2")

    def test_a_pool_that_is_too_slow(self):
        self.fires_when_slow("SwitchyardExpertPoolBusy", "1/1")


class WrongFaultsTest(faults.FaultsTest):

    @staticmethod
    def flip_bits(pid, path):
        """A bit of each expert of this file in the process's memory, as bad memory does;
        the file stays as it is."""
        with open(path, "rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(begin - 8))
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            lines = [line.split() for line in maps]
        base = next(int(line[0].partition("-")[0], 16) for line in lines
                    if line[-1] == path and int(line[2], 16) == 0)
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            for name, tensor in header.items():
                if ".experts." not in name or not name.endswith("down_proj.weight"):
                    continue
                at = base + begin + tensor["data_offsets"][0] + 1  # a bf16's sign
                memory.seek(at)
                byte = memory.read(1)
                memory.seek(at)
                memory.write(bytes([byte[0] ^ 0x80]))

    def test_a_worker_whose_memory_is_bad(self):
        cluster = Cluster(("1/1", "1/1", "1/1"), expert_flags=["--weights=map"],
                          attention_flags=["--verify-fraction=0.5"])
        self.addCleanup(cluster.close)
        cluster.start()
        self.watch(monitoring.targets(cluster))
        with Users(cluster.port, 3):
            # Not while the others join: who differs from the first is then the wrong one.
            live = "switchyard_expert_worker_state{state='live'} == 1"
            local_cluster.wait_until(lambda: len(self.prometheus.query(live)) == 3,
                                     "three live workers", faults.PATIENCE,
                                     cluster.processes())
            self.flip_bits(cluster.experts[0].pid,
                           os.path.realpath(os.path.join(DEMO, "model.safetensors")))
            self.fires("SwitchyardWrongResults", "SwitchyardWorkerDistrusted")


class SlowDisk:
    """A control group whose processes read a byte a second from the disk of `folder`."""

    ROOTS = (("/sys/fs/cgroup", "io.max", "{} rbps={}", "max"),
             ("/sys/fs/cgroup/blkio", "blkio.throttle.read_bps_device", "{} {}", "0"))

    def __init__(self, folder):
        device = os.stat(folder).st_dev
        self._disk = f"{os.major(device)}:{os.minor(device)}"
        node = os.path.realpath(f"/sys/dev/block/{self._disk}")
        if os.path.exists(os.path.join(node, "partition")):  # limits are of whole disks
            with open(os.path.join(node, "..", "dev"), encoding="ascii") as file:
                self._disk = file.read().strip()
        self._group = None

    def unavailable(self):
        """Why this machine does not let it; None: it does."""
        why = "no control group that limits reading"
        for root, file, text, self._none in self.ROOTS:
            group = os.path.join(root, f"switchyard-alerts-{os.getpid()}")
            try:
                os.mkdir(group)
            except OSError as error:
                why = f"{root}: {error.strerror}"
                continue
            self._group, self._text = group, text
            self._file = os.path.join(group, file)
            if os.path.exists(self._file):  # else another kind of control groups
                try:
                    self._limit("1")
                    return None
                except OSError as error:
                    why = f"{self._file}: {error.strerror}"
            self.close()
        return why

    def _limit(self, bytes_a_second):
        with open(self._file, "w", encoding="ascii") as file:
            file.write(self._text.format(self._disk, bytes_a_second))

    @property
    def prefix(self):
        """Before a command, so that it runs in the group."""
        return ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self._group]

    def mend(self):
        self._limit(self._none)

    def close(self):
        with contextlib.suppress(OSError):
            os.rmdir(self._group)


class DiskFaultsTest(faults.FaultsTest):

    def test_weights_on_a_disk_that_hangs(self):
        disk = SlowDisk(self.folder)
        why = disk.unavailable()
        if why:
            self.not_here(why, "SwitchyardLoadingStuck")
        self.addCleanup(disk.close)
        weights = os.path.join(self.folder, "weights")
        subprocess.run([os.path.join(BINARIES, "switchyard"), "convert", "--model", DEMO,
                        "--out", weights, "--format", "source"], check=True,
                       stderr=subprocess.DEVNULL)
        # Out of the kernel's cache, but for what is read before loading begins.
        for path in glob.glob(os.path.join(weights, "experts-*.safetensors")):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 65536, 0, os.POSIX_FADV_DONTNEED)
        cluster = Cluster(("1/1",))
        self.addCleanup(cluster.close)
        cluster.model = weights
        cluster.expert_prefix[0] = disk.prefix
        self.addCleanup(disk.mend)  # first: who waits for a disk cannot be killed
        cluster.start_expert(0)
        self.watch([("switchyard-expert-worker", "expert-worker-0",
                     cluster.expert_metrics_ports[0])])
        self.fires("SwitchyardLoadingStuck")

    def test_a_disk_for_states_that_is_gone(self):
        states = os.path.join(self.folder, "states")
        cluster = Cluster(("1/1",), attention_flags=["--snapshot-dir", states])
        self.addCleanup(cluster.close)
        cluster.start()
        self.watch(monitoring.targets(cluster))
        shutil.rmtree(states)
        with Users(cluster.port, 2, words=300):
            self.fires("SwitchyardDiskStateErrors")
