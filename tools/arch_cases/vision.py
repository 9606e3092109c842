"""Vision transformers, and the encoders of CLIP and SigLIP."""

SMALL = dict(hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4)
IMAGE = dict(SMALL, image_size=32, patch_size=8)
DINO = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=7)
TEXT = dict(SMALL, vocab_size=320, bos_token_id=1, eos_token_id=2)
PIXELS = {"pixel_values": [3, 3, 32, 32]}
TINY = {"pixel_values": [3, 3, 28, 28]}
IDS = {"input_ids": [2, 16]}
PAIR = {"input_ids": [3, 16], "pixel_values": [3, 3, 32, 32]}
CASES = [
    ("vit", "ViTForImageClassification", dict(IMAGE, num_labels=10), PIXELS),
    ("vit, no biases, labels by name", "ViTForImageClassification", dict(IMAGE, qkv_bias=False, id2label={0: "a", 1: "b", 2: "c"}), PIXELS),
    ("vit, bare", "ViTModel", dict(IMAGE, pooler_output_size=24), PIXELS),
    ("vit, two sides", "ViTForImageClassification", dict(IMAGE, image_size=[32, 48], patch_size=[8, 16], num_channels=1), {"pixel_values": [3, 1, 32, 48]}),
    ("deit", "DeiTForImageClassification", IMAGE, PIXELS),
    ("deit, taught", "DeiTForImageClassificationWithTeacher", dict(IMAGE, num_labels=7), PIXELS),
    ("deit, bare", "DeiTModel", IMAGE, PIXELS),
    ("dinov2", "Dinov2Model", DINO, TINY),
    ("dinov2, gated", "Dinov2ForImageClassification", dict(DINO, use_swiglu_ffn=True, num_labels=5), TINY),
    ("dinov2, wider", "Dinov2Model", dict(DINO, mlp_ratio=3), TINY),
    ("dinov2 with registers", "Dinov2WithRegistersModel", DINO, TINY),
    ("dinov2 with registers, labels", "Dinov2WithRegistersForImageClassification", dict(DINO, num_register_tokens=2), TINY),
    ("clip text", "CLIPTextModel", TEXT, IDS),
    ("clip text, projected", "CLIPTextModelWithProjection", dict(TEXT, projection_dim=24, hidden_act="gelu"), IDS),
    ("clip vision", "CLIPVisionModel", IMAGE, PIXELS),
    ("clip vision, projected", "CLIPVisionModelWithProjection", dict(IMAGE, projection_dim=24), PIXELS),
    ("clip", "CLIPModel", dict(text_config=TEXT, vision_config=dict(IMAGE, hidden_size=32), projection_dim=24), PAIR),
    ("siglip text", "SiglipTextModel", TEXT, IDS),
    ("siglip text, projected", "SiglipTextModel", dict(TEXT, projection_size=24, max_position_embeddings=32), IDS),
    ("siglip vision", "SiglipVisionModel", IMAGE, PIXELS),
    ("siglip vision, no head", "SiglipVisionModel", dict(IMAGE, vision_use_head=False), PIXELS),
    ("siglip", "SiglipModel", dict(text_config=TEXT, vision_config=IMAGE), PAIR),
]
