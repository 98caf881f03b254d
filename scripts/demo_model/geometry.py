"""The demo model's geometry: the keys of its config.json, and what follows from them.

Nothing here needs torch.
"""

import dataclasses
import json
import os


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a Qwen3-Next, under the names that config.json has for them."""

    vocab_size: int = 1536
    hidden_size: int = 128
    num_hidden_layers: int = 8
    full_attention_interval: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    partial_rotary_factor: float = 0.25
    rope_theta: float = 1000000
    rms_norm_eps: float = 1e-6
    linear_num_key_heads: int = 4
    linear_num_value_heads: int = 8
    linear_key_head_dim: int = 32
    linear_value_head_dim: int = 32
    linear_conv_kernel_dim: int = 4
    num_experts: int = 32
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 32
    shared_expert_intermediate_size: int = 64
    max_position_embeddings: int = 8192

    def is_full_attention(self, layer):
        return (layer + 1) % self.full_attention_interval == 0

    @property
    def rotary_dim(self):
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def key_channels(self):
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_channels(self):
        return self.linear_num_value_heads * self.linear_value_head_dim

    @classmethod
    def read(cls, model_directory):
        with open(os.path.join(model_directory, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    def config(self, special_ids):
        """The whole config.json; `special_ids` maps `end_of_text` and `end_of_turn` to ids."""
        return {
            "architectures": ["Qwen3NextForCausalLM"],
            "model_type": "qwen3_next",
            **dataclasses.asdict(self),
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "intermediate_size": 2 * self.hidden_size,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
            "initializer_range": 0.02,
            "use_cache": True,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "dtype": "bfloat16",
            "torch_dtype": "bfloat16",
            "bos_token_id": special_ids["end_of_text"],
            "eos_token_id": special_ids["end_of_turn"],
            "pad_token_id": special_ids["end_of_text"],
            "transformers_version": "4.57.0",
        }
