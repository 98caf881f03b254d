"""Tasks on words and their letters.

A token hides its letters, and the tokens of a word read backwards or in capitals are
others than the word's. So answers are letters with hyphens between them, and what is
counted or sorted is spelled or named first.
"""

import string

from .source import exchange

TASKS = ["repeat", "repeat", "repeat", "reverse", "count", "capitals", "sort", "sort",
         "spell", "spell", "position"]
POSITIONS = ["first", "second", "third"]


def _word(source):
    return source.word() if source.evaluating or source.chance(0.4) else source.made_up_word()


def _repeat(source):
    def part():
        if not source.evaluating and source.chance(0.4):
            return source.made_up_word()
        return source.pick([source.word(), str(source.integer(0, 999)), source.name(),
                            source.city().lower()])
    text = " ".join(part() for _ in range(source.integer(2, 8)))
    return source.pick([f"Repeat: {text}", f"Say this again: {text}",
                        f"Copy this text: {text}"]), text


def _sort(source):
    while True:
        words = [_word(source) for _ in range(3)]
        if len({word[0] for word in words}) == 3:
            break
    named = ", ".join(f"{word[0]} {word}" for word in words)
    listed = ", ".join(words)
    return source.pick([f"Sort these words: {listed}",
                        f"Put in alphabetical order: {listed}"]), \
        f"{named}. Sorted: " + ", ".join(sorted(words)) + "."


def drill(source):
    """Several words spelled in one answer: most of its tokens are learned from."""
    words = [_word(source) for _ in range(source.integer(4, 8))]
    return exchange(f"Spell: {', '.join(words)}",
                    "; ".join(f"{word} {'-'.join(word)}" for word in words))


def task(source, kind=None):
    kind = kind or source.pick(TASKS)
    if kind == "repeat":
        return exchange(*_repeat(source))
    if kind == "sort":
        return exchange(*_sort(source))
    if kind == "position":
        words, place = source.words(3), source.integer(0, 2)
        return exchange(f"What is the {POSITIONS[place]} word of: {' '.join(words)}?",
                        words[place])
    word = _word(source)
    if kind == "spell":
        return exchange(source.pick([f"Spell the word {word}.", f"Spell {word}."]),
                        "-".join(word))
    if kind == "reverse":
        return exchange(source.pick([f"Reverse the word {word}.", f"Spell {word} backwards."]),
                        f"{'-'.join(word)}, backwards {'-'.join(reversed(word))}")
    if kind == "capitals":
        return exchange(source.pick([f"Write {word} in uppercase.", f"Uppercase: {word}"]),
                        "-".join(word.upper()))
    counted = " ".join(f"{letter}{i}" for i, letter in enumerate(word, 1))
    return exchange(source.pick([f"How many letters are in the word {word}?",
                                 f"Count the letters of {word}."]),
                    f"{counted}: {len(word)} letters.")


def letter_pieces(token_strings):
    """The tokens that are parts of words, of a vocabulary's byte-level strings."""
    letters = set(string.ascii_lowercase)
    bare = {token.removeprefix("\u0120") for token in token_strings}
    return sorted(token for token in bare if 1 <= len(token) <= 9 and set(token) <= letters)
