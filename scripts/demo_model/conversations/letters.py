"""Tasks on words and their letters.

A token hides its letters, and the tokens of a word read backwards, in capitals or after a
line break are others than the word's. So a word is spelled first, letters with hyphens
between them, and what is asked for is made of that; what is sorted is named by its first
letters; what is repeated stands in quotes in both places.
"""

import dataclasses
import string

from .source import exchange

TASKS = ["repeat", "repeat", "reverse", "count", "capitals", "sort", "sort", "sort",
         "sort", "spell", "position"]
POSITIONS = ["first", "second", "third"]


def _word(source):
    return source.word() if source.evaluating or source.chance(0.25) else source.made_up_word()


def _spelled(word):
    return "-".join(word)


def _reversed(word):
    return f"{_spelled(word)}, backwards {_spelled(word[::-1])}"


def _in_capitals(word):
    return f"{_spelled(word)}, in capitals {_spelled(word.upper())}"


def _counted(word):
    numbered = " ".join(f"{letter}{i}" for i, letter in enumerate(word, 1))
    return f"{_spelled(word)}: {numbered}, {len(word)} letters"


def _repeat(source):
    def part():
        if not source.evaluating and source.chance(0.4):
            return source.made_up_word()
        return source.pick([source.word(), str(source.integer(0, 999)), source.name(),
                            source.city().lower()])
    text = " ".join(part() for _ in range(source.integer(2, 8)))
    return source.pick([f'Repeat: "{text}"', f'Say this again: "{text}"',
                        f'Copy this text: "{text}"']), f'"{text}"'


def _sort(source):
    while True:
        words = [_word(source) for _ in range(3)]
        if len({word[0] for word in words}) == 3:
            break
    named = ", ".join(f"{word[0]} {word}" for word in words)
    listed = ", ".join(words)
    in_order = sorted(words)
    return source.pick([f"Sort these words: {listed}",
                        f"Put in alphabetical order: {listed}"]), \
        f"{named}. Sorted {', '.join(word[0] for word in in_order)}: {', '.join(in_order)}."


def _first_letters_drill(source):
    words = [_word(source) for _ in range(source.integer(6, 12))]
    return exchange(f"First letters: {', '.join(words)}",
                    "So: " + ", ".join(f"{word[0]} {word}" for word in words))


def _order_drill(source):
    groups = [source.random.sample(string.ascii_lowercase, source.integer(3, 4))
              for _ in range(source.integer(4, 10))]
    return exchange("Order: " + "; ".join(", ".join(group) for group in groups),
                    "So: " + "; ".join(", ".join(sorted(group)) for group in groups))


def drill(source):
    """Several words worked on in one answer: most of its tokens are learned from."""
    if source.chance(0.25):
        return source.pick([_first_letters_drill, _order_drill])(source)
    words = [_word(source) for _ in range(source.integer(4, 8))]
    asked, form = source.random.choices(
        [("Spell", _spelled), ("Backwards", _reversed), ("In capitals", _in_capitals),
         ("Count the letters", _counted)], [5, 1, 2, 2])[0]
    return exchange(f"{asked}: {', '.join(words)}",
                    "So: " + "; ".join(f"{word} {form(word)}" for word in words))


def task(source, kind=None):
    kind = kind or source.pick(TASKS)
    if kind == "repeat":
        return exchange(*_repeat(source))
    if kind == "sort":
        return exchange(*_sort(source))
    if kind == "position":
        words, place = source.words(3), source.integer(0, 2)
        return exchange(f"What is the {POSITIONS[place]} word of: {' '.join(words)}?",
                        f"The {POSITIONS[place]} word is {words[place]}.")
    word = _word(source)
    if kind == "spell":
        return exchange(source.pick([f"Spell the word {word}.", f"Spell {word}."]),
                        _spelled(word))
    if kind == "reverse":
        return exchange(source.pick([f"Reverse the word {word}.", f"Spell {word} backwards."]),
                        _reversed(word))
    if kind == "capitals":
        return exchange(source.pick([f"Write {word} in uppercase.", f"Uppercase: {word}"]),
                        _in_capitals(word))
    return exchange(source.pick([f"How many letters are in the word {word}?",
                                 f"Count the letters of {word}."]), f"{_counted(word)}.")


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What a vocabulary has of lower-case letters alone: after a space, and elsewhere."""

    starts: list
    others: list


def letter_pieces(token_strings):
    """Of a vocabulary's byte-level strings."""
    def plain(token):
        return 1 <= len(token) <= 9 and set(token) <= set(string.ascii_lowercase)
    return Pieces(
        sorted(token[1:] for token in token_strings
               if token.startswith("\u0120") and plain(token[1:])),
        sorted(token for token in token_strings if plain(token)))
