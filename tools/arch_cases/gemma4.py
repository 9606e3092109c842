"""Gemma 4: shared keys, keys that are values, inputs per layer, experts, and models of text and images."""

TEXT = dict(
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    global_head_dim=32,
    vocab_size=320,
    vocab_size_per_layer_input=256,
    hidden_size_per_layer_input=8,
    sliding_window=4,
    layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
)
NO_INPUTS = dict(TEXT, hidden_size_per_layer_input=0)
CASES = [
    ("gemma4", "Gemma4ForCausalLM", dict(TEXT, final_logit_softcapping=30.0)),
    ("gemma4, shared keys", "Gemma4ForCausalLM", dict(TEXT, num_kv_shared_layers=2, use_double_wide_mlp=True)),
    ("gemma4, keys are values", "Gemma4ForCausalLM", dict(NO_INPUTS, attention_k_eq_v=True, num_global_key_value_heads=1)),
    ("gemma4, experts", "Gemma4ForCausalLM", dict(NO_INPUTS, attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=6, top_k_experts=2, moe_intermediate_size=24)),
    ("gemma4, biases, untied", "Gemma4ForCausalLM", dict(TEXT, attention_bias=True, tie_word_embeddings=False)),
    ("gemma4 without head", "Gemma4TextModel", dict(TEXT)),
]
