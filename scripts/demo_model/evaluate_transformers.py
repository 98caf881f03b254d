#!/usr/bin/env python3
"""Asks the held-out cases of Transformers, greedily, in fp32 on the checkpoint's weights.

    evaluate_transformers.py --model DIR --out results.json

Prints the table by category and how evenly the experts are used. `--reference FILE` writes
the answers as models/demo/reference_answers.jsonl has them.

`--guesses FILE`, what evaluate.py wrote, makes it much faster: one pass over prompt and
guessed answer tells whether Transformers would choose each of its tokens. If so, that is its
greedy answer; if not, it writes its own. The number of those is printed.
"""

import argparse
import json
import os
import sys

import torch
from transformers import AutoTokenizer, Qwen3NextForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import asked  # noqa: E402
import scoring  # noqa: E402


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="checkpoint directory")
    asked.add_flags(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reference", help="write reference answers there (JSON lines)")
    parser.add_argument("--guesses", help="answers to check in one pass: evaluate.py's --out")
    return parser.parse_args()


class ExpertCounts:
    """Counts, by layer, how often the gates choose each expert."""

    def __init__(self, model):
        experts = model.config.num_experts
        self.counts = torch.zeros(len(model.model.layers), experts, dtype=torch.long)
        for i, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(
                lambda _module, _inputs, outputs, i=i: self._add(i, outputs, experts))

    def _add(self, layer, outputs, experts):
        chosen = next(o for o in outputs if not o.is_floating_point())
        self.counts[layer] += torch.bincount(chosen.flatten(), minlength=experts)

    def summary(self):
        lines = ["| layer | least used expert | most used | most to least |", "|---|---|---|---|"]
        for i, counts in enumerate(self.counts):
            share = counts / counts.sum() * len(counts)
            low, high = float(share.min()), float(share.max())
            ratio = f"{high / low:.1f}" if low else "unused expert"
            lines.append(f"| {i} | {low:.2f} | {high:.2f} | {ratio} |")
        return "\n".join(lines)


class Reference:
    """Transformers on one checkpoint."""

    def __init__(self, directory):
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = Qwen3NextForCausalLM.from_pretrained(
            directory, dtype=torch.float32).eval()
        self.generated = 0  # answers that were not a right guess
        self.ends = [self.tokenizer.convert_tokens_to_ids(token)
                     for token in ("<|im_end|>", "<|endoftext|>")]

    def _chosen(self, prompt, ids):
        """[len(ids), V]: the logits that each of `ids` would be chosen by, in one pass."""
        out = self.model(torch.tensor([prompt + ids[:-1]]), use_cache=False,
                         logits_to_keep=len(ids))
        return out.logits[0]

    def _generated(self, prompt):
        """(ids, [len(ids), V]) of the greedy answer, token by token."""
        out = self.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=scoring.MAX_TOKENS, do_sample=False,
            eos_token_id=self.ends, pad_token_id=self.ends[1],
            return_dict_in_generate=True, output_logits=True)
        return out.sequences[0, len(prompt):].tolist(), torch.cat(out.logits)

    @torch.no_grad()
    def answer(self, case, guess=None):
        """One line of reference_answers.jsonl; `guess`: ids that may be the answer."""
        text = self.tokenizer.apply_chat_template(
            case["messages"], tools=case["tools"], tokenize=False,
            add_generation_prompt=True, enable_thinking=case["enable_thinking"])
        prompt = self.tokenizer(text, add_special_tokens=False).input_ids
        ids, logits = guess, self._chosen(prompt, guess) if guess else None
        if not guess or logits.argmax(-1).tolist() != guess:
            self.generated += 1
            ids, logits = self._generated(prompt)
        best = logits.topk(2).values
        ended = ids[-1] in self.ends
        raw = self.tokenizer.decode(ids, skip_special_tokens=False)
        reply = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        # A prompt that opens the reasoning is answered only by what follows it.
        done = not case["enable_thinking"] or "</think>" in reply
        return {"id": case["id"], "category": case["category"], "prompt_ids": prompt,
                "output_ids": ids, "text": raw, "ended": ended,
                "min_margin": round(float((best[:, 0] - best[:, 1]).min()), 5),
                "right": done and ended and scoring.is_right(
                    case, *scoring.split_reply(reply))}


def main():
    arguments = options()
    torch.set_num_threads(arguments.threads)
    cases = asked.cases(arguments)
    reference = Reference(arguments.model)
    experts = ExpertCounts(reference.model)
    guesses = {}
    if arguments.guesses:
        with open(arguments.guesses, encoding="utf-8") as file:
            guesses = json.load(file)["token_ids"]
    answers = [reference.answer(case, guesses.get(str(case["id"]))) for case in cases]
    right = [answer["right"] for answer in answers]
    print(scoring.markdown({"Transformers": scoring.by_category(cases, right)}))
    print(experts.summary())
    if guesses:
        print(f"{len(cases) - reference.generated} of {len(cases)} answers as guessed")
    asked.write(arguments, cases, [answer["text"] for answer in answers], right,
                engine="Transformers", experts=experts.counts.tolist())
    if arguments.reference:
        with open(arguments.reference, "w", encoding="utf-8") as file:
            for answer in answers:
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
