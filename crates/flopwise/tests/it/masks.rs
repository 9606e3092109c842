//! What the user says about attention, on real exports, against sums written down here: the .pt2
//! file has attention as one operator, the ONNX file as matrix products and a softmax.

use flopwise::cost::{Masking, Pass, Seen, StoredFormat, work};
use flopwise::graph::{
    Attention, Builder, Dim, Mask, MatMul, Op, Orientation, Positions, Range, Role, Shape, Storage,
    TensorType,
};
use flopwise::query::{CountQuery, MemoryQuery, Query, answer};
use flopwise::report::{CountReport, Grouping, Report};
use flopwise_formats::Format;

/// Products of llama_small per token, from its configuration: 4 layers of width 512 with 8 heads,
/// 4 of them stored, an inner width of 1376 in three matrices, and a head of 32,000 words.
const PER_TOKEN: u128 = 4 * (512 * 512 * 2 + 512 * 256 * 2 + 3 * 512 * 1376) + 512 * 32_000;
/// Of each pair of query and key: 4 layers, 8 heads, 64 for the score and 64 for the value.
const PER_PAIR: u128 = 4 * 8 * 128;

fn query(model: &str, masking: Masking, bindings: &[(&str, i128)]) -> CountQuery {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/onnx/");
    CountQuery {
        model: if model.contains('.') { format!("{root}{model}") } else { model.to_owned() },
        bindings: bindings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        grouping: Grouping::Kind,
        masking,
        mtp: 0,
        weights: None,
        memory: MemoryQuery::plain(),
        positions: Positions::All,
    }
}

fn count(query: CountQuery) -> CountReport {
    match answer(&Query::Count(query)) {
        Ok(Report::Count(report)) => *report,
        other => panic!("{other:?}"),
    }
}

fn masking(seen: Seen, packed: &[u64]) -> Masking {
    Masking { seen, packed: packed.to_vec(), pass: Pass::Whole }
}

/// Both files of llama_small, with one sequence of 128 tokens.
#[track_caller]
fn check(masking: Masking, pairs: u128) {
    for model in ["llama_small", "llama_small.dynamo.dyn.onnx"] {
        let bindings: &[_] = if masking.packed.is_empty() { &[("seq", 128)] } else { &[] };
        let report = count(query(model, masking.clone(), bindings));
        let macs = report.counted.expect("every symbol is bound").total.macs.0;
        assert_eq!(macs, 128 * PER_TOKEN + PER_PAIR * pairs, "{model} {masking:?}");
    }
}

#[test]
fn masks_are_exact_sums() {
    check(masking(Seen::AsFile, &[]), 128 * 128);
    check(masking(Seen::All, &[]), 128 * 128);
    check(masking(Seen::Causal, &[]), 128 * 129 / 2);
    // 1 + 2 + .. + 16, then 112 times 16.
    check(masking(Seen::Window(16), &[]), 16 * 17 / 2 + 112 * 16);
    check(masking(Seen::Window(4096), &[]), 128 * 129 / 2);
    check(masking(Seen::Chunk(32), &[]), 4 * (32 * 33 / 2));
    check(masking(Seen::Chunk(50), &[]), 2 * (50 * 51 / 2) + 28 * 29 / 2);
    // The first 16 queries see 16 keys each.
    check(masking(Seen::Prefix(16), &[]), 16 * 16 + (128 * 129 - 16 * 17) / 2);
}

#[test]
fn packed_sequences_bind_their_sum() {
    check(masking(Seen::AsFile, &[64, 48, 16]), 64 * 64 + 48 * 48 + 16 * 16);
    check(masking(Seen::Causal, &[64, 48, 16]), (64 * 65 + 48 * 49 + 16 * 17) / 2);
    check(masking(Seen::Window(20), &[100, 28]), 20 * 21 / 2 + 80 * 20 + 20 * 21 / 2 + 8 * 20);
}

#[test]
fn a_decoded_token_sees_its_context() {
    for model in ["llama_small", "llama_small.dynamo.dyn.onnx"] {
        for (seen, keys) in [(Seen::AsFile, 4096), (Seen::Causal, 4096), (Seen::Window(512), 512)] {
            let decode = Masking { seen, packed: Vec::new(), pass: Pass::Decode };
            let report = count(query(model, decode, &[("context", 4096), ("batch", 3)]));
            let total = report.counted.expect("every symbol is bound").total;
            assert_eq!(total.macs.0, 3 * (PER_TOKEN + PER_PAIR * keys), "{model} {seen:?}");
            // 4 layers, 4 heads stored, 64 elements, keys and values, 4 bytes.
            let cache = 3 * (keys - 1) * 4 * 4 * 64 * 2 * 4;
            let whole =
                count(query(model, masking(Seen::Causal, &[]), &[("seq", 1), ("batch", 3)]));
            let whole = whole.counted.expect("every symbol is bound").total;
            // Queries of 8 heads meet keys of 4: of one token that is 2 x 4 heads less to read.
            let repeated = 3 * 4 * (8 - 4) * 64 * 2 * 4;
            assert_eq!(total.bytes().0, whole.bytes().0 + cache - repeated, "{model} {seen:?}");
            let says = |text: &str| report.notes.iter().any(|note| note.text.contains(text));
            assert!(says("8192*batch bytes per token"), "{:?}", report.notes);
        }
    }
}

#[test]
fn what_does_not_apply_is_an_error() {
    let decode = Masking { seen: Seen::AsFile, packed: Vec::new(), pass: Pass::Decode };
    let cases = [
        ("resnet18", masking(Seen::Causal, &[]), "no self-attention that is causal"),
        ("resnet18", decode.clone(), "cannot decode"),
        ("vit_b_16", masking(Seen::AsFile, &[100, 20]), "over 120 tokens"),
        ("llama_small", masking(Seen::AsFile, &[3000]), "out of range"),
    ];
    for (model, masking, message) in cases {
        let answered = answer(&Query::Count(query(model, masking, &[])));
        let error = answered.map(drop).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
    }
    let bound = query("llama_small", decode, &[("seq", 7)]);
    let error = answer(&Query::Count(bound)).map(drop).expect_err("seq is 1");
    assert!(error.to_string().contains("`seq` is 1 here"), "{error}");
    let packed = query("llama_small", masking(Seen::AsFile, &[3, 4]), &[("seq", 8)]);
    let error = answer(&Query::Count(packed)).map(drop).expect_err("seq is 7");
    assert!(error.to_string().contains("bound to both"), "{error}");
}

/// Multi-head latent attention of DeepSeek-V3 (arXiv 2412.19437): 128 heads, 128 + 64 for a score,
/// 128 for a value, 512 + 64 stored per token.
#[test]
fn latent_attention_is_counted_both_ways() {
    const CONTEXT: i64 = 4096;
    let (heads, nope, rope, value, latent) = (128i64, 128i64, 64i64, 128i64, 512i64);
    let bf16 =
        |lengths: &[i64]| Some(TensorType { shape: Shape::of(lengths), format: Format::BF16 });
    // Absorbed: every head reads the same stored vector; the value is its first 512 elements.
    let mut builder = Builder::new("absorbed");
    let input = |builder: &mut Builder, name: &str, lengths: &[i64]| {
        builder.tensor(name, bf16(lengths), Role::Input).unwrap()
    };
    let query = input(&mut builder, "query", &[1, heads, 1, nope]);
    let rotated = input(&mut builder, "rotated", &[1, heads, 1, rope]);
    let key = input(&mut builder, "stored", &[1, 1, 1, latent + rope]);
    let up = builder.tensor("w_uk", bf16(&[heads, nope, latent]), Role::Parameter).unwrap();
    let down = builder.tensor("w_uv", bf16(&[heads, latent, value]), Role::Parameter).unwrap();
    let product = || Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    let absorbed = builder.apply("absorb", product(), &[query, up]).unwrap()[0];
    let query = builder.apply("query'", Op::Concat { axis: 3 }, &[absorbed, rotated]).unwrap()[0];
    let range = Range { axis: 3, start: 0.into(), end: latent.into(), step: 1 };
    let slice = Op::Slice { ranges: vec![range], storage: Storage::View };
    let values = builder.apply("values", slice, &[key]).unwrap()[0];
    let cached = Dim::from(CONTEXT - 1);
    let attention = Attention { cached, ..Attention::new(Mask::Full) };
    let attended =
        builder.apply("attention", Op::Attention(attention), &[query, key, values]).unwrap()[0];
    let output = builder.apply("output", product(), &[attended, down]).unwrap();
    let graph = builder.finish(vec![], output);
    let counted = work(&graph);
    // formulas: 2 a n (c + d_r + c) for the core, 2 a d_n c and 2 a c d_v to absorb.
    let core = heads * CONTEXT * 1088;
    let absorb = heads * nope * latent + heads * latent * value;
    assert_eq!(counted.total.macs.0, Dim::from(core + absorb));
    // The cache is read once: 576 elements of 2 bytes per token, for keys and values together.
    let attention = &counted.nodes[3].cost.as_ref().unwrap().bytes_read.0;
    let queries = heads * (latent + rope) * 2;
    assert_eq!(*attention, Dim::from(queries + CONTEXT * 576 * 2));

    // Not absorbed, causal over a prompt: 192 per score and 128 per value.
    let mut builder = Builder::new("plain");
    let query = input(&mut builder, "query", &[1, heads, CONTEXT, nope + rope]);
    let key = input(&mut builder, "key", &[1, heads, CONTEXT, nope + rope]);
    let values = input(&mut builder, "values", &[1, heads, CONTEXT, value]);
    let attention = Op::Attention(Attention::new(Mask::causal()));
    let output = builder.apply("attention", attention, &[query, key, values]).unwrap();
    let counted = work(&builder.finish(vec![], output));
    let pairs = CONTEXT * (CONTEXT + 1) / 2;
    assert_eq!(counted.total.macs.0, Dim::from(heads * pairs * (192 + 128)));
}

/// Bytes by hand: gpt2 has 48 matrices of its layers, a table of 50,257 x 768 that is its head too,
/// and positions of 1024 x 768; biases and norms stay in FP32.
#[test]
fn weights_in_other_formats_take_their_scales_along() {
    let matrices: u128 = 12 * 12 * 768 * 768 + 50_257 * 768 + 1024 * 768;
    let others = 124_439_808 - matrices;
    let cases = [
        ("fp32", 4 * 124_439_808),
        ("bf16", 2 * 124_439_808),
        ("fp8_e4m3", matrices + 4 * others),
        ("mxfp4", matrices * 17 / 32 + 4 * others),
        ("mxfp8_e4m3", matrices * 33 / 32 + 4 * others),
        // 9 bytes for 16, and 4 for each of the 50 tensors.
        ("nvfp4", matrices * 9 / 16 + 4 * 50 + 4 * others),
        ("q4_k", matrices * 144 / 256 + 4 * others),
        ("int4", matrices / 2 + 4 * others),
    ];
    for (format, bytes) in cases {
        let weights: StoredFormat = format.parse().expect(format);
        let mut query = query("gpt2", Masking::as_file(), &[]);
        query.weights = Some(weights);
        let stored = count(query).stored.expect("weights have fixed sizes");
        assert_eq!(stored.weight_bytes.0, bytes, "{format}");
        assert_eq!(stored.parameters, 124_439_808, "{format}");
    }
}
