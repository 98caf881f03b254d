"""Models of random weights in Qwen3-Next-80B-A3B's geometry, for measurements."""

import os
import sys

from local_cluster import run_to_end


def kept(switchyard, folder, layers, form, vocabulary=None):
    """The folder of a converted model below `folder`, made if it is not there yet: so many
    layers, weights in the format `form`, and the 80B's vocabulary unless one is given.
    `switchyard` is the program. ProcessFailed: it could not be made."""
    name = f"random-{layers}-{form}" + (f"-{vocabulary}" if vocabulary else "")
    path = os.path.join(folder, name)
    if not os.path.exists(os.path.join(path, "switchyard.json")):
        print(f"making {path}", file=sys.stderr, flush=True)
        more = ["--set", f"vocab_size={vocabulary}"] if vocabulary else []
        run_to_end([switchyard, "synth", "--layers", str(layers), "--format", form, *more,
                    "--out", path])
    return path
