#!/usr/bin/env python3
"""Make the GGUF files that the tests read, and what is to be found in them.

    python tools/make_gguf_files.py

Needs gguf, numpy, torch and transformers. `blocks.gguf` has one tensor of each type that gguf-py can decode, `blocks.f32` their
values one behind the other, as gguf-py decodes them; `big_endian.gguf` and `split-*.gguf` are written by gguf-py too.
`models.zip` has the files of small models of transformers: their names in GGUF are those of gguf-py's tensor map, their keys
those that llama.cpp's converter writes, their data zeros. `models.json` has their configs, and the bytes of their tensors.
Running it twice gives the same bytes."""

import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGML_QUANT_SIZES, GGUFEndian, GGUFReader, GGUFWriter, MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map, quants
from gguf import GGMLQuantizationType as Type

OUT = Path(__file__).resolve().parent.parent / "crates/flopwise/tests/data/gguf"
DECODED = [
    Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K,
    Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.IQ4_XS, Type.TQ1_0, Type.TQ2_0, Type.MXFP4, Type.NVFP4,
]  # fmt: skip
SIZED = [
    Type.IQ2_XXS, Type.IQ2_XS, Type.IQ3_XXS, Type.IQ1_S, Type.IQ3_S, Type.IQ2_S, Type.IQ1_M, Type.Q8_1, Type.Q8_K, Type.I8,
    Type.I16, Type.I32, Type.I64, Type.F64,
]  # fmt: skip
WHOLE = {Type.I8: np.int8, Type.I16: np.int16, Type.I32: np.int32, Type.I64: np.int64, Type.F64: np.float64}


def write(path, arch, keys, tensors, **options):
    """`tensors`: (name, shape, type, bytes)."""
    writer = GGUFWriter(path, arch, **options)
    for key, value in keys.items():
        key = key if key.startswith(("general.", "tokenizer.")) else f"{arch}.{key}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, shape, kind, data in tensors:
        elements, size = GGML_QUANT_SIZES[kind]
        rows = list(shape[:-1]) + [shape[-1] // elements * size]
        if kind in (Type.F32, Type.F16):
            dtype = np.float32 if kind == Type.F32 else np.float16
            writer.add_tensor(name, np.frombuffer(data, dtype).reshape(shape))
        elif kind in WHOLE:
            writer.add_tensor(name, np.frombuffer(data, WHOLE[kind]).reshape(shape))
        else:
            writer.add_tensor(name, np.frombuffer(data, np.uint8).reshape(rows), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def n_bytes(shape, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // elements * size


def blocks():
    """256 elements of each type from a fixed seed, without NaN and infinity in scales."""
    random = np.random.default_rng(1)
    tensors, values = [], []
    for kind in DECODED + SIZED:
        data = random.integers(0, 256, n_bytes([256], kind), np.uint8)
        if kind in (Type.F32, Type.F16):
            dtype = np.float32 if kind == Type.F32 else np.float16
            data = random.standard_normal(256).astype(dtype).view(np.uint8)
        if kind == Type.BF16:
            data[1::2] &= 0x3F
        if kind in DECODED[3:] and kind not in (Type.MXFP4, Type.NVFP4):
            # Halves anywhere in a block are kept finite: the second byte of each never is all ones.
            data[1::2] &= 0xBB
            data[0::2] &= 0xBB
        if kind == Type.MXFP4:
            data[::17] = 120
        if kind in DECODED:
            given = data.view(np.float32) if kind == Type.F32 else data
            given = data.view(np.float16) if kind == Type.F16 else given
            value = quants.dequantize(given, kind).astype(np.float32)
            assert np.isfinite(value).all(), kind
            values.append(value)
        tensors.append((f"t.{kind.name.lower()}", [256], kind, data.tobytes()))
    keys = {
        "general.name": "blocks",
        "general.tags": ["a", "b"],
        "general.file_type": 1,
        "block_count": 3,
        "scale": 0.5,
        "flag": True,
        "attention.head_count": [4, 4, 8],
        "tokenizer.ggml.tokens": [f"token {idx}" for idx in range(300)],
        "tokenizer.ggml.scores": [0.5 * idx for idx in range(5000)],
    }
    write(OUT / "blocks.gguf", "test", keys, tensors)
    (OUT / "blocks.f32").write_bytes(np.concatenate(values).tobytes())
    few = [tensor for tensor in tensors if tensor[2] in (Type.F32, Type.F16, Type.I32, Type.Q8_0)]
    keys = {key: value for key, value in keys.items() if not key.startswith("tokenizer.")}
    write(OUT / "big_endian.gguf", "test", keys, few, endianess=GGUFEndian.BIG)
    few = [(f"s.{idx}", [32], Type.F32, np.full(32, idx, np.float32).tobytes()) for idx in range(5)]
    write(OUT / "split.gguf", "test", {"block_count": 1}, few, split_max_tensors=2)


SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=160)
KEYS = {
    "embedding_length": 64, "feed_forward_length": 96, "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2,
    "context_length": 512,
}  # fmt: skip
LARGE = dict(SMALL, hidden_size=256, intermediate_size=512)
UNTIED, TIED = dict(tie_word_embeddings=False), dict(tie_word_embeddings=True)
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
MOE_KEYS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}
GPT2 = dict(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=160)
GPT2_KEYS = {"embedding_length": 64, "block_count": 2, "attention.head_count": 4, "feed_forward_length": 256, "context_length": 128}
SIX = dict(num_hidden_layers=6)
MLA = dict(
    q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32, n_routed_experts=4, n_group=1,
    topk_group=1, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=32, first_k_dense_replace=1, num_key_value_heads=4,
)  # fmt: skip
MLA_KEYS = {
    "attention.head_count_kv": 1, "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32, "attention.key_length": 48,
    "attention.value_length": 32, "attention.key_length_mla": 48, "attention.value_length_mla": 32, "rope.dimension_count": 16,
    "expert_count": 4, "expert_used_count": 2, "expert_shared_count": 1, "expert_feed_forward_length": 32,
    "leading_dense_block_count": 1, "expert_group_count": 1, "expert_group_used_count": 1,
}  # fmt: skip

# Architecture, class of transformers, fields of the config, keys of the file.
CASES = [
    ("llama", "LlamaForCausalLM", dict(SMALL, **UNTIED), KEYS),
    ("llama", "LlamaForCausalLM", dict(LARGE, head_dim=32, **TIED), {**KEYS, "embedding_length": 256, "feed_forward_length": 512, "attention.key_length": 32, "attention.value_length": 32, "attention.head_count_kv": [2, 2]}),
    ("llama", "LlamaForCausalLM", dict(SMALL, attention_bias=True, mlp_bias=True, **UNTIED), KEYS),
    ("llama", "MistralForCausalLM", dict(SMALL, sliding_window=8, **UNTIED), {**KEYS, "attention.sliding_window": 8}),
    ("llama", "MixtralForCausalLM", dict(SMALL, num_local_experts=4, num_experts_per_tok=2, **UNTIED), {**KEYS, "expert_count": 4, "expert_used_count": 2}),
    ("qwen2", "Qwen2ForCausalLM", dict(SMALL, **TIED), KEYS),
    ("qwen2moe", "Qwen2MoeForCausalLM", dict(SMALL, **MOE, shared_expert_intermediate_size=64, **UNTIED), {**KEYS, **MOE_KEYS, "expert_shared_feed_forward_length": 64}),
    ("qwen3", "Qwen3ForCausalLM", dict(SMALL, head_dim=32, **TIED), {**KEYS, "attention.key_length": 32, "attention.value_length": 32}),
    ("qwen3moe", "Qwen3MoeForCausalLM", dict(SMALL, **MOE, head_dim=32, **UNTIED), {**KEYS, **MOE_KEYS, "attention.key_length": 32, "attention.value_length": 32}),
    ("gemma", "GemmaForCausalLM", dict(SMALL, head_dim=32), {**KEYS, "attention.key_length": 32, "attention.value_length": 32}),
    ("gemma2", "Gemma2ForCausalLM", dict(SMALL, head_dim=32, sliding_window=8), {**KEYS, "attention.key_length": 32, "attention.value_length": 32, "attention.sliding_window": 8, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    ("gemma3", "Gemma3ForCausalLM", dict(SMALL, **SIX, head_dim=32, sliding_window=8), {**KEYS, "block_count": 6, "attention.key_length": 32, "attention.value_length": 32, "attention.sliding_window": 8}),
    ("phi2", "PhiForCausalLM", dict(SMALL, num_key_value_heads=4, partial_rotary_factor=0.5, **UNTIED), {**KEYS, "attention.head_count_kv": 4, "rope.dimension_count": 8}),
    ("phi3", "Phi3ForCausalLM", dict(SMALL, pad_token_id=0, **UNTIED), {**KEYS, "rope.dimension_count": 16}),
    ("gpt2", "GPT2LMHeadModel", GPT2, GPT2_KEYS),
    ("gptneox", "GPTNeoXForCausalLM", dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=160, rotary_pct=0.25, **UNTIED), {**KEYS, "rope.dimension_count": 4, "use_parallel_residual": True}),
    ("bloom", "BloomForCausalLM", dict(hidden_size=64, n_layer=2, n_head=4, vocab_size=160), {**KEYS, "feed_forward_length": 256, "attention.head_count_kv": 4}),
    ("falcon", "FalconForCausalLM", dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=160, multi_query=True, new_decoder_architecture=False, bias=False, parallel_attn=True), {**KEYS, "feed_forward_length": 256, "attention.head_count_kv": 1}),
    ("starcoder2", "Starcoder2ForCausalLM", dict(SMALL, **TIED), KEYS),
    ("stablelm", "StableLmForCausalLM", dict(SMALL, partial_rotary_factor=0.25, **UNTIED), {**KEYS, "rope.dimension_count": 4, "use_parallel_residual": False}),
    ("command-r", "CohereForCausalLM", SMALL, KEYS),
    ("olmo2", "Olmo2ForCausalLM", dict(SMALL, pad_token_id=0, **UNTIED), KEYS),
    ("olmoe", "OlmoeForCausalLM", dict(SMALL, num_experts=4, num_experts_per_tok=2, **UNTIED), {**KEYS, "expert_count": 4, "expert_used_count": 2}),
    ("deepseek2", "DeepseekV2ForCausalLM", dict(SMALL, **MLA, **UNTIED), {**KEYS, **MLA_KEYS, "expert_gating_func": 1}),
    ("deepseek2", "DeepseekV3ForCausalLM", dict(SMALL, **MLA, **UNTIED), {**KEYS, **MLA_KEYS, "expert_gating_func": 2}),
    ("glm4", "Glm4ForCausalLM", dict(SMALL, head_dim=16, pad_token_id=0, **UNTIED), {**KEYS, "attention.key_length": 16, "rope.dimension_count": 8}),
    ("gpt-oss", "GptOssForCausalLM", dict(SMALL, intermediate_size=32, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8, **UNTIED), {**KEYS, "attention.key_length": 16, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32, "attention.sliding_window": 8}),
    ("mpt", "MptForCausalLM", dict(d_model=64, n_heads=4, n_layers=2, expansion_ratio=4, vocab_size=160, max_seq_len=128), {"embedding_length": 64, "block_count": 2, "attention.head_count": 4, "feed_forward_length": 256, "context_length": 128}),
    ("nemotron", "NemotronForCausalLM", dict(SMALL, partial_rotary_factor=0.5, **UNTIED), {**KEYS, "rope.dimension_count": 8}),
    ("granite", "GraniteForCausalLM", dict(SMALL, **TIED), KEYS),
    ("cohere2", "Cohere2ForCausalLM", dict(SMALL, num_hidden_layers=4, sliding_window=8), {**KEYS, "block_count": 4, "attention.sliding_window": 8}),
    ("smollm3", "SmolLM3ForCausalLM", dict(SMALL, pad_token_id=0, **TIED), KEYS),
    ("glm4moe", "Glm4MoeForCausalLM", dict(SMALL, head_dim=16, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32, first_k_dense_replace=1, n_group=1, topk_group=1, pad_token_id=0, **UNTIED), {**KEYS, "attention.key_length": 16, "rope.dimension_count": 8, "expert_count": 4, "expert_shared_count": 1, "expert_used_count": 2, "expert_feed_forward_length": 32, "leading_dense_block_count": 1, "expert_group_count": 1, "expert_group_used_count": 1}),
    ("minimax-m2", "MiniMaxM2ForCausalLM", dict(SMALL, intermediate_size=32, head_dim=16, num_local_experts=4, num_experts_per_tok=2, rotary_dim=8, **UNTIED), {**KEYS, "attention.key_length": 16, "rope.dimension_count": 8, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}),
    ("starcoder", "GPTBigCodeForCausalLM", dict(GPT2, multi_query=True), {**GPT2_KEYS, "attention.head_count_kv": 1}),
    ("mamba2", "Mamba2ForCausalLM", dict(hidden_size=64, num_hidden_layers=2, vocab_size=160, state_size=16, num_heads=4, head_dim=32, n_groups=1, conv_kernel=4, expand=2, **UNTIED), {"embedding_length": 64, "block_count": 2, "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 4, "ssm.group_count": 1}),
    ("mamba", "MambaForCausalLM", dict(hidden_size=64, num_hidden_layers=2, vocab_size=160, state_size=16, time_step_rank=4, conv_kernel=4, expand=2), {"embedding_length": 64, "block_count": 2, "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 4}),
]  # fmt: skip


def tensors_of(arch, model):
    """What the converter makes of each weight: names and shapes, merged, cut and turned as llama.cpp wants them."""
    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == arch)
    names = get_tensor_name_map(kind, model.config.num_hidden_layers)

    def name(key):
        bare = key.removeprefix("transformer.")
        found = names.get_name(key, try_suffixes=(".weight", ".bias")) or names.get_name(bare, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"{arch}: {key}"
        return found

    for key, weight in model.named_parameters():
        shape = list(weight.shape)
        if ".experts.gate_up_proj" in key:
            layer = int(key.split(".")[2])
            turned = arch == "gpt-oss" and not key.endswith("_bias")
            experts, inner = shape[0], shape[-1 if turned or key.endswith("_bias") else 1] // 2
            hidden = [] if key.endswith("_bias") else [shape[1 if turned else 2]]
            for part in ("gate", "up"):
                end = "bias" if key.endswith("_bias") else "weight"
                yield f"blk.{layer}.ffn_{part}_exps.{end}", [experts, inner] + hidden
        elif ".experts.down_proj" in key:
            layer = int(key.split(".")[2])
            if key.endswith("_bias"):
                yield f"blk.{layer}.ffn_down_exps.bias", shape
            else:
                yield f"blk.{layer}.ffn_down_exps.weight", [shape[0]] + shape[:0:-1] if arch == "gpt-oss" else shape
        elif key.endswith("kv_b_proj.weight"):
            layer, config = int(key.split(".")[2]), model.config
            yield f"blk.{layer}.attn_k_b.weight", [config.num_attention_heads, config.kv_lora_rank, config.qk_nope_head_dim]
            yield f"blk.{layer}.attn_v_b.weight", [config.num_attention_heads, config.v_head_dim, config.kv_lora_rank]
        elif key.endswith("e_score_correction_bias"):
            yield name(key.replace("_bias", ".bias")), shape
        elif key.endswith("self_attn.sinks"):
            yield name(key + ".weight"), shape
        elif key.endswith("mlp.router.bias") or key.endswith("mlp.router.weight"):
            yield name(key), shape
        elif arch == "gpt2" and any(part in key for part in ("c_attn.w", "c_proj.w", "c_fc.w")):
            yield name(key), shape[::-1]
        elif arch in ("mamba", "mamba2") and key.endswith("conv1d.weight"):
            yield name(key), [shape[0], shape[2]]
        elif arch in ("phi2",) and key.endswith("q_proj.weight"):
            yield name(key).replace("attn_q", "attn_qkv"), [3 * shape[0], shape[1]]
        elif arch in ("phi2",) and key.endswith("q_proj.bias"):
            yield name(key).replace("attn_q", "attn_qkv"), [3 * shape[0]]
        elif arch in ("phi2",) and any(part in key for part in ("k_proj", "v_proj")):
            continue
        elif key.endswith("mixer.dt_bias"):
            yield name(key.replace("dt_bias", "dt_proj.bias")), shape
        elif key.endswith("A_log") or key.endswith(".D"):
            yield name(key), shape + [1] if arch == "mamba2" else shape
        else:
            yield name(key), shape


def models():
    rows = []
    with zipfile.ZipFile(OUT / "models.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for case_idx, (arch, model_class, fields, keys) in enumerate(CASES):
            cls = getattr(transformers, model_class)
            config = cls.config_class(**fields)
            with torch.device("meta"):
                model = cls(config)
            tensors = []
            for name, shape in tensors_of(arch, model):
                many = [Type.Q4_0, Type.Q6_K, Type.F16, Type.Q8_0, Type.MXFP4, Type.Q4_K, Type.BF16, Type.IQ4_NL, Type.F16]
                fits = [kind for kind in many if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0]
                is_matrix = 2 <= len(shape) and not name.endswith("conv1d.weight") and "ssm_a" not in name
                kind = fits[len(tensors) % len(fits)] if is_matrix else Type.F32
                tensors.append((name, shape, kind, bytes(n_bytes(shape, kind))))
            if arch == "llama" and case_idx == 0:
                tensors.append(("rope_freqs.weight", [8], Type.F32, bytes(32)))
            file = f"{case_idx:02}-{arch}.gguf"
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / file, arch, keys, tensors)
                data = (Path(folder) / file).read_bytes()
                total = sum(int(tensor.n_bytes) for tensor in GGUFReader(Path(folder) / file).tensors)
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED, 9)
            rows.append(
                {
                    "file": file,
                    "config": dict(fields, model_type=config.model_type, torch_dtype="float16"),
                    "bytes": total,
                    "parameters": sum(weight.numel() for weight in model.parameters()),
                }
            )
    text = ",\n".join("  " + json.dumps(row) for row in rows)
    (OUT / "models.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    blocks()
    models()
