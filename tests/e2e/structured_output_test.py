"""Structured output and forced tool calls: valid, the same with drafts and without, whole
and streamed, and behind reasoning. The demo model knows nothing of any schema: that its
answers follow one is the grammar's doing. Numbers in comments are those of the serving
cases (docs/conformance.md)."""

import json
import re

import e2e_case
from local_cluster import Cluster, HttpError, OneProcess, stream

NONE = ["--speculative-algorithm", "NONE"]
DRAFTS = ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3",
          "--speculative-adaptive=false"]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "boss": {"anyOf": [{"$ref": "#/$defs/boss"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "score", "boss"],
    "additionalProperties": False,
    "$defs": {"boss": {"type": "object", "properties": {"name": {"const": "Ada"}},
                       "required": ["name"], "additionalProperties": False}},
}
TOOLS = [
    {"type": "function", "function": {
        "name": "add", "description": "Adds two numbers.", "parameters": {
            "type": "object", "properties": {"a": {"type": "integer"},
                                             "b": {"type": "integer"}},
            "required": ["a", "b"], "additionalProperties": False}}},
    {"type": "function", "function": {
        "name": "colour", "description": "Picks a colour.", "parameters": {
            "type": "object", "properties": {"which": {"enum": ["red", "green"]},
                                             "dark": {"type": "boolean"}},
            "required": ["which"], "additionalProperties": False}}},
]
MESSAGES = [{"role": "user", "content": "What is 67 + 53?"}]


def body(thinking=False, **more):
    return {"model": "default", "messages": MESSAGES, "max_tokens": 400,
            "chat_template_kwargs": {"enable_thinking": thinking}, **more}


def schema_format(schema, strict=True):
    return {"type": "json_schema",
            "json_schema": {"name": "x", "schema": schema, "strict": strict}}


def check_person(text):
    value = json.loads(text)
    assert list(value) == ["name", "age", "tags", "score", "boss"], text
    assert isinstance(value["name"], str) and len(value["name"]) <= 12, text
    assert isinstance(value["age"], int) and 0 <= value["age"] <= 150, text
    assert len(value["tags"]) <= 3 and set(value["tags"]) <= {"a", "b", "c"}, text
    assert 0 <= value["score"] <= 1, text
    assert value["boss"] in (None, {"name": "Ada"}), text


def check_arguments(call):
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "add":
        assert set(arguments) == {"a", "b"}, arguments
        assert all(type(value) is int for value in arguments.values()), arguments
    else:
        assert call["function"]["name"] == "colour", call
        assert arguments["which"] in ("red", "green"), arguments
        assert type(arguments.get("dark", True)) is bool, arguments


def streamed_message(port, request):
    """The message that a stream's deltas make, and its finish reason."""
    message, finish = {"content": "", "reasoning_content": "", "calls": {}}, None
    for event in stream(port, "/v1/chat/completions", request,
                        timeout=300 * e2e_case.SLOWER):
        for choice in event["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            for call in delta.get("tool_calls") or []:
                made = message["calls"].setdefault(
                    call["index"], {"function": {"name": "", "arguments": ""}})
                for name in ("name", "arguments"):
                    made["function"][name] += call["function"].get(name) or ""
            finish = choice["finish_reason"] or finish
    message["calls"] = [message["calls"][i] for i in sorted(message["calls"])]
    return message, finish


def essence(answer):
    choice = answer["choices"][0]
    message = choice["message"]
    return ({"content": message.get("content") or "",
             "reasoning_content": message.get("reasoning_content") or "",
             "calls": [{"function": call["function"]}
                       for call in message.get("tool_calls") or []]},
            choice["finish_reason"])


def matcher(pattern):
    def check(message):
        assert re.fullmatch(pattern, message["content"], re.DOTALL), message
    return check


def person(message):
    check_person(message["content"])


def an_object(message):
    assert isinstance(json.loads(message["content"]), dict), message


def calls(least, most, name=None):
    def check(message):
        assert least <= len(message["calls"]) <= most, message
        assert not message["content"], message
        for call in message["calls"]:
            check_arguments(call)
            assert name in (None, call["function"]["name"]), message
    return check


# Structural tags: one that is forced, and those that free text may have.
SUM = {"type": "sequence", "elements": [
    {"type": "const_string", "value": "Sum: "},
    {"type": "triggered_tags", "triggers": ["<sum"], "at_least_one": True,
     "stop_after_first": True, "tags": [
         {"type": "tag", "begin": "<sum of=2>", "end": "</sum>",
          "content": {"type": "json_schema", "json_schema": {
              "type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99},
              "minItems": 2, "maxItems": 2}}},
         {"type": "tag", "begin": "<sum of=none>", "end": "</sum>",
          "content": {"type": "const_string", "value": ""}}]}]}
A_SUM = r"Sum: <sum of=(2>\[\s*\d{1,2},\s*\d{1,2}\s*\]|none>)</sum>"
STRUCTURES = {"type": "structural_tag", "triggers": ["67"],
              "structures": [{"begin": "67!", "schema": {"const": 1}, "end": "!"}]}


def no_open_tag(message):
    assert not re.search("67(?!!1!)", message["content"]), message


# What is asked, whether the answer must be whole, and what it must be.
CASES = [
    (body(response_format=schema_format(PERSON)), True, person),
    (body(response_format=schema_format(PERSON, strict=False)), True, person),
    (body(json_schema=json.dumps(PERSON)), True, person),              # SGLang
    (body(guided_json=PERSON), True, person),                          # vLLM
    (body(structured_outputs={"json": PERSON}), True, person),
    (body(response_format={"type": "json_object"}), False, an_object),
    (body(regex=r"[a-z]{3,5}-\d{2}"), True, matcher(r"[a-z]{3,5}-\d{2}")),
    (body(guided_regex=r"(\d{3}|x)\."), True, matcher(r"(\d{3}|x)\.")),
    (body(guided_choice=["yes", "no", "it's (not) [that]"]), True,
     matcher(r"yes|no|it's \(not\) \[that\]")),
    (body(ebnf='root ::= "<" [a-c]{2,4} ">"'), True, matcher(r"<[a-c]{2,4}>")),
    (body(guided_grammar='root ::= item{2}\nitem ::= "a" | "b"'), True,
     matcher(r"[ab]{2}")),
    (body(response_format={"type": "structural_tag", "format": SUM}), True, matcher(A_SUM)),
    (body(structured_outputs={"structural_tag": json.dumps({"format": SUM})}), True,
     matcher(A_SUM)),                                                  # vLLM
    (body(response_format=STRUCTURES), False, no_open_tag),            # SGLang's first form
    # 21: required gives calls, named gives that one.
    (body(tools=TOOLS, tool_choice="required", parallel_tool_calls=False), True,
     calls(1, 1)),
    (body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "colour"}}),
     True, calls(1, 1, "colour")),
    (body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "add"}}),
     True, calls(1, 1, "add")),
    # Reasoning first, free; then the grammar.
    (body(thinking=True, response_format=schema_format(PERSON), thinking_budget=40), True,
     person),
    (body(thinking=True, tools=TOOLS, tool_choice="required", thinking_budget=40,
          parallel_tool_calls=False), True, calls(1, 1)),
    (body(thinking=True, response_format={"type": "structural_tag", "format": SUM},
          thinking_budget=40), True, matcher(A_SUM)),
]


def sampled():
    """Each case greedy, and drawn with two seeds."""
    for request, whole, check in CASES:
        for more in ({"temperature": 0}, {"temperature": 1.2, "seed": 1},
                     {"temperature": 1.2, "seed": 2}):
            yield {**request, **more}, whole, check


class StructuredOutput(e2e_case.TestCase):
    def ask_everything(self, port):
        found = []
        answers = e2e_case.ask_all(port, [request for request, _, _ in sampled()], 6)
        for (request, whole, check), answer in zip(sampled(), answers):
            message, finish = essence(answer)
            if finish == "length":
                self.assertFalse(whole, (request, answer))
            else:
                check(message)
            if request["chat_template_kwargs"]["enable_thinking"]:
                self.assertTrue(message["reasoning_content"], answer)
            found.append((message, finish))
        return found

    def test_valid_and_the_same_with_drafts_and_without(self):
        digests = {}
        for flags in (NONE, DRAFTS):
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                digests[flags[1]] = self.ask_everything(server.port)
                for (request, _, _), (message, finish) in list(
                        zip(sampled(), digests[flags[1]]))[::3]:
                    self.assertEqual(streamed_message(server.port, request),
                                     (message, finish))
        self.assertEqual(digests["NONE"], digests["NEXTN"])

    def test_over_processes_and_what_is_refused(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/2", "2/2"]) as cluster:
            self.ask_everything(cluster.port)
            for more, text in [
                    ({"response_format": schema_format(
                        {"type": "array", "uniqueItems": True})}, "#/uniqueItems"),
                    ({"regex": "(a"}, "without its )"),
                    ({"ebnf": "root ::= missing"}, "missing"),
                    ({"regex": "a", "ebnf": "b"}, "one format"),
                    ({"structural_tag": {"format": {"type": "any_tokens"}}},
                     "format.type: is not supported"),
                    ({"tools": TOOLS, "tool_choice": {"type": "function", "function":
                                                      {"name": "none"}}}, "none"),
                    ({"tool_choice": "required"}, "no tools")]:
                for streamed in (False, True):
                    with self.subTest(more, stream=streamed):
                        with self.assertRaises(HttpError) as caught:
                            if streamed:
                                streamed_message(cluster.port, body(**more))
                            else:
                                e2e_case.ask(cluster.port, body(**more))
                        self.assertEqual(caught.exception.status, 400)
                        error = json.loads(caught.exception.body)["error"]
                        self.assertEqual(error["type"], "invalid_request_error")
                        self.assertIn(text, error["message"])

    def test_max_tokens_cut(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=DRAFTS) as server:
            answer = e2e_case.ask(server.port, {
                **body(response_format=schema_format(PERSON)), "max_tokens": 5})
            self.assertEqual(essence(answer)[1], "length")
            # 21: none never gives calls, whatever the tools.
            answer = e2e_case.ask(server.port, body(tools=TOOLS, tool_choice="none",
                                                    temperature=0))
            self.assertEqual(essence(answer)[0]["calls"], [])


if __name__ == "__main__":
    e2e_case.main()
