"""The same token ids and logprobs, bit for bit, wherever the experts are and whoever
else is being served."""

import os
import random
import subprocess
import tempfile

import e2e_case
from local_cluster import Cluster, OneProcess

NUM_PROMPTS = 50
NUM_EXPERTS = 32


def requests():
    """Fifty prompts of all categories: half greedy, half sampled with a seed."""
    pairs = e2e_case.evaluation()
    step = len(pairs) // NUM_PROMPTS
    bodies = []
    for index, (case, _) in enumerate(pairs[::step][:NUM_PROMPTS]):
        sampling = {"temperature": 0} if index % 2 == 0 else {
            "temperature": 0.9, "top_p": 0.95, "top_k": 40, "seed": 1000 + index,
            "presence_penalty": 0.2}
        bodies.append(e2e_case.chat_body(
            case, max_tokens=24, logprobs=True, top_logprobs=3, return_token_ids=True,
            **sampling))
    return bodies


def essence(answer):
    """What has to be the same to the last bit."""
    choice = answer["choices"][0]
    logprobs = [(entry["logprob"], [top["logprob"] for top in entry["top_logprobs"]])
                for entry in choice["logprobs"]["content"]]
    return choice["token_ids"], logprobs, choice["finish_reason"]


def random_deal(workers, seed):
    """Every expert dealt to a random worker; no worker is left without."""
    source = random.Random(seed)
    experts = list(range(NUM_EXPERTS))
    source.shuffle(experts)
    hands = [[expert] for expert in experts[:workers]]
    for expert in experts[workers:]:
        source.choice(hands).append(expert)
    return [",".join(map(str, sorted(hand))) for hand in hands]


class Placement(e2e_case.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bodies = requests()
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            cls.expected = [essence(a) for a in
                            e2e_case.ask_all(server.port, cls.bodies, at_once=1)]
            cls.at_once = [essence(a) for a in
                           e2e_case.ask_all(server.port, cls.bodies, at_once=8)]

    def assert_same(self, got):
        self.assertEqual(len(got), NUM_PROMPTS)
        for index, (a, b) in enumerate(zip(self.expected, got)):
            self.assertEqual(a, b, f"prompt {index}")

    def check(self, deal, at_once, **more):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=deal, **more) as cluster:
            answers = e2e_case.ask_all(cluster.port, self.bodies, at_once)
        self.assert_same([essence(a) for a in answers])

    def test_answers_vary(self):
        tokens = {tuple(ids) for ids, _, _ in self.expected}
        self.assertGreater(len(tokens), NUM_PROMPTS // 2)

    def test_one_process_eight_at_once(self):
        self.assert_same(self.at_once)

    def test_scalar_kernels(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                        flags=["--isa", "scalar"]) as server:
            answers = e2e_case.ask_all(server.port, self.bodies, at_once=8)
        self.assert_same([essence(a) for a in answers])

    def test_other_prefill_chunks(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                        flags=["--chunked-prefill-size", "7"]) as server:
            answers = e2e_case.ask_all(server.port, self.bodies, at_once=8)
        self.assert_same([essence(a) for a in answers])

    def test_1_worker_one_at_a_time(self):
        self.check(["1/1"], at_once=1)

    def test_2_workers(self):
        self.check(["1/2", "2/2"], at_once=8)

    def test_3_workers_one_at_a_time(self):
        self.check(["1/3", "2/3", "3/3"], at_once=1)

    def test_2_workers_on_unix_sockets(self):
        self.check(["1/2", "2/2"], at_once=8, unix_sockets=True)

    def test_3_workers_on_unix_sockets_spinning(self):
        self.check(["1/3", "2/3", "3/3"], at_once=1, unix_sockets=True,
                   attention_flags=["--spin-micros", "100"],
                   expert_flags=["--spin-micros", "100"])

    def test_5_workers(self):
        self.check([f"{i}/5" for i in range(1, 6)], at_once=8)

    def test_8_workers(self):
        self.check([f"{i}/8" for i in range(1, 9)], at_once=8)

    def test_random_deals(self):
        for seed, workers in ((1, 3), (2, 5)):
            with self.subTest(seed=seed, workers=workers):
                self.check(random_deal(workers, seed), at_once=8)


class Bf16Activations(e2e_case.TestCase):
    """The same in the format bf16dot: served as it is, converted, on any instruction set, and
    with its rows in bf16 on the wire."""

    FLAGS = ["--activations", "bfloat16"]

    def test_arrangements(self):
        bodies = requests()[:12]

        def answers(server, at_once):
            return [essence(a) for a in e2e_case.ask_all(server.port, bodies, at_once)]

        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=self.FLAGS) as server:
            expected = answers(server, 8)
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            self.assertNotEqual(answers(server, 8), expected, "f32 gave the same logprobs")
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                        flags=[*self.FLAGS, "--isa", "avx2", "--chunked-prefill-size",
                               "7"]) as server:
            self.assertEqual(answers(server, 3), expected)
        for deal, unix in ((["1/1"], False), (["1/3", "2/3", "3/3"], True)):
            with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=deal, unix_sockets=unix,
                         attention_flags=self.FLAGS, expert_flags=self.FLAGS) as cluster:
                self.assertEqual(answers(cluster, 8), expected)
        with tempfile.TemporaryDirectory() as directory:
            converted = os.path.join(directory, "bf16dot")
            subprocess.run([e2e_case.binary("switchyard"), "convert", "--model", e2e_case.DEMO,
                            "--out", converted, "--format", "bf16dot"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with Cluster(e2e_case.BINARIES, converted, deal=["1/2", "2/2"],
                         attention_flags=["--kv-cache-dtype", "float32"]) as cluster:
                self.assertEqual(answers(cluster, 8), expected)


if __name__ == "__main__":
    e2e_case.main()
