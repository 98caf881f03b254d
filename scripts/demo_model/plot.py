#!/usr/bin/env python3
"""Draws the training's loss and the accuracy by category, and prints the latter.

    plot.py --log log.jsonl --results NAME=results.json ... --out DIR

DIR gets loss.png and accuracy.png; results are what evaluate.py and
evaluate_transformers.py write with --out. Needs matplotlib.
"""

import argparse
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import scoring  # noqa: E402

CURVES = [("loss", "next token"), ("draft_1_loss", "first draft"),
          ("draft_2_loss", "second draft"), ("draft_3_loss", "third draft")]


def smoothed(values, width=9):
    """The mean of the last `width` values."""
    return [sum(values[max(0, i + 1 - width):i + 1]) / min(i + 1, width)
            for i in range(len(values))]


def draw_loss(log, path):
    figure, axes = pyplot.subplots(figsize=(8, 4))
    for key, label in CURVES:
        points = [(line["tokens"] / 1e6, line[key]) for line in log if key in line]
        if points:
            tokens, losses = zip(*points)
            axes.plot(tokens, smoothed(losses), label=label, linewidth=1)
    axes.set_xlabel("million tokens")
    axes.set_ylabel("loss on tokens that the model writes")
    axes.set_yscale("log")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def draw_accuracy(tables, path):
    categories = list(dict.fromkeys(name for table in tables.values() for name in table))
    figure, axes = pyplot.subplots(figsize=(8, 0.24 * len(categories) * len(tables) + 1))
    height = 0.8 / len(tables)
    for i, (name, table) in enumerate(tables.items()):
        shares = [100 * table[c][0] / table[c][1] if c in table else 0 for c in categories]
        axes.barh([row + i * height for row in range(len(categories))], shares, height,
                  label=name)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(categories))], categories)
    axes.invert_yaxis()
    axes.axvline(90, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("percent right of the held-out cases")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(tables))
    axes.margins(y=0.01)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--log")
    parser.add_argument("--results", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    if arguments.log:
        with open(arguments.log, encoding="utf-8") as lines:
            draw_loss([json.loads(line) for line in lines],
                      os.path.join(arguments.out, "loss.png"))
    tables = {}
    for item in arguments.results:
        name, path = item.split("=", 1)
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["rows"]
        tables[name] = scoring.by_category(rows, [row["right"] for row in rows])
    if tables:
        draw_accuracy(tables, os.path.join(arguments.out, "accuracy.png"))
        print(scoring.markdown(tables))


if __name__ == "__main__":
    main()
