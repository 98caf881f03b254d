"""Starts a cluster and runs openai_node_test.mjs, the stock JavaScript client, against it."""

import os
import subprocess

import e2e_case
from local_cluster import Cluster

PACKAGES = os.path.join(e2e_case.ROOT, "build", "clients", "node")


class OpenAiNode(e2e_case.TestCase):
    def test_stock_client(self):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                              "openai_node_test.mjs")
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO) as cluster:
            done = subprocess.run(
                ["node", script, f"http://127.0.0.1:{cluster.port}", PACKAGES],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=120 * e2e_case.SLOWER)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("openai-node: ok", done.stdout)


if __name__ == "__main__":
    e2e_case.main()
