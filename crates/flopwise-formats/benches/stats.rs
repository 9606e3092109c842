//! How far statistics of a tensor are from the least work any of them must do: reading its bytes
//! once.
//!
//! Both run in turn on one thread over the same buffer, larger than a level-2 cache, so that their
//! ratio holds when the machine's speed drifts.
//!
//! `cargo bench -p flopwise-formats --bench stats`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use flopwise_formats::Format;
use flopwise_formats::stats::{Tally, Target};
use std::hint::black_box;
use std::time::Instant;

const N_ROUNDS: usize = 15;
const N_BYTES: usize = 16 << 20;
/// As `flopwise tensors` reads.
const PIECE_BYTES: usize = 256 << 10;

const TEN: &[&str] =
    &["fp16", "bf16", "tf32", "e4m3fn", "e5m2", "e4m3fnuz", "e3m4", "e2m3", "e3m2", "e2m1"];

fn main() {
    println!("{:<8} {:<24} {:>9} {:>9} {:>8}", "stored", "formats", "ns/value", "finish", "ratio");
    let mut seed = 1u64;
    let singles: Vec<u8> =
        (0..N_BYTES / 4).flat_map(|_| (bell(&mut seed) as f32).to_le_bytes()).collect();
    let halves: Vec<u8> =
        singles.as_chunks::<4>().0.iter().flat_map(|single| [single[2], single[3]]).collect();
    for targets in [&TEN[3..4], &TEN[3..], &TEN[..1], &TEN[2..3], TEN, &["mxfp4"]] {
        compare(Format::FP32, &singles, targets);
    }
    compare(Format::BF16, &halves, TEN);
    compare(Format::E4M3FN, &halves, TEN);
}

/// Near enough a normal distribution of standard deviation 0.02.
fn bell(seed: &mut u64) -> f64 {
    let mut one = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 11) as f64 / 2f64.powi(53)
    };
    ((0..12).map(|_| one()).sum::<f64>() - 6.0) * 0.02
}

fn compare(source: Format, bytes: &[u8], names: &[&str]) {
    let targets: Vec<Target> = names.iter().map(|name| Target::parse(name).unwrap()).collect();
    let element_bytes = usize::from(source.bits) / 8;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..N_ROUNDS {
        let mut tally = Tally::new(source, &targets).unwrap();
        times[0].push(seconds(|| {
            for piece in bytes.chunks(PIECE_BYTES) {
                tally.add(piece, piece.len() / element_bytes);
            }
        }));
        times[1].push(seconds(|| {
            black_box(tally.finish());
        }));
        times[2].push(seconds(|| {
            let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            black_box(words.fold(0, u64::wrapping_add));
        }));
    }
    let [add, finish, read] = times.map(median);
    let n_values = bytes.len() / element_bytes;
    let formats = if names.len() == 1 { names[0].to_owned() } else { names.len().to_string() };
    let (name, per_value) = (source.name, add * 1e9 / n_values as f64);
    println!(
        "{name:<8} {formats:<24} {per_value:>9.2} {:>6.2} ms {:>8.1}",
        finish * 1e3,
        add / read
    );
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
