"""Two routers in front of the same workers: a client whose router dies goes on at the
other one, and the two parts are, byte for byte, the stream that it would have had."""

import http.client
import json

import e2e_case
from local_cluster import LOOPBACK, Cluster


class Stream:
    """One streamed answer, event by event, as the bytes that came."""

    def __init__(self, port, body, headers):
        self._connection = http.client.HTTPConnection(LOOPBACK, port,
                                                      timeout=120 * e2e_case.SLOWER)
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body),
                                 {"Content-Type": "application/json", **headers})
        self.answer = self._connection.getresponse()

    def events(self, at_most=None):
        """Whole ones; fewer if the connection breaks."""
        events = []
        lines = []
        try:
            while at_most is None or len(events) < at_most:
                line = self.answer.readline()
                if not line:
                    break
                lines.append(line)
                if line == b"\n":
                    events.append(b"".join(lines))
                    lines = []
        except (OSError, http.client.HTTPException):
            pass
        return events

    def close(self):
        self.answer.close()
        self._connection.close()


def event_id(event):
    """The id, as the standard has it: of any line of the event."""
    for line in event.decode().split("\n"):
        if line.startswith("id: "):
            return line[len("id: "):]
    return None


def body(**more):
    return {"model": "default", "stream": True, "max_tokens": 300, "ignore_eos": True,
            "messages": [{"role": "user", "content": "Tell a long story."}],
            "stream_options": {"include_usage": True}, **more}


class TwoRouters(e2e_case.TestCase):
    def test_a_client_goes_on_at_the_other_router(self):
        cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, num_attention=2, num_routers=2)
        self.addCleanup(cluster.close)
        cluster.start()
        # No seed in the request: the first router draws it.
        for number, more in enumerate(({"temperature": 1.0},
                                       {"temperature": 0.8, "logprobs": True,
                                        "top_logprobs": 2, "presence_penalty": 0.5},
                                       {"temperature": 0})):
            with self.subTest(**more):
                first, other = cluster.ports[number % 2], cluster.ports[1 - number % 2]
                stream = Stream(first, body(**more), {"x-stream-resumable": "1"})
                self.assertEqual(stream.answer.status, 200)
                had = stream.events(at_most=100 + 20 * number)
                # kill -9; what was under way to the client may still arrive.
                cluster.routers[number % 2].kill()
                had += stream.events()
                stream.close()
                self.assertLess(len(had), 300, "the router died too late to matter")
                last = event_id(had[-1])
                self.assertTrue(last.startswith(stream.answer.getheader("x-stream-id")))

                resumed = Stream(other, body(**more), {"Last-Event-ID": last})
                if resumed.answer.status != 200:
                    self.fail(f"{resumed.answer.status}: {resumed.answer.read()}")
                rest = resumed.events()
                resumed.close()
                # Undisturbed, by the same id from its beginning.
                stream_id = stream.answer.getheader("x-stream-id")
                cached = last.split("-")[2]
                whole = Stream(other, body(**more),
                               {"Last-Event-ID": f"{stream_id}-0-{cached}"})
                expected = whole.events()
                whole.close()
                self.assertEqual(b"".join(had + rest), b"".join(expected))
                self.assertEqual(rest[-1], b"data: [DONE]\n\n")
                self.assertEqual(len(expected), len(had) + len(rest))

                cluster.start_router(number % 2)
                cluster.wait_ready()


if __name__ == "__main__":
    e2e_case.main()
