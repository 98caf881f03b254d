"""Builds of deploy/k8s, and what the tests ask of them."""

import functools
import json
import os
import subprocess
import sys
import tempfile

import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
K8S = os.path.join(ROOT, "deploy", "k8s")
KUBECTL = os.path.join(os.path.dirname(sys.executable), "kubectl")

sys.path.insert(0, os.path.join(ROOT, "scripts"))


def overlays():
    return sorted(os.listdir(os.path.join(K8S, "overlays")))


def components():
    return sorted(os.listdir(os.path.join(K8S, "components")))


def build(path):
    """The documents that `kubectl kustomize path` prints."""
    result = subprocess.run([KUBECTL, "kustomize", path], capture_output=True,
                            text=True, timeout=60, check=False)
    if result.returncode != 0 or result.stderr:
        raise AssertionError(f"kubectl kustomize {path}:\n{result.stderr}")
    return [d for d in yaml.safe_load_all(result.stdout) if d]


@functools.lru_cache(maxsize=None)
def overlay(name):
    return build(os.path.join(K8S, "overlays", name))


def base_with(*names):
    """base with these components, as an overlay would have it."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".overlay-") as folder:
        with open(os.path.join(folder, "kustomization.yaml"), "w",
                  encoding="utf-8") as file:
            yaml.safe_dump({
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "switchyard",
                "resources": ["../deploy/k8s/base"],
                "components": [f"../deploy/k8s/components/{n}" for n in names]}, file)
        return build(folder)


def help_flags(binary):
    """The names of a binary's flags, as --help prints them."""
    text = subprocess.run([binary, "--help"], capture_output=True, text=True,
                          timeout=60, check=True).stdout
    return {line.strip().removeprefix("--") for line in text.splitlines()
            if line.startswith("  --")}


def custom_schema(document):
    """Our schema of a custom resource, or None: tests/deploy/schemas/<Kind>.json."""
    path = os.path.join(os.path.dirname(__file__), "schemas",
                        f"{document['kind']}.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)
