"""Muon for the matrices, AdamW for all else, on one learning-rate schedule.

Muon moves a matrix along its orthogonalized momentum (five Newton-Schulz steps; Jordan et
al., 2024), which makes better use of few tokens than Adam does.
"""

import math

import torch

MATRICES = ("in_qkv", "in_z", "in_q", "in_k", "in_v", "out", "expert_in", "expert_out",
            "shared_in", "shared_out", "mtp_project")
# Two matrices, one above the other.
PAIRS = ("expert_in", "shared_in")
NOT_DECAYED = ("conv",)


def orthogonalized(update):
    """Newton-Schulz on a batch of matrices [B, R, C]: singular values to about 1."""
    tall = update.shape[1] > update.shape[2]
    x = update.transpose(1, 2) if tall else update
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315) @ x
    return x.transpose(1, 2) if tall else x


class Optimizer:
    def __init__(self, model, muon_rate, adam_rate, decay=0.01):
        self.muon_rate, self.adam_rate, self.decay = muon_rate, adam_rate, decay
        self.parameters = dict(model.named_parameters())
        self.state = {name: {"first": torch.zeros_like(p), "updates": 0}
                      for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            if not self._is_matrix(name):
                self.state[name]["second"] = torch.zeros_like(p)

    @staticmethod
    def _is_matrix(name):
        return name.rsplit(".", 1)[-1] in MATRICES

    @torch.no_grad()
    def step(self, factor):
        """One update with both rates times `factor`; parameters without gradient stay."""
        small = [p.grad for n, p in self.parameters.items()
                 if p.grad is not None and not self._is_matrix(n)]
        norm = math.sqrt(sum(float(g.square().sum()) for g in small))
        clip = min(1.0, 1.0 / (norm + 1e-6))
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            if self._is_matrix(name):
                self._muon(name, p, self.muon_rate * factor)
            else:
                self._adam(name, p, self.adam_rate * factor, clip)
            p.grad = None
        return norm

    def _muon(self, name, p, rate):
        momentum = self.state[name]["first"]
        momentum.lerp_(p.grad, 0.05)
        update = p.grad.lerp(momentum, 0.95)
        rows, columns = p.shape[-2:]
        if name.rsplit(".", 1)[-1] in PAIRS:
            rows //= 2
        update = orthogonalized(update.view(-1, rows, columns)).reshape(p.shape)
        p.mul_(1 - rate * self.decay)
        p.add_(update, alpha=-rate * math.sqrt(max(1.0, rows / columns)))

    def _adam(self, name, p, rate, clip):
        state = self.state[name]
        state["updates"] += 1
        gradient = p.grad * clip
        state["first"].lerp_(gradient, 0.1)
        state["second"].mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        scale = (state["second"] / (1 - 0.95 ** state["updates"])).sqrt_().add_(1e-10)
        if p.dim() > 1 and name.rsplit(".", 1)[-1] not in NOT_DECAYED:
            p.mul_(1 - rate * self.decay)
        p.addcdiv_(state["first"], scale, value=-rate / (1 - 0.9 ** state["updates"]))

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        for name, values in state.items():
            self.state[name].update(values)
