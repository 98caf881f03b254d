"""What the demo model is trained and tested with: the same seed gives the same, answers
are right, and nothing that is held out is trained on."""

import json
import os
import re
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts", "demo_model"))

import scoring  # noqa: E402
from conversations import (descriptions, evaluation, letters, mixture,  # noqa: E402
                           rendering, split, tools, vocabulary)

SAMPLES = 3000
with open(os.path.join(ROOT, "models", "demo", "vocab.json"), encoding="utf-8") as file:
    PIECES = letters.letter_pieces(json.load(file))

LETTER_TASKS = [
    re.compile(pattern) for pattern in (
        r"Spell (?:the word )?([a-z]+)(?:\.| backwards)", r"Reverse the word ([a-z]+)",
        r"letters (?:are in the word|of) ([a-z]+)", r"(?:Write|Uppercase:) ([a-z]+)",
        r"(?:Sort these words|alphabetical order|word of): ([a-z, ]+)",
        r"(?:Spell|Backwards|First letters|In capitals|Count the letters): ([a-z, ]+)", r"(?:Repeat|Say this again|Copy this text): (.+)")]


def training_samples():
    for number in range(SAMPLES):
        yield mixture.sample(7, number, "all" if number % 2 else "short", PIECES)


def questions(messages):
    return [m["content"] for m in messages if m["role"] == "user"]


class Conversations(unittest.TestCase):
    def test_same_seed_same_conversations(self):
        for number in (0, 1, 999):
            self.assertEqual(mixture.sample(3, number, "all", PIECES),
                             mixture.sample(3, number, "all", PIECES))
        self.assertNotEqual(mixture.sample(3, 0, "all"), mixture.sample(4, 0, "all"))
        self.assertEqual(evaluation.cases(), evaluation.cases())

    def test_evaluation_set(self):
        cases = evaluation.cases()
        self.assertGreaterEqual(len(cases), 500)
        self.assertEqual([case["id"] for case in cases], list(range(len(cases))))
        for case in cases:
            with self.subTest(case["id"]):
                self.assertIn(case["messages"][-1]["role"], ("user", "tool"))
                # A case's own expected answer is right, one with more in it is not.
                expected = case["expected"]
                content, calls = (("", [expected["tool_call"]]) if "tool_call" in expected
                                  else (expected["content"], []))
                self.assertTrue(scoring.is_right(case, content, calls))
                self.assertFalse(scoring.is_right(case, content + " x", calls))

    def test_sums_are_right(self):
        seen = 0
        for messages, _ in training_samples():
            for message in messages:
                if message["role"] != "assistant" or " / " in message["content"]:
                    continue
                for part in (message["content"], message.get("think", "")):
                    for left, right in re.findall(r"([\d +*-]+\d) ?= ?(-?\d+)", part):
                        seen += 1
                        self.assertEqual(eval(left), int(right), message)  # digits only
        self.assertGreater(seen, 1000)

    def test_no_held_out_sum_is_trained_on(self):
        operators = {"plus": "+", "minus": "-", "times": "*"}
        seen = 0
        for messages, schemas in training_samples():
            calculator = tuple(tools.FAMILIES["calculator"].descriptions)
            if any(s["function"]["description"].startswith(calculator)
                   for s in schemas or []):
                continue  # its sums are copied, not computed
            for question in questions(messages):
                for a, operator, b in re.findall(
                        r"(\d+) (plus|minus|times|[-+*]) (\d+)", question):
                    operator = operators.get(operator, operator)
                    common = 12 if operator == "*" else 9
                    if max(int(a), int(b)) > common:
                        seen += 1
                        self.assertFalse(split.held_out(operator, a, b), question)
                        self.assertFalse(operator == "+" and split.held_out("+", b, a))
        self.assertGreater(seen, 500)

    def test_no_held_out_word_is_trained_on(self):
        held = set(vocabulary.WORDS_HELD_OUT)
        self.assertGreater(len(held), 30)
        seen = 0
        for messages, _ in training_samples():
            for question in questions(messages):
                for task in LETTER_TASKS:
                    for found in task.findall(question):
                        seen += 1
                        self.assertFalse(held & set(re.findall("[a-z]+", found)), question)
        self.assertGreater(seen, 500)

    def test_no_held_out_tool_name_is_trained_on(self):
        names = {schema["function"]["name"] for _, schemas in training_samples()
                 for schema in schemas or []}
        self.assertGreater(len(names), 500)
        for name in names - tools.KNOWN_NAMES - set(descriptions.AGENT_FUNCTIONS):
            self.assertFalse(split.held_out("tool", name), name)
        new = [schema["function"]["name"] for case in evaluation.cases(with_needles=False)
               if case["category"] == "tool_call_new_names" for schema in case["tools"]]
        self.assertFalse(set(new) & (names | tools.KNOWN_NAMES))
        self.assertTrue(all(split.held_out("tool", name) for name in new))

    def test_no_held_out_note_is_trained_on(self):
        texts = [text.split("{")[0] for text in descriptions.SENTENCES + descriptions.NOTES
                 if split.held_out("note", text) and text.find("{") not in range(8)]
        agents = {name for name in descriptions.AGENT_FUNCTIONS
                  if split.held_out("note", name)}
        self.assertGreater(len(texts), 10)
        offers = [s["function"] for _, schemas in training_samples() for s in schemas or []]
        lengthy = [f for f in offers if len(f["description"]) > 200]
        self.assertGreater(len(lengthy), 100)
        for function in lengthy:
            self.assertNotIn(function["name"], agents)
            for text in texts:
                self.assertNotIn(text, json.dumps(function))
        asked = json.dumps([case["tools"] for case in evaluation.cases(with_needles=False)])
        self.assertTrue(all(text in asked for text in texts))

    def test_a_thinking_conversation_thinks_before_every_reply(self):
        seen = {"thinking": 0, "other": 0}
        for messages, schemas in training_samples():
            replies = [m for m in messages if m["role"] == "assistant"]
            thought = [m for m in replies if m.get("think")]
            self.assertIn(len(thought), (0, len(replies)), messages)
            seen["thinking" if thought else "other"] += 1
            if thought and not schemas:  # sums are worked out, never answered at once
                for message in replies:
                    if re.search(r"\d \+ \d", message["content"]):
                        self.assertRegex(message["think"], r"\d\+\d", messages)
        self.assertGreater(min(seen.values()), 300)

    def test_no_case_is_a_training_sample(self):
        # Recall and needles: the facts are what is new, so whole questions must be.
        trained = {question for messages, _ in training_samples()
                   for question in questions(messages) if len(question) > 100}
        asked = {question for case in evaluation.cases()
                 for question in questions(case["messages"]) if len(question) > 100}
        self.assertGreater(len(asked), 100)
        self.assertFalse(trained & asked)

    def test_rendering(self):
        messages, schemas = mixture.sample(1, 3, "short", PIECES)
        parts = rendering.segments(messages, schemas)
        replies = [text for text, is_reply in parts if is_reply]
        self.assertEqual(len(replies), sum(m["role"] == "assistant" for m in messages))
        self.assertTrue(all(text.endswith("<|im_end|>") for text in replies))

    def test_replies_are_read_back(self):
        call = {"name": "get_x", "arguments": {"a": "b", "n": 3}}
        text = rendering.reply_text(
            {"content": "", "think": "hm", "tool_calls": [{"function": call}]})
        self.assertEqual(scoring.split_reply(text), ("", [call]))
        self.assertEqual(scoring.split_reply("<tool_call>\n{oops\n</tool_call>")[1], None)


if __name__ == "__main__":
    unittest.main(verbosity=2)
