"""Control groups for processes of ours: a share of the CPUs, a limit of memory.

Both of the kernel's interfaces: one tree of groups (version 2), or one for each
controller (version 1). Groups are made below the mount's root, which takes root's rights.
"""

import contextlib
import os
import time

ROOT = "/sys/fs/cgroup"
CLOSE_SECONDS = 10  # for processes that have ended to leave a group


class Unavailable(Exception):
    """This machine has no such group to give; the text says why."""


def _write(path, text):
    """To a control file: where there is none, none is made."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, str(text).encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)


def _make_folder(path):
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)


def _read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


class ControlGroup:
    """A group with limits, until close().

    `cpus`: of all CPUs together, 0.5 say, counted anew every `period` seconds: whoever
    has used them up stands still until the next one begins. `memory`: bytes, the file
    cache that its processes caused included. None: no limit, and no figures of that kind.
    """

    def __init__(self, name, cpus=None, period=0.1, memory=None):
        self.name = name
        self._one_tree = os.path.exists(os.path.join(ROOT, "cgroup.controllers"))
        self._folders = {}  # by controller
        wanted = [*(["cpu"] if cpus else []), *(["memory"] if memory else [])]
        try:
            for controller in wanted:
                self._make(controller)
            if cpus:
                self._limit_cpus(int(cpus * period * 1e6), int(period * 1e6))
            if memory:
                self._limit_memory(memory)
        except OSError as error:
            self.close()
            raise Unavailable(
                f"no control group with {' and '.join(wanted)} to be had: "
                f"{error.filename}: {error.strerror}") from error

    def _parent(self, controller):
        return ROOT if self._one_tree else os.path.join(ROOT, controller)

    def _make(self, controller):
        parent = self._parent(controller)
        if self._one_tree:
            with contextlib.suppress(OSError):  # the limit's file tells
                _write(os.path.join(parent, "cgroup.subtree_control"), f"+{controller}")
        elif controller == "cpu":
            # Who counts their time, often mounted together with who limits it.
            _make_folder(os.path.join(ROOT, "cpuacct", self.name))
            self._folders["cpuacct"] = os.path.join(ROOT, "cpuacct", self.name)
        folder = os.path.join(parent, self.name)
        _make_folder(folder)
        self._folders[controller] = folder

    def _limit_cpus(self, quota_us, period_us):
        folder = self._folders["cpu"]
        if self._one_tree:
            _write(os.path.join(folder, "cpu.max"), f"{quota_us} {period_us}")
        else:
            _write(os.path.join(folder, "cpu.cfs_period_us"), period_us)
            _write(os.path.join(folder, "cpu.cfs_quota_us"), quota_us)

    def _limit_memory(self, limit):
        folder = self._folders["memory"]
        names = (("memory.max", "memory.swap.max") if self._one_tree else
                 ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
        _write(os.path.join(folder, names[0]), limit)
        with contextlib.suppress(OSError):  # not every kernel counts swap
            _write(os.path.join(folder, names[1]), 0 if self._one_tree else limit)

    @property
    def prefix(self):
        """Before a command, so that it runs in the group from its first byte on."""
        folders = sorted(set(self._folders.values()))
        enter = "; ".join('echo $$ >"$1/cgroup.procs" || exit 125; shift'
                          for _ in folders)
        return ["/bin/sh", "-c", f'{enter}; exec "$@"', "sh", *folders]

    def add(self, pid):
        self._move(pid, self._folders.values())

    def release(self, pid):
        """Back to where no group of ours is."""
        self._move(pid, {self._parent(c) for c in self._folders})

    @staticmethod
    def _move(pid, folders):
        with contextlib.suppress(ProcessLookupError):
            for folder in folders:
                _write(os.path.join(folder, "cgroup.procs"), pid)

    def cpu_seconds(self):
        """That its processes had so far."""
        if self._one_tree:
            return self._cpu_stat()["usage_usec"] / 1e6
        return int(_read(os.path.join(self._folders["cpuacct"], "cpuacct.usage"))) / 1e9

    def throttled_periods(self):
        """(Periods in which they stood still for want of a quota, periods that began)."""
        stat = self._cpu_stat()
        return stat["nr_throttled"], stat["nr_periods"]

    def _cpu_stat(self):
        text = _read(os.path.join(self._folders["cpu"], "cpu.stat"))
        return {key: int(value) for key, value in map(str.split, text.splitlines())}

    def peak_memory(self):
        """Bytes, file cache included; None if this kernel does not say."""
        name = "memory.peak" if self._one_tree else "memory.max_usage_in_bytes"
        path = os.path.join(self._folders["memory"], name)
        return int(_read(path)) if os.path.exists(path) else None

    def close(self):
        """Whoever is still in it is let out first."""
        folders = set(self._folders.values())
        for pid in {pid for folder in folders
                    for pid in _read(os.path.join(folder, "cgroup.procs")).split()}:
            self.release(pid)
        self._folders = {}
        deadline = time.monotonic() + CLOSE_SECONDS
        for folder in folders:
            while True:
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:  # the other name of one that is gone
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
