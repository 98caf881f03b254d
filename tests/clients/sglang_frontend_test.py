"""SGLang's frontend language, unmodified, against the native endpoints: multi-turn
programs, select, outputs held to a format, batches and streams.

Runs in the virtual environment that scripts/install_test_clients makes.
"""

import json
import urllib.request

import sglang as sgl
from sglang.lang.choices import token_length_normalized

import e2e_case
from local_cluster import Cluster

POINT = {"type": "object", "properties": {"x": {"type": "integer", "maximum": 99, "minimum": 0},
                                          "up": {"type": "boolean"}},
         "required": ["x", "up"], "additionalProperties": False}
MEXICO = "Tell me the capital of Mexico."


@sgl.function
def ask(s, question):
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=40, temperature=0))


@sgl.function
def ask_twice(s, first, second):
    s += sgl.user(first)
    s += sgl.assistant(sgl.gen("first", max_tokens=40, temperature=0))
    s += sgl.user(second)
    s += sgl.assistant(sgl.gen("second", max_tokens=40, temperature=0))


@sgl.function
def choose(s, question, choices):
    s += sgl.user(question)
    s += sgl.assistant("The capital of Mexico is " + sgl.select(
        "choice", choices, choices_method=token_length_normalized))


@sgl.function
def typed(s, question):
    s += sgl.user(question)
    s += sgl.assistant(
        "In " + sgl.gen("year", regex=r"(19|20)\d\d", max_tokens=8, temperature=0) +
        sgl.gen("point", json_schema=json.dumps(POINT), max_tokens=60, temperature=0))


class SglangFrontend(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.cluster.close)
        cls.url = f"http://127.0.0.1:{cls.cluster.port}"
        # The demo's path says nothing of its template, which is ChatML.
        sgl.set_default_backend(sgl.RuntimeEndpoint(cls.url, chat_template_name="chatml"))

    def test_a_turn(self):
        state = ask.run(question=MEXICO)
        self.assertIn("Mexico City", state["answer"])
        self.assertEqual(state.get_meta_info("answer")["finish_reason"]["type"], "stop")

    def test_two_turns(self):
        state = ask_twice.run(first=MEXICO, second="Tell me the capital of Peru.")
        self.assertIn("Mexico City", state["first"])
        self.assertTrue(state["second"])

    def test_a_stream(self):
        whole = ask.run(question=MEXICO)["answer"]
        state = ask.run(question=MEXICO, stream=True)
        self.assertEqual("".join(state.text_iter("answer")), whole)

    def test_a_batch(self):
        states = ask.run_batch([{"question": MEXICO}] * 4, num_threads=2)
        self.assertEqual(len({state["answer"] for state in states}), 1)

    def test_select(self):
        choices = ["Mexico City", "Paris", "Lima"]
        state = choose.run(question=MEXICO, choices=choices)
        self.assertEqual(state["choice"], "Mexico City")

    def test_typed_output(self):
        state = typed.run(question=MEXICO)
        self.assertRegex(state["year"], r"^(19|20)\d\d$")
        point = json.loads(state["point"])
        self.assertEqual(set(point), {"x", "up"})
        self.assertIn(point["x"], range(100))

    def test_flush_cache_and_infos(self):
        backend = sgl.RuntimeEndpoint(self.url, chat_template_name="chatml")
        backend.flush_cache()
        self.assertTrue(backend.get_model_name())
        self.assertTrue(backend.get_server_info()["version"])
        body = {"text": "x", "sampling_params": {"max_new_tokens": 1}, "rid": "named"}
        request = urllib.request.Request(
            self.url + "/generate", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            self.assertEqual(json.load(reply)["meta_info"]["id"], "named")


if __name__ == "__main__":
    e2e_case.main()
