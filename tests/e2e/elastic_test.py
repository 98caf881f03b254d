"""Expert workers come, go and die under load: no error, the same tokens, and hardly more
is loaded than has to be."""

import json
import threading

import e2e_case
from local_cluster import ElasticCluster, OneProcess, get, wait_until

NUM_PROMPTS = 12
REPLICAS = 2
# 9 layers of 32 experts, the MTP head's among them.
NUM_PAIRS = 288
EXPERT_BYTES = 3 * 128 * 32 * 2  # bf16


def requests():
    """Prompts of all categories: half greedy, half sampled with a seed."""
    pairs = e2e_case.evaluation()
    step = len(pairs) // NUM_PROMPTS
    bodies = []
    for index, (case, _) in enumerate(pairs[::step][:NUM_PROMPTS]):
        sampling = {"temperature": 0} if index % 2 == 0 else {
            "temperature": 0.9, "top_p": 0.95, "seed": 1000 + index}
        bodies.append(e2e_case.chat_body(case, max_tokens=24, return_token_ids=True,
                                         **sampling))
    return bodies


def tokens(answer):
    return answer["choices"][0]["token_ids"]


class Load(threading.Thread):
    """Asks again and again, and compares."""

    def __init__(self, port, bodies, expected, first):
        super().__init__()
        self.port, self.bodies, self.expected, self.first = port, bodies, expected, first
        self.stop = threading.Event()
        self.answers = 0
        self.faults = []

    def run(self):
        index = self.first
        while not self.stop.is_set():
            try:
                got = tokens(e2e_case.ask(self.port, self.bodies[index]))
                if got != self.expected[index]:
                    self.faults.append(f"prompt {index}: {got} for {self.expected[index]}")
            except Exception as error:  # pylint: disable=broad-except
                self.faults.append(f"prompt {index}: {error!r}")
            self.answers += 1
            index = (index + 1) % len(self.bodies)


class Elastic(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bodies = requests()
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            cls.expected = [tokens(a) for a in
                            e2e_case.ask_all(server.port, cls.bodies, at_once=1)]

    def setUp(self):
        self.cluster = ElasticCluster(
            e2e_case.BINARIES, e2e_case.DEMO, attention_workers=2,
            router_flags=["--member-lease", f"{2 * e2e_case.SLOWER}s"],
            expert_flags=["--threads", "1", "--replicas", str(REPLICAS),
                          # Those that are started together come together.
                          "--join-delay", f"{2 * e2e_case.SLOWER}s",
                          "--drain-timeout", f"{30 * e2e_case.SLOWER}s"],
            attention_flags=["--threads", "1"])
        self.addCleanup(self.cluster.close)
        self.loaded = {}  # of workers that are gone

    def loaded_bytes(self):
        """What all workers have ever loaded."""
        for name, worker in self.cluster.experts.items():
            value = worker.metric("switchyard_expert_rebalance_loaded_bytes_total")
            if value is not None:
                self.loaded[name] = value
        return sum(self.loaded.values())

    def held(self):
        return {name: int(worker.metric("switchyard_expert_held_experts"))
                for name, worker in self.cluster.experts.items()}

    def wait_settled(self, count):
        """All see `count` workers, every expert has its copies, and nobody has more."""
        def settled():
            workers = self.cluster.experts.values()
            copies = 0
            for worker in workers:
                values = [worker.metric(name) for name in (
                    "switchyard_experts_under_replicated",
                    "switchyard_expert_loads_pending",
                    "switchyard_expert_wanted_experts",
                    "switchyard_expert_held_experts",
                    "switchyard_expert_rebalance_loaded_bytes_total",
                    "switchyard_expert_rebalance_dropped_bytes_total")]
                if (None in values or values[0] or values[1] or not values[2] or
                        values[2] != values[3]):
                    return False
                # What was withdrawn is gone, too: nothing is taken back for free.
                if values[4] - values[5] != values[3] * EXPERT_BYTES:
                    return False
                copies += values[3]
            return len(workers) == count and copies == REPLICAS * NUM_PAIRS
        wait_until(settled, f"{count} workers that hold everything twice",
                   60 * e2e_case.SLOWER, self.cluster.processes())

    def change(self, count, do):
        """(bytes that `do` made the workers load, the least that it could have been)."""
        before, had = self.loaded_bytes(), self.held()
        do()
        self.wait_settled(count)
        now = self.held()
        share = REPLICAS * NUM_PAIRS / count
        least = sum(max(0, share - had.get(name, 0)) for name in now) * EXPERT_BYTES
        return self.loaded_bytes() - before, least

    def test_3_4_7_2_under_load(self):
        cluster = self.cluster
        cluster.start(experts=["a", "b", "c"])
        self.wait_settled(3)
        load = [Load(cluster.port, self.bodies, self.expected, first)
                for first in range(0, NUM_PROMPTS, 4)]
        for one in load:
            one.start()
        try:
            moves = [self.change(4, lambda: cluster.add_expert("d")),
                     self.change(7, lambda: [cluster.add_expert(n) for n in "efg"])]
            # Three leave with a word; two die without one, one after the other, as
            # two copies allow.
            moves.append(self.change(4, lambda: [cluster.drain_expert(n) for n in "bce"]))
            moves.append(self.change(3, lambda: cluster.kill_expert("a")))
            moves.append(self.change(2, lambda: cluster.kill_expert("f")))
        finally:
            for one in load:
                one.stop.set()
            for one in load:
                one.join()
        for one in load:
            self.assertEqual(one.faults, [])
            self.assertGreater(one.answers, 0)
        print("answers:", sum(one.answers for one in load), "moves:", moves)
        total, least = (sum(column) for column in zip(*moves))
        self.assertLessEqual(total, 1.1 * least)
        for name in "bce":
            self.assertEqual(cluster.wait_drained(name), 0, name)

    def topology(self):
        status, body = get(self.cluster.port, "/topology")
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def test_topology(self):
        cluster = self.cluster
        cluster.start(experts=["a", "b", "c"])
        self.wait_settled(3)
        e2e_case.ask_all(cluster.port, self.bodies, at_once=4)
        # Views, states and heat arrive a little later.
        wait_until(lambda: self.topology()["under_replicated"] == 0 and
                   all(m["state"] == "serving" for m in self.topology()["members"]) and
                   self.topology()["heat"], "topology", 30 * e2e_case.SLOWER,
                   cluster.processes())
        topology = self.topology()
        roles = sorted(member["role"] for member in topology["members"])
        self.assertEqual(roles, 2 * ["attention_worker"] + 3 * ["expert_worker"])
        held = [0] * len(topology["members"])
        for layer in topology["holders"]:
            for holders in layer:
                self.assertEqual(len(holders), REPLICAS)
                for member in holders:
                    held[member] += 1
        for member, count in zip(topology["members"], held):
            self.assertEqual(member.get("held_experts", 0), count)
        self.assertEqual(sum(held), REPLICAS * NUM_PAIRS)
        # Every layer of the model itself has had rows.
        self.assertTrue(all(sum(layer) > 0 for layer in topology["heat"][:8]))

    def test_restarted_router_keeps_everything(self):
        cluster = self.cluster
        cluster.start(experts=["a", "b"])
        self.wait_settled(2)
        before = self.loaded_bytes()
        cluster.restart_router()
        answers = e2e_case.ask_all(cluster.port, self.bodies, at_once=4)
        self.assertEqual([tokens(a) for a in answers], self.expected)
        wait_until(lambda: get(cluster.port, "/readyz")[0] == 200, "readiness",
                   30 * e2e_case.SLOWER, cluster.processes())
        self.assertEqual(self.loaded_bytes(), before)

    def test_one_worker_and_a_late_one(self):
        # One copy is all that one worker can have; the second brings the other.
        cluster = self.cluster
        cluster.start(experts=["a"])
        self.assertEqual(tokens(e2e_case.ask(cluster.port, self.bodies[0])),
                         self.expected[0])
        cluster.add_expert("b")
        self.wait_settled(2)
        cluster.kill_expert("a")
        self.assertEqual(tokens(e2e_case.ask(cluster.port, self.bodies[1])),
                         self.expected[1])


if __name__ == "__main__":
    e2e_case.main()
