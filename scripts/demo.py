"""The demo behind scripts/demo: starts the services, asks, prints, stops.

Plays an OpenAI client over HTTP with nothing but Python's standard library.
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time

import local_cluster
from local_cluster import LOOPBACK

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TIMER = {"type": "function", "function": {
    "name": "set_timer", "description": "Start a timer.",
    "parameters": {"type": "object",
                   "properties": {"duration": {"type": "integer",
                                               "description": "Length in minutes"}},
                   "required": ["duration"]}}}


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Starts Switchyard on loopback and asks it "
        "four things.")
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "demo"),
                        help="checkpoint directory (default: the bundled one)")
    parser.add_argument("--keep", action="store_true",
                        help="leave the services running until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080,
                        help="HTTP port of the router (another one if it is in use)")
    parser.add_argument("--binaries", default=os.path.join(ROOT, "build/release/bin"),
                        help=argparse.SUPPRESS)
    return parser.parse_args()


def port_or_other(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            return port
        except OSError:
            other = local_cluster.free_port()
            print(f"Port {port} is in use; the router takes {other}.")
            return other


class Progress:
    """One line that says how far loading is, while it takes."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        self._thread.join()

    def _run(self):
        begin = time.monotonic()
        while not self._stop.wait(1.0):
            parts = []
            for name, port in self._ports():
                status, body = local_cluster.get(port, "/readyz", timeout=1)
                if status not in (200, 503):
                    continue
                try:
                    progress = json.loads(body).get("loading_progress")
                except ValueError:
                    continue
                if progress is not None:
                    parts.append(f"{name} {100 * progress:.0f}%")
            print(f"  loading, {time.monotonic() - begin:.0f} s: "
                  + (", ".join(parts) or "starting"), flush=True)

    def _ports(self):
        yield "attention worker", self._cluster.attention_metrics_port
        for index, port in enumerate(self._cluster.expert_metrics_ports):
            yield f"expert worker {index + 1}", port


def print_map(cluster, model):
    served = json.loads(local_cluster.get(cluster.port, "/v1/models")[1])
    print(f"\nServing {served['data'][0]['id']} from {os.path.relpath(model)}:\n")
    rows = [("router", cluster.router.pid, f"http://{LOOPBACK}:{cluster.port}",
             f"http://{LOOPBACK}:{cluster.port}/metrics"),
            ("attention worker", cluster.attention.pid,
             f"{LOOPBACK}:{cluster.attention_port} (gRPC)",
             f"http://{LOOPBACK}:{cluster.attention_metrics_port}/metrics")]
    for index, process in enumerate(cluster.experts):
        rows.append((f"expert worker {cluster.expert_deal[index]}", process.pid,
                     f"{LOOPBACK}:{cluster.expert_ports[index]} (gRPC)",
                     f"http://{LOOPBACK}:{cluster.expert_metrics_ports[index]}/metrics"))
    print(f"  {'what':<20} {'pid':>7}  {'address':<28} metrics")
    for what, pid, address, metrics in rows:
        print(f"  {what:<20} {pid:>7}  {address:<28} {metrics}")


def ask(cluster, title, body, show):
    """Streams one answer to the terminal; returns (text, tool calls)."""
    print(f"\n\n=== {title}\n{show}\n")
    begin = time.monotonic()
    first = None
    thoughts, text, calls, usage = "", "", {}, {}
    events = local_cluster.stream(
        cluster.port, "/v1/chat/completions",
        {**body, "model": "default", "stream_options": {"include_usage": True}})
    for event in events:
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            first = first or time.monotonic()
            delta = choice["delta"]
            thought = delta.get("reasoning_content") or ""
            thoughts += thought
            piece = delta.get("content") or ""
            if piece and thoughts and not text:
                print("\n", end="")
            text += piece
            print(thought + piece, end="", flush=True)
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {
                    "id": part.get("id"), "type": "function",
                    "function": {"name": "", "arguments": ""}})
                function = part.get("function", {})
                call["function"]["name"] += function.get("name") or ""
                call["function"]["arguments"] += function.get("arguments") or ""
    end = time.monotonic()
    for call in calls.values():
        print(f"-> calls {call['function']['name']}({call['function']['arguments']})",
              end="")
    count = usage.get("completion_tokens", 0)
    after_first = max(end - (first or end), 1e-9)
    rate = f"{(count - 1) / after_first:.0f} tokens/s" if count > 1 else "one token"
    print(f"\n    [{usage.get('prompt_tokens', 0)} prompt tokens, first token after "
          f"{1000 * ((first or end) - begin):.0f} ms, then {rate}]", flush=True)
    return text, [calls[index] for index in sorted(calls)]


def read_jsonl(name):
    with open(os.path.join(ROOT, "models", "demo", name), encoding="utf-8") as lines:
        return list(map(json.loads, lines))


def recall_case():
    """Of the bundled model's evaluation: the longest question about one of many facts that it
    answers."""
    right = {answer["id"] for answer in read_jsonl("reference_answers.jsonl")
             if answer["right"]}
    return max((case for case in read_jsonl("eval.jsonl")
                if case["category"].startswith("retrieval") and case["id"] in right and
                len(case["messages"]) == 1),
               key=lambda case: len(case["messages"][0]["content"]))


def talk(cluster):
    ask(cluster, "A streamed answer", {
        "messages": [{"role": "user", "content": "Explain a KV cache."}]},
        "user: Explain a KV cache.")

    ask(cluster, "A sum with reasoning", {
        "messages": [{"role": "user", "content": "What is 567 + 489?"}],
        "chat_template_kwargs": {"enable_thinking": True}},
        "user: What is 567 + 489?   (enable_thinking)")

    messages = [{"role": "user", "content": "Set a timer for 24 minutes."}]
    text, calls = ask(cluster, "A tool call", {"messages": messages, "tools": [TIMER]},
                      "user: Set a timer for 24 minutes.   (tool: set_timer(duration))")
    if calls:
        messages += [{"role": "assistant", "content": text, "tool_calls": calls}]
        messages += [{"role": "tool", "tool_call_id": call["id"],
                      "content": '{"ok": true}'} for call in calls]
        ask(cluster, "The answer after the tool's result",
            {"messages": messages, "tools": [TIMER]}, 'tool: {"ok": true}')

    messages = recall_case()["messages"]
    text = messages[0]["content"].replace("\n", " ")
    ask(cluster, "A fact recalled from a long prompt", {"messages": messages},
        f"user: {text[:74]} ...\n      ... {text[text[:-1].rindex('. ') + 2:]}")


def print_curl(cluster):
    body = json.dumps({"model": "default", "messages": [
        {"role": "user", "content": "Tell me the capital of Mexico."}]})
    print(f"""
Still running. Try:

  curl http://{LOOPBACK}:{cluster.port}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{body}'

Ctrl-C stops everything.""", flush=True)


def raise_interrupt(*unused):
    raise KeyboardInterrupt


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, raise_interrupt)
    print("Starting a router, an attention worker and two expert workers on loopback ...",
          flush=True)
    begin = time.monotonic()
    cluster = local_cluster.Cluster(options.binaries, os.path.abspath(options.model),
                                    port=port_or_other(options.port))
    try:
        with Progress(cluster):
            cluster.start(timeout=3600)
        print(f"Ready after {time.monotonic() - begin:.1f} s.")
        print_map(cluster, options.model)
        talk(cluster)
        if options.keep:
            print_curl(cluster)
            while all(process.alive() for process in cluster.processes()):
                time.sleep(0.5)
            for process in cluster.processes():
                if not process.alive():
                    print(f"{process.name} ended:\n{process.log()}", file=sys.stderr)
            return 1
        return 0
    except KeyboardInterrupt:
        return 130
    except (local_cluster.ProcessFailed, local_cluster.HttpError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nStopping ...", flush=True)
        cluster.close()


if __name__ == "__main__":
    sys.exit(main())
