"""`switchyard session`: a session goes on at another attention worker, from where it
was, and no answer changes."""

import json
import os
import subprocess
import tempfile

import e2e_case
from local_cluster import Cluster, OneProcess


def turn(port, messages, **more):
    return e2e_case.ask(port, {
        "model": "default", "messages": messages, "max_tokens": 24, "temperature": 0.7,
        "seed": len(messages), "return_token_ids": True,
        "chat_template_kwargs": {"enable_thinking": False}, **more})


def next_messages(messages, answer):
    return [*messages, {"role": "assistant",
                        "content": answer["choices"][0]["message"]["content"]},
            {"role": "user", "content": "And the one behind it?"}]


def essence(answer):
    choice = answer["choices"][0]
    return choice["token_ids"], choice["message"]["content"]


def session(*arguments):
    return subprocess.run([e2e_case.binary("switchyard"), "session", *arguments],
                          capture_output=True, text=True, timeout=60 * e2e_case.SLOWER,
                          check=False)


class Sessions(e2e_case.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="switchyard-")
        self.addCleanup(folder.cleanup)
        self.state = os.path.join(folder.name, "session.state")
        self.answer_file = os.path.join(folder.name, "answer.json")
        self.first = [{"role": "user", "content": "Count: " + " ".join(
            f"number {i}" for i in range(150))}]
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            first = turn(server.port, self.first)
            self.second = next_messages(self.first, first)
            self.expected = [essence(first), essence(turn(server.port, self.second))]

    def cluster(self, **more):
        cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, **more)
        self.addCleanup(cluster.close)
        cluster.start()
        for index in range(len(cluster.attentions)):
            cluster.wait_attention_ready(index)
        return cluster

    def first_turn(self, cluster):
        answer = turn(cluster.port, self.first)
        self.assertEqual(essence(answer), self.expected[0])
        with open(self.answer_file, "w", encoding="utf-8") as file:
            json.dump(answer, file)
        return answer["usage"]["total_tokens"]

    def check_second_turn(self, port, known):
        answer = turn(port, self.second)
        self.assertEqual(essence(answer), self.expected[1])
        # All but the answer's last tokens, which its template may write otherwise.
        self.assertGreaterEqual(
            answer["usage"]["prompt_tokens_details"]["cached_tokens"], known - 32)

    def test_moved_while_the_other_worker_dies(self):
        cluster = self.cluster(num_attention=2)
        known = self.first_turn(cluster)
        addresses = [cluster.attention_address(i) for i in range(2)]
        moves = [session("move", "--from", addresses[i], "--to", addresses[1 - i],
                         "--tokens", self.answer_file) for i in range(2)]
        source = 0 if moves[0].returncode == 0 else 1
        self.assertEqual(moves[source].returncode, 0, moves[source].stderr)
        self.assertIn("took the state of", moves[source].stdout)
        if source == 1:
            self.assertIn("keeps no state", moves[0].stderr)
        else:  # there and back: it is still where it was
            self.assertIn("already", moves[1].stdout)
        cluster.attentions[source].kill()
        self.check_second_turn(cluster.port, known)

    def test_saved_and_loaded(self):
        cluster = self.cluster()
        known = self.first_turn(cluster)
        address = cluster.attention_address()
        saved = session("save", "--from", address, "--tokens", self.answer_file,
                        "--to", self.state)
        self.assertEqual(saved.returncode, 0, saved.stderr)
        cluster.attention.kill()
        cluster.start_attention()
        cluster.wait_attention_ready(0)
        cluster.wait_ready()

        damaged = self.state + ".damaged"
        with open(self.state, "rb") as whole, open(damaged, "wb") as file:
            data = bytearray(whole.read())
            data[len(data) // 2] ^= 1
            file.write(data)
        refused = session("load", "--from", damaged, "--to", address)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("checksum", refused.stderr)

        loaded = session("load", "--from", self.state, "--to", address)
        self.assertEqual(loaded.returncode, 0, loaded.stderr)
        self.check_second_turn(cluster.port, known)

        other = self.cluster(attention_flags=["--kv-cache-dtype", "bfloat16"])
        refused = session("load", "--from", self.state, "--to", other.attention_address())
        self.assertEqual(refused.returncode, 1)
        self.assertIn("float32 keys", refused.stderr)
        self.assertIn("bfloat16 keys", refused.stderr)

    def test_mistakes_are_told(self):
        nobody = session("save", "--from", "127.0.0.1:1", "--tokens", self.answer_file,
                         "--to", self.state)
        self.assertEqual(nobody.returncode, 1)
        with open(self.answer_file, "w", encoding="utf-8") as file:
            file.write("[1, 2, 3]")
        nobody = session("save", "--from", "127.0.0.1:1", "--tokens", self.answer_file,
                         "--to", self.state)
        self.assertIn("127.0.0.1:1", nobody.stderr)
        self.assertFalse(os.path.exists(self.state + ".partial"))
        self.assertIn("--tokens", session("save", "--from", "a:1", "--to", "b").stderr)


if __name__ == "__main__":
    e2e_case.main()
