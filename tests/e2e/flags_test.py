"""What users of other servers type: names that stand for our flags, and help that shows
what a program or command takes."""

import os
import re
import subprocess

import e2e_case

ROUTER, ATTENTION, EXPERT = (["switchyard-router"], ["switchyard-attention-worker"],
                             ["switchyard-expert-worker"])
SERVE = ["switchyard", "serve"]
# Who understands a name, and a value that all of them take. None: a switch.
ALIASES = {
    "model-path": ([SERVE, ROUTER, ATTENTION, EXPERT], "x"),
    "speculative-algo": ([SERVE, ATTENTION], "NEXTN"),
    "max-model-len": ([SERVE, ROUTER, ATTENTION], "512"),
    "max-num-seqs": ([SERVE, ATTENTION], "8"),
    "max-num-batched-tokens": ([SERVE, ATTENTION], "512"),
    "max-num-queued-reqs": ([SERVE, ROUTER, ATTENTION], "8"),
    "max-num-queued-tokens": ([SERVE, ROUTER], "512"),
    "enable-prefix-caching": ([SERVE, ATTENTION], None),
    "spec-tokens": ([SERVE, ATTENTION], "2"),
    "shutdown-timeout": ([SERVE, ROUTER, ATTENTION, EXPERT], "30"),
    "sse-keep-alive-interval": ([SERVE, ROUTER], "30"),
    "alias": ([SERVE, ROUTER, ATTENTION], "x"),
    "ctx-size": ([SERVE, ROUTER, ATTENTION], "512"),
    "parallel": ([SERVE, ATTENTION], "8"),
    "cache-prompt": ([SERVE, ATTENTION], None),
    "spec-draft-n-max": ([SERVE, ATTENTION], "2"),
    "ssl-cert-file": ([SERVE, ROUTER], "x"),
    "ssl-key-file": ([SERVE, ROUTER], "x"),
    "timeout": ([SERVE, ROUTER, ATTENTION], "3600"),
}
COMMANDS = {
    "serve": {"--port", "--api-key", "--state-memory", "--max-queued-tokens"},
    "chat": {"--port", "--think"},
    "bench": {"--batch", "--transport"},
    "bench serving": {"--sessions", "--concurrency"},
    "logits": {"--ids", "--prefill"},
    "convert": {"--format", "--lm-head"},
    "session save": {"--from", "--cache-salt", "--tls-ca-file"},
    "session load": {"--from"},
    "session move": {"--to"},
    "verify": {"--threads"},
    "synth": {"--layers", "--seed"},
    "plan": {"--nodes", "--users"},
    "tokenize": {"--decode"},
    "render": {"--format"},
    "parse": {"--format"},
}


def run(command, *arguments):
    return subprocess.run([e2e_case.binary(command[0]), *command[1:], *arguments], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          timeout=60 * e2e_case.SLOWER)


def flags_of(command):
    """{flag: its other names}"""
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("  --"):
            name = line.strip()
            found[name] = []
        elif line.startswith("      also: "):
            found[name] = line.removeprefix("      also: ").split(", ")
    return found


class Flags(e2e_case.TestCase):
    def test_every_alias_is_of_a_flag_that_is_there(self):
        path = os.path.join(e2e_case.ROOT, "base", "flag_aliases.cc")
        with open(path, encoding="utf-8") as file:
            table = file.read().split("kAliases[] = {")[1].split("};")[0]
        aliases = dict(re.findall(r'\{"(\w+)", "(\w+)"', table))
        self.assertEqual({name.replace("_", "-") for name in aliases}, set(ALIASES))
        takes = {tuple(command): flags_of(command)
                 for command in (SERVE, ROUTER, ATTENTION, EXPERT)}
        for name, flag in aliases.items():
            programs, value = ALIASES[name.replace("_", "-")]
            for command, flags in takes.items():
                with self.subTest(alias=name, program=command):
                    own = "--" + flag.replace("_", "-")
                    self.assertEqual(list(command) in programs, own in flags)
                    argument = "--" + name.replace("_", "-")
                    done = run(command, argument, *([value] if value else []), "--help")
                    self.assertEqual(done.returncode == 0, list(command) in programs,
                                     done.stderr)
                    if own in flags:
                        self.assertIn(argument, [other.replace("--no-", "--")
                                                 for other in flags[own]])

    def test_a_command_shows_its_own_flags(self):
        every = set()
        for command, expected in COMMANDS.items():
            with self.subTest(command=command):
                flags = set(flags_of(["switchyard", *command.split()]))
                self.assertLessEqual(expected | {"--log-level"}, flags)
                every |= flags
        self.assertIn("switchyard COMMAND", run(["switchyard"], "--help").stdout)
        self.assertEqual(flags_of(["switchyard"]), {})
        serve = set(flags_of(SERVE))
        for others in ("--layers", "--nodes", "--ids", "--batch", "--tokenizer", "--seed",
                       "--think"):
            self.assertIn(others, every)
            self.assertNotIn(others, serve)
        done = run(SERVE, "--tokenizer", "x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("takes no flag --tokenizer: the tokenizer is the checkpoint's",
                      done.stderr)

    def test_flags_of_other_kinds_of_machines_say_what_to_do(self):
        for command in (SERVE, ROUTER, ATTENTION, EXPERT):
            for flag, instead in (("--tp-size", "switchyard-expert-worker"),
                                  ("--tensor-parallel-size", "switchyard-expert-worker"),
                                  ("--mem-fraction-static", "--state-memory"),
                                  ("--gpu-memory-utilization", "--state-memory")):
                with self.subTest(command=command, flag=flag):
                    done = run(command, flag, "1", "--help")
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(f"flag {flag} has no place here", done.stderr)
                    self.assertIn(instead, done.stderr)


if __name__ == "__main__":
    e2e_case.main()
