#!/usr/bin/env python3
"""Checks that includes point one way and that confined things stay in their folder.

    check_layering.py [ROOT]      check the tree at ROOT (this repository by default)
    check_layering.py --self-test plant faults in a made-up tree; each must be found

The rules are those of CONTRIBUTING.md; the tables below are their only exact form.
Runs as the CTests `layering` and `layering_self_test`.
"""

import pathlib
import re
import sys
import tempfile

SERVICE = "base metrics kernels model experts fabric rpc proto tracing"
# folder: the other folders of this tree that it may include.
FOLDERS = {
    "base": "",
    "metrics": "base",
    "kernels": "base",
    "model": "base kernels",
    "text": "base model",
    "grammar": "base text",
    "experts": "base kernels model",
    "rpc": "base metrics proto",
    "tracing": "base metrics rpc proto",
    "fabric": "base kernels model rpc proto",
    "attention_worker": SERVICE + " text grammar",
    "expert_worker": SERVICE,
    "router": "base fabric metrics model text rpc proto tracing",
}
# These see everything, and nothing above sees them.
TOPS = ("switchyard", "tests")

# part of a service: the other parts of the same service that it may include. The
# files beside the parts (server.cc, main.cc, ...) put everything together.
PARTS = {
    "attention_worker/sampling": "",
    "attention_worker/scheduler": "state",
    "attention_worker/state": "",
    "attention_worker/moe": "",
    "attention_worker/layers": "moe state",
    "attention_worker/speculative": "layers sampling state",
    "attention_worker/core": "layers moe sampling scheduler speculative state",
    "attention_worker/client": "moe",
    "attention_worker/service": "core moe state",
    "expert_worker/placement": "",
    "expert_worker/service": "",
    "fabric/placement": "",
    "tracing/span": "",
    "tracing/client": "span",
    "fabric/membership": "",
    "fabric/wire": "membership",
    "fabric/client": "membership wire",
    "router/membership": "client routing",
    "router/service": "membership",
    "router/text": "",
    "router/client": "",
    "router/routing": "client",
    "router/access": "",
    "router/admission": "",
    "router/http": "",
    "router/page": "http",
    "router/openai": "access admission client http routing text",
    "router/anthropic": "http openai text",
    "router/responses": "http openai",
    "router/sglang": "http openai text",
    "router/tokens": "http openai",
    "router/front": "access http openai page",
}

# Where bytes of other processes are turned into our types, and back.
WIRE = ("rpc/", "tracing/client/", "fabric/wire/", "fabric/client/", "router/client/", "router/service/", "attention_worker/client/",
        "attention_worker/service/", "expert_worker/service/",
        "router/server.", "attention_worker/server.", "expert_worker/server.")
# header: (the only places that see it, why).
CONFINED_HEADERS = {
    r"grpc(pp)?/|.*\.grpc\.pb\.h$": (WIRE, "gRPC ends at the service's edge"),
    r"proto/": (WIRE, "messages end at the service's edge"),
    r"prometheus/|civetweb\.h": (("metrics/",), "use metrics/registry.h"),
    r"(oneapi/)?dnnl": (("kernels/onednn/",), "use kernels/kernel_table.h"),
    r"immintrin\.h|cpuid\.h": (("kernels/",), "kernels choose instructions"),
    r"boost/": (("router/http/",), "use router/http/"),
    r"pcre2\.h|utf8proc\.h": (("text/", "router/text/"), "use text/"),
    r"openssl/": (("model/", "rpc/tls."), "use model/sha256.h or rpc/tls.h"),
}
# code: (the only places that write it, what to write instead).
CONFINED_CODE = {
    r"std::(w|u8|u16|u32)?string_view": ((), "absl::string_view"),
    r"absl::(Mutex|MutexLock|CondVar|Notification)\b":
        ((), "base/mutex.h, which ThreadSanitizer can see"),
    r"std::((recursive_|shared_|timed_)?mutex|condition_variable(_any)?|"
    r"lock_guard|scoped_lock|unique_lock|shared_lock)\b":
        (("base/",), "base/mutex.h, which is annotated"),
    # A std::thread as a member is fine: StartThread() returns one.
    r"std::thread\s*[({]|std::thread\s+\w+\s*[({]|std::jthread|std::async\b|"
    r"pthread_create": (("base/",), "StartThread() of base/thread.h, with a name"),
}

SOURCES = (".h", ".cc", ".inc")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)


def without_comments(text):
    """The code with comments blanked out; strings stay, lines keep their number."""
    # The quotes of 10'000 begin no character.
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'
        r"(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])*'", re.DOTALL)
    return token.sub(
        lambda found: re.sub(r"[^\n]", " ", found[0])
        if found[0].startswith("/") else found[0], text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def part_of(name):
    """"text/bpe.h" -> "router/text", if that is a part in PARTS."""
    part = "/".join(name.split("/")[:2])
    return part if part in PARTS else None


def direction_fault(name, header):
    """Why `name` may not include `header` of this tree, or None."""
    folder, target = name.split("/")[0], header.split("/")[0]
    if target in TOPS:
        return f"nothing below {target}/ may see it"
    if target != folder:
        known = target in FOLDERS or target == "proto"
        if known and target not in FOLDERS[folder].split():
            return f"{folder}/ may include only: {FOLDERS[folder] or 'nothing'}"
        return None
    part, target_part = part_of(name), part_of(header)
    if part is None or target_part == part:
        return None
    if target_part is None:
        # Files beside the parts know the parts; not the other way round.
        return f"{part}/ may not see what puts {folder}/ together"
    if target_part.split("/")[1] not in PARTS[part].split():
        return f"{part}/ may include only: {PARTS[part] or 'itself'}"
    return None


def faults_of_file(name, text):
    code = without_comments(text)
    for found in INCLUDE.finditer(code):
        header = found[1]
        where = f"{name}:{line_of(code, found.start(1))}"
        why = direction_fault(name, header)
        if why:
            yield f"{where}: includes {header}: {why}"
        for pattern, (places, why) in CONFINED_HEADERS.items():
            if re.match(pattern, header) and not name.startswith(places):
                yield f"{where}: includes {header}: {why}"
    for pattern, (places, instead) in CONFINED_CODE.items():
        if places and name.startswith(places):
            continue
        for found in re.finditer(pattern, code):
            yield (f"{name}:{line_of(code, found.start())}: "
                   f"{found[0]}: use {instead}")


def cycle(includes):
    """A cycle among headers as a list of names, or None."""
    done = set()
    for start in sorted(includes):
        path, stack = [], [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                done.add(path.pop())
            elif name in path:
                return path[path.index(name):] + [name]
            elif name not in done:
                path.append(name)
                stack.append((name, True))
                stack += [(header, False) for header in includes.get(name, ())]
    return None


def faults(root):
    """All faults of the tree, as lines for people."""
    includes = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            name = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8")
            includes[name] = INCLUDE.findall(without_comments(text))
            yield from faults_of_file(name, text)
    found = cycle({name: [header for header in headers if header in includes]
                   for name, headers in includes.items()})
    if found:
        yield "headers include each other: " + " -> ".join(found)


# Name, text, and whether that is a fault.
PLANTS = [
    ("base/a.h", '#include "model/config.h"', True),
    ("base/a.h", '#include "base/b.h"', False),
    ("kernels/a.cc", '#include "model/config.h"', True),
    ("model/a.cc", '#include "experts/expert_engine.h"', True),
    ("experts/a.cc", '#include "model/config.h"', False),
    ("experts/a.cc", '#include "metrics/registry.h"', True),
    ("router/a.cc", '#include "kernels/matrix.h"', True),
    ("router/openai/a.cc", '#include "attention_worker/core/engine.h"', True),
    ("expert_worker/a.cc", '#include "router/client/a.h"', True),
    ("attention_worker/a.cc", '#include "tests/testing/matchers.h"', True),
    ("attention_worker/a.cc", '#include "switchyard/serve.h"', True),
    ("attention_worker/core/a.cc", '#include "attention_worker/moe/a.h"', False),
    ("attention_worker/moe/a.cc", '#include "attention_worker/core/a.h"', True),
    ("attention_worker/core/a.cc", '#include "attention_worker/server.h"', True),
    ("attention_worker/server.cc", '#include "attention_worker/core/a.h"', False),
    ("router/text/a.cc", '#include "text/tokenizer.h"', False),
    ("text/a.cc", '#include "router/text/a.h"', True),
    ("text/a.cc", '#include "grammar/matcher.h"', True),
    ("grammar/a.cc", '#include "text/tokenizer.h"', False),
    ("attention_worker/core/a.cc", '#include "grammar/matcher.h"', False),
    ("router/openai/a.cc", '#include "grammar/matcher.h"', True),
    ("expert_worker/a.cc", '#include "text/tokenizer.h"', True),
    ("router/http/a.cc", '#include <utf8proc.h>', True),
    ("router/text/a.cc", '#include "grpcpp/channel.h"', True),
    ("router/text/a.cc", '#include "proto/generation.pb.h"', True),
    ("fabric/placement/a.cc", '#include "model/expert_set.h"', False),
    ("fabric/placement/a.cc", '#include "fabric/membership/member.h"', True),
    ("fabric/membership/a.cc", '#include "proto/membership.pb.h"', True),
    ("fabric/client/a.cc", '#include "grpcpp/channel.h"', False),
    ("fabric/client/a.cc", '#include "router/membership/registry.h"', True),
    ("router/service/a.cc", '#include "fabric/wire/membership_codec.h"', False),
    ("router/client/a.cc", '#include "proto/generation.grpc.pb.h"', False),
    ("router/client/a.cc", '#include <grpcpp/channel.h>', False),
    ("attention_worker/core/a.cc", '#include <grpc/grpc.h>', True),
    ("attention_worker/core/a.cc", '#include "proto/expert.pb.h"', True),
    ("rpc/a.cc", '#include "prometheus/registry.h"', True),
    ("kernels/a.cc", '#include "dnnl.hpp"', True),
    ("kernels/onednn/a.cc", '#include "oneapi/dnnl/dnnl.hpp"', False),
    ("model/a.cc", '#include <immintrin.h>', True),
    ("router/openai/a.cc", '#include "boost/asio.hpp"', True),
    ("model/a.cc", '# include "router/text/a.h"  // spaced', True),
    ("model/a.cc", '// #include "router/text/a.h"', False),
    ("model/a.cc", '/* std::string_view\n*/ int a;', False),
    ("model/a.cc", "char q = '\"'; std::string_view s;", True),
    ("model/a.cc", "int a = 10'000;  // it's no std::string_view", False),
    ("model/a.cc", "std::string_view s;", True),
    ("base/a.cc", "std::string_view s;", True),
    ("base/a.cc", "absl::Mutex m;", True),
    ("model/a.cc", "std::mutex m;", True),
    ("base/a.cc", "std::mutex m;", False),
    ("model/a.cc", "std::thread t([] {});", True),
    ("model/a.cc", "v.push_back(std::thread([] {}));", True),
    ("model/a.cc", 'std::thread t = StartThread("a", f);', False),
    ("base/a.h", '#include "base/a.h"', True),
]


def self_test():
    failures = 0
    for name, text, is_fault in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True)
            path.write_text(text + "\n", encoding="utf-8")
            found = list(faults(pathlib.Path(folder)))
        if bool(found) != is_fault:
            failures += 1
            print(f"{name}: {text!r}: expected {'a fault' if is_fault else 'none'}, "
                  f"found {found}")
    # A cycle over two files.
    if cycle({"a": ["b"], "b": ["c"], "c": ["a"]}) != ["a", "b", "c", "a"]:
        failures += 1
        print("the cycle a -> b -> c -> a was not found")
    if cycle({"a": ["b", "c"], "b": ["c"], "c": []}) is not None:
        failures += 1
        print("a cycle was found where there is none")
    print(f"layering self-test: {len(PLANTS) + 2} cases, {failures} failed")
    return failures


def main(arguments):
    if arguments == ["--self-test"]:
        return 1 if self_test() else 0
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(
        arguments[0] if arguments else pathlib.Path(__file__).parent.parent)
    missing = [folder for folder in FOLDERS if not (root / folder).is_dir()]
    if missing:
        print(f"{root} lacks {', '.join(missing)}: not this repository?",
              file=sys.stderr)
        return 2
    found = list(faults(root))
    print("\n".join(found) or "layering: ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
