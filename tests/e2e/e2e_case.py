"""What the end-to-end tests share: where things are, and how to ask."""

import concurrent.futures
import glob
import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

import local_cluster  # noqa: E402
from local_cluster import post  # noqa: E402

BINARIES = os.environ.get("SWITCHYARD_BINARIES", os.path.join(ROOT, "build/release/bin"))
DEMO = os.path.join(ROOT, "models", "demo")
SKIPPED = 77  # exit status
# A sanitizer's build is several times slower.
SLOWER = float(os.environ.get("SWITCHYARD_TEST_SLOWDOWN", "1"))
# Who is killed while it ends is not searched for leaks.
local_cluster.CLOSE_SECONDS *= SLOWER

def binary(name):
    return os.path.join(BINARIES, name)

def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

def evaluation():
    """(case, the reference's greedy answer) of the demo model's evaluation set."""
    answers = {a["id"]: a for a in read_jsonl(os.path.join(DEMO, "reference_answers.jsonl"))}
    return [(case, answers[case["id"]])
            for case in read_jsonl(os.path.join(DEMO, "eval.jsonl"))]

def chat_body(case, **more):
    body = {"model": "default", "messages": case["messages"],
            "chat_template_kwargs": {"enable_thinking": case["enable_thinking"]}, **more}
    if case["tools"]:
        body["tools"] = case["tools"]
    return body

def ask(port, body, timeout=300):
    return post(port, "/v1/chat/completions", body, timeout=timeout * SLOWER)

def ask_all(port, bodies, at_once):
    """The answers, in order, with `at_once` requests open at a time."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda body: ask(port, body), bodies))

def run_measurement(name, *flags, timeout=300):
    """scripts/`name` on these binaries, to its end: returncode, stdout, stderr."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "scripts", name), "--binaries", BINARIES, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
        timeout=timeout * SLOWER)

class TestCase(unittest.TestCase):
    maxDiff = 4000

def _reports(directory):
    """What sanitizers wrote there, one text a process."""
    texts = []
    for path in sorted(glob.glob(os.path.join(directory, "report.*"))):
        with open(path, encoding="utf-8", errors="replace") as report:
            texts.append(f"{os.path.basename(path)}:\n{report.read()}")
    return texts

def main(why_not=None):
    """Runs the tests of the program, or none if it is told why they cannot run here, which
    ctest shows as skipped (SKIP_RETURN_CODE). A sanitizer's report fails it, whichever process it
    was of: a test does not see how all its processes ended, nor all that they printed."""
    if why_not:
        print(f"{os.path.basename(sys.argv[0])}: skipped: {why_not}", file=sys.stderr)
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="switchyard-reports-") as directory:
        for sanitizer in ("ASAN", "LSAN", "TSAN", "UBSAN"):
            options = f"{sanitizer}_OPTIONS"
            os.environ[options] = (
                f"{os.environ.get(options, '')}:log_path={directory}/report")
        program = unittest.main(verbosity=2, module="__main__", exit=False)
        reports = _reports(directory)
    for report in reports:
        print(f"A sanitizer's {report}", file=sys.stderr)
    sys.exit(0 if program.result.wasSuccessful() and not reports else 1)
