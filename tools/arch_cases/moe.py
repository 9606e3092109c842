"""Decoders of experts and of latent attention."""

import torch
from transformers.models.llama4 import modeling_llama4


def chosen_only(self, hidden_states):
    """Llama 4 in transformers runs every expert on every token, of which all but the chosen are scaled by zero; here only the
    chosen run."""
    hidden_states = hidden_states.reshape(-1, self.hidden_dim)
    scores, logits = self.router(hidden_states)
    out = self.shared_expert(hidden_states)
    chosen = torch.topk(logits, self.top_k, dim=1).indices
    for expert in range(self.num_experts):
        rows = torch.where((chosen == expert).any(dim=1))[0]
        if len(rows):
            x = hidden_states[rows] * scores[rows, expert, None]
            gate, up = (x @ self.experts.gate_up_proj[expert]).chunk(2, dim=-1)
            out[rows] += (up * self.experts.act_fn(gate)) @ self.experts.down_proj[expert]
    return out, logits


modeling_llama4.Llama4TextMoe.forward = chosen_only

SMALL = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=320,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
MLA = dict(SMALL, num_key_value_heads=4, q_lora_rank=40, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=20)
DEEP = dict(MLA, moe_intermediate_size=48, n_routed_experts=8, num_experts_per_tok=3, n_group=2, topk_group=1, first_k_dense_replace=1, tie_word_embeddings=False)
DSA = dict(DEEP, index_n_heads=3, index_head_dim=16, index_topk=5)
QWEN = dict(SMALL, moe_intermediate_size=48, num_experts=8, num_experts_per_tok=3, tie_word_embeddings=False)
CASES = [
    ("deepseek_v2", "DeepseekV2ForCausalLM", dict(DEEP, n_shared_experts=2, topk_method="group_limited_greedy")),
    ("deepseek_v2, no query latent", "DeepseekV2ForCausalLM", dict(DEEP, n_shared_experts=1, q_lora_rank=None, first_k_dense_replace=0, topk_method="greedy")),
    ("deepseek_v3", "DeepseekV3ForCausalLM", dict(DEEP, n_shared_experts=1, num_nextn_predict_layers=1)),
    ("deepseek_v3, biases, tied", "DeepseekV3ForCausalLM", dict(DEEP, n_shared_experts=3, attention_bias=True, tie_word_embeddings=True, first_k_dense_replace=2)),
    ("deepseek_v3, dense", "DeepseekV3ForCausalLM", dict(DEEP, n_shared_experts=1, first_k_dense_replace=3)),
    ("deepseek_v32", "DeepseekV32ForCausalLM", dict(DSA, n_shared_experts=1)),
    ("deepseek_v32, listed", "DeepseekV32ForCausalLM", dict(DSA, n_shared_experts=2, index_n_heads=5, index_topk=64, mlp_layer_types=["dense", "sparse", "dense"])),
    ("glm_moe_dsa", "GlmMoeDsaForCausalLM", dict(DSA, n_shared_experts=1)),
    ("glm_moe_dsa, shared choice", "GlmMoeDsaForCausalLM", dict(DSA, n_shared_experts=1, indexer_types=["full", "shared", "full"])),
    ("glm4_moe_lite", "Glm4MoeLiteForCausalLM", dict(DEEP, n_shared_experts=1)),
    ("glm4_moe", "Glm4MoeForCausalLM", dict(QWEN, n_routed_experts=8, n_shared_experts=1, first_k_dense_replace=1, use_qk_norm=True, head_dim=24, attention_bias=True)),
    ("glm4_moe, plain", "Glm4MoeForCausalLM", dict(QWEN, n_routed_experts=8, n_shared_experts=2, first_k_dense_replace=0, use_qk_norm=False)),
    ("solar_open", "SolarOpenForCausalLM", dict(QWEN, n_routed_experts=8, n_shared_experts=1, head_dim=24)),
    ("dots1", "Dots1ForCausalLM", dict(QWEN, n_routed_experts=8, n_shared_experts=2, first_k_dense_replace=1, max_window_layers=2, sliding_window=8)),
    ("qwen2_moe", "Qwen2MoeForCausalLM", dict(QWEN, shared_expert_intermediate_size=80)),
    ("qwen2_moe, steps, windows", "Qwen2MoeForCausalLM", dict(QWEN, shared_expert_intermediate_size=80, decoder_sparse_step=2, mlp_only_layers=[1], use_sliding_window=True, sliding_window=8, max_window_layers=2, qkv_bias=False)),
    ("qwen3_moe", "Qwen3MoeForCausalLM", dict(QWEN, head_dim=24)),
    ("qwen3_moe, steps", "Qwen3MoeForCausalLM", dict(QWEN, decoder_sparse_step=2, mlp_only_layers=[0], attention_bias=True, tie_word_embeddings=True)),
    ("gpt_oss", "GptOssForCausalLM", dict(SMALL, num_local_experts=8, num_experts_per_tok=2, head_dim=24, sliding_window=8, tie_word_embeddings=False)),
    ("llama4_text", "Llama4ForCausalLM", dict(SMALL, intermediate_size_mlp=112, num_local_experts=4, num_experts_per_tok=1, head_dim=16, attention_chunk_size=8, tie_word_embeddings=False)),
    ("llama4_text, interleaved", "Llama4ForCausalLM", dict(SMALL, intermediate_size_mlp=112, num_local_experts=4, num_experts_per_tok=2, head_dim=16, interleave_moe_layer_step=2, use_qk_norm=False, attention_chunk_size=8, no_rope_layers=[1, 0, 1], attention_bias=True)),
    ("minimax_m2", "MiniMaxM2ForCausalLM", dict(SMALL, num_local_experts=8, num_experts_per_tok=3, head_dim=24, tie_word_embeddings=False)),
    ("olmoe", "OlmoeForCausalLM", dict(SMALL, num_experts=8, num_experts_per_tok=3)),
    ("phimoe", "PhimoeForCausalLM", dict(SMALL, num_local_experts=8, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True)),
    ("granitemoe", "GraniteMoeForCausalLM", dict(SMALL, num_local_experts=8, num_experts_per_tok=3)),
    ("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", dict(SMALL, moe_intermediate_size=48, moe_num_experts=8, moe_k=3, moe_num_shared_experts=2)),
    ("ernie4_5_moe, biases", "Ernie4_5_MoeForCausalLM", dict(SMALL, moe_intermediate_size=48, moe_num_experts=8, moe_k=3, moe_num_shared_experts=0, use_bias=True, moe_layer_start_index=0, moe_layer_end_index=1, moe_layer_interval=2, tie_word_embeddings=False)),
    ("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", dict(SMALL, num_experts=8, moe_topk=3, head_dim=16)),
    ("afmoe", "AfmoeForCausalLM", dict(QWEN, num_dense_layers=1, num_shared_experts=2, global_attn_every_n_layers=3, sliding_window=8, head_dim=24)),
]
