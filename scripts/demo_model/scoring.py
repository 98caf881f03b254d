"""When an answer is right, and the table of how many are."""

import collections
import json
import re

MAX_TOKENS = 320


def split_reply(text):
    """A reply's raw text as (content, calls); reasoning is dropped. calls is None if one
    does not parse."""
    if "</think>" in text:
        text = text.split("</think>")[-1]
    calls = []
    for block in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL):
        try:
            calls.append(json.loads(block))
        except ValueError:
            return text, None
    content = re.sub(r"<tool_call>\n.*?\n</tool_call>", "", text, flags=re.DOTALL)
    return content.strip(), calls


def is_right(case, content, calls):
    """Exactly the expected answer, or exactly the expected call and nothing else."""
    expected = case["expected"]
    if "tool_call" in expected:
        return not content and calls == [expected["tool_call"]]
    return calls == [] and content == expected["content"].strip()


def by_category(cases, right):
    """category -> [right, asked], in the cases' order."""
    table = collections.OrderedDict()
    for case, good in zip(cases, right):
        entry = table.setdefault(case["category"], [0, 0])
        entry[0] += bool(good)
        entry[1] += 1
    return table


def markdown(columns):
    """`columns`: heading -> by_category's table. A table with a line for each category."""
    names = list(dict.fromkeys(name for table in columns.values() for name in table))
    lines = ["| category | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    sums = {heading: [0, 0] for heading in columns}
    for name in names:
        cells = []
        for heading, table in columns.items():
            right, asked = table.get(name, (0, 0))
            sums[heading][0] += right
            sums[heading][1] += asked
            cells.append(f"{right}/{asked}" if asked else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| all | " + " | ".join(f"{r}/{n}" for r, n in sums.values()) + " |")
    return "\n".join(lines)
