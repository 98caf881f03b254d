"""Facts that are told, then asked for: codes, prices, places, ages, likings."""

from . import vocabulary
from .source import exchange

UNKNOWN = "I do not know that."


def _code(source, subject):
    return f"The code of {subject} is {source.integer(1000, 9999)}.", \
        f"What is the code of {subject}?"


def _fact(source, kind, many):
    """(sentence, question) on something; `many` wants more subjects than there are cities."""
    if kind == "code":
        return _code(source, source.made_up_name() if many and source.chance(0.5)
                     else source.city())
    if kind == "box":
        place = source.pick(["box", "room", "gate", "seat"])
        return _code(source, f"{place} {source.integer(1, 99)}")
    if kind in ("price", "room", "color"):
        thing = source.pick(vocabulary.ITEMS)
        if kind == "price":
            return (f"The {thing} costs {source.integer(2, 999)} dollars.",
                    f"How much does the {thing} cost?")
        if kind == "room":
            return (f"The {thing} is in the {source.pick(vocabulary.ROOMS)}.",
                    f"Where is the {thing}?")
        return (f"The {thing} is {source.pick(vocabulary.COLORS)}.",
                f"What color is the {thing}?")
    name = source.name()
    if kind == "city":
        return f"{name} lives in {source.city()}.", f"Where does {name} live?"
    if kind == "age":
        return f"{name} is {source.integer(5, 99)} years old.", f"How old is {name}?"
    return f"{name} likes {source.pick(vocabulary.FOODS)}.", f"What does {name} like?"


ALL_KINDS = ["code", "box", "price", "room", "color", "city", "age", "food"]
# Kinds with enough subjects for a long list.
WIDE_KINDS = ["code", "box", "city", "age"]


def sentence_without_code(source):
    return _fact(source, source.pick(ALL_KINDS[2:]), many=False)[0]


def facts(source, count):
    """`count` pairs (sentence, question), no two about the same."""
    kinds = source.random.sample(
        ALL_KINDS, 1 if count > 30 or source.chance(0.4) else source.integer(1, 3))
    if count > 20 and not set(kinds) & set(WIDE_KINDS):
        kinds = [source.pick(["code", "box"])]
    out = {}
    for _ in range(20 * count):
        if len(out) == count:
            break
        sentence, question = _fact(source, source.pick(kinds), count > 25)
        out.setdefault(question, sentence)
    return [(sentence, question) for question, sentence in out.items()]


def unknown_question(source, known):
    asked = {question for _, question in known}
    for _ in range(20):
        question = facts(source, 1)[0][1]
        if question not in asked:
            return question
    return None


def draw_count(source):
    draw = source.random.random()
    if draw < 0.3:
        return source.integer(1, 4)
    if draw < 0.6:
        return source.integer(4, 9)
    return source.integer(10, 24) if draw < 0.8 else source.integer(25, 60)


def recall(source, count=None, questions=None):
    """A list of facts, and questions on it, each in its own turn."""
    known = facts(source, count or draw_count(source))
    separator = source.pick([" ", "\n"])
    head = source.pick(["Here are some facts.", "Facts:", "Remember this:",
                        "Read these notes."])
    text = head + separator + separator.join(sentence for sentence, _ in known)
    questions = questions or (source.integer(2, 8) if len(known) < 10
                              else source.integer(10, 24))
    messages, place = [], source.random.random()
    if place < 0.35:
        messages.append({"role": "system", "content": text})
    elif place < 0.55:
        messages += exchange(text, "OK.")
    for turn in range(questions):
        answer, question = source.pick(known)
        if source.chance(0.08):
            stranger = unknown_question(source, known)
            if stranger:
                question, answer = stranger, UNKNOWN
        if turn == 0 and place >= 0.55:
            question = text + separator + question
        messages += exchange(question, answer)
    return messages
