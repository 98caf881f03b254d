"""Network namespaces and links between them, by `ip`: machines' networks on one machine.

All of it needs root's rights. What cannot be made is an OSError or a CalledProcessError.
"""

import contextlib
import itertools
import os
import random
import subprocess

_numbers = itertools.count()
_SUBNET = f"10.213.{random.SystemRandom().randrange(256)}"
_MAX_LINKS = 64  # four addresses each


def _run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=10)


def why(error):
    """What went wrong, in words."""
    said = getattr(error, "stderr", None)
    return said.decode(errors="replace").strip() if said else str(error)


class Namespace:
    """A network of its own, in which there is only a loopback device, until close()."""

    def __init__(self, name):
        self.name = name
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    @property
    def prefix(self):
        """Before a command, so that it runs in this network, and sees /sys as it was."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def close(self):
        """Links that end here go, too, once no process is in it."""
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _run("ip", "netns", "del", self.name)


class Link:
    """A cable between two namespaces, until close(); the first may be None: this process's.

    `addresses`: of its ends, in the order of the namespaces.
    """

    def __init__(self, first, second):
        number = next(_numbers) % _MAX_LINKS
        self._ends = []  # (options for `ip` and `tc`, device)
        self.addresses = []
        device = f"sy{os.getpid() % 1000000}-{number}"
        inside = f"{device}p"
        here = ["-n", first.name] if first else []
        there = ["-n", second.name]
        _run("ip", *here, "link", "add", device, "type", "veth",
             "peer", "name", inside, "netns", second.name)
        self._ends = [(here, device), (there, inside)]
        try:
            for place, (where, name) in enumerate(self._ends, 1):
                address = f"{_SUBNET}.{4 * number + place}"
                _run("ip", *where, "addr", "add", f"{address}/30", "dev", name)
                _run("ip", *where, "link", "set", name, "up")
                self.addresses.append(address)
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    def shape(self, rate, delay):
        """As `tc` writes them: "10gbit", "40us" each way. Returns what it could not do."""
        try:
            self._queue("netem", "rate", rate, "delay", delay, "limit", "10000")
            return None
        except (OSError, subprocess.CalledProcessError) as error:
            no_delay = f"{delay} of delay ({why(error)})"
        try:
            self._queue("tbf", "rate", rate, "burst", "1mb", "latency", "10ms")
            return no_delay
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{no_delay}, nor {rate} ({why(error)})"

    def _queue(self, *kind):
        for where, device in self._ends:
            _run("tc", *where, "qdisc", "replace", "dev", device, "root", *kind)

    def set(self, state):
        """"up" or "down", of the first end."""
        where, device = self._ends[0]
        _run("ip", *where, "link", "set", device, state)

    def close(self):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            where, device = self._ends[0]
            _run("ip", *where, "link", "del", device)
