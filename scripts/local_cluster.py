"""Starts and stops Switchyard's processes on loopback, for the demo and the tests.

Every process dies with this one, however it ends: each is its own process group that
close() ends, and the kernel is asked to kill it when the parent dies.
"""

import collections
import contextlib
import fcntl
import functools
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

LOOPBACK = "127.0.0.1"
# How long a process may take to end before it is killed.
CLOSE_SECONDS = 10


class ProcessFailed(Exception):
    """A process ended, or was not ready in time; the text has its last log lines."""


# Ports of this process: a block of its own below the range that the kernel hands out,
# so that two tests at once do not take each other's before they are bound.
_BLOCK_SIZE = 100
_NUM_BLOCKS = 120
_FIRST_PORT = 20000
_next_port = itertools.count()


@functools.lru_cache(maxsize=None)
def _first_port():
    """Of a block that no other process of this user has: it is locked until this one ends."""
    folder = os.path.join(tempfile.gettempdir(), f"switchyard-ports-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for i in range(_NUM_BLOCKS):
        block = (os.getpid() + i) % _NUM_BLOCKS
        # Not inherited by children, who may outlive this process.
        lock = os.open(os.path.join(folder, str(block)), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return _FIRST_PORT + block * _BLOCK_SIZE
    raise RuntimeError(f"all blocks of ports are taken: see {folder}")


def free_port():
    """A port that nothing listens on, and that was not given out lately."""
    first = _first_port()
    for _ in range(_BLOCK_SIZE):
        port = first + next(_next_port) % _BLOCK_SIZE
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {first} on")


class Process:
    """One child process, with its last log lines."""

    def __init__(self, name, command, env=None, on_line=None):
        self.name = name
        self.command = command
        self.lines = collections.deque(maxlen=400)
        self._on_line = on_line
        # No function of Python's between fork and exec: the whole process would be copied
        # for it, and stand still meanwhile.
        self._child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})}, process_group=0, text=True,
            errors="replace")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._child.stdout:
            self.lines.append(line.rstrip("\n"))
            if self._on_line:
                self._on_line(self.name, line.rstrip("\n"))

    @property
    def pid(self):
        return self._child.pid

    def alive(self):
        return self._child.poll() is None

    def exit_code(self, timeout=30):
        """Waits for the end; negative for a signal, as subprocess has it."""
        code = self._child.wait(timeout)
        self._reader.join(5)
        return code

    def log(self):
        return "\n".join(self.lines)

    def send_signal(self, number):
        if self.alive():
            self._child.send_signal(number)

    def kill(self):
        """kill -9, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self._child.wait(30)
        self._reader.join(5)
        self._child.stdout.close()

    def close(self, grace=None):
        """SIGTERM, then SIGKILL after `grace` seconds, CLOSE_SECONDS unless told."""
        grace = grace or CLOSE_SECONDS
        self.send_signal(signal.SIGTERM)
        try:
            self._child.wait(grace)
        except subprocess.TimeoutExpired:
            print(f"{self.name} had not ended {grace} s after SIGTERM: killed",
                  file=sys.stderr)
            self._child.kill()
            self._child.wait(30)
        self._reader.join(5)
        self._child.stdout.close()


def run_to_end(command):
    """A program that does something and ends; ProcessFailed, with its last words, if it
    does not end with 0."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ProcessFailed(f"{' '.join(command)} ended with {done.returncode}: " +
                            "; ".join(last))


def get(port, path, timeout=10, host=LOOPBACK):
    """(status, body) of one GET; status 0 if nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def wait_until(condition, what, timeout, processes=()):
    """Polls `condition` until it is true; ProcessFailed if a process ends first."""
    deadline = time.monotonic() + timeout
    while not condition():
        for process in processes:
            if not process.alive():
                raise ProcessFailed(
                    f"{process.name} ended with {process.exit_code()} while "
                    f"waiting for {what}:\n{process.log()}")
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {p.name}\n{p.log()}" for p in processes)
            raise ProcessFailed(f"no {what} after {timeout} s\n{logs}")
        time.sleep(0.02)


class Cluster:
    """Routers, attention workers and expert workers as processes of their own, one of
    each of the first two unless told otherwise: `router` and `attention` are the first.

    `deal` says what each expert worker holds: a list of --slice values ("1/2") or
    --experts values ("0-15,20"). One worker a value.

    `unix_sockets`: expert and attention workers listen on sockets in a folder of their
    own instead of on ports.
    """

    def __init__(self, binaries, model, deal=("1/2", "2/2"), router_flags=(),
                 attention_flags=(), expert_flags=(), port=None, on_line=None,
                 env=None, unix_sockets=False, num_attention=1, num_routers=1):
        self.binaries = binaries
        self.model = model
        self.router_flags = list(router_flags)
        self.attention_flags = list(attention_flags)
        self.expert_flags = list(expert_flags)
        self.on_line = on_line
        self.env = env
        self.expert_deal = list(deal)
        self.expert_ports = [free_port() for _ in deal]
        self.expert_metrics_ports = [free_port() for _ in deal]
        self.attention_ports = [free_port() for _ in range(num_attention)]
        self.attention_metrics_ports = [free_port() for _ in range(num_attention)]
        self.ports = [port or free_port() for _ in range(num_routers)]
        self.router_grpc_ports = [free_port() for _ in range(num_routers)]
        self.sockets = (tempfile.TemporaryDirectory(prefix="switchyard-")
                        if unix_sockets else None)
        # By index, where something is put between: a command before the process's, the
        # host that it listens on, and the addresses that others are given.
        self.expert_prefix = {}
        self.expert_listens_on = {}
        self.expert_seen_at = {}
        self.attention_prefix = {}
        self.attention_listens_on = {}
        self.attention_seen_at = {}
        self.router_prefix = {}
        self.router_listens_on = {}
        self.experts = [None] * len(self.expert_deal)
        self.attentions = [None] * num_attention
        self.routers = [None] * num_routers

    @property
    def attention(self):
        return self.attentions[0]

    @attention.setter
    def attention(self, process):
        self.attentions[0] = process

    @property
    def router(self):
        return self.routers[0]

    @router.setter
    def router(self, process):
        self.routers[0] = process

    @property
    def port(self):
        return self.ports[0]

    @property
    def router_grpc_port(self):
        return self.router_grpc_ports[0]

    @property
    def attention_port(self):
        return self.attention_ports[0]

    @property
    def attention_metrics_port(self):
        return self.attention_metrics_ports[0]

    def _socket(self, name):
        return f"unix:{self.sockets.name}/{name}"

    def _host(self, name):
        return self._socket(name) if self.sockets else LOOPBACK

    def expert_address(self, index):
        return (self._socket(f"expert-{index}") if self.sockets
                else f"{LOOPBACK}:{self.expert_ports[index]}")

    def attention_address(self, index=0):
        return (self._socket(f"attention-{index}") if self.sockets
                else f"{LOOPBACK}:{self.attention_ports[index]}")

    def router_host(self, index=0):
        return self.router_listens_on.get(index) or LOOPBACK

    def _binary(self, name):
        return os.path.join(self.binaries, name)

    def start(self, timeout=120):
        for index in range(len(self.expert_deal)):
            self.start_expert(index)
        for index in range(len(self.attentions)):
            self.start_attention(index)
        for index in range(len(self.routers)):
            self.start_router(index)
        self.wait_ready(timeout)
        return self

    def start_expert(self, index):
        held = self.expert_deal[index]
        which = "--slice" if "/" in held else "--experts"
        host = self.expert_listens_on.get(index) or self._host(f"expert-{index}")
        self.experts[index] = Process(f"expert-worker-{index}", [
            *self.expert_prefix.get(index, ()),
            self._binary("switchyard-expert-worker"), "--model", self.model,
            which, held, "--host", host,
            "--port", str(self.expert_ports[index]),
            "--metrics-port", str(self.expert_metrics_ports[index]),
            *self.expert_flags], env=self.env, on_line=self.on_line)

    def start_attention(self, index=0):
        workers = ",".join(self.expert_seen_at.get(i) or self.expert_address(i)
                           for i in range(len(self.expert_deal)))
        host = self.attention_listens_on.get(index) or self._host(f"attention-{index}")
        self.attentions[index] = Process(f"attention-worker-{index}", [
            *self.attention_prefix.get(index, ()),
            self._binary("switchyard-attention-worker"), "--model", self.model,
            "--host", host,
            "--port", str(self.attention_ports[index]),
            "--metrics-port", str(self.attention_metrics_ports[index]),
            "--expert-workers", workers, *self.attention_flags],
            env=self.env, on_line=self.on_line)

    def start_router(self, index=0):
        workers = ",".join(self.attention_seen_at.get(i) or self.attention_address(i)
                           for i in range(len(self.attentions)))
        self.routers[index] = Process(f"router-{index}", [
            *self.router_prefix.get(index, ()),
            self._binary("switchyard-router"), "--model", self.model,
            "--host", self.router_host(index), "--port", str(self.ports[index]),
            "--grpc-port", str(self.router_grpc_ports[index]),
            "--attention-workers", workers,
            *self.router_flags], env=self.env, on_line=self.on_line)

    def processes(self):
        return [p for p in (*self.routers, *self.attentions, *self.experts) if p]

    def wait_ready(self, timeout=120):
        """Until every router can serve."""
        wait_until(lambda: all(get(port, "/readyz", host=self.router_host(i))[0] == 200
                               for i, port in enumerate(self.ports)),
                   "readiness", timeout, self.processes())

    def wait_attention_ready(self, index, timeout=120):
        """Until this worker is, whether a router knows of it yet or not."""
        wait_until(lambda: get(self.attention_metrics_ports[index], "/readyz")[0] == 200,
                   f"readiness of attention worker {index}", timeout,
                   [self.attentions[index]])

    def close(self):
        for process in self.processes():
            process.close()
        if self.sockets:
            self.sockets.cleanup()

    def __enter__(self):
        return self.start()

    def __exit__(self, *unused):
        self.close()


class Worker(Process):
    """A worker process that knows its metrics' port."""

    def __init__(self, name, command, metrics_port, env=None, on_line=None):
        super().__init__(name, [*command, "--metrics-port", str(metrics_port)], env, on_line)
        self.metrics_port = metrics_port

    def metric(self, name):
        """The value of a metric without labels; None if it is not there."""
        status, text = get(self.metrics_port, "/metrics")
        if status != 200:
            return None
        for line in text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return None


class ElasticCluster:
    """A router that workers join; expert workers, by name, hold what the placement says,
    and may come, go and die."""

    def __init__(self, binaries, model, attention_workers=1, router_flags=(),
                 attention_flags=(), expert_flags=(), on_line=None, env=None):
        self.binaries = binaries
        self.model = model
        self.router_flags = list(router_flags)
        self.attention_flags = list(attention_flags)
        self.expert_flags = list(expert_flags)
        self.on_line = on_line
        self.env = env
        self.port = free_port()
        self.grpc_port = free_port()
        self.router = None
        self.attention = [None] * attention_workers
        self.experts = {}   # by name
        self.draining = {}  # by name

    def _worker(self, kind, name, flags, binaries=None):
        return Worker(f"{kind}-worker-{name}", [
            os.path.join(binaries or self.binaries, f"switchyard-{kind}-worker"),
            "--model", self.model, "--host", LOOPBACK, "--port", str(free_port()),
            "--routers", f"{LOOPBACK}:{self.grpc_port}", *flags],
            free_port(), env=self.env, on_line=self.on_line)

    def start_router(self):
        self.router = Process("router", [
            os.path.join(self.binaries, "switchyard-router"), "--model", self.model,
            "--host", LOOPBACK, "--port", str(self.port),
            "--grpc-port", str(self.grpc_port), *self.router_flags],
            env=self.env, on_line=self.on_line)

    def restart_router(self, timeout=60):
        self.router.kill()
        self.start_router()
        self.wait_ready(timeout)

    def add_expert(self, name, flags=(), binaries=None):
        """`binaries`: of another build."""
        self.experts[name] = self._worker(
            "expert", name, ["--placement", "auto", *self.expert_flags, *flags], binaries)

    def replace_attention(self, index, timeout=60, binaries=None):
        """Another process comes, and is ready, before the one that is there goes."""
        old = self.attention[index]
        new = self._worker("attention", f"{index}b", self.attention_flags, binaries)
        self.attention[index] = new
        wait_until(lambda: get(new.metrics_port, "/readyz")[0] == 200, "readiness", timeout,
                   [new])
        old.send_signal(signal.SIGTERM)
        code = old.exit_code(timeout)
        old.close()
        if code != 0:
            raise ProcessFailed(f"{old.name} ended with {code}\n{old.log()}")

    def drain_expert(self, name):
        """SIGTERM; wait_drained() gives the exit code."""
        self.draining[name] = self.experts.pop(name)
        self.draining[name].send_signal(signal.SIGTERM)

    def wait_drained(self, name, timeout=60):
        worker = self.draining.pop(name)
        try:
            return worker.exit_code(timeout)
        finally:
            worker.close()

    def kill_expert(self, name):
        self.experts.pop(name).kill()

    def start(self, experts, timeout=120, **how):
        """`how`: for add_expert."""
        self.start_router()
        for index in range(len(self.attention)):
            self.attention[index] = self._worker("attention", index, self.attention_flags)
        for name in experts:
            self.add_expert(name, **how)
        self.wait_ready(timeout)
        return self

    def processes(self):
        return [p for p in (self.router, *self.attention, *self.experts.values()) if p]

    def wait_ready(self, timeout=120):
        wait_until(lambda: get(self.port, "/readyz")[0] == 200, "readiness",
                   timeout, self.processes())

    def close(self):
        processes = [*self.processes(), *self.draining.values()]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.close()


class OneProcess:
    """`switchyard serve`: all three services in one process. `prefix`: a command before
    its own."""

    def __init__(self, binaries, model, flags=(), port=None, on_line=None, env=None,
                 prefix=(), host=LOOPBACK):
        self.port = port or free_port()
        self.host = host
        self.command = [*prefix, os.path.join(binaries, "switchyard"), "serve", "--model",
                        model, "--host", host, "--port", str(self.port), *flags]
        self.on_line = on_line
        self.env = env
        self.process = None

    def start(self, timeout=120):
        self.process = Process("switchyard serve", self.command, env=self.env,
                               on_line=self.on_line)
        wait_until(lambda: get(self.port, "/readyz", host=self.host)[0] == 200,
                   "readiness", timeout, [self.process])
        return self

    def close(self):
        if self.process:
            self.process.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *unused):
        self.close()


class HttpError(Exception):
    def __init__(self, status, body):
        super().__init__(f"HTTP {status}: {body[:2000]}")
        self.status = status
        self.body = body


def post(port, path, body, timeout=300, host=LOOPBACK):
    """POSTs JSON (or raw bytes), returns the parsed answer; HttpError unless 200."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        if answer.status != 200:
            raise HttpError(answer.status, text)
        return json.loads(text)
    finally:
        connection.close()


def stream(port, path, body, timeout=300, host=LOOPBACK):
    """POSTs JSON with "stream": true and yields each event's object."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps({**body, "stream": True}),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise HttpError(answer.status, answer.read().decode("utf-8", "replace"))
        for raw in answer:
            line = raw.decode().rstrip("\r\n")
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            event = json.loads(data)
            if "error" in event:
                raise HttpError(200, data)
            yield event
        raise HttpError(200, "the stream ended without [DONE]")
    finally:
        connection.close()
