"""Between DemoModel and a Hugging Face checkpoint directory (original Qwen3-Next names)."""

import json
import os

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from architecture import DemoModel
from geometry import Geometry


def _split_heads(packed, c):
    """in_proj_qkvz's rows, key head by key head, to all q, k and v, and z. [rows, H]"""
    heads = c.linear_num_key_heads
    per_head = c.linear_num_value_heads // heads * c.linear_value_head_dim
    sizes = [c.linear_key_head_dim, c.linear_key_head_dim, per_head, per_head]
    q, k, v, z = packed.view(heads, sum(sizes), -1).split(sizes, 1)
    return (torch.cat([part.reshape(-1, packed.shape[1]) for part in (q, k, v)]),
            z.reshape(-1, packed.shape[1]))


def _join_heads(qkv, z, c):
    heads = c.linear_num_key_heads
    parts = [part.view(heads, -1, qkv.shape[1])
             for part in (*qkv.split([c.key_channels, c.key_channels, c.value_channels]), z)]
    return torch.cat(parts, 1).reshape(-1, qkv.shape[1])


def _split_ba(packed, c):
    heads = c.linear_num_key_heads
    b, a = packed.view(heads, 2, -1, packed.shape[1]).unbind(1)
    return torch.cat([b.reshape(-1, packed.shape[1]), a.reshape(-1, packed.shape[1])])


def _join_ba(ba, c):
    heads = c.linear_num_key_heads
    return torch.stack([part.view(heads, -1, ba.shape[1]) for part in ba.chunk(2)],
                       1).reshape(-1, ba.shape[1])


_ATTENTION = {"in_q": "q_proj", "in_k": "k_proj", "in_v": "v_proj", "out": "o_proj",
              "q_norm": "q_norm", "k_norm": "k_norm"}


def _layer_tensors(layer, prefix, c, full_attention):
    out = {prefix + "input_layernorm.weight": layer.norm_1,
           prefix + "post_attention_layernorm.weight": layer.norm_2}
    mixer = layer.mixer
    if full_attention:
        for ours, theirs in _ATTENTION.items():
            out[f"{prefix}self_attn.{theirs}.weight"] = getattr(mixer, ours)
    else:
        name = prefix + "linear_attn."
        out[name + "in_proj_qkvz.weight"] = _join_heads(mixer.in_qkv, mixer.in_z, c)
        out[name + "in_proj_ba.weight"] = _join_ba(mixer.in_ba, c)
        out[name + "conv1d.weight"] = mixer.conv[:, None]
        out[name + "A_log"], out[name + "dt_bias"] = mixer.log_a, mixer.dt_bias
        out[name + "norm.weight"], out[name + "out_proj.weight"] = mixer.norm, mixer.out
    experts, name = layer.experts, prefix + "mlp."
    out[name + "gate.weight"] = experts.gate
    out[name + "shared_expert_gate.weight"] = experts.shared_gate
    gate, up = experts.shared_in.chunk(2)
    out[name + "shared_expert.gate_proj.weight"] = gate
    out[name + "shared_expert.up_proj.weight"] = up
    out[name + "shared_expert.down_proj.weight"] = experts.shared_out
    for e in range(c.num_experts):
        gate, up = experts.expert_in[e].chunk(2)
        out[f"{name}experts.{e}.gate_proj.weight"] = gate
        out[f"{name}experts.{e}.up_proj.weight"] = up
        out[f"{name}experts.{e}.down_proj.weight"] = experts.expert_out[e]
    return out


def tensors(model):
    """All of the model under a Hugging Face checkpoint's names, not copied where possible."""
    c = model.geometry
    out = {"model.embed_tokens.weight": model.embed, "lm_head.weight": model.head,
           "model.norm.weight": model.norm, "mtp.fc.weight": model.mtp_project,
           "mtp.pre_fc_norm_embedding.weight": model.mtp_norm_token,
           "mtp.pre_fc_norm_hidden.weight": model.mtp_norm_state,
           "mtp.norm.weight": model.mtp_norm}
    for i, layer in enumerate(model.layers):
        out.update(_layer_tensors(layer, f"model.layers.{i}.", c, c.is_full_attention(i)))
    out.update(_layer_tensors(model.mtp_layer, "mtp.layers.0.", c, True))
    return out


def _load_layer(layer, prefix, source, c, full_attention):
    def put(parameter, value):
        parameter.data.copy_(value.view(parameter.shape))

    put(layer.norm_1, source[prefix + "input_layernorm.weight"])
    put(layer.norm_2, source[prefix + "post_attention_layernorm.weight"])
    mixer = layer.mixer
    if full_attention:
        for ours, theirs in _ATTENTION.items():
            put(getattr(mixer, ours), source[f"{prefix}self_attn.{theirs}.weight"])
    else:
        name = prefix + "linear_attn."
        qkv, z = _split_heads(source[name + "in_proj_qkvz.weight"], c)
        put(mixer.in_qkv, qkv)
        put(mixer.in_z, z)
        put(mixer.in_ba, _split_ba(source[name + "in_proj_ba.weight"], c))
        put(mixer.conv, source[name + "conv1d.weight"])
        put(mixer.log_a, source[name + "A_log"])
        put(mixer.dt_bias, source[name + "dt_bias"])
        put(mixer.norm, source[name + "norm.weight"])
        put(mixer.out, source[name + "out_proj.weight"])
    experts, name = layer.experts, prefix + "mlp."
    put(experts.gate, source[name + "gate.weight"])
    put(experts.shared_gate, source[name + "shared_expert_gate.weight"])
    put(experts.shared_in, torch.cat([source[f"{name}shared_expert.{part}_proj.weight"]
                                      for part in ("gate", "up")]))
    put(experts.shared_out, source[name + "shared_expert.down_proj.weight"])
    for e in range(c.num_experts):
        put(experts.expert_in[e], torch.cat(
            [source[f"{name}experts.{e}.{part}_proj.weight"] for part in ("gate", "up")]))
        put(experts.expert_out[e], source[f"{name}experts.{e}.down_proj.weight"])


def load(directory):
    """The DemoModel of a checkpoint directory, in fp32."""
    model = DemoModel(Geometry.read(directory))
    with safe_open(os.path.join(directory, "model.safetensors"), "pt") as file:
        source = {name: file.get_tensor(name).float() for name in file.keys()}
    c = model.geometry
    for parameter, name in ((model.embed, "model.embed_tokens.weight"),
                            (model.head, "lm_head.weight"), (model.norm, "model.norm.weight"),
                            (model.mtp_project, "mtp.fc.weight"),
                            (model.mtp_norm_token, "mtp.pre_fc_norm_embedding.weight"),
                            (model.mtp_norm_state, "mtp.pre_fc_norm_hidden.weight"),
                            (model.mtp_norm, "mtp.norm.weight")):
        parameter.data.copy_(source[name])
    for i, layer in enumerate(model.layers):
        _load_layer(layer, f"model.layers.{i}.", source, c, c.is_full_attention(i))
    _load_layer(model.mtp_layer, "mtp.layers.0.", source, c, True)
    return model


def save(model, directory, special_ids):
    """config.json, generation_config.json and model.safetensors (bf16) into `directory`."""
    os.makedirs(directory, exist_ok=True)
    save_file({name: value.detach().to(torch.bfloat16).contiguous().cpu()
               for name, value in tensors(model).items()},
              os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    generation = {"bos_token_id": special_ids["end_of_text"], "do_sample": False,
                  "eos_token_id": [special_ids["end_of_turn"], special_ids["end_of_text"]],
                  "pad_token_id": special_ids["end_of_text"],
                  "transformers_version": "4.57.0"}
    for name, content in (("config.json", model.geometry.config(special_ids)),
                          ("generation_config.json", generation)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
