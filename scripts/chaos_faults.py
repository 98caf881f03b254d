"""What scripts/chaos does to processes: each kind of fault says whether this machine
lets it, whom it can hit, begins, and ends."""

import contextlib
import os
import signal
import subprocess
import sys

import control_groups
import local_cluster
from network_namespaces import Link, Namespace

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
    CPUS = 0.05

    def __init__(self):
        self._group = None

    def unavailable(self):
        try:
            self._group = control_groups.ControlGroup(
                f"switchyard-chaos-{os.getpid()}", cpus=self.CPUS)
        except control_groups.Unavailable as error:
            return str(error)
        return None

    def begin(self, target, rng):
        self._group.add(target.process.pid)
        return rng.uniform(1, 3)

    def end(self, target):
        self._group.release(target.process.pid)

    def close(self):
        if self._group:
            self._group.close()
            self._group = None


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
        with contextlib.ExitStack() as made:
            namespace = Namespace(f"switchyard-{os.getpid()}")
            made.callback(namespace.close)
            self._link = Link(None, namespace)
            made.callback(self._link.close)
            self._made = made.pop_all()
        self.prefix = namespace.prefix
        self.address = self._link.addresses[1]

    def link(self, state):
        self._link.set(state)

    def close(self):
        self._made.close()
