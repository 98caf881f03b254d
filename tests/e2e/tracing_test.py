"""A request's trace goes from the router to the attention worker, and asking for none is
heard. (What a collector gets is tested in tests/tracing.)"""

import http.client
import json

import e2e_case
from local_cluster import LOOPBACK, Cluster, get, wait_until

# Nobody listens there: spans are made, sent, and counted as failed.
NOWHERE = ["--otlp-traces-endpoint", f"{LOOPBACK}:1"]


def spans(port):
    """How many left the process, with whatever result."""
    return sum(float(line.split()[-1]) for line in get(port, "/metrics")[1].split("\n")
               if line.startswith("switchyard_trace_spans_total{"))


class Tracing(e2e_case.TestCase):
    def ask(self, port, traceparent=None):
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60 * e2e_case.SLOWER)
        try:
            connection.request("POST", "/v1/completions", json.dumps(
                {"model": "demo", "prompt": "a", "max_tokens": 2}),
                {"traceparent": traceparent} if traceparent else {})
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200, answer.read())
            answer.read()
        finally:
            connection.close()

    def test_traces_reach_every_service(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"], router_flags=NOWHERE,
                     attention_flags=NOWHERE) as cluster:
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
            self.ask(cluster.port, trace + "00")
            self.assertEqual(spans(cluster.attention_metrics_port), 0)
            for wanted, traceparent in ((1, trace + "01"), (2, None)):
                before = spans(cluster.attention_metrics_port)
                self.ask(cluster.port, traceparent)
                # The whole, queue, prefill and decode: the fifth is the expert worker's.
                wait_until(lambda b=before: spans(cluster.attention_metrics_port) >= b + 5,
                           f"the spans of request {wanted}", 60, [cluster.attention])
            wait_until(lambda: spans(cluster.port) > 0, "the router's spans", 60,
                       [cluster.router])


if __name__ == "__main__":
    e2e_case.main()
