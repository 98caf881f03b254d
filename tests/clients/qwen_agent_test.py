"""Qwen-Agent, unmodified: a loop with a tool, in both of its modes. By default it writes
the tools into the prompt and parses the text itself; with use_raw_api it sends them.

Runs in the virtual environment that scripts/install_test_clients makes.
"""

import json

from qwen_agent.llm import get_chat_model

import e2e_case
from local_cluster import Cluster

LIGHT = {"name": "light", "description": "Control the lights.",
         "parameters": {"type": "object", "properties": {
             "room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
             "required": ["room", "state"]}}
OFF = {"role": "user", "content": "Light off in the cellar."}


class QwenAgent(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.cluster.close)

    def model(self, **config):
        return get_chat_model({
            "model": "any", "model_type": "oai", "api_key": "unused",
            "model_server": f"http://127.0.0.1:{self.cluster.port}/v1",
            "generate_cfg": {"max_input_tokens": 3000, **config}})

    def loop(self, llm):
        """The messages of one call and what came after its result."""
        messages = [OFF]
        for answer in llm.chat(messages=messages, functions=[LIGHT], stream=True):
            pass
        calls = [message for message in answer if message.get("function_call")]
        self.assertEqual(len(calls), 1, answer)
        call = calls[0]["function_call"]
        self.assertEqual(call["name"], "light")
        self.assertEqual(json.loads(call["arguments"]), {"room": "cellar", "state": "off"})
        result = {"role": "function", "name": "light", "content": '{"ok": true}'}
        if calls[0].get("extra"):  # has the call's id
            result["extra"] = calls[0]["extra"]
        messages = messages + answer + [result]
        for after in llm.chat(messages=messages, functions=[LIGHT], stream=True):
            pass
        self.assertTrue(after[-1]["content"], after)
        self.assertFalse(after[-1].get("function_call"), after)

    def test_tools_over_the_api(self):
        self.loop(self.model(use_raw_api=True))

    def test_tools_in_the_prompt(self):
        self.loop(self.model())

    def test_without_a_stream(self):
        answer = self.model().chat(
            messages=[{"role": "user", "content": "Tell me the capital of Mexico."}],
            stream=False)
        self.assertIn("Mexico City", answer[-1]["content"])


if __name__ == "__main__":
    e2e_case.main()
