"""What scripts/chaos does to processes: each kind of fault says whether this machine
lets it, whom it can hit, begins, and ends."""

import contextlib
import os
import random
import signal
import subprocess
import sys

import local_cluster

HERE = os.path.dirname(os.path.abspath(__file__))


class Target:
    """A worker of the cluster, whichever process it is just now."""

    def __init__(self, cluster, role, index):
        self.cluster = cluster
        self.role = role  # "expert" or "attention"
        self.index = index
        self.hit = False  # a fault is at it

    @property
    def name(self):
        return f"{self.role}-{self.index}"

    @property
    def process(self):
        workers = (self.cluster.experts if self.role == "expert"
                   else self.cluster.attentions)
        return workers[self.index]

    @property
    def metrics_port(self):
        ports = (self.cluster.expert_metrics_ports if self.role == "expert"
                 else self.cluster.attention_metrics_ports)
        return ports[self.index]

    def ready(self):
        if self.hit or not self.process.alive():
            return False
        if self.index in self.cluster.expert_prefix and self.role == "expert":
            return True  # in a network of its own; others say whether it serves
        return local_cluster.get(self.metrics_port, "/readyz", timeout=2)[0] == 200

    def start(self):
        if self.role == "expert":
            self.cluster.start_expert(self.index)
        else:
            self.cluster.start_attention(self.index)


class Fault:
    """begin() returns how many seconds later end() is due."""

    kind = ""
    # It is over when it has begun; what end() does mends it.
    instant = False

    def unavailable(self):
        """Why this machine does not let it; None: it does."""

    def can_hit(self, target):
        return True

    def begin(self, target, rng):
        raise NotImplementedError

    def end(self, target):
        pass

    def close(self):
        pass


class Kill(Fault):
    kind = "kill"
    instant = True

    def __init__(self, restart_after=0.05):
        self._restart_after = restart_after

    def begin(self, target, rng):
        target.process.kill()
        return self._restart_after

    def end(self, target):
        target.start()


class Terminate(Fault):
    """SIGTERM, as an orchestrator does before it takes a pod away."""

    kind = "terminate"

    def begin(self, target, rng):
        target.process.send_signal(signal.SIGTERM)
        return 0.1

    def end(self, target):
        """Seconds until it is to be looked at again; None: it is done."""
        if target.process.alive():
            return 0.1
        target.process.close()
        target.start()
        return None


class Stop(Fault):
    """SIGSTOP: it hangs, with every connection open."""

    kind = "stop"

    def begin(self, target, rng):
        target.process.send_signal(signal.SIGSTOP)
        return rng.uniform(0.3, 2.5)

    def end(self, target):
        target.process.send_signal(signal.SIGCONT)


class Throttle(Fault):
    """A twentieth of a CPU, by a control group."""

    kind = "throttle"
    ROOTS = (("/sys/fs/cgroup", "cpu.max", "5000 100000"),
             ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "5000"))

    def __init__(self):
        self._group = None
        self._parent = None

    def unavailable(self):
        why = "no control group with a CPU quota"
        for root, file, quota in self.ROOTS:
            group = os.path.join(root, f"switchyard-chaos-{os.getpid()}")
            try:
                os.mkdir(group)
            except OSError as error:
                why = f"{root}: {error.strerror}"
                continue
            if os.path.exists(os.path.join(group, file)):
                with open(os.path.join(group, file), "w", encoding="ascii") as limit:
                    limit.write(quota)
                self._group, self._parent = group, root
                return None
            os.rmdir(group)
        return why

    def _move(self, target, group):
        with contextlib.suppress(ProcessLookupError):
            with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as procs:
                procs.write(str(target.process.pid))

    def begin(self, target, rng):
        self._move(target, self._group)
        return rng.uniform(1, 3)

    def end(self, target):
        self._move(target, self._parent)

    def close(self):
        if self._group:
            with contextlib.suppress(OSError):
                os.rmdir(self._group)


class RelayFault(Fault):
    """At those workers that are reached through a relay."""

    def __init__(self, relays):
        self._relays = relays  # by the target's name

    def can_hit(self, target):
        return target.name in self._relays


class Delay(RelayFault):
    kind = "delay"

    def begin(self, target, rng):
        self._relays[target.name].say(f"delay {rng.uniform(0.005, 0.05):.3f}")
        return rng.uniform(1, 3)

    def end(self, target):
        self._relays[target.name].say("delay 0")


class Reset(RelayFault):
    kind = "reset"

    def begin(self, target, rng):
        self._relays[target.name].say("reset")
        return 0.0


class Blackhole(RelayFault):
    kind = "blackhole"

    def begin(self, target, rng):
        self._relays[target.name].say("hold")
        return rng.uniform(0.5, 3)

    def end(self, target):
        self._relays[target.name].say("go")


class Partition(Fault):
    """The link of a worker that lives in a network namespace of its own goes down."""

    kind = "partition"

    def __init__(self, network):
        self._network = network  # None: there is none
        self._why = ("network namespaces cannot be made here"
                     if network is None else None)

    def unavailable(self):
        return self._why

    def can_hit(self, target):
        return target.role == "expert" and target.index == self._network.expert

    def begin(self, target, rng):
        self._network.link("down")
        return rng.uniform(0.5, 3)

    def end(self, target):
        self._network.link("up")


class Relay:
    """A tcp_relay.py process in front of `port`."""

    def __init__(self, port):
        self.port = local_cluster.free_port()
        self._child = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "tcp_relay.py"), str(self.port), str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._child.stdout.readline()

    def say(self, command):
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()

    def close(self):
        self._child.stdin.close()
        self._child.wait(10)


class Network:
    """A network namespace for one expert worker, with a link to this one."""

    def __init__(self, expert):
        self.expert = expert
        self.name = f"switchyard-{os.getpid()}"
        self._link = f"sy{os.getpid() % 100000}"
        subnet = f"10.213.{random.SystemRandom().randrange(256)}"
        self.address = f"{subnet}.2"
        try:
            self._run("netns", "add", self.name)
            self._run("link", "add", self._link, "type", "veth", "peer", "name", "inside",
                      "netns", self.name)
            self._run("addr", "add", f"{subnet}.1/24", "dev", self._link)
            self._run("link", "set", self._link, "up")
            self._run("-n", self.name, "addr", "add", f"{subnet}.2/24", "dev", "inside")
            self._run("-n", self.name, "link", "set", "inside", "up")
            self._run("-n", self.name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    @staticmethod
    def _run(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)

    def link(self, state):
        self._run("link", "set", self._link, state)

    def close(self):
        for command in (("link", "del", self._link), ("netns", "del", self.name)):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                self._run(*command)
