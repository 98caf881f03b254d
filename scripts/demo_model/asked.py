"""Which held-out cases are asked, and where the verdicts are written."""

import argparse
import json

from conversations import evaluation


def add_flags(parser):
    parser.add_argument("--cases", help="JSON lines to ask instead, as eval.jsonl has them")
    parser.add_argument("--seed", default=evaluation.SEED,
                        help="of the cases: another one asks other held-out things")
    parser.add_argument("--every", type=int, default=1, help="ask only every n-th case")
    parser.add_argument("--needles", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", help="write answers and verdicts there (JSON)")


def cases(arguments):
    if arguments.cases:
        with open(arguments.cases, encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines]
    else:
        found = evaluation.cases(arguments.needles, arguments.seed)
    return found[::arguments.every]


def write(arguments, asked, given, right, **more):
    """To --out, if there is one: for each case what was given and whether it is right."""
    if not arguments.out:
        return
    rows = [{"id": case["id"], "category": case["category"], "given": answer, "right": good}
            for case, answer, good in zip(asked, given, right)]
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({**more, "rows": rows}, file)
