"""Long texts with a few facts in them: recall over thousands of tokens."""

from . import facts, vocabulary
from .source import exchange

# Of these sentences, in the demo model's tokenizer.
CHARACTERS_PER_TOKEN = 2.65


def _filler(source):
    if source.chance(0.5):
        return facts.sentence_without_code(source)
    one, two, three = source.plain_words(3)
    return source.pick([
        f"The {one} is near the {two}.", f"A {one} and a {two} are in the {three}.",
        f"{source.pick(vocabulary.NAMES)} saw the {one} at the {two}.",
        f"In the {source.pick(vocabulary.ROOMS)} there is a {one}.",
        f"The {one} was {source.pick(vocabulary.COLORS)} and the {two} was not.",
        f"{source.pick(vocabulary.NAMES)} has a {one} for the {two}."])


def needles(source, tokens, count, questions):
    """Messages: a text of about `tokens` tokens with `count` codes in it, and questions.

    The codes lie at random places; each question is a turn of its own."""
    subjects = set()
    while len(subjects) < count:
        subjects.add(source.made_up_name() if source.chance(0.5) else source.city())
    needle = {subject: f"The code of {subject} is {source.integer(1000, 9999)}."
              for subject in sorted(subjects)}
    sentences, length = [], 0
    while length < tokens * CHARACTERS_PER_TOKEN:
        sentences.append(_filler(source))
        length += len(sentences[-1]) + 1
    for sentence in needle.values():
        sentences.insert(source.integer(0, len(sentences)), sentence)
    text = "Read these notes. " + " ".join(sentences)
    messages = []
    for turn in range(questions):
        subject = source.pick(list(needle))
        question = f"What is the code of {subject}?"
        messages += exchange(question if turn else f"{text} {question}", needle[subject])
    return messages
