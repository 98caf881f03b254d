#!/usr/bin/env python3
"""Asks the held-out cases of a server, greedily, and prints how many answers are right.

    evaluate.py --model DIR                  starts build/release/bin/switchyard on DIR
    evaluate.py --url http://127.0.0.1:8080  asks a server that runs

Any OpenAI-compatible server that takes `chat_template_kwargs` will do.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import sys
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "scripts")]

import asked  # noqa: E402
import local_cluster  # noqa: E402
import scoring  # noqa: E402

DRAFTS = ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3",
          "--speculative-adaptive=false"]


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", help="checkpoint directory to serve")
    where.add_argument("--url", help="of a server")
    parser.add_argument("--binaries", default=os.path.join(ROOT, "build/release/bin"))
    asked.add_flags(parser)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--show-wrong", action="store_true")
    return parser.parse_args()


def body(case):
    out = {"model": "default", "messages": case["messages"], "temperature": 0,
           "max_tokens": scoring.MAX_TOKENS, "return_token_ids": True,
           "chat_template_kwargs": {"enable_thinking": case["enable_thinking"]}}
    if case["tools"]:
        out["tools"] = case["tools"]
    return out


def token_ids(answer):
    """What an API answer was written with, if the server tells (Switchyard, vLLM)."""
    return answer["choices"][0].get("token_ids")


def reply(answer):
    """An API answer as (content, calls); calls is None where arguments are no JSON."""
    message = answer["choices"][0]["message"]
    calls = []
    for call in message.get("tool_calls") or []:
        try:
            calls.append({"name": call["function"]["name"],
                          "arguments": json.loads(call["function"]["arguments"])})
        except ValueError:
            calls = None
            break
    return (message["content"] or "").strip(), calls


@contextlib.contextmanager
def server(arguments):
    """(host, port) of the server to ask."""
    if arguments.url:
        address = urllib.parse.urlparse(arguments.url)
        yield address.hostname, address.port
    else:
        with local_cluster.OneProcess(arguments.binaries, arguments.model,
                                      flags=DRAFTS) as process:
            yield local_cluster.LOOPBACK, process.port


def draft_acceptance(host, port):
    """Share of verifying steps whose first d drafts were all taken, by d; {} if untold."""
    text = local_cluster.get(port, "/metrics", host=host)[1]
    drafts = re.findall(r"^vllm:spec_decode_num_drafts_total\S* (\S+)$", text, re.MULTILINE)
    taken = re.findall(r"^vllm:spec_decode_num_accepted_tokens_per_pos_total{[^}]*"
                       r'position="(\d+)"[^}]*} (\S+)$', text, re.MULTILINE)
    total = sum(map(float, drafts))
    return {int(position) + 1: float(count) / total for position, count in taken
            if float(count)} if total else {}


def main():
    arguments = options()
    cases = asked.cases(arguments)
    with server(arguments) as (host, port):
        def ask(case):
            return local_cluster.post(port, "/v1/chat/completions", body(case),
                                      timeout=600, host=host)
        with concurrent.futures.ThreadPoolExecutor(arguments.at_once) as pool:
            answers = list(pool.map(ask, cases))
        acceptance = draft_acceptance(host, port)
    replies = [reply(answer) for answer in answers]
    right = [scoring.is_right(case, *given) for case, given in zip(cases, replies)]
    print(scoring.markdown({"Switchyard": scoring.by_category(cases, right)}))
    for depth, share in sorted(acceptance.items()):
        print(f"drafts 1 to {depth} all taken: {share:.3f} of the verifying steps")
    if arguments.show_wrong:
        for case, given, good in zip(cases, replies, right):
            if not good:
                print(json.dumps({"id": case["id"], "category": case["category"],
                                  "asked": case["messages"][-1]["content"][-200:],
                                  "expected": case["expected"], "given": given}))
    asked.write(arguments, cases, replies, right, engine="Switchyard", acceptance=acceptance,
                token_ids={case["id"]: token_ids(answer)
                           for case, answer in zip(cases, answers)})


if __name__ == "__main__":
    main()
