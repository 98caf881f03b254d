"""The image has the libraries of the binaries in it, by their packages' names."""

import os
import re
import subprocess
import unittest

import manifests

BINARIES = os.environ["SWITCHYARD_BINARIES"]
NAMES = ("switchyard", "switchyard-router", "switchyard-attention-worker",
         "switchyard-expert-worker")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60,
                          check=True).stdout


def read(*path):
    with open(os.path.join(manifests.ROOT, *path), encoding="utf-8") as file:
        return file.read()


def linked_packages():
    """Packages of the libraries that the binaries name (not those libraries' own)."""
    paths = set()
    for name in NAMES:
        binary = os.path.join(BINARIES, name)
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", binary)))
        for library, path in re.findall(r"(\S+) => (/\S+)", output("ldd", binary)):
            if library in needed:
                # Debian 12 has /lib -> usr/lib, and dpkg knows files by either name.
                paths.add(os.path.realpath(path))
    packages = set()
    for path in paths:
        for known in (path, path.removeprefix("/usr")):
            found = subprocess.run(["dpkg", "-S", known], capture_output=True,
                                   text=True, timeout=60, check=False)
            if found.returncode == 0:
                packages.add(found.stdout.split(":")[0])
                break
        else:
            raise AssertionError(f"no package has {path}")
    return packages


@unittest.skipUnless('VERSION_ID="12"' in read("/etc/os-release"),
                     "the image is Debian 12's; here libraries have other names")
class ImagePackagesTest(unittest.TestCase):

    def test_the_list_is_what_the_binaries_link_against(self):
        listed = {line for line in read("deploy", "image", "runtime-packages").split("\n")
                  if line and not line.startswith("#")}
        self.assertEqual(listed, linked_packages())


class ImageFilesTest(unittest.TestCase):

    def test_every_command_of_a_pod_is_in_the_image(self):
        installed = read("deploy", "image", "install_files")
        for document in manifests.overlay("local"):
            for container in (document.get("spec", {}).get("template", {})
                              .get("spec", {}).get("containers", [])):
                name = container["command"][0].removeprefix("/usr/bin/")
                self.assertRegex(installed, rf"\b{name}\b")

    def test_the_image_runs_as_the_pods_user(self):
        self.assertIn("USER 65532:65532", read("Dockerfile"))

    def test_the_build_gets_every_folder_that_it_needs(self):
        folders = re.search(r"foreach\(folder IN ITEMS(.*?)\)", read("CMakeLists.txt"),
                            re.DOTALL).group(1).split()
        allowed = {line[1:] for line in read(".dockerignore").split("\n")
                   if line.startswith("!")}
        self.assertEqual(set(folders) - allowed, set())


if __name__ == "__main__":
    unittest.main()
