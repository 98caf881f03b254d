"""A source of random choices for one conversation."""

import random

from . import vocabulary
from .split import held_out


class Source:
    """Random choices from a seed. `evaluating` draws from what is held out of training.

    `pieces`: letters.Pieces that made-up words are put together from, besides syllables
    (the tokenizer's, so that each of its tokens is met in tasks on letters). One thread.
    """

    def __init__(self, seed, evaluating=False, pieces=None):
        self.random = random.Random(seed)
        self.evaluating = evaluating
        self.pieces = pieces
        self.pick = self.random.choice
        self.integer = self.random.randint

    def chance(self, probability):
        return self.random.random() < probability

    def allows(self, *key):
        """Whether what has this key belongs to this side of the split."""
        return held_out(*key) == self.evaluating

    def allows_sum(self, operator, a, b):
        """Both orders of a sum are on one side; those that the hash parts are on none."""
        if operator == "*":
            return self.allows(operator, max(a, b), min(a, b))
        return self.allows(operator, a, b) and (operator == "-" or
                                                self.allows(operator, b, a))

    def word(self):
        """A word for tasks on letters."""
        return self.pick(vocabulary.WORDS_HELD_OUT if self.evaluating
                         else vocabulary.WORDS_TRAINING)

    def words(self, count):
        return self.random.sample(vocabulary.WORDS_HELD_OUT if self.evaluating
                                  else vocabulary.WORDS_TRAINING, count)

    def plain_words(self, count):
        """Words in texts that nobody spells: the training side's, always."""
        return self.random.sample(vocabulary.WORDS_TRAINING, count)

    def made_up_word(self):
        """Lower-case letters, 3 to 9 of them, never a held-out word."""
        while True:
            if self.pieces and self.chance(0.75):
                word = self.pick(self.pieces.starts if self.chance(0.75)
                                 else self.pieces.others) + "".join(
                    self.pick(self.pieces.others) for _ in range(self.integer(1, 2)))
            elif self.chance(0.3):
                word = "".join(self.pick("abcdefghijklmnopqrstuvwxyz")
                               for _ in range(self.integer(3, 6)))
            else:
                word = self.made_up_name().lower()
            if 3 <= len(word) <= 9 and not (
                    word in vocabulary.WORDS and held_out("w", word)):
                return word

    def made_up_name(self):
        syllables = [self.pick("bdfgklmnprstvz") + self.pick("aeiou")
                     for _ in range(self.integer(2, 3))]
        return ("".join(syllables) + self.pick(["", "n", "r", "s", "l"])).capitalize()

    def city(self):
        if self.evaluating:
            return self.pick(vocabulary.CITIES_HELD_OUT + vocabulary.CITIES)
        return self.made_up_name() if self.chance(0.3) else self.pick(vocabulary.CITIES)

    def name(self):
        return self.made_up_name() if self.chance(0.2) else self.pick(vocabulary.NAMES)

    def number(self, digits):
        return self.integer(10 ** (digits - 1) if digits > 1 else 0, 10 ** digits - 1)


def exchange(question, answer, think=None):
    reply = {"role": "assistant", "content": answer}
    if think:
        reply["think"] = think
    return [{"role": "user", "content": question}, reply]
