"""The held-out cases: what the model is asked, what is right, by category.

Everything that `split` keeps apart is drawn from the held-out side here: words, pairs of
numbers, ways of asking, new names of functions, some cities. Facts and codes are random.
"""

import functools

from . import arithmetic, facts, haystack, knowledge, letters, mixture, thoughts, tools
from .source import Source

# Far from the numbers that training counts.
SEED = "held-out"
NEEDLE_TOKENS = {"needle_1k": 900, "needle_2k": 1900, "needle_4k": 3850, "needle_8k": 7750}


def _plain(make):
    return lambda source: (make(source), None)


def _sum(digits, think=False):
    return _plain(lambda source: arithmetic.calculation(
        source, source.pick("+-"), source.pick(digits), think))


def _tool_case(names, need, turns, messages_kept, style="plain", think=False):
    def make(source):
        schemas, exchanges = tools.session(source, turns, names, need, style, think)
        messages = [m for part in exchanges for m in part][:messages_kept]
        return thoughts.added(messages) if think else messages, schemas
    return make


def _needle(tokens, source):
    return haystack.needles(source, tokens, 8, 1), None


# category: (cases, what makes one: source -> (messages that end with the answer, tools))
CATEGORIES = {
    "add_sub_1_2_digit": (40, _sum([1, 2, 2])),
    "add_sub_3_digit": (40, _sum([3])),
    "mul_small": (30, _plain(lambda s: arithmetic.calculation(s, "*"))),
    "think_add_sub_3_digit": (30, _sum([3], think=True)),
    "think_mul": (20, _plain(lambda s: arithmetic.calculation(s, "*", think=True))),
    "word_problem": (40, _plain(arithmetic.word_problem)),
    "think_word_problem": (20, _plain(lambda s: arithmetic.word_problem(s, think=True))),
    "retrieval_2_9": (30, _plain(lambda s: facts.recall(s, s.integer(2, 9), 1))),
    "retrieval_10_24": (30, _plain(lambda s: facts.recall(s, s.integer(10, 24), 1))),
    "retrieval_25_60": (40, _plain(lambda s: facts.recall(s, s.integer(25, 60), 1))),
    "string_repeat": (25, _plain(lambda s: letters.task(s, "repeat"))),
    "string_spell": (25, _plain(lambda s: letters.task(s, "spell"))),
    "string_reverse": (25, _plain(lambda s: letters.task(s, "reverse"))),
    "string_count": (25, _plain(lambda s: letters.task(s, "count"))),
    "string_capitals": (25, _plain(lambda s: letters.task(s, "capitals"))),
    "string_sort": (25, _plain(lambda s: letters.task(s, "sort"))),
    "chat_capital": (25, _plain(knowledge.capital)),
    "chat_explain": (25, _plain(knowledge.explanation)),
    "tool_call": (40, _tool_case("known", "call", 1, 2)),
    "tool_call_new_names": (40, _tool_case("new", "call", 1, 2)),
    "tool_answer": (30, _tool_case("any", "call", 1, 4)),
    "tool_none": (25, _tool_case("any", "none", 1, 2)),
    "tool_second_turn": (30, _tool_case("any", "call", 2, 6)),
    "multi_turn_recall": (30, _plain(
        lambda s: mixture.recall_between(s, s.integer(2, 6), s.integer(2, 4)))),
    "tool_long_description": (30, _tool_case("any", "call", 1, 2, "long")),
    "tool_none_long": (25, _tool_case("any", "none", 1, 2, "long")),
    "think_tool_call": (25, _tool_case("any", "call", 1, 2, think=True)),
    "think_tool_none": (25, _tool_case("any", "none", 1, 2, think=True)),
    "think_tool_of_many": (30, _tool_case("any", "call", 1, 2, "many", think=True)),
    "think_chat": (25, _plain(lambda s: thoughts.added(knowledge.chat(s)))),
    "think_recall": (25, _plain(lambda s: thoughts.added(
        facts.recall(s, s.integer(2, 24), 1)))),
    **{name: (20, functools.partial(_needle, tokens))
       for name, tokens in NEEDLE_TOKENS.items()},
}


def _expected(reply):
    if reply.get("tool_calls"):
        return {"tool_call": reply["tool_calls"][0]["function"]}
    out = {"content": reply["content"]}
    if reply.get("think"):
        out["think"] = reply["think"]
    return out


def cases(with_needles=True, seed=SEED):
    """All cases, in the form of models/demo/eval.jsonl."""
    out = []
    for category, (count, make) in CATEGORIES.items():
        if category in NEEDLE_TOKENS and not with_needles:
            continue
        for number in range(count):
            source = Source(f"{seed}/{category}/{number}", evaluating=True)
            messages, schemas = make(source)
            if messages[0]["role"] != "system" and source.chance(0.25):
                messages = [{"role": "system", "content": source.pick(
                    mixture.SYSTEM_PROMPTS)}] + messages
            asked = [{key: value for key, value in message.items() if key != "think"}
                     for message in messages[:-1]]
            out.append({"id": len(out), "category": category, "messages": asked,
                        "tools": schemas, "enable_thinking": "think" in messages[-1],
                        "expected": _expected(messages[-1])})
    return out
