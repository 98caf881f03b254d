#!/usr/bin/env python3
"""Trains the demo model; goes on from its last state by itself.

    train.py --start models/demo --work DIR --tokens 8000000

DIR gets state.pt (weights, optimizer, position in the data), log.jsonl (one line every
`--log-every` steps) and, whenever the state is saved, checkpoint/ in Hugging Face's layout
with position.json and the log so far beside it. Run again with the same DIR to go on, or
with another one and that checkpoint as `--start`: all but the optimizer's moments is there.
With `--restart-schedule` the learning rate is warmed up anew, as for a new phase or more
tokens.
"""

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import functools
import json
import os
import shutil
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import architecture  # noqa: E402
import checkpoint  # noqa: E402
import native_ops  # noqa: E402
import team  # noqa: E402
from geometry import Geometry  # noqa: E402
from optimizer import Optimizer  # noqa: E402
from rows import Encoder, rows  # noqa: E402

CHUNK = 32  # rows are multiples of the delta rule's chunk
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                   "chat_template.jinja"]
DRAFT_WEIGHTS = [1.0, 0.7, 0.5]


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", required=True,
                        help="checkpoint directory: the tokenizer, and the first weights")
    parser.add_argument("--from-scratch", action="store_true",
                        help="do not take the weights of --start")
    parser.add_argument("--work", required=True, help="directory of the state and the log")
    parser.add_argument("--phase", default="all", help="of conversations/mixture.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=8_000_000, help="in this schedule")
    parser.add_argument("--until", help="HH:MM (UTC); ends the schedule earlier if need be")
    parser.add_argument("--restart-schedule", action="store_true")
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--longest", type=int, default=8192,
                        help="tokens of a sample; also what config.json will promise")
    parser.add_argument("--rows-per-step", type=int, default=4)
    parser.add_argument("--muon-rate", type=float, default=0.01)
    parser.add_argument("--adam-rate", type=float, default=1.5e-3)
    parser.add_argument("--warm-up", type=int, default=30, help="steps")
    parser.add_argument("--decay", type=float, default=0.35, help="last part, to zero")
    parser.add_argument("--balance", type=float, default=0.02,
                        help="weight of the experts' load-balancing loss")
    parser.add_argument("--context-share", type=float, default=0.1,
                        help="of the tokens that the model does not write, also learned")
    parser.add_argument("--context-weight", type=float, default=0.25)
    parser.add_argument("--drafts-every", type=int, default=4,
                        help="a process's rows from one that trains the MTP head to the next; "
                        "0 for none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--processes", type=int, default=1,
                        help="that share a step's rows; at best one a core (CPU only)")
    parser.add_argument("--bf16", action="store_true", help="large products in bf16")
    parser.add_argument("--native", action="store_true",
                        help="compiled operations (CPU): about twice as fast")
    parser.add_argument("--pause-file", help="nothing is computed while this file exists")
    parser.add_argument("--save-seconds", type=float, default=240)
    parser.add_argument("--log-every", type=int, default=10)
    return parser.parse_args()


def balance_loss(usage, expert_count):
    """Switch Transformer's: E times the sum of share chosen times mean probability."""
    total = 0
    for counts, logits in usage:
        share = counts.float() / counts.sum()
        total = total + expert_count * (logits.float().softmax(-1).mean(0) * share).sum()
    return total / len(usage)


def ahead(values, count, fill):
    """values[t + count], and `fill` past the end."""
    return torch.cat([values[count:], values.new_full((count,), fill)])


class Losses:
    """Sums over a step, for the log. Index 0 is the trunk, 1 to 3 the drafts."""

    def __init__(self):
        self.loss, self.right, self.tokens = [0.0] * 4, [0] * 4, [0] * 4

    def add(self, index, losses, right):
        self.loss[index] += float(losses.sum())
        self.right[index] += int(right.sum())
        self.tokens[index] += len(losses)

    def sum_over(self, processes):
        """Adds those of the other processes."""
        for name in ("loss", "right", "tokens"):
            setattr(self, name, processes.total(getattr(self, name)))

    def summary(self):
        out = {}
        for i, name in enumerate(["", "draft_1_", "draft_2_", "draft_3_"]):
            if self.tokens[i]:
                out[name + "loss"] = round(self.loss[i] / self.tokens[i], 4)
                out[name + "accuracy"] = round(self.right[i] / self.tokens[i], 4)
        return out


class Trainer:
    def __init__(self, arguments, processes):
        self.options, self.processes = arguments, processes
        torch.manual_seed(arguments.seed)
        self.encoder = Encoder(arguments.start)
        if arguments.from_scratch:
            model = architecture.DemoModel(Geometry.read(arguments.start))
        else:
            model = checkpoint.load(arguments.start)
        model.geometry = dataclasses.replace(model.geometry, max_position_embeddings=max(
            arguments.longest, model.geometry.max_position_embeddings))
        self.model = model.to(arguments.device)
        self.optimizer = Optimizer(self.model, arguments.muon_rate, arguments.adam_rate)
        self.position = {"step": 0, "tokens": 0, "schedule_step": 0, "schedule_tokens": 0,
                         "row": 0, "sample": 0, "seconds": 0.0}
        self.losses, self.shares = Losses(), None
        self.logged = dict(self.position)
        os.makedirs(arguments.work, exist_ok=True)
        self._resume()
        if arguments.bf16:
            architecture.product_type = torch.bfloat16
        if arguments.native:
            native_ops.use(arguments.work)

    # ------------------------------------------------------------ the state
    def _path(self, name):
        return os.path.join(self.options.work, name)

    def _resume(self):
        if not os.path.exists(self._path("state.pt")):
            self._take_over_position()
            return
        state = torch.load(self._path("state.pt"), map_location=self.options.device,
                           weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position.update(state["position"])
        self.logged = dict(self.position)
        if self.options.restart_schedule:
            self.position.update(schedule_step=0, schedule_tokens=0)

    def _take_over_position(self):
        """From a checkpoint that an earlier run left, the place in the data and the log."""
        path = os.path.join(self.options.start, "position.json")
        if not os.path.exists(path) or self.options.from_scratch:
            return
        with open(path, encoding="utf-8") as file:
            self.position.update(json.load(file), schedule_step=0, schedule_tokens=0)
        self.logged = dict(self.position)
        if self.processes.leads:
            shutil.copy(os.path.join(self.options.start, "log.jsonl"),
                        self._path("log.jsonl"))

    def save(self):
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "position": self.position}
        torch.save(state, self._path("state.pt.new"))
        os.replace(self._path("state.pt.new"), self._path("state.pt"))
        directory = self._path("checkpoint")
        checkpoint.save(self.model, directory, self.encoder.special_ids)
        for name in TOKENIZER_FILES:
            shutil.copy(os.path.join(self.options.start, name), directory)
        with open(os.path.join(directory, "position.json"), "w", encoding="utf-8") as file:
            json.dump(self.position, file, indent=2)
            file.write("\n")
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(self._path("log.jsonl"), directory)

    # ------------------------------------------------------------ one row
    def _targets(self, row, number):
        """Weights of the next-token losses, and of the drafts' ones, for each position."""
        device = self.options.device
        written = torch.tensor(row.written, dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + number)
        some = torch.rand(len(written), generator=generator) < self.options.context_share
        weight = torch.where(ahead(written, 1, 0) > 0, ahead(written, 1, 0),
                             some * self.options.context_weight)
        ends = torch.tensor(row.lengths).cumsum(0)
        sequence = torch.arange(len(row.lengths)).repeat_interleave(torch.tensor(row.lengths))
        weight[ends - 1] = 0
        drafts = []
        for depth in (1, 2, 3):
            same = ahead(sequence, depth + 1, -1) == sequence
            drafts.append((ahead(written, depth + 1, 0) * same).to(device))
        return weight.to(device), drafts

    def _token_loss(self, index, states, head, ids, weight):
        """Weighted sum of the losses where `weight` is not zero."""
        chosen = weight.nonzero()[:, 0]
        logits = states[chosen] @ head.t()
        losses = F.cross_entropy(logits, ids[chosen], reduction="none")
        own = weight[chosen] == 1
        right = logits.detach().argmax(-1) == ids[chosen]
        self.losses.add(index, losses.detach()[own], right[own])
        return (losses * weight[chosen]).sum()

    def _draft_loss(self, states, ids, packing, weights, usage):
        """Three drafts in a row; each reads the state of the one before it.

        Draft d of position t is computed at position t + d - 1, so the states move on by
        one. Its attention reads the keys of this pass, where a server's reads those of the
        first pass for all tokens before: nearly the same."""
        total, state = 0, states.detach()
        next_ids = ahead(ids, 1, 0)
        for depth, (weight, factor) in enumerate(zip(weights, DRAFT_WEIGHTS), 1):
            if depth > 1:
                state = torch.cat([torch.zeros_like(state[:1]), state[:-1]])
            state = self.model.draft_states(state, next_ids, packing, usage)
            # At position s = t + d - 1 stands the guess for token t + d + 1 = s + 2.
            at = torch.cat([weight.new_zeros(depth - 1), weight[:len(weight) - depth + 1]])
            total = total + factor * self._token_loss(
                depth, state, self.model.head.detach(), ahead(ids, 2, 0), at)
        return total

    def _row(self, row, number, divisor):
        device = self.options.device
        ids = torch.tensor(row.ids, device=device)
        packing = architecture.Packing(row.lengths, self.model.geometry, device)
        weight, draft_weights = self._targets(row, number)
        usage = []
        states = self.model.states(ids, packing, usage)
        total = self._token_loss(0, states, self.model.head, ahead(ids, 1, 0), weight)
        counts = torch.stack([counts for counts, _ in usage]).float()
        every = self.options.drafts_every
        if every and number // self.processes.count % every == 0:
            total = total + every * self._draft_loss(
                states, ids, packing, draft_weights, usage)
        # By a row's share of the tokens: long texts are rows of their own, and few.
        balance = self.options.balance * len(ids) / (
            self.options.row_tokens * self.options.rows_per_step)
        total = total / divisor + balance * balance_loss(
            usage, self.model.geometry.num_experts)
        total.backward()
        share = counts / counts.sum(1, keepdim=True)
        self.shares = share if self.shares is None else self.shares.lerp(share, 0.02)

    # ------------------------------------------------------------ the run
    def _wait_while_paused(self):
        while self.options.pause_file and os.path.exists(self.options.pause_file):
            time.sleep(5)

    def _progress(self, began, end):
        done = self.position["schedule_tokens"] / self.options.tokens
        return max(done, (time.time() - began) / (end - began)) if end else done

    def run(self):
        arguments, position = self.options, self.position
        began, end, saved = time.time(), None, time.time()
        if arguments.until:
            now = datetime.datetime.now(datetime.timezone.utc)
            hour, minute = map(int, arguments.until.split(":"))
            end = now.replace(hour=hour, minute=minute, second=0).timestamp()
        source = rows(self.encoder, arguments.seed, arguments.phase, position["sample"],
                      arguments.row_tokens, arguments.longest, CHUNK)
        while (progress := self.processes.agreed(self._progress(began, end))) < 1:
            batch = [next(source) for _ in range(arguments.rows_per_step)]
            divisor = sum(sum(row.written) for row in batch)
            started = time.process_time()
            for number, row in self.processes.own(list(enumerate(batch, position["row"]))):
                self._wait_while_paused()
                self._row(row, number, divisor)
            self.processes.sum_gradients(self.optimizer.parameters.values())
            position["row"] += len(batch)
            factor = min(1.0, (position["schedule_step"] + 1) / arguments.warm_up,
                         (1 - progress) / arguments.decay)
            self.optimizer.step(factor)
            tokens = sum(len(row.ids) for row in batch)
            for key in ("tokens", "schedule_tokens"):
                position[key] += tokens
            for key in ("step", "schedule_step"):
                position[key] += 1
            position["sample"] = batch[-1].next_sample
            position["seconds"] += time.process_time() - started
            if position["step"] % arguments.log_every == 0:
                self._log(factor)
            if self.processes.leads and time.time() - saved > arguments.save_seconds:
                self.save()
                saved = time.time()
        if self.processes.leads:
            self.save()

    def _log(self, factor):
        """The experts' spread is that of this process's rows."""
        self.losses.sum_over(self.processes)
        spread = (self.shares.amax(1) / self.shares.amin(1).clamp(min=1e-6)).max()
        tokens, seconds = (self.position[key] - self.logged[key]
                           for key in ("tokens", "seconds"))
        self.logged = dict(self.position)
        seconds = self.processes.total([seconds])[0]
        line = {"step": self.position["step"], "tokens": self.position["tokens"],
                "tokens_per_cpu_second": round(tokens / seconds),
                "phase": self.options.phase, **self.losses.summary(),
                "rate": round(factor, 3), "expert_spread": round(float(spread), 2),
                "time": time.strftime("%H:%M:%S", time.gmtime())}
        if self.processes.leads:
            with open(self._path("log.jsonl"), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.losses = Losses()


def train(arguments, processes):
    torch.set_num_threads(arguments.threads)
    Trainer(arguments, processes).run()


def main():
    arguments = options()
    if arguments.rows_per_step % arguments.processes:
        sys.exit("--rows-per-step must be a multiple of --processes: the rows are shared out")
    os.makedirs(arguments.work, exist_ok=True)
    with open(os.path.join(arguments.work, "lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another training has its state in {arguments.work}: end it, or take "
                     "another --work")
        if arguments.native:
            native_ops.build(arguments.work)
        team.run(arguments.processes, arguments.work, functools.partial(train, arguments))


if __name__ == "__main__":
    main()
