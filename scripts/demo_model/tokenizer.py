#!/usr/bin/env python3
"""Trains a tokenizer in Qwen's format on the training conversations.

    tokenizer.py --out DIR --template models/demo/chat_template.jinja

DIR gets tokenizer.json, tokenizer_config.json, vocab.json, merges.txt and the template. A
model keeps the tokenizer that it was trained with: this is for training one from scratch
(`train.py --from-scratch --start DIR`, with a config.json beside it).
"""

import argparse
import json
import os
import shutil
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from conversations import mixture, rendering  # noqa: E402
from geometry import Geometry  # noqa: E402

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>",
         "</think>"]
# Qwen2's: every digit is a token of its own.
PIECES = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts(seed, samples):
    """The conversations' texts, cut where added tokens stand."""
    for number in range(samples):
        text = "".join(part for part, _ in rendering.segments(
            *mixture.sample(seed, number, "short")))
        for token in SPECIAL + ADDED:
            text = text.replace(token, "\0")
        yield from text.split("\0")


def train(seed, samples, vocabulary_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts(seed, samples), trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(SPECIAL + ADDED), min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return tokenizer


def configuration(tokenizer, template):
    added = {str(tokenizer.token_to_id(token)): {
        "content": token, "lstrip": False, "normalized": False, "rstrip": False,
        "single_word": False, "special": token in SPECIAL} for token in SPECIAL + ADDED}
    return {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "additional_special_tokens": SPECIAL[1:], "bos_token": None,
            "chat_template": template, "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 8192,
            "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--template", required=True, help="chat_template.jinja to take along")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=20000)
    arguments = parser.parse_args()
    tokenizer = train(arguments.seed, arguments.samples, Geometry.vocab_size)
    os.makedirs(arguments.out, exist_ok=True)
    tokenizer.save(os.path.join(arguments.out, "tokenizer.json"))
    tokenizer.model.save(arguments.out)
    shutil.copy(arguments.template, os.path.join(arguments.out, "chat_template.jinja"))
    with open(arguments.template, encoding="utf-8") as file:
        config = configuration(tokenizer, file.read())
    with open(os.path.join(arguments.out, "tokenizer_config.json"), "w",
              encoding="utf-8") as file:
        json.dump(config, file, indent=2, ensure_ascii=False)
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
