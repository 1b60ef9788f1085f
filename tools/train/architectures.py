"""The two shapes of the bundled story models.

dense: Llama. Every dimension fits groups of 128; rows of 256 and 512 fit 256-wide superblocks.
moe:   Qwen3-MoE. Eight experts, two per token, every linear a multiple of 128 both ways.
"""

from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import stories

SHARED = dict(
    vocab_size=768,
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    hidden_act="silu",
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    attention_bias=False,
    attention_dropout=0.0,
    initializer_range=0.02,
    tie_word_embeddings=True,
    bos_token_id=stories.END_ID,
    eos_token_id=stories.END_ID,
    pad_token_id=None,
    use_cache=True,
)


def dense():
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=3, mlp_bias=False, **SHARED)
    )


def moe():
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            hidden_size=128,
            intermediate_size=256,  # of the dense MLP that no layer has; engines read it all the same
            moe_intermediate_size=128,
            num_hidden_layers=4,
            num_experts=8,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            output_router_logits=False,
            router_aux_loss_coef=0.001,
            **SHARED,
        )
    )


MODELS = {"dense": dense, "moe": moe}
