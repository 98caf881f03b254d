"""Requests that no client should send: the server says what is wrong with them, in the
shape of its API, and goes on. Never a status from 500 on, never another answer after."""

import copy
import http.client
import json
import os
import random

import e2e_case
from local_cluster import LOOPBACK, OneProcess, get, post

# More, and other ones, at night.
REQUESTS = int(os.environ.get("SWITCHYARD_TEST_REQUESTS", "600"))
SEED = int(os.environ.get("SWITCHYARD_TEST_SEED", "1"))

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"]}}}]
CHAT = {"model": "demo", "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"}],
        "tools": TOOLS, "tool_choice": "auto", "max_tokens": 3, "temperature": 0.5,
        "top_p": 0.9, "top_k": 5, "min_p": 0.0, "seed": 3, "stop": ["\n\n"], "n": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1,
        "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}, "stream": False,
        "stream_options": {"include_usage": True}, "user": "u", "priority": 0,
        "response_format": {"type": "text"}, "chat_template_kwargs": {"enable_thinking": True}}
SEEDS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "demo", "prompt": "Once", "max_tokens": 3, "echo": True,
                        "logprobs": 1, "n": 2, "best_of": 2, "stop": None, "suffix": None,
                        "stream": True, "min_tokens": 1, "ignore_eos": False,
                        "stop_token_ids": [3], "return_token_ids": True},
    "/v1/responses": {"model": "demo", "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "instructions": "Be brief.", "max_output_tokens": 3, "stream": False,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}},
    "/v1/messages": {"model": "demo", "max_tokens": 3, "system": "Be brief.", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "stream": False,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["x"]},
    "/v1/messages/count_tokens": {"model": "demo", "messages": [
        {"role": "user", "content": "Hi"}]},
    "/generate": {"text": "Once", "sampling_params": {"max_new_tokens": 3, "temperature": 0,
                                                      "regex": "[ab]+"},
                  "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 1,
                  "rid": "r", "stream": False},
    "/tokenize": {"model": "demo", "prompt": "Hi", "add_special_tokens": True},
    "/detokenize": {"model": "demo", "tokens": [1, 2, 3]},
    "/abort_request": {"rid": "nobody"},
    "/flush_cache": {},
    "/separate_reasoning": {"text": "<think>a</think>b", "reasoning_parser": "qwen3"},
    "/parse_function_call": {"text": "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n"
                                     "</tool_call>", "tool_call_parser": "qwen25",
                             "tools": TOOLS},
}
GETS = ["/v1/models", "/v1/models/demo", "/v1/models/%ff%00", "/health", "/livez", "/readyz",
        "/version", "/metrics", "/get_model_info", "/get_server_info", "/v1/loads", "/",
        "/health_generate", "/v1/responses/resp_none", "/topology", "/no/such/path",
        "/v1/responses/../../etc/passwd", "/%2e%2e/%2e%2e", "//", "/v1/chat/completions"]
FORMATS = [{"type": "json_object"}, {"type": "json_schema"},
           {"type": "json_schema", "json_schema": {"name": "x", "schema": {
               "type": "object", "properties": {"a": {"type": "integer"}}}}},
           {"type": "json_schema", "json_schema": {"name": "x", "schema": {
               "$ref": "#/nowhere"}}},
           {"type": "regex", "pattern": "("}]
ODD = [None, True, False, 0, -1, 1, 2, 1e308, -1e308, 1e-320, 2**31, 2**53, 2**63, -2**63, 2**64,
       10**400, 0.5, "", "x", "\u0000", "\ud800", "ﷺ" * 50, "a" * 5000, "<|im_start|>", [],
       [None], [[]], {}, {"": None}, [1] * 300, {"type": "text"}, "NaN", "-1", "null",
       [{"role": "user"}], {"type": "function"}, [[[[[[[[[[]]]]]]]]]]]


def places(value, path=()):
    """Paths of all values in JSON."""
    yield path
    items = (value.items() if isinstance(value, dict) else
             enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(draw, body):
    body = copy.deepcopy(body)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        path = draw.choice(list(places(body)))
        what = draw.random()
        if not path:
            if what < 0.1:
                return copy.deepcopy(draw.choice(ODD))
            if what < 0.5 and isinstance(body, dict):
                body["response_format"] = copy.deepcopy(draw.choice(FORMATS))
            continue
        holder = body
        for key in path[:-1]:
            holder = holder[key]
        if what < 0.15:
            del holder[path[-1]]
        elif what < 0.25 and isinstance(holder, dict):
            holder[draw.choice(("unknown", "n", "regex", "ebnf", "json_schema", "guided_json",
                                "guided_regex", "structured_outputs", "deadline",
                                "max_completion_tokens", "echo"))] = copy.deepcopy(draw.choice(ODD))
        elif what < 0.3 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder) * 3)
        else:
            holder[path[-1]] = copy.deepcopy(draw.choice(ODD))
    return body


def mangled(draw, data):
    """Bytes that were JSON."""
    data = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data) + 1)
        data[at:at + draw.randrange(4)] = bytes(draw.randrange(256)
                                                for _ in range(draw.randrange(4)))
    return bytes(data)


class ApiFuzz(e2e_case.TestCase):
    def send(self, port, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(LOOPBACK, port,
                                                timeout=60 * e2e_case.SLOWER)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def check(self, request, status, body):
        self.assertLess(status, 500, f"{request}\n{body[:1000]}")
        self.assertGreaterEqual(status, 200, request)
        if status >= 400 and body:
            error = json.loads(body)
            self.assertTrue(error.get("error") or error.get("detail") or
                            error.get("message"), f"{request}\n{body[:1000]}")

    def test_no_request_breaks_it(self):
        draw = random.Random(SEED)
        probe = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}],
                 "temperature": 0, "max_tokens": 8, "logprobs": True}
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            expected = post(server.port, "/v1/chat/completions", probe)["choices"]
            for number in range(REQUESTS):
                kind = draw.random()
                if kind < 0.1:
                    method = draw.choice(("GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"))
                    request = (method, draw.choice(GETS + list(SEEDS)), None)
                else:
                    path = draw.choice(list(SEEDS))
                    data = json.dumps(mutated(draw, SEEDS[path])).encode()
                    if kind < 0.25:
                        data = mangled(draw, data)
                    request = ("POST", path, data)
                with self.subTest(number):
                    status, body = self.send(
                        server.port, *request, headers={"Content-Type": draw.choice(
                            ("application/json", "text/plain", "application/x-nothing"))})
                    self.check(request, status, body)
            self.assertTrue(server.process.alive())
            self.assertEqual(get(server.port, "/readyz")[0], 200)
            again = post(server.port, "/v1/chat/completions", probe)["choices"]
            self.assertEqual(again, expected)


if __name__ == "__main__":
    e2e_case.main()
