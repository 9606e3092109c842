"""BERT and its kin, under each head."""

IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
BERT = dict(
    IDS, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=320, max_position_embeddings=40
)
NARROW = dict(BERT, embedding_size=24)
DISTIL = dict(IDS, dim=64, hidden_dim=96, n_layers=2, n_heads=4, vocab_size=320, max_position_embeddings=40)
MODERN = dict(BERT, num_hidden_layers=4, local_attention=6, cls_token_id=1, sep_token_id=2)
HEADS = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]


def under(family, base, heads, **fields):
    return [(f"{family}{head}", family + head, dict(base, **fields)) for head in heads]


CASES = (
    under("Bert", BERT, [*HEADS, "ForPreTraining"])
    + [("bert, no types", "BertModel", dict(BERT, type_vocab_size=1, hidden_act="relu"))]
    + [("bert, five labels", "BertForSequenceClassification", dict(BERT, num_labels=5))]
    + [("bert as decoder", "BertLMHeadModel", dict(BERT, is_decoder=True))]
    + under("Roberta", BERT, HEADS, type_vocab_size=1)
    + under("XLMRoberta", BERT, ["Model", "ForSequenceClassification"], type_vocab_size=1)
    + under("DistilBert", DISTIL, HEADS)
    + under("Electra", NARROW, [*HEADS, "ForPreTraining"])
    + [("electra, same width", "ElectraModel", dict(BERT, embedding_size=64))]
    + under("Albert", NARROW, [*HEADS, "ForPreTraining"])
    + [("albert, groups", "AlbertModel", dict(NARROW, num_hidden_layers=3, num_hidden_groups=2, inner_group_num=2))]
    + under("ModernBert", MODERN, HEADS)
    + [("modernbert, biases", "ModernBertForMaskedLM", dict(MODERN, norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, decoder_bias=False))]
)
