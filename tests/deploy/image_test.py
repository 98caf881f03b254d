"""The services run in the image's root file system, as pods run them there: read-only root,
another user, no capability, nothing of the host but the network.

    tests/deploy/image_test.py [ROOT]

Without ROOT builds one with scripts/image_root first, from the binaries in
$SWITCHYARD_BINARIES (build/release/bin). As root, since chroot and mount namespaces need
it, and on Debian 12, whose libraries the image has. Exit status 77, which ctest shows as
skipped: that is not what runs here, or Debian's mirror could not be reached.
"""

import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(REPOSITORY, "scripts"))

import local_cluster  # pylint: disable=wrong-import-position

DEMO = "/usr/share/switchyard/models/demo"
SKIPPED = 77
UNAVAILABLE = 69  # scripts/image_root's
NAMES = ("switchyard", "switchyard-router", "switchyard-attention-worker",
         "switchyard-expert-worker")

# A mount namespace of its own, the root bound onto itself read-only, then no privilege.
WRAPPER = """#!/bin/sh
exec unshare --mount sh -c '
  mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" &&
  mount -t proc -o ro proc "$1/proc" || exit 125
  root=$1; shift
  exec chroot "$root" /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups \\
    --no-new-privs --inh-caps=-all --bounding-set=-all --pdeathsig KILL "$@"
' wrapper {root} /usr/bin/{name} "$@"
"""

root = None  # pylint: disable=invalid-name


def wrappers(folder):
    """A program of each binary's name that runs it in the root, in `folder`."""
    for name in NAMES:
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(WRAPPER.format(root=root, name=name))
        os.chmod(path, 0o755)
    return folder


class ImageTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.binaries = wrappers(folder.name)

    def test_three_services_answer_from_a_read_only_root(self):
        with local_cluster.Cluster(self.binaries, DEMO) as cluster:
            answer = local_cluster.post(cluster.port, "/v1/completions", {
                "model": "demo", "prompt": "Hello", "max_tokens": 8, "temperature": 0,
                "ignore_eos": True})
            self.assertEqual(answer["usage"]["completion_tokens"], 8)
            for process in cluster.processes():
                with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
                    status = dict(line.rstrip("\n").split(":\t", 1) for line in file
                                  if ":\t" in line)
                self.assertEqual(status["Uid"].split(), ["65532"] * 4)
                self.assertEqual(int(status["CapEff"], 16), 0)
                self.assertEqual(int(status["CapBnd"], 16), 0)
                self.assertEqual(status["NoNewPrivs"], "1")
            # SIGTERM reaches the process, and it drains.
            cluster.router.close(grace=60)
            self.assertEqual(cluster.router.exit_code(), 0)

    def test_one_process_serves(self):
        with local_cluster.OneProcess(self.binaries, DEMO) as server:
            status, body = local_cluster.get(server.port, "/v1/models")
            self.assertEqual(status, 200)
            self.assertIn("demo", body)

    def test_nothing_can_be_written(self):
        script = os.path.join(self.binaries, "switchyard")
        with open(script, encoding="utf-8") as file:
            text = file.read().replace("/usr/bin/switchyard", "/usr/bin/touch /tmp/x #")
        with open(script, "w", encoding="utf-8") as file:
            file.write(text)
        result = subprocess.run([script], capture_output=True, text=True, timeout=60,
                                check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("Read-only file system", result.stderr)


def skip(why):
    print(f"image_test: skipped: {why}", file=sys.stderr)
    sys.exit(SKIPPED)


def main():
    global root  # pylint: disable=global-statement
    if os.getuid() != 0:
        skip("needs root")
    with open("/etc/os-release", encoding="utf-8") as file:
        if 'VERSION_ID="12"' not in file.read():
            skip("needs Debian 12")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                      check=False).returncode != 0:
        skip("may not make mount namespaces")
    if len(sys.argv) > 1:
        root = os.path.abspath(sys.argv.pop(1))
        unittest.main()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = os.path.join(folder, "root")
        binaries = os.environ.get("SWITCHYARD_BINARIES",
                                  os.path.join(REPOSITORY, "build", "release", "bin"))
        built = subprocess.run(
            [os.path.join(REPOSITORY, "scripts", "image_root"), root,
             os.path.dirname(os.path.abspath(binaries))], check=False)
        if built.returncode == UNAVAILABLE:
            skip("Debian's mirror could not be reached")
        built.check_returncode()
        unittest.main()


if __name__ == "__main__":
    main()
