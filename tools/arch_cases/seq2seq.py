"""Encoder-decoders: T5 and its kin, BART and its kin, Whisper."""

T5 = dict(vocab_size=320, d_model=64, d_kv=16, d_ff=176, num_layers=2, num_heads=4)
BART = dict(
    vocab_size=320,
    d_model=64,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=2,
    encoder_ffn_dim=96,
    decoder_ffn_dim=112,
    pad_token_id=1,
)
TABLE = dict(BART, max_position_embeddings=64)
WHISPER = dict(BART, num_mel_bins=10, max_source_positions=24, max_target_positions=20, pad_token_id=0)
BOTH = {"input_ids": [2, 16], "decoder_input_ids": [2, 9]}
SOUND = {"input_features": [2, 10, 48], "decoder_input_ids": [2, 9]}
CASES = [
    ("t5", "T5ForConditionalGeneration", T5, BOTH),
    ("t5, gated", "T5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu", num_decoder_layers=3, d_kv=24), BOTH),
    ("t5, fewer buckets", "T5ForConditionalGeneration", dict(T5, relative_attention_num_buckets=8, feed_forward_proj="gated-silu"), BOTH),
    ("t5 encoder", "T5EncoderModel", T5, {"input_ids": [2, 16]}),
    ("mt5", "MT5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu"), BOTH),
    ("mt5 encoder", "MT5EncoderModel", T5, {"input_ids": [2, 16]}),
    ("umt5", "UMT5ForConditionalGeneration", dict(T5, num_decoder_layers=1), BOTH),
    ("umt5 encoder", "UMT5EncoderModel", T5, {"input_ids": [2, 16]}),
    ("bart", "BartForConditionalGeneration", TABLE, BOTH),
    ("bart, scaled", "BartForConditionalGeneration", dict(TABLE, scale_embedding=True, activation_function="relu"), BOTH),
    ("bart, bare", "BartModel", TABLE, BOTH),
    ("mbart", "MBartForConditionalGeneration", TABLE, BOTH),
    ("marian", "MarianMTModel", TABLE, BOTH),
    ("pegasus", "PegasusForConditionalGeneration", TABLE, BOTH),
    ("m2m_100", "M2M100ForConditionalGeneration", TABLE, BOTH),
    ("whisper", "WhisperForConditionalGeneration", WHISPER, SOUND),
    ("whisper, untied", "WhisperForConditionalGeneration", dict(WHISPER, tie_word_embeddings=False), SOUND),
    ("whisper, bare", "WhisperModel", WHISPER, SOUND),
]
