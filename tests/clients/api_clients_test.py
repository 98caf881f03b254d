"""Other APIs through their own clients, unmodified: Anthropic's messages and
OpenAI's responses.

Runs in the virtual environment that scripts/install_test_clients makes.
"""

import json

import anthropic
import openai

import e2e_case
from local_cluster import Cluster

LIGHT = {"name": "light", "description": "Control the lights.",
         "parameters": {"type": "object", "properties": {
             "room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
             "required": ["room", "state"]}}
OFF = "Light off in the cellar."
MEXICO = "Tell me the capital of Mexico."
PARTS = ("A factory builds 8 parts and each needs 5 minutes. "
         "How many minutes does it need?")


class ApiClients(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.cluster.close)
        url = f"http://127.0.0.1:{cls.cluster.port}"
        cls.claude = anthropic.Anthropic(base_url=url, api_key="unused",
                                         timeout=60 * e2e_case.SLOWER)
        cls.openai = openai.OpenAI(base_url=url + "/v1", api_key="unused",
                                   timeout=60 * e2e_case.SLOWER)

    def test_messages(self):
        answer = self.claude.messages.create(
            model="any", max_tokens=100, messages=[{"role": "user", "content": MEXICO}])
        self.assertIn("Mexico City", answer.content[0].text)
        self.assertEqual(answer.stop_reason, "end_turn")
        self.assertGreater(answer.usage.output_tokens, 0)
        counted = self.claude.messages.count_tokens(
            model="any", messages=[{"role": "user", "content": MEXICO}])
        self.assertEqual(counted.input_tokens, answer.usage.input_tokens +
                         answer.usage.cache_read_input_tokens)

    def test_messages_streamed(self):
        with self.claude.messages.stream(
                model="any", max_tokens=100,
                messages=[{"role": "user", "content": MEXICO}]) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertIn("Mexico City", text)
        self.assertEqual(final.content[0].text, text)
        self.assertEqual(final.stop_reason, "end_turn")

    def test_messages_with_thinking(self):
        with self.claude.messages.stream(
                model="any", max_tokens=2000,
                thinking={"type": "enabled", "budget_tokens": 1024},
                messages=[{"role": "user", "content": PARTS}]) as stream:
            final = stream.get_final_message()
        self.assertEqual([block.type for block in final.content], ["thinking", "text"])
        self.assertIn("8*5=40", final.content[0].thinking)
        self.assertIn("40 minutes", final.content[1].text)

    def test_messages_with_tools(self):
        tools = [{"name": LIGHT["name"], "description": LIGHT["description"],
                  "input_schema": LIGHT["parameters"]}]
        for streamed in (False, True):
            with self.subTest(streamed=streamed):
                asked = dict(model="any", max_tokens=200, tools=tools,
                             messages=[{"role": "user", "content": OFF}])
                if streamed:
                    with self.claude.messages.stream(**asked) as stream:
                        answer = stream.get_final_message()
                else:
                    answer = self.claude.messages.create(**asked)
                self.assertEqual(answer.stop_reason, "tool_use")
                call = [block for block in answer.content if block.type == "tool_use"][0]
                self.assertEqual(call.input, {"room": "cellar", "state": "off"})
                after = self.claude.messages.create(
                    model="any", max_tokens=200, tools=tools,
                    messages=asked["messages"] + [
                        {"role": "assistant", "content": answer.content},
                        {"role": "user", "content": [
                            {"type": "tool_result", "tool_use_id": call.id,
                             "content": '{"ok": true}'}]}])
                self.assertEqual(after.stop_reason, "end_turn")
                self.assertTrue(after.content[0].text)

    def test_messages_errors_have_their_classes(self):
        with self.assertRaises(anthropic.BadRequestError) as refused:
            self.claude.messages.create(model="any", max_tokens=5, messages=[])
        self.assertEqual(refused.exception.body["error"]["type"], "invalid_request_error")

    def test_responses(self):
        first = self.openai.responses.create(model="any", input=MEXICO)
        self.assertEqual(first.status, "completed")
        self.assertIn("Mexico City", first.output_text)
        self.assertEqual(self.openai.responses.retrieve(first.id).output_text,
                         first.output_text)
        items = self.openai.responses.input_items.list(first.id)
        self.assertEqual(items.data[0].content[0].text, MEXICO)
        second = self.openai.responses.create(model="any", input=MEXICO,
                                              previous_response_id=first.id)
        self.assertGreater(second.usage.input_tokens, first.usage.input_tokens)
        self.openai.responses.delete(first.id)
        with self.assertRaises(openai.NotFoundError):
            self.openai.responses.retrieve(first.id)

    def test_responses_streamed(self):
        with self.openai.responses.stream(model="any", input=MEXICO) as stream:
            text = "".join(event.delta for event in stream
                           if event.type == "response.output_text.delta")
            final = stream.get_final_response()
        self.assertIn("Mexico City", text)
        self.assertEqual(final.output_text, text)

    def test_responses_with_tools(self):
        tools = [{"type": "function", "strict": False, **LIGHT}]
        items = [{"role": "user", "content": OFF}]
        for streamed in (False, True):
            with self.subTest(streamed=streamed):
                if streamed:
                    with self.openai.responses.stream(model="any", input=items,
                                                      tools=tools) as stream:
                        for _ in stream:
                            pass
                        answer = stream.get_final_response()
                else:
                    answer = self.openai.responses.create(model="any", input=items,
                                                          tools=tools)
                call = [item for item in answer.output if item.type == "function_call"][0]
                self.assertEqual(json.loads(call.arguments),
                                 {"room": "cellar", "state": "off"})
                history = items + [item.to_dict() for item in answer.output] + [
                    {"type": "function_call_output", "call_id": call.call_id,
                     "output": '{"ok": true}'}]
                after = self.openai.responses.create(model="any", input=history, tools=tools)
                self.assertTrue(after.output_text)


if __name__ == "__main__":
    e2e_case.main()
