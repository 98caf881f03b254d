#!/usr/bin/env python3
"""How many of the MTP head's drafts are right, by the training code: what a server's drafts
are held against.

    evaluate_drafts.py --model models/demo

Goes along each answer of DIR/reference_answers.jsonl as a server does that verifies a number
of greedy drafts in a step, takes those before the first wrong one, and one token more.
"""

import argparse
import json
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import architecture  # noqa: E402
import checkpoint  # noqa: E402

CHUNK = 32  # sequences are filled up to multiples of the delta rule's chunk
DEPTH = 3


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--every", type=int, default=1, help="take only every n-th answer")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


@torch.no_grad()
def right_drafts(model, prompt, answer):
    """For each token of the answer but the last: how many of the DEPTH drafts behind it are
    the answer's own, up to the first that is not."""
    tokens = prompt + answer
    padding = -len(tokens) % CHUNK
    ids = torch.tensor(tokens + [0] * padding)
    lengths = [len(tokens)] + ([padding] if padding else [])
    packing = architecture.Packing(lengths, model.geometry)
    state = model.states(ids, packing, [])
    next_ids = torch.cat([ids[1:], ids[:1]])
    guesses = []  # guesses[d][s]: draft d + 1, of token s + 2
    for depth in range(DEPTH):
        if depth:
            state = torch.cat([torch.zeros_like(state[:1]), state[:-1]])
        state = model.draft_states(state, next_ids, packing, [])
        guesses.append((state @ model.head.t()).argmax(-1).tolist())
    counts = []
    for newest in range(len(prompt), len(tokens) - 1):
        count = 0
        while (count < DEPTH and newest + count + 1 < len(tokens) and
               guesses[count][newest + count - 1] == tokens[newest + count + 1]):
            count += 1
        counts.append(count)
    return counts


def steps(counts, depth):
    """Drafts taken in each verifying step of one answer, with `depth` drafts a step."""
    taken, newest = [], 0
    while newest < len(counts):
        taken.append(min(counts[newest], depth))
        newest += taken[-1] + 1
    return taken


def main():
    arguments = options()
    torch.set_num_threads(arguments.threads)
    model = checkpoint.load(arguments.model)
    with open(os.path.join(arguments.model, "reference_answers.jsonl"),
              encoding="utf-8") as lines:
        answers = [json.loads(line) for line in lines][::arguments.every]
    counts = [right_drafts(model, answer["prompt_ids"], answer["output_ids"])
              for answer in answers]
    every = [count for one in counts for count in one]
    for depth in range(1, DEPTH + 1):
        share = sum(count >= depth for count in every) / len(every)
        taken = [number for one in counts for number in steps(one, depth)]
        print(f"drafts 1 to {depth} all right at {share:.3f} of {len(every)} positions; "
              f"{1 + sum(taken) / len(taken):.2f} tokens a step with {depth}")


if __name__ == "__main__":
    main()
