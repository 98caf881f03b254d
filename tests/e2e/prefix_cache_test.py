"""What was read once is not read again, and no answer changes by it."""

import os
import tempfile

import e2e_case
from local_cluster import Cluster, OneProcess, get, post


def essence(answer):
    choice = answer["choices"][0]
    return choice["token_ids"], choice["message"]["content"]


def ask(port, messages, **more):
    return e2e_case.ask(port, {
        "model": "default", "messages": messages, "max_tokens": 16, "temperature": 0,
        "return_token_ids": True, "chat_template_kwargs": {"enable_thinking": False}, **more})


def usage(answer):
    counts = answer["usage"]
    return counts["prompt_tokens"], counts["prompt_tokens_details"]["cached_tokens"]


def story(words, seed):
    """Some text that no two seeds share."""
    return " ".join(f"w{seed}x{(i * 7919 + seed) % 997}" for i in range(words))


def conversation(port, turns):
    """The answers of a conversation, and (prompt, cached) of each turn."""
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    answers, counts = [], []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"What is {turn} plus {turn + 1}?"})
        answer = ask(port, messages)
        answers.append(essence(answer))
        counts.append(usage(answer))
        messages.append({"role": "assistant",
                         "content": answer["choices"][0]["message"]["content"]})
    return answers, counts


class PrefixCache(e2e_case.TestCase):
    def test_a_turn_reads_what_is_new(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/2", "2/2"]) as cluster:
            warm, counts = conversation(cluster.port, turns=8)
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                        flags=["--disable-radix-cache"]) as server:
            cold, cold_counts = conversation(server.port, turns=8)
        self.assertEqual(warm, cold)
        self.assertEqual([cached for _, cached in cold_counts], [0] * 8)
        for before, (prompt, cached) in zip(counts, counts[1:]):
            # All of the last turn's prompt but the header of its answer.
            self.assertGreaterEqual(cached, before[0] - 8)
            self.assertLess(cached, prompt)

    def test_thoughts_that_are_kept_are_not_read_again(self):
        """A thinking conversation: what the template strips is reported, and with
        preserve_thinking the cache has all of it."""
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            for preserve in (False, True):
                kwargs = {"enable_thinking": True, "preserve_thinking": preserve}
                messages = [{"role": "user", "content": f"What is 3{preserve:d} + 45?"}]
                first = ask(server.port, messages, chat_template_kwargs=kwargs,
                            max_tokens=200)
                self.assertEqual(first["choices"][0]["finish_reason"], "stop")
                message = first["choices"][0]["message"]
                self.assertTrue(message["reasoning_content"])
                messages += [{"role": "assistant", "content": message["content"],
                              "reasoning_content": message["reasoning_content"]},
                             {"role": "user", "content": "And 12 + 30?"}]
                second = ask(server.port, messages, chat_template_kwargs=kwargs)
                prompt, cached = usage(second)
                stripped = second["usage"]["prompt_tokens_details"].get(
                    "stripped_reasoning_tokens", 0)
                told = first["usage"]["prompt_tokens"]
                answered = first["usage"]["completion_tokens"]
                if preserve:
                    self.assertEqual(stripped, 0)
                    self.assertGreaterEqual(cached, told + answered - 2)
                else:
                    self.assertGreater(stripped, 0)
                    self.assertLess(cached, told + 1)
                self.assertLess(cached, prompt)

    def test_the_same_prompt_again(self):
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            for words in (10, 100, 400):
                messages = [{"role": "user", "content": story(words, words)}]
                first = ask(server.port, messages)
                second = ask(server.port, messages)
                self.assertEqual(essence(first), essence(second))
                prompt, cached = usage(second)
                self.assertGreaterEqual(cached, 0.9 * prompt - 8)

    def test_a_shared_system_prompt(self):
        system = {"role": "system", "content": story(300, 5)}
        computed, suffixes, prefix = 0, 0, None
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO) as server:
            for i in range(20):
                answer = ask(server.port,
                             [system, {"role": "user", "content": f"Question {i}: {i} + 1?"}])
                prompt, cached = usage(answer)
                if prefix is None:
                    prefix = prompt
                else:
                    suffixes += 40
                computed += prompt - cached
            metrics = get(server.port, "/metrics")[1]
        self.assertLessEqual(computed, 1.05 * prefix + suffixes)
        self.assertIn("vllm:prefix_cache_hits_total", metrics)

    def test_chunks_and_company_change_nothing(self):
        """Prompts that begin alike, cold and warm, alone and eight at once."""
        bodies = []
        for i in range(24):
            messages = [{"role": "system", "content": story(60, i % 3)},
                        {"role": "user", "content": f"Tell me about number {i % 12}."}]
            bodies.append({"model": "default", "messages": messages, "max_tokens": 12,
                           "temperature": 0 if i % 2 else 0.8, "seed": i % 12,
                           "return_token_ids": True,
                           "chat_template_kwargs": {"enable_thinking": False}})
        with OneProcess(e2e_case.BINARIES, e2e_case.DEMO,
                        flags=["--disable-radix-cache"]) as server:
            expected = [essence(a) for a in e2e_case.ask_all(server.port, bodies, at_once=1)]
        for chunk in ("64", "512"):
            with self.subTest(chunk=chunk), OneProcess(
                    e2e_case.BINARIES, e2e_case.DEMO,
                    flags=["--chunked-prefill-size", chunk]) as server:
                for at_once in (8, 1):
                    got = e2e_case.ask_all(server.port, bodies, at_once)
                    self.assertEqual([essence(a) for a in got], expected)

    def test_scopes_share_nothing(self):
        """Who has another salt or key learns nothing of what others asked, and gets the
        same tokens; in memory, from disk, and by every API."""
        messages = [{"role": "system", "content": story(150, 5)},
                    {"role": "user", "content": "What is 2 plus 3?"}]
        text = story(150, 6)
        few = {"max_tokens": 8, "temperature": 0}

        def chat(said=messages, **scope):
            answer = ask(server.port, said, **scope)
            return essence(answer), usage(answer)[1]

        def complete(**scope):
            answer = post(server.port, "/v1/completions", {"prompt": text, **few, **scope})
            return answer["choices"][0]["text"], usage(answer)[1]

        def respond(**scope):
            answer = post(server.port, "/v1/responses", {
                "input": text, "max_output_tokens": 8, "temperature": 0, "store": False,
                **scope})
            return ([item.get("content") for item in answer["output"]],
                    answer["usage"]["input_tokens_details"]["cached_tokens"])

        def message(**scope):
            answer = post(server.port, "/v1/messages", {
                "model": "default", "max_tokens": 8, "temperature": 0, "system": text,
                "messages": [{"role": "user", "content": "What is 2 plus 3?"}], **scope})
            return answer["content"], answer["usage"]["cache_read_input_tokens"]

        def generate(**scope):
            answer = post(server.port, "/generate", {
                "text": "Once more: " + text, **scope,
                "sampling_params": {"max_new_tokens": 8, "temperature": 0}})
            return answer["output_ids"], answer["meta_info"]["cached_tokens"]

        scopes = [{}, {"cache_salt": "a"}, {"cache_salt": "b"}, {"extra_key": "a"},
                  {"cache_salt": "a", "extra_key": "a"}]
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            flags = ["--snapshot-dir", folder]
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                for api in (chat, complete, respond, message, generate):
                    first = None
                    for scope in scopes:
                        with self.subTest(api=api.__name__, **scope):
                            cold, cached = api(**scope)
                            self.assertEqual(cached, 0)
                            warm, cached = api(**scope)
                            self.assertGreater(cached, 100)
                            first = first or cold
                            self.assertEqual((cold, warm), (first, first))
                (_, content), _ = chat()
            turn = messages + [{"role": "assistant", "content": content},
                               {"role": "user", "content": "And 4 plus 5?"}]
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                for scope in [{"cache_salt": "c"}, *scopes]:
                    with self.subTest(restarted=scope):
                        known = scope in scopes
                        self.assertEqual(chat(turn, **scope)[1] > 100, known)
                        self.assertGreater(chat(turn, **scope)[1], 100)

    def test_after_a_restart(self):
        messages = [{"role": "system", "content": story(150, 5)},
                    {"role": "user", "content": "What is 2 plus 3?"}]
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            flags = ["--snapshot-dir", folder]
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                cold = ask(server.port, messages)
            self.assertEqual(usage(cold)[1], 0)
            files = [name for name in os.listdir(folder) if name.endswith(".state")]
            self.assertGreater(len(files), 0)
            turn = messages + [
                {"role": "assistant", "content": cold["choices"][0]["message"]["content"]},
                {"role": "user", "content": "And 4 plus 5?"}]
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                self.assertGreater(usage(ask(server.port, turn))[1],
                                   usage(cold)[0] - 8)
                again = ask(server.port, messages)
            self.assertEqual(essence(again), essence(cold))
            # Another worker with a copy of the folder goes on as well; with a damaged
            # one it reads the prompt again.
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                with open(path, "r+b") as file:
                    file.seek(os.path.getsize(path) // 2)
                    byte = file.read(1)
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte[0] ^ 1]))
            with OneProcess(e2e_case.BINARIES, e2e_case.DEMO, flags=flags) as server:
                damaged = ask(server.port, messages)
            self.assertEqual(usage(damaged)[1], 0)
            self.assertEqual(essence(damaged), essence(cold))


if __name__ == "__main__":
    e2e_case.main()
