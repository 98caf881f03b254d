"""Requests with known answers, asked again and again while something happens.

Every answer is compared with that of an undisturbed run: text, token ids, logprobs,
reason of the end, tokens counted. And every event's time is kept, so that one can tell
how long the longest silence at a given moment was.
"""

import array
import contextlib
import http.client
import itertools
import json
import os
import threading
import time

import local_cluster

PATH = "/v1/chat/completions"
# Of threads that watch, where this process may: clients have machines of their own, and do
# not wait for the CPUs that they keep busy.
NICE = -10

# What makes requests differ where a replay could go wrong.
KINDS = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1.0, "top_p": 0.95},
    "penalised": {"temperature": 0.9, "presence_penalty": 0.7, "frequency_penalty": 0.4,
                  "repetition_penalty": 1.1},
    "logprobs": {"temperature": 0.8, "logprobs": True, "top_logprobs": 3},
}


def requests(count, tokens=200):
    """`count` different bodies, of all kinds, streamed and not."""
    bodies = []
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        bodies.append({
            "model": "default", "seed": i, "max_tokens": tokens, "ignore_eos": True,
            "return_token_ids": True, "stream": i // len(KINDS) % 4 != 3,
            "messages": [{"role": "user",
                          "content": f"Story {i}: count on from {i * 7} and say why."}],
            **KINDS[kind]})
    return bodies


class Answer:
    """What one request brought, as far as it came."""

    def __init__(self):
        self.content = ""
        self.token_ids = []
        self.logprobs = []
        self.finish_reason = None
        self.usage = None
        self.times = []  # of the request, then of each event

    def essence(self):
        """All that must not depend on what happened meanwhile."""
        return (self.content, self.token_ids, self.logprobs, self.finish_reason,
                self.usage)

    def add(self, choice, message):
        self.content += message.get("content") or ""
        self.token_ids += choice.get("token_ids") or []
        self.logprobs += (choice.get("logprobs") or {}).get("content") or []
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def count(self, usage):
        self.usage = (usage["prompt_tokens"], usage["completion_tokens"])


def ask(port, body, answer, timeout, headers=None):
    """Fills `answer`. HttpError, OSError, HTTPException: it was not to be had."""
    connection = http.client.HTTPConnection(local_cluster.LOOPBACK, port, timeout=timeout)
    answer.times.append(time.monotonic())
    try:
        if body["stream"]:
            body = {**body, "stream_options": {"include_usage": True}}
        connection.request("POST", PATH, json.dumps(body),
                           {"Content-Type": "application/json", **(headers or {})})
        reply = connection.getresponse()
        if reply.status != 200:
            raise local_cluster.HttpError(reply.status, reply.read().decode())
        if not body["stream"]:
            whole = json.loads(reply.read())
            answer.times.append(time.monotonic())
            answer.add(whole["choices"][0], whole["choices"][0]["message"])
            answer.count(whole["usage"])
            return
        for raw in reply:
            line = raw.decode().rstrip("\r\n")
            if not line.startswith("data:"):
                continue
            answer.times.append(time.monotonic())
            data = line[5:].strip()
            if data == "[DONE]":
                return
            event = json.loads(data)
            if "error" in event:
                raise local_cluster.HttpError(200, data)
            for choice in event["choices"]:
                answer.add(choice, choice["delta"])
            if event.get("usage"):
                answer.count(event["usage"])
        raise local_cluster.HttpError(200, "the stream ended without [DONE]")
    finally:
        connection.close()


class CheckedLoad:
    """`streams` threads that ask `bodies` in turn until stop().

    After stop(): `failures` (texts), `changed` (index of the body, what was expected,
    what came), `done` (for each answer its Answer.times; none if it was not streamed).
    expect() first.
    """

    def __init__(self, port, bodies, streams, timeout=120):
        self._port = port
        self._bodies = bodies
        self._timeout = timeout
        self._turn = itertools.count()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._expected = []
        self._running = {}  # by thread, the answer that it is at
        self.failures = []
        self.changed = []
        self.done = []
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True)
                         for i in range(streams)]

    def expect(self):
        """Asks each body once, undisturbed, four at a time."""
        self._expected = [Answer() for _ in self._bodies]
        turn = itertools.count()

        def work():
            while (i := next(turn)) < len(self._bodies):
                ask(self._port, self._bodies[i], self._expected[i], self._timeout)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost = [i for i, answer in enumerate(self._expected) if answer.usage is None]
        if lost:
            raise RuntimeError(f"requests {lost} failed without any disturbance")
        return self

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def finish_soon(self):
        """No thread begins another request."""
        self._stopping.set()

    def stop(self):
        """Lets every thread finish the request that it is at."""
        self.finish_soon()
        deadline = time.monotonic() + self._timeout + 10
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                self.failures.append("a request did not end")

    def num_done(self):
        with self._lock:
            return len(self.done)

    def num_events(self):
        """Of streams, so far."""
        with self._lock:
            return (sum(map(len, self.done)) +
                    sum(len(answer.times) for answer in self._running.values()))

    def _run(self, number):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stopping.is_set():
            i = next(self._turn) % len(self._bodies)
            answer = Answer()
            with self._lock:
                self._running[number] = answer
            error = None
            try:
                ask(self._port, self._bodies[i], answer, self._timeout)
            except (local_cluster.HttpError, OSError, http.client.HTTPException,
                    ValueError) as what:
                error = f"request {i} after {len(answer.token_ids)} tokens: {what!r}"
            expected = self._expected[i].essence()
            with self._lock:
                del self._running[number]
                if error:
                    self.failures.append(error)
                    continue
                if answer.essence() != expected:
                    self.changed.append((i, expected, answer.essence()))
                self.done.append(array.array(
                    "d", answer.times if self._bodies[i]["stream"] else ()))

    def stalls(self, moments, window):
        """For each moment the longest silence of any stream that was open then and that
        began no later than `window` seconds behind it; None where no stream was open.
        After stop()."""
        return [max((s for pair in self.silences(moment, window) for s in pair
                     if s is not None), default=None) for moment in moments]

    def silences(self, moment, window):
        """For each stream that was open then: the longest silence that began no later than
        `window` seconds behind the moment, before its first event and between two events,
        each None where there was none. After stop()."""
        found = []
        for times in self.done:
            gaps = [b - a if a <= moment + window and b >= moment else None
                    for a, b in itertools.pairwise(times)]
            first = gaps[0] if gaps else None
            between = max((gap for gap in gaps[1:] if gap is not None), default=None)
            if first is not None or between is not None:
                found.append((first, between))
        return found


def percentile(values, share):
    """The value that `share` of `values` do not exceed; the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]
