"""The demo model's evaluation set through Switchyard's HTTP API: the answers' token ids
are the reference's, and so is the accuracy by category."""

import collections
import json

import e2e_case
from local_cluster import Cluster

# Below this gap between the two largest logits, rounding may choose.
TIE_MARGIN = 0.001


def is_right(case, choice):
    """The evaluation's own rule: the exact expected answer or call."""
    message = choice["message"]
    calls = message.get("tool_calls") or []
    if "tool_call" in case["expected"]:
        wanted = case["expected"]["tool_call"]
        return (len(calls) == 1 and not (message["content"] or "").strip()
                and calls[0]["function"]["name"] == wanted["name"]
                and json.loads(calls[0]["function"]["arguments"]) == wanted["arguments"])
    if calls or message["content"] is None:
        return False
    return message["content"].strip() == case["expected"]["content"].strip()


class DemoModel(e2e_case.TestCase):
    def test_evaluation_set(self):
        pairs = e2e_case.evaluation()
        bodies = [e2e_case.chat_body(case, temperature=0, max_tokens=320,
                                     return_token_ids=True) for case, _ in pairs]
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO) as cluster:
            answers = e2e_case.ask_all(cluster.port, bodies, at_once=8)

        right, reference_right = collections.Counter(), collections.Counter()
        ties = 0
        for (case, reference), answer in zip(pairs, answers):
            choice = answer["choices"][0]
            with self.subTest(id=case["id"], category=case["category"]):
                self.assertEqual(answer["prompt_token_ids"], reference["prompt_ids"])
                if reference["min_margin"] > TIE_MARGIN:
                    self.assertEqual(choice["token_ids"], reference["output_ids"])
                elif choice["token_ids"] != reference["output_ids"]:
                    ties += 1
                    continue
                self.assertEqual(is_right(case, choice), reference["right"])
            right[case["category"]] += is_right(case, choice)
            reference_right[case["category"]] += reference["right"]
        self.assertEqual(right, reference_right)
        self.assertLessEqual(ties, 3)
        print(f"{len(pairs)} cases, {sum(right.values())} right, {ties} decided by a tie")


if __name__ == "__main__":
    e2e_case.main()
