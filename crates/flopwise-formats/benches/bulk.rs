//! How far conversion of slices is from copying them, and from other crates.
//!
//! A rate counts bytes read and written. In memory: 128 MiB of binary32, and memcpy of as much,
//! taken in turn so that their ratio holds when the machine's speed drifts. In cache: 64 KiB, the
//! best of many, and how many times faster than the crate that others use for it.
//!
//! `cargo bench -p flopwise-formats`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use flopwise_formats::block::ScaleRule;
use flopwise_formats::codec::Rules;
use flopwise_formats::{Format, bulk};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::hint::black_box;
use std::time::Instant;

const IN_MEMORY: usize = 32 << 20;
const IN_CACHE: usize = 16 << 10;
const N_ROUNDS: usize = 15;

/// What is measured.
#[derive(Clone, Copy)]
enum Work {
    Copy,
    Encode(Format, Rules),
    Decode(Format),
    Round(Format, Rules),
    EncodeMx(Format),
    DecodeMx(Format),
    OtherEncode(Format),
    OtherDecode(Format),
}

fn main() {
    let mut rows = vec![];
    for format in [Format::FP16, Format::BF16] {
        rows.extend([Work::Encode(format, Rules::IEEE), Work::Decode(format)]);
    }
    for format in [Format::E4M3FN, Format::E5M2, Format::E4M3FNUZ, Format::E2M3, Format::E2M1] {
        rows.extend([Work::Encode(format, Rules::SATURATING), Work::Decode(format)]);
    }
    rows.extend([Work::EncodeMx(Format::E2M1), Work::DecodeMx(Format::E2M1)]);
    rows.extend([Work::EncodeMx(Format::E4M3FN), Work::DecodeMx(Format::E4M3FN)]);
    for format in [Format::BF16, Format::E4M3FN] {
        rows.push(Work::Round(format, Rules::SATURATING));
    }
    let mut buffers = Buffers::new(IN_MEMORY);
    let mut small = Buffers::new(IN_CACHE);
    println!("{:<18} {:>12} {:>9} {:>12} {:>9}", "", "memory", "/memcpy", "cache", "/others");
    for work in rows {
        let (rate, ratio) = in_memory(work, &mut buffers);
        let cached = in_cache(work, &mut small);
        let other = counterpart(work).map(|other| cached / in_cache(other, &mut small));
        let other = other.map_or("-".to_owned(), |times| format!("{times:.1}"));
        let name = work.name();
        println!("{name:<18} {rate:>7.1} GB/s {ratio:>9.2} {cached:>7.1} GB/s {other:>9}");
    }
}

impl Work {
    fn name(self) -> String {
        match self {
            Work::Copy => "memcpy".to_owned(),
            Work::Encode(format, _) => format!("{format} encode"),
            Work::Decode(format) => format!("{format} decode"),
            Work::Round(format, _) => format!("{format} round"),
            Work::EncodeMx(format) => format!("mx {format} encode"),
            Work::DecodeMx(format) => format!("mx {format} decode"),
            Work::OtherEncode(format) => format!("{format} encode by others"),
            Work::OtherDecode(format) => format!("{format} decode by others"),
        }
    }

    /// Bytes read and written for each element.
    fn bytes_each(self) -> f64 {
        match self {
            Work::Copy | Work::Round(..) => 8.0,
            Work::Encode(format, _)
            | Work::Decode(format)
            | Work::OtherEncode(format)
            | Work::OtherDecode(format) => 4.0 + f64::from(format.bits) / 8.0,
            Work::EncodeMx(format) | Work::DecodeMx(format) => {
                4.0 + f64::from(format.bits) / 8.0 + 1.0 / 32.0
            }
        }
    }
}

struct Buffers {
    values: Vec<f32>,
    results: Vec<f32>,
    /// Enough for 16 bits an element.
    codes: Vec<u8>,
    words: Vec<u16>,
    scales: Vec<u8>,
}

impl Buffers {
    /// Values of both signs around 1, as weights times a scale are: nothing overflows E4M3.
    fn new(n_elements: usize) -> Buffers {
        let scrambled = |idx: usize| (idx as u32).wrapping_mul(0x9e37_79b9) as i32;
        let values = (0..n_elements).map(|idx| scrambled(idx) as f32 * 1e-9).collect();
        Buffers {
            values,
            results: vec![1.0; n_elements],
            codes: vec![1; 2 * n_elements],
            words: vec![1; n_elements],
            scales: vec![1; n_elements / 32],
        }
    }

    fn run(&mut self, work: Work) {
        let Buffers { values, results, codes, words, scales } = self;
        let values = black_box(&values[..]);
        let size = |format: Format| values.len() / 8 * usize::from(format.bits);
        match work {
            Work::Copy => results.copy_from_slice(values),
            Work::Encode(format, rules) => {
                bulk::encode_f32(format, rules, values, &mut codes[..size(format)]).unwrap();
            }
            Work::Decode(format) => {
                bulk::decode_f32(format, &codes[..size(format)], results).unwrap();
            }
            Work::Round(format, rules) => bulk::round_f32(format, rules, values, results).unwrap(),
            Work::EncodeMx(format) => {
                let codes = &mut codes[..size(format)];
                bulk::encode_mx(format, ScaleRule::Floor, values, scales, codes).unwrap();
            }
            Work::DecodeMx(format) => {
                bulk::decode_mx(format, scales, &codes[..size(format)], results).unwrap();
            }
            Work::OtherEncode(format) => others_encode(format, values, codes, words),
            Work::OtherDecode(format) => others_decode(format, codes, words, results),
        }
        black_box((results, codes, words));
    }

    fn seconds(&mut self, work: Work, n_times: usize) -> f64 {
        let start = Instant::now();
        (0..n_times).for_each(|_| self.run(work));
        start.elapsed().as_secs_f64() / n_times as f64
    }
}

/// The crate that others use, where there is one.
fn counterpart(work: Work) -> Option<Work> {
    const HELD: [Format; 4] = [Format::FP16, Format::BF16, Format::E4M3FN, Format::E5M2];
    match work {
        Work::Encode(format, _) if HELD.contains(&format) => Some(Work::OtherEncode(format)),
        Work::Decode(format) if HELD.contains(&format) => Some(Work::OtherDecode(format)),
        Work::Copy
        | Work::Encode(..)
        | Work::Decode(_)
        | Work::Round(..)
        | Work::EncodeMx(_)
        | Work::DecodeMx(_)
        | Work::OtherEncode(_)
        | Work::OtherDecode(_) => None,
    }
}

fn others_encode(format: Format, values: &[f32], codes: &mut [u8], words: &mut [u16]) {
    match format {
        Format::FP16 => words.reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(values),
        Format::BF16 => words.reinterpret_cast_mut::<half::bf16>().convert_from_f32_slice(values),
        Format::E4M3FN => {
            for (code, value) in codes.iter_mut().zip(values) {
                *code = float8::F8E4M3::from_f32(*value).to_bits();
            }
        }
        _ => {
            for (code, value) in codes.iter_mut().zip(values) {
                *code = float8::F8E5M2::from_f32(*value).to_bits();
            }
        }
    }
}

fn others_decode(format: Format, codes: &[u8], words: &[u16], values: &mut [f32]) {
    match format {
        Format::FP16 => words.reinterpret_cast::<half::f16>().convert_to_f32_slice(values),
        Format::BF16 => words.reinterpret_cast::<half::bf16>().convert_to_f32_slice(values),
        Format::E4M3FN => {
            for (value, code) in values.iter_mut().zip(codes) {
                *value = float8::F8E4M3::from_bits(*code).to_f32();
            }
        }
        _ => {
            for (value, code) in values.iter_mut().zip(codes) {
                *value = float8::F8E5M2::from_bits(*code).to_f32();
            }
        }
    }
}

/// The rate in GB/s, and its ratio to memcpy's.
fn in_memory(work: Work, buffers: &mut Buffers) -> (f64, f64) {
    buffers.run(work);
    let bytes = |work: Work| work.bytes_each() * IN_MEMORY as f64;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..N_ROUNDS {
        let copied = bytes(Work::Copy) / buffers.seconds(Work::Copy, 1);
        let converted = bytes(work) / buffers.seconds(work, 1);
        rates.push(converted * 1e-9);
        ratios.push(converted / copied);
    }
    (median(rates), median(ratios))
}

/// The best rate in GB/s: what disturbs only slows.
fn in_cache(work: Work, buffers: &mut Buffers) -> f64 {
    let best = (0..400).map(|_| buffers.seconds(work, 5)).fold(f64::INFINITY, f64::min);
    work.bytes_each() * IN_CACHE as f64 / best * 1e-9
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
