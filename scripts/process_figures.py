"""What a process of ours uses and says: its memory, what it read from disk, its metrics."""

import os
import threading

from local_cluster import get, LOOPBACK


def metrics(port, host=LOOPBACK):
    """Values by name, labels included."""
    status, text = get(port, "/metrics", host=host)
    if status != 200:
        raise RuntimeError(f"no metrics from {host}:{port}: {text}")
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


def disk_bytes(pid):
    """(Read, written) so far, past the file cache."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        counts = dict(line.split(": ") for line in file.read().splitlines())
    return int(counts["read_bytes"]), int(counts["write_bytes"])


def leave_file_cache(folder):
    """Takes its files out of the kernel's cache, so that whoever reads them next pays."""
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class MemoryWatch(threading.Thread):
    """The most memory that a process had of its own, and with mapped files."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/status"
        self.own = self.all = 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(0.05):
            try:
                with open(self.path, encoding="ascii") as status:
                    kib = {line.split(":")[0]: int(line.split()[1]) for line in status
                           if line.startswith(("VmRSS", "RssAnon", "RssShmem"))}
            except OSError:
                return
            if not kib:  # it has ended, and nobody has asked how
                return
            self.own = max(self.own, (kib["RssAnon"] + kib["RssShmem"]) * 1024)
            self.all = max(self.all, kib["VmRSS"] * 1024)
