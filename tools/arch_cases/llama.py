"""Llama and its nearest kin."""

SMALL = dict(
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=320,
)
CASES = [
    ("llama", "LlamaForCausalLM", dict(SMALL, tie_word_embeddings=False)),
    ("llama, tied, biases", "LlamaForCausalLM", dict(SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    ("llama, own head size", "LlamaForCausalLM", dict(SMALL, head_dim=24, tie_word_embeddings=False)),
    ("mistral", "MistralForCausalLM", dict(SMALL, sliding_window=8, tie_word_embeddings=False)),
    ("mixtral", "MixtralForCausalLM", dict(SMALL, num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False)),
]
