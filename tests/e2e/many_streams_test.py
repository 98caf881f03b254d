"""A thousand open streams on one router, whose clients read nothing: bounded memory, others
are served, and nothing is left of them when they go."""

import json
import re
import resource
import socket

import e2e_case
from local_cluster import LOOPBACK, Cluster, get, wait_until

STREAMS = 1000
ROUTER_BYTES = 200 << 20

BODY = json.dumps({
    "model": "default", "stream": True, "max_tokens": 3000, "ignore_eos": True,
    "messages": [{"role": "user", "content": "Count on, as far as you can."}]}).encode()
REQUEST = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\n"
           b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)) + BODY


def open_requests(port):
    """Running and waiting, as the router counts them."""
    text = get(port, "/metrics", timeout=60)[1]
    return sum(float(value) for value in re.findall(
        r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)$", text, re.M))


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status
                    if line.startswith("VmRSS"))


class ManyStreams(e2e_case.TestCase):
    def test_a_thousand(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # What a shell gives its programs, or less: the router helps itself.
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        self.addCleanup(cluster.close)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        before = resident_bytes(cluster.router.pid)
        streams = []
        self.addCleanup(lambda: [stream.close() for stream in streams])
        for _ in range(STREAMS):
            stream = socket.create_connection((LOOPBACK, cluster.port), timeout=60)
            stream.sendall(REQUEST)
            streams.append(stream)
        wait_until(lambda: open_requests(cluster.port) >= STREAMS, "open streams",
                   120 * e2e_case.SLOWER, [cluster.router])
        with_streams = resident_bytes(cluster.router.pid)
        print(f"router: {before >> 20} MiB, with {STREAMS} streams {with_streams >> 20} MiB")
        if e2e_case.SLOWER == 1:  # a sanitizer's memory is its own
            self.assertLess(with_streams, ROUTER_BYTES)
        # Nobody reads, and yet the router answers.
        self.assertEqual(get(cluster.port, "/readyz", timeout=60)[0], 200)
        for stream in streams:
            stream.close()
        streams.clear()
        wait_until(lambda: open_requests(cluster.port) == 0, "end of all streams",
                   120 * e2e_case.SLOWER, [cluster.router])
        answer = e2e_case.ask(cluster.port, {
            "model": "default", "max_tokens": 5,
            "messages": [{"role": "user", "content": "Tell me the capital of Peru."}]})
        self.assertEqual(answer["usage"]["completion_tokens"], 5)


if __name__ == "__main__":
    e2e_case.main()
