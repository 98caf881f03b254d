"""Two builds with different versions of the expert wire side by side, under load: every
expert worker, and every attention worker, is replaced by one of the other build, and
back. No request fails and no token changes.

The other build is this one, held back with --max-protocol-version, or that of
SWITCHYARD_OTHER_BINARIES, a folder with an older build's binaries.
"""

import os
import time

import e2e_case
import checked_load
from local_cluster import ElasticCluster, get, wait_until

OTHER = os.environ.get("SWITCHYARD_OTHER_BINARIES")
OLD = ({"binaries": OTHER} if OTHER
       else {"flags": ["--max-protocol-version", "2"]})


class RollingUpgrade(e2e_case.TestCase):
    def test_there_and_back_under_load(self):
        cluster = ElasticCluster(
            e2e_case.BINARIES, e2e_case.DEMO, attention_workers=2,
            router_flags=["--member-lease", f"{2 * e2e_case.SLOWER}s"],
            expert_flags=["--threads", "1", "--join-delay", "0.3s",
                          "--drain-timeout", f"{30 * e2e_case.SLOWER}s"],
            attention_flags=["--threads", "1"])
        self.cluster = cluster
        self.addCleanup(cluster.close)
        cluster.start(experts="abc", **OLD)
        self.wait_settled()
        self.load = checked_load.CheckedLoad(
            cluster.port, checked_load.requests(32, tokens=100), 6,
            timeout=120 * e2e_case.SLOWER).expect()
        self.load.start()
        for number, name in enumerate("abc"):
            cluster.add_expert(f"new-{name}")
            self.replace(name)
            if number == 1:  # both builds are there: change the others, too
                for index in range(2):
                    cluster.replace_attention(index, 60 * e2e_case.SLOWER)
                    self.wait_for_events(100)
        # Back: the newer build turns out to be no good.
        for name in "abc":
            cluster.add_expert(f"old-{name}", **OLD)
            self.replace(f"new-{name}")
        self.load.stop()
        self.assertEqual(self.load.failures, [])
        self.assertEqual(self.load.changed, [])
        print("answers:", len(self.load.done))

    def wait_for_events(self, count):
        before = self.load.num_events()
        deadline = time.monotonic() + 60 * e2e_case.SLOWER
        while self.load.num_events() < before + count:
            self.assertLess(time.monotonic(), deadline, "no events come")
            time.sleep(0.01)

    def replace(self, name):
        """Drains the worker once the one that is to take its place serves."""
        self.wait_settled()
        self.wait_for_events(100)
        self.cluster.drain_expert(name)
        self.assertEqual(self.cluster.wait_drained(name, 60 * e2e_case.SLOWER), 0, name)
        self.wait_for_events(100)

    def wait_settled(self):
        def settled():
            for worker in self.cluster.experts.values():
                values = [worker.metric(name) for name in (
                    "switchyard_experts_under_replicated", "switchyard_expert_loads_pending",
                    "switchyard_expert_wanted_experts", "switchyard_expert_held_experts")]
                if None in values or values[0] or values[1] or not values[2] or (
                        values[2] != values[3]):
                    return False
            return get(self.cluster.port, "/readyz")[0] == 200
        wait_until(settled, "placement", 60 * e2e_case.SLOWER, self.cluster.processes())


if __name__ == "__main__":
    e2e_case.main()
