"""How fast a server decodes: streams that begin together, without their beginnings."""

import threading
import time

from local_cluster import LOOPBACK, stream

# Of each stream: they come while the others' prompts are read.
SKIPPED = 4
TIMEOUT = 3600


class Streams:
    """One stream a prompt (token ids), all at the same time, of SKIPPED + `tokens`.

    run() fills `token_ids` (of each prompt) and `rate`: tokens a second of all streams
    while all of them are past their first SKIPPED tokens and none has ended. Where that is
    less than half of the time from the first of those tokens to the last of all (short
    streams, or a server that does not take all at once), in all of it. `more`: members of
    the requests.
    """

    def __init__(self, port, prompts, tokens, host=LOOPBACK, **more):
        self.rate = None
        self.token_ids = [[] for _ in prompts]
        self._port = port
        self._host = host
        self._bodies = [{"model": "default", "max_tokens": tokens + SKIPPED,
                         "ignore_eos": True, "return_token_ids": True, "prompt": prompt,
                         **more} for prompt in prompts]
        self._begin = threading.Barrier(len(prompts))
        self._steady = threading.Semaphore(0)  # one more for each stream that is
        self._times = []  # of each stream's tokens, without those that are skipped
        self._errors = []

    def run(self, when_steady=None):
        """`when_steady` is called when all streams are past what is skipped."""
        threads = [threading.Thread(target=self._read, args=(i,), daemon=True)
                   for i in range(len(self._bodies))]
        for thread in threads:
            thread.start()
        for _ in threads:
            self._steady.acquire()
        if when_steady and not self._errors:
            when_steady()
        for thread in threads:
            thread.join()
        if self._errors:
            raise RuntimeError(f"a stream failed: {self._errors[0]}")
        self.rate = self._rate()
        return self

    def _rate(self):
        firsts = [times[0] for times in self._times]
        lasts = [times[-1] for times in self._times]
        begin, end = max(firsts), min(lasts)
        if end - begin < (max(lasts) - min(firsts)) / 2:
            begin, end = min(firsts), max(lasts)
        tokens = sum(begin < time <= end for times in self._times for time in times)
        return tokens / (end - begin)

    def _read(self, index):
        ids, times = self.token_ids[index], []
        try:
            self._begin.wait(TIMEOUT)
            for event in stream(self._port, "/v1/completions", self._bodies[index],
                                timeout=TIMEOUT, host=self._host):
                for choice in event["choices"]:
                    new = choice.get("token_ids") or []
                    if len(ids) <= SKIPPED < len(ids) + len(new):
                        self._steady.release()
                    ids += new
                    times += [time.monotonic()] * len(new)
            if len(ids) != self._bodies[index]["max_tokens"]:
                raise RuntimeError(f"{len(ids)} tokens came instead of "
                                   f"{self._bodies[index]['max_tokens']}")
            self._times.append(times[SKIPPED:])
        except Exception as error:  # run() tells: a thread has nobody to raise it to
            self._errors.append(error)
            self._steady.release()
