"""Qwen3-Next for training: packed rows, grouped experts, and the MTP head.

A batch is one row of N tokens in which whole sequences follow one another; `Packing`
says where each begins. Parameters are held in the order that makes products large
(`checkpoint.py` translates to and from the names of Hugging Face checkpoints):

    in_qkv [2 key + value channels, H]   all queries, all keys, all values
    in_z   [value channels, H]
    in_ba  [2 value heads, H]            all betas, all decays
    expert_in [E, 2 I, H]                gate and up, one above the other
    expert_out [E, H, I]

Shapes: N tokens, H hidden, E experts, I expert width, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import delta_rule


# What the large products of activations and weights are computed in; sums stay in fp32.
product_type = torch.float32


def product(x, weight):
    """x @ weight^T. Gates and logits, which decide, do not go through here."""
    if product_type == torch.float32:
        return x @ weight.t()
    return (x.to(product_type) @ weight.to(product_type).t()).float()


class Packing:
    """Where the sequences of a packed row lie, and what depends on the positions only."""

    def __init__(self, lengths, geometry, device="cpu"):
        self.borders = [0]
        for length in lengths:
            self.borders.append(self.borders[-1] + length)
        starts = torch.tensor(self.borders[:-1])
        position = torch.arange(self.borders[-1]) - starts.repeat_interleave(
            torch.tensor(lengths))
        self.position = position.to(device)
        taps = torch.arange(geometry.linear_conv_kernel_dim - 1, -1, -1)
        self.in_reach = (position[:, None] >= taps).float().to(device)
        rotary = geometry.rotary_dim
        frequency = geometry.rope_theta ** -(torch.arange(0, rotary, 2).double() / rotary)
        angle = (position.double()[:, None] * frequency).float().repeat(1, 2)
        self.cosine, self.sine = angle.cos().to(device), angle.sin().to(device)
        self.reset = (position == 0).float().to(device) * delta_rule.RESET


def rms_norm(x, weight, eps):
    """The zero-centred form of Qwen3-Next: the scale is 1 + weight."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (1 + weight)


def gated_norm(x, gate, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight * F.silu(gate)


def convolve(x, weight, in_reach):
    """Causal depthwise convolution and SiLU. x [N, C], weight [C, taps], in_reach [N, taps]."""
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    out = x * weight[:, taps - 1]
    for tap in range(taps - 1):
        out = out + padded[tap:tap + len(x)] * in_reach[:, tap:tap + 1] * weight[:, tap]
    return F.silu(out)


def delta_inputs(mixed, ba, conv, log_a, dt_bias, packing_reach, reset, geometry):
    """What the delta rule takes, head by head, from the projections."""
    c = geometry
    q, k, v = convolve(mixed, conv, packing_reach).split(
        [c.key_channels, c.key_channels, c.value_channels], -1)
    repeat = c.linear_num_value_heads // c.linear_num_key_heads

    def normalised(x, scale):
        x = x.view(len(x), c.linear_num_key_heads, c.linear_key_head_dim).transpose(0, 1)
        x = x * (torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6) * scale)
        return x.repeat_interleave(repeat, 0)

    b, a = ba.t().chunk(2, 0)
    g = -log_a.exp()[:, None] * F.softplus(a + dt_bias[:, None]) - reset
    v = v.view(len(v), c.linear_num_value_heads, c.linear_value_head_dim).transpose(0, 1)
    return (normalised(q, c.linear_key_head_dim ** -0.5), normalised(k, 1.0),
            v.contiguous(), g, b.sigmoid())


def rotate(x, cosine, sine):
    """x [heads, N, D]; the first dimensions of each head are turned by the position."""
    size = cosine.shape[1]
    turned, kept = x[..., :size], x[..., size:]
    low, high = turned.chunk(2, -1)
    turned = turned * cosine + torch.cat([-high, low], -1) * sine
    return torch.cat([turned, kept], -1)


class GroupedLinear(torch.autograd.Function):
    """rows[start_e:end_e] @ weight[e]^T for every expert e, in place of E small layers."""

    @staticmethod
    def forward(ctx, rows, weight, borders):
        out = rows.new_empty(len(rows), weight.shape[1])
        for e, (start, end) in enumerate(zip(borders, borders[1:])):
            if end > start:
                torch.mm(rows[start:end], weight[e].t(), out=out[start:end])
        ctx.save_for_backward(rows, weight)
        ctx.borders = borders
        return out

    @staticmethod
    def backward(ctx, out_grad):
        rows, weight = ctx.saved_tensors
        out_grad = out_grad.contiguous()
        rows_grad, weight_grad = torch.empty_like(rows), torch.zeros_like(weight)
        for e, (start, end) in enumerate(zip(ctx.borders, ctx.borders[1:])):
            if end > start:
                torch.mm(out_grad[start:end], weight[e], out=rows_grad[start:end])
                torch.mm(out_grad[start:end].t(), rows[start:end], out=weight_grad[e])
        return rows_grad, weight_grad, None


class Dispatch(torch.autograd.Function):
    """x[order // K]: the rows that the experts get; `back` is the inverse of `order`."""

    @staticmethod
    def forward(ctx, x, order, back, chosen_count):
        ctx.save_for_backward(back)
        ctx.shape = (len(x), chosen_count, x.shape[1])
        return x.index_select(0, order // chosen_count)

    @staticmethod
    def backward(ctx, rows_grad):
        back, = ctx.saved_tensors
        return rows_grad.index_select(0, back).view(ctx.shape).sum(1), None, None, None


class Permute(torch.autograd.Function):
    """rows[back], whose gradient is a permutation too."""

    @staticmethod
    def forward(ctx, rows, order, back):
        ctx.save_for_backward(order)
        return rows.index_select(0, back)

    @staticmethod
    def backward(ctx, grad):
        order, = ctx.saved_tensors
        return grad.index_select(0, order), None, None


def swiglu(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


def scaled(std, *shape):
    return nn.Parameter(torch.randn(*shape) * std)


class DeltaNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.geometry = c
        hidden, heads = c.hidden_size, c.linear_num_value_heads
        mixed = 2 * c.key_channels + c.value_channels
        self.in_qkv = scaled(hidden ** -0.5, mixed, hidden)
        self.in_z = scaled(hidden ** -0.5, c.value_channels, hidden)
        self.in_ba = scaled(hidden ** -0.5, 2 * heads, hidden)
        self.conv = nn.Parameter(torch.rand(mixed, c.linear_conv_kernel_dim) - 0.5)
        self.log_a = nn.Parameter(torch.empty(heads).uniform_(0.5, 8).log())
        # Steps between 0.002 and 0.1, spread evenly in their logarithm.
        step = torch.empty(heads).uniform_(math.log(0.002), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.norm = nn.Parameter(torch.ones(c.linear_value_head_dim))
        self.out = scaled(0.5 * c.value_channels ** -0.5, hidden, c.value_channels)

    def forward(self, x, packing):
        c = self.geometry
        z = product(x, self.in_z).view(len(x), c.linear_num_value_heads, -1)
        q, k, v, g, beta = delta_inputs(
            product(x, self.in_qkv), x @ self.in_ba.t(), self.conv, self.log_a, self.dt_bias,
            packing.in_reach, packing.reset, c)
        read = delta_rule.gated_delta_rule(q, k, v, g, beta).transpose(0, 1)
        read = gated_norm(read, z, self.norm, c.rms_norm_eps)
        return product(read.reshape(len(x), -1), self.out)


def attention_inputs(q, k, q_norm, k_norm, cosine, sine, eps):
    q = rotate(rms_norm(q, q_norm, eps).transpose(0, 1), cosine, sine)
    k = rotate(rms_norm(k, k_norm, eps).transpose(0, 1), cosine, sine)
    return q, k


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.geometry = c
        hidden, size = c.hidden_size, c.head_dim
        self.in_q = scaled(hidden ** -0.5, c.num_attention_heads * 2 * size, hidden)
        self.in_k = scaled(hidden ** -0.5, c.num_key_value_heads * size, hidden)
        self.in_v = scaled(hidden ** -0.5, c.num_key_value_heads * size, hidden)
        self.q_norm = nn.Parameter(torch.zeros(size))
        self.k_norm = nn.Parameter(torch.zeros(size))
        width = c.num_attention_heads * size
        self.out = scaled(0.5 * width ** -0.5, hidden, width)

    def forward(self, x, packing):
        c, tokens = self.geometry, len(x)
        q, gate = product(x, self.in_q).view(tokens, c.num_attention_heads, -1).chunk(2, -1)
        q, k = attention_inputs(
            q, product(x, self.in_k).view(tokens, c.num_key_value_heads, -1),
            self.q_norm, self.k_norm, packing.cosine, packing.sine, c.rms_norm_eps)
        v = product(x, self.in_v).view(tokens, c.num_key_value_heads, -1).transpose(0, 1)
        repeat = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
        parts = [F.scaled_dot_product_attention(
            q[None, :, a:b], k[None, :, a:b], v[None, :, a:b], is_causal=True)[0]
            for a, b in zip(packing.borders, packing.borders[1:])]
        read = torch.cat(parts, 1).transpose(0, 1) * gate.sigmoid()
        return product(read.reshape(tokens, -1), self.out)


class Experts(nn.Module):
    """The routed experts, weighted by the softmax of the chosen ones, and the shared one."""

    def __init__(self, c):
        super().__init__()
        self.geometry = c
        hidden, wide = c.hidden_size, c.moe_intermediate_size
        shared = c.shared_expert_intermediate_size
        self.gate = scaled(0.5 * hidden ** -0.5, c.num_experts, hidden)
        self.shared_gate = scaled(0.02, 1, hidden)
        self.expert_in = scaled(hidden ** -0.5, c.num_experts, 2 * wide, hidden)
        self.expert_out = scaled(0.5 * wide ** -0.5, c.num_experts, hidden, wide)
        self.shared_in = scaled(hidden ** -0.5, 2 * shared, hidden)
        self.shared_out = scaled(0.5 * shared ** -0.5, hidden, shared)

    def forward(self, x, usage):
        c = self.geometry
        chosen_count = c.num_experts_per_tok
        logits = x @ self.gate.t()
        best, chosen = logits.topk(chosen_count, -1)
        weights = best.softmax(-1)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=c.num_experts)
        borders = [0] + counts.cumsum(0).tolist()
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        rows = Dispatch.apply(x, order, back, chosen_count)
        wide = GroupedLinear.apply(rows, self.expert_in, borders)
        rows = GroupedLinear.apply(swiglu(wide), self.expert_out, borders)
        rows = Permute.apply(rows, order, back).view(len(x), chosen_count, -1)
        routed = torch.bmm(weights[:, None], rows)[:, 0]
        shared = product(swiglu(product(x, self.shared_in)), self.shared_out)
        usage.append((counts, logits))
        return routed + (x @ self.shared_gate.t()).sigmoid() * shared


class Layer(nn.Module):
    def __init__(self, c, full_attention):
        super().__init__()
        self.eps = c.rms_norm_eps
        self.norm_1 = nn.Parameter(torch.zeros(c.hidden_size))
        self.norm_2 = nn.Parameter(torch.zeros(c.hidden_size))
        self.mixer = Attention(c) if full_attention else DeltaNet(c)
        self.experts = Experts(c)

    def forward(self, x, packing, usage):
        x = x + self.mixer(rms_norm(x, self.norm_1, self.eps), packing)
        return x + self.experts(rms_norm(x, self.norm_2, self.eps), usage)


class DemoModel(nn.Module):
    """The trunk, its output head, and the MTP head, which guesses one token further."""

    def __init__(self, geometry):
        super().__init__()
        c = self.geometry = geometry
        hidden = c.hidden_size
        self.embed = scaled(0.05, c.vocab_size, hidden)
        self.head = scaled(0.5 * hidden ** -0.5, c.vocab_size, hidden)
        self.layers = nn.ModuleList(
            Layer(c, c.is_full_attention(i)) for i in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.zeros(hidden))
        self.mtp_project = scaled((2 * hidden) ** -0.5, hidden, 2 * hidden)
        self.mtp_norm_token = nn.Parameter(torch.zeros(hidden))
        self.mtp_norm_state = nn.Parameter(torch.zeros(hidden))
        self.mtp_layer = Layer(c, True)
        self.mtp_norm = nn.Parameter(torch.zeros(hidden))

    def states(self, ids, packing, usage):
        """[N, H]: what the head reads, after the last norm."""
        x = F.embedding(ids, self.embed)
        for layer in self.layers:
            x = layer(x, packing, usage)
        return rms_norm(x, self.norm, self.geometry.rms_norm_eps)

    def draft_states(self, states, next_ids, packing, usage):
        """The MTP head on the state of token t and token t + 1: a state that guesses t + 2.

        The embedding is not trained from here."""
        eps = self.geometry.rms_norm_eps
        token = rms_norm(F.embedding(next_ids, self.embed.detach()), self.mtp_norm_token, eps)
        state = rms_norm(states, self.mtp_norm_state, eps)
        x = torch.cat([token, state], -1) @ self.mtp_project.t()
        x = self.mtp_layer(x, packing, usage)
        return rms_norm(x, self.mtp_norm, eps)
