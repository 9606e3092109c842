"""DeepSeek-V4: windows, compressed entries, an indexer, hyper-connections, hash routers."""

SMALL = dict(
    vocab_size=100, hidden_size=48, moe_intermediate_size=40, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=1, head_dim=32,
    q_lora_rank=24, num_experts_per_tok=3, n_routed_experts=8, n_shared_experts=1, o_groups=3, o_lora_rank=20, index_n_heads=5, index_head_dim=16,
    index_topk=2, sliding_window=6, hc_mult=3, hc_sinkhorn_iters=4, num_hash_layers=2, qk_rope_head_dim=8, max_position_embeddings=512, num_nextn_predict_layers=1,
    pad_token_id=None, bos_token_id=None, eos_token_id=None,
)
LONG = {"input_ids": [2, 300]}
KINDS = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention", "compressed_sparse_attention"]
CASES = [
    ("deepseek_v4, ratios", "DeepseekV4ForCausalLM", dict(SMALL, compress_ratios=[0, 4, 128, 4, 0]), LONG),
    ("deepseek_v4, ratios, short", "DeepseekV4ForCausalLM", dict(SMALL, compress_ratios=[0, 0, 4, 128])),
    ("deepseek_v4, alternating", "DeepseekV4ForCausalLM", dict(SMALL, num_hidden_layers=5, num_hash_layers=0, compress_rate_csa=3, compress_rate_hca=7), {"input_ids": [3, 29]}),
    ("deepseek_v4, listed", "DeepseekV4ForCausalLM", dict({k: v for k, v in SMALL.items() if k not in ("qk_rope_head_dim", "num_hash_layers")}, layer_types=KINDS, mlp_layer_types=["moe", "hash_moe", "moe", "hash_moe"], compress_rates={"compressed_sparse_attention": 2, "heavily_compressed_attention": 8}, partial_rotary_factor=0.5, mlp_bias=True, tie_word_embeddings=True), {"input_ids": [1, 41]}),
    ("deepseek_v4, other sizes", "DeepseekV4ForCausalLM", dict(SMALL, layer_types=KINDS, compress_rate_hca=9, hc_mult=1, hc_sinkhorn_iters=1, num_attention_heads=4, head_dim=16, o_groups=2, o_lora_rank=12, q_lora_rank=12, index_topk=100, index_n_heads=2, index_head_dim=8, sliding_window=100, num_experts_per_tok=1), {"input_ids": [2, 37]}),
    ("deepseek_v4, windows alone", "DeepseekV4ForCausalLM", dict(SMALL, compress_ratios=[0, 0], num_hidden_layers=2)),
]
