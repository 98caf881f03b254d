"""The gated delta rule over a packed row of tokens, in matrix form.

Token by token, with a state S (key dim x value dim) per value head:

    S   <- a_t S                          a_t = exp(g_t), the decay
    d_t  = beta_t (v_t - S^T k_t)         what the state lacks for this key
    S   <- S + k_t d_t^T,   o_t = S^T q_t

In a chunk of C tokens that starts from S0, with G the running sum of g and
D_ij = exp(G_i - G_j) for j <= i, the d of the chunk solve a triangular system:

    (I + L) d = beta v - beta exp(G) (k S0),    L_ij = beta_i D_ij (k_i . k_j), j < i

so that d = U - W S0 with U, W independent of S0, and the state after the chunk is an
affine map of S0. All chunks' U, W and maps are matrix products; only the maps are
applied one after the other. (Yang et al., "Gated Delta Networks", 2024, section 3.3.)

A sequence that starts inside the row must not see the one before it: its first token's
g is lowered by RESET, which makes every product over the border vanish.
"""

import torch

RESET = 60.0  # exp(-60) is 1e-26; sums of a few of them still have exact differences


def _chunk_terms(q, k, v, g, beta):
    """All [M, C, .] for M (head, chunk) pairs; g, beta [M, C]."""
    total = g.cumsum(-1)
    size = q.shape[1]
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    gap = (total[:, :, None] - total[:, None, :]).masked_fill(~lower, -RESET * 8)
    decay = gap.exp()
    grown = total.exp()[..., None]
    left = (total[:, -1:] - total).exp()[..., None]
    system = torch.bmm(k, k.transpose(1, 2)) * decay * beta[..., None]
    right = torch.cat([v * beta[..., None], k * (beta[..., None] * grown)], -1)
    scores = torch.bmm(q, k.transpose(1, 2)) * decay
    return system, right, scores, q * grown, k * left, grown[:, -1]


def _chunk_maps(solved, k_left, grown_last, value_dim):
    """The chunk's map of the state, S -> step S + write, and U, W."""
    writes = torch.bmm(k_left.transpose(1, 2), solved)
    eye = torch.eye(k_left.shape[2], dtype=solved.dtype, device=solved.device)
    step = eye * grown_last[..., None] - writes[..., value_dim:]
    return step, writes[..., :value_dim]


def gated_delta_rule(q, k, v, g, beta, chunk=32):
    """q, k [H, N, K] (q scaled), v [H, N, V], g and beta [H, N]; N a multiple of `chunk`.

    Returns o [H, N, V].
    """
    heads, tokens, key_dim = q.shape
    value_dim = v.shape[-1]
    chunks = tokens // chunk

    def split(x):
        return x.reshape(heads * chunks, chunk, *x.shape[2:])

    system, right, scores, q_grown, k_left, grown_last = _chunk_terms(
        split(q), split(k), split(v), split(g), split(beta))
    solved = torch.linalg.solve_triangular(
        system, right, upper=False, unitriangular=True)
    step, write = _chunk_maps(solved, k_left, grown_last, value_dim)
    step = step.view(heads, chunks, key_dim, key_dim)
    write = write.view(heads, chunks, key_dim, value_dim)
    state = torch.zeros(heads, key_dim, value_dim, dtype=q.dtype, device=q.device)
    states = []
    for step_c, write_c in zip(step.unbind(1), write.unbind(1)):
        states.append(state)
        state = torch.baddbmm(write_c, step_c, state)
    before = torch.stack(states, 1).view(heads * chunks, key_dim, value_dim)
    delta = torch.baddbmm(solved[..., :value_dim], solved[..., value_dim:], before, alpha=-1)
    out = torch.baddbmm(torch.bmm(scores, delta), q_grown, before)
    return out.view(heads, tokens, value_dim)
