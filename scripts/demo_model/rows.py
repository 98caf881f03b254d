"""Training rows: sample after sample, tokenized and packed to about equal lengths."""

import dataclasses
import os

from conversations import letters, mixture, rendering


@dataclasses.dataclass
class Row:
    """`written[i]`: token i is the model's to write. `lengths` sum to len(ids)."""

    ids: list
    written: list
    lengths: list
    next_sample: int  # the first sample that is not in this row or an earlier one


class Encoder:
    """Conversations to tokens, with a checkpoint directory's tokenizer."""

    def __init__(self, directory):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
        self.pieces = letters.letter_pieces(self.tokenizer.get_vocab())
        self.special_ids = {"end_of_text": self.tokenizer.token_to_id("<|endoftext|>"),
                            "end_of_turn": self.tokenizer.token_to_id("<|im_end|>")}

    def sample(self, seed, number, phase):
        """(ids, written) of one training conversation."""
        ids, written = [], []
        for text, is_reply in rendering.segments(
                *mixture.sample(seed, number, phase, self.pieces)):
            encoded = self.tokenizer.encode(text, add_special_tokens=False).ids
            ids += encoded
            written += [is_reply] * len(encoded)
        return ids, written


def rows(encoder, seed, phase, first_sample, row_tokens, longest, multiple):
    """Endless rows from sample `first_sample` on, in order.

    A row ends before the sample that would make it longer than `row_tokens`; a longer
    sample has a row of its own, and one of more than `longest` tokens is left out. A row
    is filled up to a multiple of `multiple` with a sequence that nobody learns from."""
    number, ids, written, lengths = first_sample, [], [], []
    while True:
        new_ids, new_written = encoder.sample(seed, number, phase)
        if len(new_ids) <= longest:
            if ids and len(ids) + len(new_ids) > row_tokens:
                padding = -len(ids) % multiple
                if padding:
                    ids += [encoder.special_ids["end_of_text"]] * padding
                    written += [False] * padding
                    lengths.append(padding)
                yield Row(ids, written, lengths, number)
                ids, written, lengths = [], [], []
            ids += new_ids
            written += new_written
            lengths.append(len(new_ids))
        number += 1
