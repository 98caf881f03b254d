"""The stock OpenAI Python client, unmodified, as an application developer uses it.

Runs in the virtual environment that scripts/install_test_clients makes.
"""

import json

import openai

import e2e_case
from local_cluster import Cluster

LIGHT = {"type": "function", "function": {
    "name": "light", "description": "Control the lights.",
    "parameters": {"type": "object", "properties": {
        "room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
        "required": ["room", "state"]}}}
MAIL = {"type": "function", "function": {
    "name": "send_message", "description": "Send an email.",
    "parameters": {"type": "object", "properties": {
        "recipient": {"type": "string"},
        "text": {"type": "string", "description": "The text"}},
        "required": ["recipient", "text"]}}}
CALL_FOR_LIGHT = [{"role": "user", "content": "Light off in the cellar."}]
MEXICO = [{"role": "user", "content": "Tell me the capital of Mexico."}]


class OpenAiPython(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO).start()
        cls.addClassCleanup(cls.cluster.close)
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.cluster.port}/v1",
                                   api_key="unused", timeout=60 * e2e_case.SLOWER)

    def test_models(self):
        models = list(self.client.models.list())
        self.assertEqual(len(models), 1)
        self.assertEqual(self.client.models.retrieve(models[0].id).id, models[0].id)

    def test_chat(self):
        answer = self.client.chat.completions.create(model="default", messages=MEXICO)
        self.assertEqual(answer.object, "chat.completion")
        self.assertIn("Mexico City", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertIsNotNone(answer.usage.prompt_tokens_details.cached_tokens)
        self.assertTrue(answer._request_id)

    def test_chat_streamed(self):
        whole = self.client.chat.completions.create(model="default", messages=MEXICO)
        text, reasons, usage = "", [], None
        for chunk in self.client.chat.completions.create(
                model="default", messages=MEXICO, stream=True,
                stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                reasons.append(chunk.choices[0].finish_reason)
            else:
                usage = chunk.usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual([reason for reason in reasons if reason], ["stop"])
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_event_ids_disturb_nobody(self):
        def text(**more):
            return "".join(
                chunk.choices[0].delta.content or ""
                for chunk in self.client.chat.completions.create(
                    model="default", messages=MEXICO, stream=True, **more))

        self.assertEqual(text(extra_headers={"x-stream-resumable": "1"}), text())

    def test_stream_helper(self):
        with self.client.chat.completions.stream(model="default",
                                                 messages=MEXICO) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        self.assertIn("Mexico City", final.choices[0].message.content)

    def test_tool_call_and_answer(self):
        for streamed in (False, True):
            with self.subTest(streamed=streamed):
                if streamed:
                    with self.client.chat.completions.stream(
                            model="default", messages=CALL_FOR_LIGHT,
                            tools=[MAIL, LIGHT]) as stream:
                        for _ in stream:
                            pass
                        choice = stream.get_final_completion().choices[0]
                else:
                    choice = self.client.chat.completions.create(
                        model="default", messages=CALL_FOR_LIGHT,
                        tools=[MAIL, LIGHT]).choices[0]
                self.assertEqual(choice.finish_reason, "tool_calls")
                call = choice.message.tool_calls[0]
                self.assertEqual(call.function.name, "light")
                self.assertEqual(json.loads(call.function.arguments),
                                 {"room": "cellar", "state": "off"})
                history = CALL_FOR_LIGHT + [
                    choice.message.model_dump(exclude_none=True),
                    {"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'}]
                after = self.client.chat.completions.create(
                    model="default", messages=history, tools=[MAIL, LIGHT])
                self.assertEqual(after.choices[0].finish_reason, "stop")
                self.assertTrue(after.choices[0].message.content)

    def test_reasoning(self):
        answer = self.client.chat.completions.create(
            model="default", messages=[{"role": "user", "content":
                                        "A factory builds 8 parts and each needs 5 minutes. "
                                        "How many minutes does it need?"}],
            extra_body={"chat_template_kwargs": {"enable_thinking": True}})
        message = answer.choices[0].message
        self.assertIn("8*5=40", message.reasoning_content)
        self.assertIn("40 minutes", message.content)
        self.assertNotIn("think>", message.content)

    def test_logprobs(self):
        answer = self.client.chat.completions.create(
            model="default", messages=MEXICO, logprobs=True, top_logprobs=2)
        entries = answer.choices[0].logprobs.content
        self.assertEqual(len(entries), answer.usage.completion_tokens)
        for entry in entries:
            self.assertLessEqual(entry.logprob, 0)
            self.assertEqual(len(entry.top_logprobs), 2)
            self.assertEqual(entry.top_logprobs[0].token, entry.token)  # greedy
        self.assertTrue(answer.choices[0].message.content.startswith(
            "".join(entry.token for entry in entries[:3])))

    def test_completions(self):
        answer = self.client.completions.create(
            model="default", prompt="<|im_start|>user\nTell me the capital of Mexico."
            "<|im_end|>\n<|im_start|>assistant\n", max_tokens=30)
        self.assertIn("Mexico City", answer.choices[0].text)

    def test_stop_and_length(self):
        answer = self.client.chat.completions.create(
            model="default", messages=MEXICO, stop=["Mexico City"])
        self.assertNotIn("Mexico City", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        answer = self.client.chat.completions.create(
            model="default", messages=MEXICO, max_completion_tokens=2)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 2)

    def test_thinking_budget(self):
        def think(budget):
            return self.client.chat.completions.create(
                model="default", messages=[{"role": "user", "content":
                                            "A factory builds 8 parts and each needs 5 minutes. "
                                            "How many minutes does it need?"}],
                extra_body={"enable_thinking": True, "thinking_budget": budget})
        free, bound = think(1000), think(3)
        spent = free.usage.completion_tokens_details.reasoning_tokens
        self.assertGreater(spent, 6)
        # Three tokens, and those that close it.
        self.assertLessEqual(bound.usage.completion_tokens_details.reasoning_tokens, 6)
        self.assertTrue(free.choices[0].message.reasoning_content.startswith(
            bound.choices[0].message.reasoning_content))
        self.assertTrue(bound.choices[0].message.content)

    def test_rules_about_tokens(self):
        plain = self.client.chat.completions.create(
            model="default", messages=MEXICO, extra_body={"return_token_ids": True})
        ids = plain.choices[0].token_ids
        banned = self.client.chat.completions.create(
            model="default", messages=MEXICO, logit_bias={str(ids[0]): -100},
            extra_body={"return_token_ids": True}, max_tokens=20)
        self.assertNotEqual(banned.choices[0].token_ids[0], ids[0])
        longer = self.client.chat.completions.create(
            model="default", messages=MEXICO, max_tokens=len(ids) + 5,
            extra_body={"return_token_ids": True, "min_tokens": len(ids) + 2})
        self.assertEqual(longer.choices[0].token_ids[:len(ids) - 1], ids[:-1])
        self.assertGreater(len(longer.choices[0].token_ids), len(ids) + 1)

    def test_an_echoed_prompt_has_the_logprobs_of_its_generation(self):
        prompt = "<|im_start|>user\nTell me the capital of Mexico.<|im_end|>\n"
        out = self.client.completions.create(
            model="default", prompt=prompt, max_tokens=8, temperature=0, logprobs=1,
            extra_body={"return_token_ids": True}).choices[0]
        scored = self.client.completions.create(
            model="default", prompt=out.prompt_token_ids + out.token_ids, max_tokens=0,
            echo=True, logprobs=1)
        again = scored.choices[0].logprobs
        self.assertIsNone(again.token_logprobs[0])
        self.assertEqual(len(again.tokens), scored.usage.prompt_tokens)
        self.assertEqual(again.token_logprobs[-len(out.token_ids):],
                         out.logprobs.token_logprobs)

    def test_seeded_sampling_repeats(self):
        def sample(seed):
            return self.client.chat.completions.create(
                model="default", messages=MEXICO, temperature=1.5, seed=seed,
                max_tokens=20).choices[0].message.content
        texts = [sample(seed) for seed in range(8)]
        self.assertEqual(texts, [sample(seed) for seed in range(8)])
        self.assertGreater(len(set(texts)), 1)

    def test_errors_have_their_classes(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.chat.completions.create(model="default", messages=[])
        self.assertTrue(refused.exception.message)
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="default", input="x")


if __name__ == "__main__":
    e2e_case.main()
