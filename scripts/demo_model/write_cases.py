#!/usr/bin/env python3
"""Writes the held-out cases as JSON lines, in the form of models/demo/eval.jsonl.

    write_cases.py --out eval.jsonl [--no-needles]
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from conversations import evaluation  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--needles", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    with open(arguments.out, "w", encoding="utf-8") as file:
        for case in evaluation.cases(arguments.needles):
            file.write(json.dumps(case, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
