"""Training conversations: which kinds, how often, how long.

A phase is a set of weights by kind. Phases follow one another by the number of the sample,
so that a sample is a function of the seed and its number alone.
"""

from . import arithmetic, casual, facts, haystack, knowledge, letters, thoughts, tools
from .source import Source, exchange

SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a concise assistant.",
    "You are a tiny demo model.", "Answer briefly.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."]

PHASES = {
    # Short: everything within 1,500 tokens.
    "short": {"tools": 0.20, "recall": 0.13, "sums": 0.19, "thinking": 0.16, "letters": 0.20,
              "chat": 0.06, "mixed": 0.06},
    # All of it: drills of what is learned last, and samples of up to 2,000, 4,000 and 8,000
    # tokens. Weights count samples; by tokens, three fifths of it is functions
    # (two fifths of that with reasoning), a fourteenth long texts.
    "all": {"all_tools": 0.20, "thinking_tools": 0.30, "recall": 0.07, "sums": 0.18,
            "thinking": 0.09, "letters": 0.17, "drills": 0.16, "chat": 0.06, "mixed": 0.04,
            "needles_2k": 0.012, "needles_4k": 0.005, "needles_8k": 0.003},
}
# How functions are offered (tools.session), by kind: `long` ones take thousands of tokens.
TOOL_STYLES = {"tools": {"plain": 1},
               "all_tools": {"plain": 0.45, "many": 0.1, "long": 0.45},
               "thinking_tools": {"plain": 0.25, "many": 0.55, "long": 0.2}}
# What share of a kind's conversations has a thought before each reply, besides "thinking".
THINKING = {"thinking_tools": 1, "recall": 0.08, "letters": 0.08, "chat": 0.3, "mixed": 0.2}
# What share is typed in a hurry, where it is not 0.06.
HURRIED = {"chat": 0.3, "drills": 0}


def _simple(source, think=False):
    draw = source.random.random()
    if draw < 0.35:
        return arithmetic.calculation(source, think=think)
    if draw < 0.5:
        return arithmetic.word_problem(source, think=think)
    return letters.task(source) if draw < 0.75 else knowledge.chat(source)


def _sum(source, think=False):
    return arithmetic.calculation(source, think=think) if source.chance(0.75) else \
        arithmetic.word_problem(source, think=think)


def recall_between(source, count, others, think=False):
    """Facts first, other exchanges between, then a question on a fact."""
    known = facts.facts(source, count)
    text = " ".join(sentence for sentence, _ in known)
    messages = exchange(text, "OK.") if source.chance(0.5) else [
        {"role": "system", "content": text}]
    for _ in range(others):
        messages += _simple(source, think)
    sentence, question = source.pick(known)
    return messages + exchange(question, sentence)


def _repeated(source, make, least, most):
    return [message for _ in range(source.integer(least, most)) for message in make(source)]


def _tool_session(source, styles, think):
    style = source.random.choices(list(styles), list(styles.values()))[0]
    schemas, exchanges = tools.session(source, style=style, think=think)
    return [message for part in exchanges for message in part], schemas


def _mixed(source, think):
    if source.chance(0.6):
        return recall_between(source, source.integer(1, 6), source.integer(1, 5), think)
    return _repeated(source, lambda s: _simple(s, think), 2, 6)


def conversation(source, kind):
    """(messages, tools) of one kind."""
    think = source.chance(THINKING.get(kind, 0))
    if kind in TOOL_STYLES:
        messages, schemas = _tool_session(source, TOOL_STYLES[kind], think)
    else:
        schemas = None
        if kind == "recall":
            messages = facts.recall(source)
        elif kind == "sums":
            messages = _repeated(source, _sum, 1, 10)
        elif kind == "thinking":
            messages = _repeated(source, lambda s: _sum(s, think=True), 1, 6)
        elif kind == "letters":
            messages = _repeated(source, letters.task, 1, 9)
        elif kind == "drills":
            drill = source.pick([letters.drill, letters.drill, tools.lookup_drill])
            messages = _repeated(source, drill, 1, 4)
        elif kind == "chat":
            messages = _repeated(source, knowledge.chat, 1, 4)
        elif kind == "mixed":
            messages = _mixed(source, think)
        else:
            tokens = {"needles_2k": 1900, "needles_4k": 3800, "needles_8k": 7400}[kind]
            messages = haystack.needles(source, source.integer(tokens // 3, tokens),
                                        source.integer(4, 16), source.integer(8, 16))
    if think:
        messages = thoughts.added(messages)
    if source.chance(HURRIED.get(kind, 0.06)):
        messages = casual.typed(source, messages, lower=kind == "chat")
    if messages[0]["role"] != "system" and source.chance(0.25):
        messages = [{"role": "system", "content": source.pick(SYSTEM_PROMPTS)}] + messages
    return messages, schemas


def sample(seed, number, phase, pieces=None):
    """Training conversation `number` of `seed`: (messages, tools)."""
    source = Source(f"train/{seed}/{number}", pieces=pieces)
    weights = PHASES[phase]
    kind = source.random.choices(list(weights), list(weights.values()))[0]
    return conversation(source, kind)
