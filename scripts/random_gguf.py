#!/usr/bin/env python3
"""Writes a GGUF file of Qwen3-Next's geometry with random weights, for llama.cpp.

    random_gguf.py --layers 4 --type q8_0|q4_0 --out FILE [--config config.json]

Only speed can be measured with it. Every matrix is quantised as asked for (lm_head and
embedding too, as llama-quantize --pure does); norms, the gates that choose experts and
other small tensors are f32, as llama.cpp's converter leaves them. There is no
tokenizer. Needs nothing but Python.
"""

import argparse
import array
import json
import os
import random
import struct
import sys

# Qwen3-Next-80B-A3B; a --config replaces what it has.
GEOMETRY = {
    "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 48,
    "full_attention_interval": 4, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "partial_rotary_factor": 0.25,
    "rope_theta": 10000000, "rms_norm_eps": 1e-6, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512,
    "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "intermediate_size": 5120,
    "max_position_embeddings": 262144,
}

ALIGNMENT = 32
TABLE_BYTES = 1 << 24
GROUP = 32  # weights of a block of Q8_0 and Q4_0
# name: (number in the file, bytes of a block, scale for a spread of about 0.02)
TYPES = {"f32": (0, 4, None), "q4_0": (2, 18, 0.0043), "q8_0": (8, 34, 0.00027)}


class Tensor:
    """`shape` is as numpy has it, the file's the other way round."""

    def __init__(self, name, shape, kind, values=None):
        self.name, self.shape, self.kind = name, shape, kind
        self.values = values  # of an f32 one: a function of (random, count)
        count = 1
        for n in shape:
            count *= n
        self.count = count
        number, block, _ = TYPES[kind]
        self.number = number
        if kind == "f32":
            self.bytes = 4 * count
        else:
            assert shape[-1] % GROUP == 0, (name, shape)
            self.bytes = count // GROUP * block


def constant(value):
    return lambda rng, n: array.array("f", [value]) * n


def spread(width):
    return lambda rng, n: array.array("f", (rng.gauss(0, width) for _ in range(n)))


def tensors(g, kind):
    """All tensors, under llama.cpp's names for the architecture qwen3next."""
    hidden, heads, head = g["hidden_size"], g["num_attention_heads"], g["head_dim"]
    kv = g["num_key_value_heads"] * head
    key = g["linear_num_key_heads"] * g["linear_key_head_dim"]
    value = g["linear_num_value_heads"] * g["linear_value_head_dim"]
    value_heads = g["linear_num_value_heads"]
    experts, inner = g["num_experts"], g["moe_intermediate_size"]
    shared = g["shared_expert_intermediate_size"]

    def matrix(name, *shape):
        return Tensor(name + ".weight", shape, kind)

    def vector(name, values, *shape):
        return Tensor(name, shape, "f32", values)

    yield matrix("token_embd", g["vocab_size"], hidden)
    for i in range(g["num_hidden_layers"]):
        p = f"blk.{i}."
        yield vector(p + "attn_norm.weight", constant(1), hidden)
        yield vector(p + "post_attention_norm.weight", constant(1), hidden)
        if (i + 1) % g["full_attention_interval"] == 0:
            yield matrix(p + "attn_q", 2 * heads * head, hidden)
            yield matrix(p + "attn_k", kv, hidden)
            yield matrix(p + "attn_v", kv, hidden)
            yield matrix(p + "attn_output", hidden, heads * head)
            yield vector(p + "attn_q_norm.weight", constant(1), head)
            yield vector(p + "attn_k_norm.weight", constant(1), head)
        else:
            yield matrix(p + "attn_qkv", 2 * key + value, hidden)
            yield matrix(p + "attn_gate", value, hidden)
            yield matrix(p + "ssm_ba", 2 * value_heads, hidden)
            yield matrix(p + "ssm_out", hidden, value)
            yield vector(p + "ssm_conv1d.weight", spread(0.3), 2 * key + value,
                         g["linear_conv_kernel_dim"])
            yield vector(p + "ssm_dt.bias", constant(1), value_heads)
            yield vector(p + "ssm_a", constant(-1), value_heads)
            yield vector(p + "ssm_norm.weight", constant(1),
                         g["linear_value_head_dim"])
        yield vector(p + "ffn_gate_inp.weight", spread(0.02), experts, hidden)
        yield matrix(p + "ffn_gate_exps", experts, inner, hidden)
        yield matrix(p + "ffn_up_exps", experts, inner, hidden)
        yield matrix(p + "ffn_down_exps", experts, hidden, inner)
        yield vector(p + "ffn_gate_inp_shexp.weight", spread(0.02), hidden)
        yield matrix(p + "ffn_gate_shexp", shared, hidden)
        yield matrix(p + "ffn_up_shexp", shared, hidden)
        yield matrix(p + "ffn_down_shexp", hidden, shared)
    yield vector("output_norm.weight", constant(1), hidden)
    yield matrix("output", g["vocab_size"], hidden)


def metadata(g, kind):
    arch = "qwen3next"

    def of_arch(name, value):
        return f"{arch}.{name}", value

    yield "general.architecture", arch
    yield "general.name", f"random weights, {g['num_hidden_layers']} layers"
    yield "general.file_type", {"q4_0": 2, "q8_0": 7}[kind]
    yield "general.alignment", ALIGNMENT
    yield "general.quantization_version", 2
    yield "tokenizer.ggml.model", "none"
    yield of_arch("vocab_size", g["vocab_size"])
    yield of_arch("block_count", g["num_hidden_layers"])
    yield of_arch("context_length", g["max_position_embeddings"])
    yield of_arch("embedding_length", g["hidden_size"])
    yield of_arch("feed_forward_length", g["intermediate_size"])
    yield of_arch("attention.head_count", g["num_attention_heads"])
    yield of_arch("attention.head_count_kv", g["num_key_value_heads"])
    yield of_arch("attention.key_length", g["head_dim"])
    yield of_arch("attention.value_length", g["head_dim"])
    yield of_arch("attention.layer_norm_rms_epsilon", float(g["rms_norm_eps"]))
    yield of_arch("rope.dimension_count",
                  int(g["head_dim"] * g["partial_rotary_factor"]))
    yield of_arch("rope.freq_base", float(g["rope_theta"]))
    yield of_arch("expert_count", g["num_experts"])
    yield of_arch("expert_used_count", g["num_experts_per_tok"])
    yield of_arch("expert_feed_forward_length", g["moe_intermediate_size"])
    yield of_arch("expert_shared_feed_forward_length",
                  g["shared_expert_intermediate_size"])
    yield of_arch("ssm.conv_kernel", g["linear_conv_kernel_dim"])
    yield of_arch("ssm.state_size", g["linear_key_head_dim"])
    yield of_arch("ssm.group_count", g["linear_num_key_heads"])
    yield of_arch("ssm.time_step_rank", g["linear_num_value_heads"])
    yield of_arch("ssm.inner_size",
                  g["linear_num_value_heads"] * g["linear_value_head_dim"])
    yield of_arch("full_attention_interval", g["full_attention_interval"])


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def padding(size):
    return -size % ALIGNMENT


def block_table(kind, rng):
    """Random blocks, all with one scale, that every matrix is cut from."""
    _, block, scale = TYPES[kind]
    blocks = TABLE_BYTES // block
    table = bytearray(rng.randbytes(blocks * block))
    low, high = struct.pack("<e", scale)
    table[0::block] = bytes([low]) * blocks
    table[1::block] = bytes([high]) * blocks
    return table, block


def write_blocks(out, size, table, block, rng):
    """`size` bytes from a random block of the table on, round and round."""
    at = rng.randrange(len(table) // block) * block
    view = memoryview(table)
    while size > 0:
        piece = min(size, len(table) - at)
        out.write(view[at:at + piece])
        size -= piece
        at = 0


def write(path, g, kind, seed=1):
    rng = random.Random(seed)
    table, block = block_table(kind, rng)
    wanted = list(tensors(g, kind))
    pairs = list(metadata(g, kind))
    partial = path + ".part"
    with open(partial, "wb") as out:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(wanted), len(pairs))
        for key, value in pairs:
            head += entry(key, value)
        offset = 0
        for tensor in wanted:
            dims = tensor.shape[::-1]
            head += text(tensor.name) + struct.pack("<I", len(dims))
            head += struct.pack(f"<{len(dims)}Q", *dims)
            head += struct.pack("<IQ", tensor.number, offset)
            offset += tensor.bytes + padding(tensor.bytes)
        out.write(head + bytes(padding(len(head))))
        for tensor in wanted:
            if tensor.kind == "f32":
                out.write(tensor.values(rng, tensor.count).tobytes())
            else:
                write_blocks(out, tensor.bytes, table, block, rng)
            out.write(bytes(padding(tensor.bytes)))
    os.replace(partial, path)


def geometry(layers, config_path=None):
    g = dict(GEOMETRY)
    if config_path:
        with open(config_path, encoding="utf-8") as file:
            config = json.load(file)
        g.update({key: config[key] for key in g if key in config})
    if layers:
        g["num_hidden_layers"] = layers
    return g


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=0, help="0: the geometry's own")
    parser.add_argument("--type", choices=["q8_0", "q4_0"], required=True)
    parser.add_argument("--config", help="a config.json with another geometry")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    if sys.byteorder != "little":
        sys.exit("random_gguf.py: only on little-endian machines")
    write(options.out, geometry(options.layers, options.config), options.type)


if __name__ == "__main__":
    main()
