"""What clients put on the wire, case by case (docs/conformance.md has the numbers), against
a whole server: raw requests, so that no client library mends anything on the way."""

import http.client
import json
import socket

import e2e_case
from local_cluster import LOOPBACK, OneProcess, wait_until

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Tell me the capital of Mexico."}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


class Wire(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = OneProcess(e2e_case.BINARIES, e2e_case.DEMO)
        cls.addClassCleanup(cls.server.close)
        cls.server.start(120 * e2e_case.SLOWER)

    def request(self, path, body=None, headers=None, method=None, port=None):
        """(status, headers, text)"""
        connection = http.client.HTTPConnection(LOOPBACK, port or self.server.port,
                                                timeout=120 * e2e_case.SLOWER)
        try:
            connection.request(
                method or ("GET" if body is None else "POST"), path,
                json.dumps(body) if isinstance(body, dict) else body,
                {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def post(self, path, body):
        status, _, text = self.request(path, body)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def chat(self, **fields):
        return self.post(CHAT, {"messages": HI, "max_tokens": 4, "temperature": 0, **fields})

    def message(self, messages, **fields):
        return self.chat(messages=messages, **fields)["choices"][0]["message"]

    def events(self, path, body):
        status, _, text = self.request(path, {**body, "stream": True})
        self.assertEqual(status, 200, text)
        return [line[6:] for line in text.split("\n") if line.startswith("data: ")]

    def chunks(self, **fields):
        events = self.events(CHAT, {"messages": HI, "max_tokens": 4, "temperature": 0,
                                    **fields})
        self.assertEqual(events[-1], "[DONE]")
        return [json.loads(event) for event in events[:-1]]

    def prompt_of(self, messages, **fields):
        return self.post("/tokenize", {"messages": messages, **fields})["tokens"]

    # 5.5, the checklist.

    def test_5_5_01_unknown_fields_are_ignored(self):
        plain = self.chat()["choices"]
        self.assertEqual(self.chat(nobody_knows={"a": [1]}, another=7)["choices"], plain)

    def test_5_5_02_null_is_absent(self):
        names = ["temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "tools",
                 "tool_choice", "response_format", "logprobs", "top_logprobs", "logit_bias",
                 "presence_penalty", "frequency_penalty", "repetition_penalty", "stream",
                 "stream_options", "max_tokens", "max_completion_tokens", "user", "rid",
                 "stop_token_ids", "ignore_eos", "min_tokens", "regex", "ebnf", "priority",
                 "chat_template_kwargs", "reasoning_effort", "separate_reasoning",
                 "stream_reasoning", "parallel_tool_calls", "stop_regex", "extra_key",
                 "cache_salt", "lora_path", "continue_final_message"]
        nulls = {name: None for name in names}
        self.assertEqual(self.chat(**{**nulls, "max_tokens": 4})["choices"],
                         self.post(CHAT, {"messages": HI, "max_tokens": 4})["choices"])

    def test_5_5_03_forms_of_content(self):
        text = self.prompt_of([{"role": "user", "content": "a"}])
        self.assertEqual(self.prompt_of([{"role": "user", "content": [
            {"type": "text", "text": "a"}]}]), text)
        for nothing in ({"content": None}, {}, {"content": ""}, {"content": []}):
            with self.subTest(nothing=nothing):
                self.message([*HI, {"role": "assistant", **nothing, "tool_calls": [
                    {"id": "1", "type": "function",
                     "function": {"name": "f", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "1", "content": "x"}])

    def test_5_5_04_arguments_as_text_or_object(self):
        def history(arguments):
            return self.prompt_of([*HI, {"role": "assistant", "tool_calls": [
                {"id": "1", "type": "function",
                 "function": {"name": "f", "arguments": arguments}}]}])
        self.assertEqual(history('{"x": 1}'), history({"x": 1}))

    def test_5_5_05_tool_messages_without_the_calls_id(self):
        def history(tool):
            return self.prompt_of([*HI, {"role": "assistant", "tool_calls": [
                {"id": "1", "type": "function",
                 "function": {"name": "f", "arguments": "{}"}}]}, tool])
        self.assertEqual(history({"role": "tool", "id": "1", "content": "x", "extra": {}}),
                         history({"role": "tool", "tool_call_id": "1", "content": "x"}))

    def test_5_5_06_developers_and_late_systems(self):
        system = self.prompt_of([{"role": "system", "content": "Be brief."}, *HI])
        self.assertEqual(
            self.prompt_of([{"role": "developer", "content": "Be brief."}, *HI]), system)
        late = self.message([*HI, {"role": "assistant", "content": "Yes?"},
                             {"role": "system", "content": "Be brief."}, *HI])
        self.assertEqual(late["role"], "assistant")

    def test_5_5_07_the_newer_name_of_max_tokens_wins(self):
        for fields, count in (({"max_tokens": 3}, 3), ({"max_completion_tokens": 2}, 2),
                              ({"max_tokens": 3, "max_completion_tokens": 2}, 2)):
            answer = self.chat(**{"max_tokens": None, "ignore_eos": True, **fields})
            self.assertEqual(answer["usage"]["completion_tokens"], count)

    def test_5_5_08_the_role_comes_with_the_first_token(self):
        first, *others = self.chunks()
        delta = first["choices"][0]["delta"]
        self.assertEqual(delta["role"], "assistant")
        self.assertTrue(delta["content"])
        for chunk in others:
            for choice in chunk["choices"]:
                self.assertNotIn("role", choice["delta"])

    def test_5_5_09_request_ids(self):
        _, headers, _ = self.request("/v1/models", headers={"x-request-id": "mine-1"})
        self.assertEqual(headers["x-request-id"], "mine-1")
        made = {self.request("/v1/models")[1]["x-request-id"] for _ in range(2)}
        self.assertEqual(len(made), 2)
        _, headers, _ = self.request(CHAT, b"{}", {"x-request-id": "mine-2"})
        self.assertEqual(headers["x-request-id"], "mine-2")

    def test_5_5_10_usage_has_its_details(self):
        streamed = self.chunks(stream_options={"include_usage": True})
        self.assertEqual(streamed[-1]["choices"], [])
        for usage in (self.chat()["usage"], streamed[-1]["usage"]):
            self.assertGreaterEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)
            self.assertEqual(usage["completion_tokens_details"]["reasoning_tokens"], 0)
            self.assertEqual(usage["total_tokens"],
                             usage["prompt_tokens"] + usage["completion_tokens"])
        for chunk in streamed[:-1]:
            self.assertIsNone(chunk["usage"])

    def test_5_5_11_comments_keep_a_stream_alive(self):
        # What is behind the first in the queue is silent from acceptance on.
        server = OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=[
            "--max-running-requests", "1", "--sse-ping-interval", "50ms"])
        self.addCleanup(server.close)
        server.start(120 * e2e_case.SLOWER)
        def stream():
            body = json.dumps({"messages": HI, "stream": True, "max_tokens": 3000,
                               "ignore_eos": True}).encode()
            connection = socket.create_connection((LOOPBACK, server.port),
                                                  timeout=120 * e2e_case.SLOWER)
            connection.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\n"
                               b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            return connection

        def until(connection, what):
            got = b""
            while what not in got:
                piece = connection.recv(65536)
                self.assertTrue(piece, got[-500:])
                got += piece
            return got
        with stream() as first:
            # Only then: who sends later may still be read sooner.
            until(first, b"data: ")
            with stream() as second:
                got = until(second, b"\r\n: keep-alive\n\n")
                self.assertNotIn(b"data: ", got)

    def test_5_5_12_errors_are_objects(self):
        for path, body, status in ((CHAT, b"{", 400), (CHAT, {"messages": []}, 400),
                                   ("/generate", {}, 400), ("/v1/completions", {}, 400),
                                   ("/v1/responses", {}, 400), ("/tokenize", {}, 400),
                                   ("/v1/embeddings", {}, 404), ("/nowhere", {}, 404),
                                   (CHAT, None, 405), ("/v1/models/other", None, 404)):
            with self.subTest(path=path):
                got, _, text = self.request(path, body)
                self.assertEqual(got, status)
                error = json.loads(text)["error"]
                self.assertLessEqual({"message", "type", "param", "code"}, set(error))
                self.assertTrue(error["message"])

    def test_5_5_13_the_fingerprint_is_of_build_and_weights(self):
        whole = self.chat()["system_fingerprint"]
        self.assertRegex(whole, r"^switchyard-[0-9.]+-[0-9a-f]{12}$")
        self.assertEqual({c["system_fingerprint"] for c in self.chunks()}, {whole})

    def test_5_5_14_finish_reasons(self):
        def reason(**fields):
            whole = self.chat(**fields)["choices"][0]["finish_reason"]
            streamed = [c["choices"][0]["finish_reason"] for c in self.chunks(**fields)]
            self.assertEqual(streamed[-1], whole)
            self.assertEqual(set(streamed[:-1]), {None})
            return whole
        self.assertEqual(reason(max_tokens=2, ignore_eos=True), "length")
        self.assertEqual(reason(max_tokens=64), "stop")
        self.assertEqual(reason(max_tokens=64, stop="Mexico"), "stop")
        self.assertEqual(reason(max_tokens=64, stop_regex="Mex\\w+o"), "stop")
        self.assertEqual(reason(max_tokens=200, tools=[TOOL], tool_choice="required",
                                parallel_tool_calls=False), "tool_calls")

    def test_5_5_15_streams_pass_proxies(self):
        _, headers, _ = self.request(CHAT, {"messages": HI, "max_tokens": 2,
                                            "stream": True})
        self.assertEqual(headers["Transfer-Encoding"], "chunked")
        self.assertEqual(headers["X-Accel-Buffering"], "no")
        self.assertEqual(headers["Cache-Control"], "no-cache")
        self.assertTrue(headers["Content-Type"].startswith("text/event-stream"))

    def test_prompt_logprobs(self):
        """vLLM's: each token of the prompt, with its rank, and the likeliest in its place."""
        ask = {"prompt": "The capital of Mexico is", "max_tokens": 2, "temperature": 0}
        whole = self.post("/v1/completions", {**ask, "prompt_logprobs": 20, "logprobs": 3,
                                              "echo": True, "return_token_ids": True})
        choice = whole["choices"][0]
        ids = choice["prompt_token_ids"]
        listed = choice["prompt_logprobs"]
        self.assertEqual(len(listed), len(ids))
        self.assertIsNone(listed[0])
        own = self.post("/v1/completions", {**ask, "prompt_logprobs": 0})
        own = own["choices"][0]["prompt_logprobs"]
        echoed = choice["logprobs"]
        for i in range(1, len(ids)):
            token = listed[i][str(ids[i])]
            # Whatever else is asked for.
            self.assertEqual(own[i], {str(ids[i]): token})
            self.assertEqual(token["logprob"], echoed["token_logprobs"][i])
            self.assertEqual(token["decoded_token"], echoed["tokens"][i])
            likeliest = [entry["logprob"] for _, entry in sorted(
                listed[i].items(), key=lambda item: item[1]["rank"])]
            self.assertEqual(likeliest, sorted(likeliest, reverse=True))
            self.assertEqual(len(likeliest), 20 + (token["rank"] > 20))
        # The text is one that the model has not learnt by heart.
        self.assertGreater(max(own[i][str(ids[i])]["rank"] for i in range(1, len(ids))), 20)
        chat = self.chat(prompt_logprobs=1)
        self.assertEqual(len(chat["prompt_logprobs"]), len(self.prompt_of(HI)))
        self.assertEqual(chat["choices"], self.chat()["choices"])
        for wrong in {"stream": True}, {"prompt_logprobs": -1}, {"prompt_logprobs": 21}:
            status, _, text = self.request("/v1/completions",
                                           {**ask, "prompt_logprobs": 1, **wrong})
            self.assertEqual(status, 400)
            self.assertEqual(json.loads(text)["error"]["param"], "prompt_logprobs")

    # 5.1, SGLang's frontend language.

    def test_5_1_4_what_it_sends(self):
        """Empty lists and nulls everywhere, and a charset."""
        params = {"skip_special_tokens": True, "spaces_between_special_tokens": True,
                  "max_new_tokens": 3, "min_new_tokens": 0, "n": 1, "stop": [],
                  "stop_token_ids": [], "stop_regex": [], "temperature": 0.0, "top_p": 1.0,
                  "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0,
                  "presence_penalty": 0.0, "ignore_eos": True, "regex": None,
                  "json_schema": None}
        status, _, text = self.request(
            "/generate", {"text": "Hi", "sampling_params": params, "image_data": None,
                          "return_logprob": None, "top_logprobs_num": None},
            {"Content-Type": "application/json; charset=utf-8"})
        self.assertEqual(status, 200, text)
        reply = json.loads(text)
        # 5.1.5
        self.assertEqual(len(reply["output_ids"]), 3)
        meta = reply["meta_info"]
        self.assertEqual(meta["finish_reason"], {"type": "length", "length": 3})
        self.assertLessEqual({"id", "prompt_tokens", "completion_tokens", "cached_tokens",
                              "weight_version", "e2e_latency"}, set(meta))
        cached = self.post("/generate", {"text": "Hi", "sampling_params": {
            "max_new_tokens": 0}})
        self.assertEqual(cached["text"], "")

    def test_structural_tag_of_generate(self):
        tag = {"structures": [{"begin": "<n>", "schema": {"enum": [7]}, "end": "</n>"}],
               "triggers": ["<n"]}
        forced = {"format": {"type": "tag", "begin": "<n>", "end": "</n>", "content": {
            "type": "json_schema", "json_schema": {"enum": [7]}}}}
        def generate(structural_tag):
            return self.post("/generate", {"text": "Hi", "sampling_params": {
                "temperature": 0, "max_new_tokens": 20,
                "structural_tag": json.dumps(structural_tag)}})
        self.assertEqual(generate(forced)["text"], "<n>7</n>")
        free = self.post("/generate", {"text": "Hi", "sampling_params": {
            "temperature": 0, "max_new_tokens": 20}})["text"]
        self.assertNotIn("<n", free)
        self.assertEqual(generate(tag)["text"], free)

    def test_5_1_6_an_error_within_a_stream(self):
        server = OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                            flags=["--drain-timeout", "0"])
        self.addCleanup(server.close)
        server.start(120 * e2e_case.SLOWER)
        connection = http.client.HTTPConnection(LOOPBACK, server.port,
                                                timeout=120 * e2e_case.SLOWER)
        self.addCleanup(connection.close)
        connection.request("POST", "/generate", json.dumps(
            {"text": "Hi", "stream": True,
             "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}}))
        answer = connection.getresponse()
        self.assertTrue(answer.readline().startswith(b"data: "))
        server.process.send_signal(15)
        events = [line[6:] for line in answer.read().decode().split("\n")
                  if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        self.assertIn("shutting down", json.loads(events[-2])["error"]["message"])

    def test_5_1_7_select(self):
        """One batch of prompts, whose logprobs are compared."""
        texts = ["Yes or no? Yes", "Yes or no? No"]
        replies = self.post("/generate", {
            "text": texts, "return_logprob": True, "return_text_in_logprobs": True,
            "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 0}})
        for text, reply in zip(texts, replies):
            scored = reply["meta_info"]["input_token_logprobs"]
            self.assertEqual("".join(piece for _, _, piece in scored), text)
            self.assertIsNone(scored[0][0])
            self.assertTrue(all(logprob <= 0 for logprob, _, _ in scored[1:]))

    def test_5_1_8_joining_states_is_not_served(self):
        status, _, text = self.request("/concate_and_append_request", {})
        self.assertEqual(status, 404)
        self.assertIn("/generate", json.loads(text)["error"]["message"])

    # 5.2, Qwen-Agent.

    def test_5_2_3_its_raw_api(self):
        chunks = self.chunks(tools=[TOOL], tool_choice="required", max_tokens=200,
                             parallel_tool_calls=False)
        calls = [call for chunk in chunks for choice in chunk["choices"]
                 for call in choice["delta"].get("tool_calls", [])]
        self.assertTrue(calls[0]["id"])
        self.assertEqual([call for call in calls[1:] if "id" in call], [])
        arguments = "".join(call["function"]["arguments"] for call in calls)
        self.assertIsInstance(json.loads(arguments)["city"], str)

    # 5.4, others.

    def test_5_4_2_thoughts_left_in_the_content(self):
        thinking = {"chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 200}
        sum_ = [{"role": "user", "content": "What is 567 + 489?"}]
        split = self.message(sum_, **thinking)
        self.assertTrue(split["reasoning_content"])
        left = self.message(sum_, separate_reasoning=False, **thinking)
        self.assertIsNone(left["reasoning_content"])
        self.assertIn("</think>", left["content"])
        self.assertIn(split["reasoning_content"], left["content"])

    def test_5_4_3_vllms_load_tester(self):
        chunks = self.chunks(max_tokens=None, max_completion_tokens=3, ignore_eos=True,
                             stream_options={"include_usage": True})
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 3)
        self.assertTrue(chunks[0]["choices"][0]["delta"]["content"])
        metrics = self.request("/metrics")[2]
        for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens"):
            self.assertRegex(metrics, rf"(?m)^vllm:spec_decode_{name}_total[{{ ]")

    def test_5_4_4_other_load_testers(self):
        for path in ("/health", "/v1/models", "/get_server_info"):
            self.assertEqual(self.request(path)[0], 200)
        chunks = self.chunks(messages=[{**HI[0], "name": None}], stop=None, ignore_eos=True,
                             stream_options={"include_usage": True,
                                             "continuous_usage_stats": True})
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[0], 1)
        def flushed():
            return self.request("/flush_cache", b"")[0] == 200
        wait_until(flushed, "an idle server", 60 * e2e_case.SLOWER, [self.server.process])


if __name__ == "__main__":
    e2e_case.main()
