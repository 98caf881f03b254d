"""A model with more experts than memory is given for: the same tokens, and no more
memory than that."""

import e2e_case
from local_cluster import OneProcess, get

# Of 288 experts of 24 KiB; a token goes through 4 in each layer.
EXPERTS_MEMORY = 20 * 24 * 1024
NUM_PROMPTS = 12


def metric(port, name):
    for line in get(port, "/metrics")[1].splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return None


class OutOfCore(e2e_case.TestCase):
    def answers(self, flags=()):
        bodies = [e2e_case.chat_body(case, max_tokens=24, return_token_ids=True,
                                     temperature=0, logprobs=True)
                  for case, _ in e2e_case.evaluation()[:NUM_PROMPTS]]
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
            answers = e2e_case.ask_all(server.port, bodies, at_once=4)
            counts = {name: metric(server.port, f"switchyard_expert_cache_{name}_total")
                      for name in ("hits", "reads", "read_seconds")}
        return [(a["choices"][0]["token_ids"], a["choices"][0]["logprobs"])
                for a in answers], counts

    def test_same_tokens_and_logprobs(self):
        expected, none = self.answers()
        self.assertIsNone(none["reads"])
        got, counts = self.answers(["--experts-memory", str(EXPERTS_MEMORY)])
        self.assertEqual(got, expected)
        # Read again and again, and yet some were there.
        self.assertGreater(counts["reads"], 288)
        self.assertGreater(counts["hits"], 0)
        self.assertGreater(counts["read_seconds"], 0)

    def test_too_little_is_refused_with_the_numbers(self):
        with self.assertRaisesRegex(Exception, "a token goes through"):
            self.answers(["--experts-memory", "1000"])


if __name__ == "__main__":
    e2e_case.main()
