//! What the fuzz targets share.

use bytes::Bytes;
use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking};
use flopwise::graph::{Bindings, Pass};
use flopwise::query::{NumberQuery, Query};
use flopwise::report::{self, Paint};
use flopwise::{import, query, weights};
use flopwise_formats::block::BlockRules;
use flopwise_formats::codec::{self, Rules};
use flopwise_formats::decimal::{self, Literal};
use flopwise_formats::system::System;
use flopwise_formats::Exact;
use std::path::Path;

/// Imports, counts and binds whatever `data` is.
pub fn count(data: &[u8]) {
    let Ok(graph) = import::from_bytes("fuzz", Bytes::copy_from_slice(data), Path::new("")) else {
        return;
    };
    let work = cost::work(&graph);
    let typed: Vec<_> = graph.symbols.iter().map(|symbol| (symbol.name.clone(), 3)).collect();
    if let Ok(bindings) = Bindings::resolve(&graph, &typed) {
        let _ = work.bind(&graph, &bindings);
        let _ = cost::memory(&graph, &bindings);
    }
}

/// Builds the model that a config describes, whole and for decoding, and counts the forward pass and
/// a training step.
pub fn build(data: &[u8]) {
    // Thousands of layers are built alike; they only cost time here.
    const MAX_NODES: usize = 2000;
    for pass in [Pass::Whole, Pass::Decode] {
        let options = Options { pass, mtp: 1 };
        let Ok(mut graph) = arch::read("fuzz", data, &options) else { continue };
        if MAX_NODES < graph.nodes.len() {
            return;
        }
        let masking = Masking { pass, ..Masking::as_file() };
        let _ = cost::apply_masking(&mut graph, &masking);
        let work = cost::work(&graph);
        assert_eq!(work.unknown().count(), 0, "an operator that was built has no rule");
        let typed: Vec<_> = graph.symbols.iter().map(|symbol| (symbol.name.clone(), 3)).collect();
        if let Ok(bindings) = Bindings::resolve(&graph, &typed) {
            let _ = work.bind(&graph, &bindings);
            let _ = cost::memory(&graph, &bindings);
        }
    }
}

/// Lists whatever tensors `data` holds, and reads them in small pieces.
pub fn read_tensors(data: &[u8]) {
    const PIECE_BYTES: usize = 1000;
    // A deflated member may claim, and hold, a thousand times its size.
    const MAX_BYTES: u64 = 1 << 20;
    let Ok(checkpoint) = weights::from_bytes("fuzz", Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut buffer = Vec::new();
    for (tensor_idx, tensor) in checkpoint.tensors().iter().enumerate() {
        if MAX_BYTES < tensor.bytes || tensor.unread.is_some() {
            continue;
        }
        let mut n_bytes = 0;
        let mut is_whole = true;
        for piece in checkpoint.pieces(tensor_idx, PIECE_BYTES) {
            let take = &mut |chunk: weights::Chunk<'_>| n_bytes += chunk.bytes.len() as u64;
            is_whole &= checkpoint.read(&piece, &mut buffer, take).is_ok();
        }
        // What blocks stand for is handed out in binary32.
        let expected = tensor.block.map_or(tensor.bytes, |_| 4 * tensor.elements);
        assert!(!is_whole || n_bytes == expected, "{tensor:?}: {n_bytes} bytes read");
        read_scaled(&checkpoint, tensor_idx);
    }
}

/// Reads the values of codes, where the file pairs them with a scale.
fn read_scaled(checkpoint: &weights::Checkpoint, tensor_idx: usize) {
    let scaled = checkpoint.scaled(tensor_idx);
    let Some(Ok(scaled)) = scaled.map(|scaled| scaled.with_scales(checkpoint)) else { return };
    let (mut buffer, mut room) = (Vec::new(), weights::Room::default());
    for piece in checkpoint.pieces(tensor_idx, 1000) {
        let _ = checkpoint.read(&piece, &mut buffer, &mut |chunk| {
            let _ = scaled.values(checkpoint, &chunk, &mut room);
        });
    }
}

/// Reads `data` as a file of PyTorch's: as it is, as the pickle of an archive whose storages have
/// 64 bytes, and as the index of shards that are not there.
pub fn read_checkpoint(data: &[u8]) {
    read_tensors(data);
    let storage = [7; 64];
    let members: Vec<(&[u8], &[u8])> =
        vec![(b"a/data.pkl", data), (b"a/data/0", &storage), (b"a/data/1", &storage)];
    read_tensors(&archive_of(&members));
    let _ = weights::check_index(data);
}

/// Takes `data` for a GGUF file behind its magic: its tensors, and the model that it describes.
pub fn read_gguf(data: &[u8]) {
    let file = [b"GGUF", data].concat();
    read_tensors(&file);
    build(&file);
}

/// Takes the first line of `data` for a number and the second for a format's name, converts and
/// prints the working; bits that were written down come back.
pub fn convert(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (value, format) = text.split_once('\n').unwrap_or((text, "e4m3fn"));
    let query = NumberQuery {
        values: vec![value.to_owned()],
        formats: vec![format.to_owned()],
        rules: Rules::IEEE,
        block_rules: BlockRules::OCP,
        system: Some(System::MlDtypes),
        is_explained: true,
    };
    if let Ok(report) = query::answer(&Query::Number(query)) {
        assert!(!report::text(&report, Paint::Plain).is_empty());
        assert!(!report::json(&report).is_empty());
    }
    if let Ok(Literal { value, code: Some((format, code)) }) = decimal::parse(value)
        && !matches!(value, Exact::Nan { .. })
        && format.float().is_some_and(|float| float.magnitude_bits() >= u32::from(format.bits) - 1)
    {
        assert_eq!(codec::encode(format, &value, Rules::IEEE).code, code, "{format}");
    }
    let _ = query::answer(&Query::Formats(Some(format.to_owned())));
}

/// A stored zip archive with `program` as its only member.
pub fn archive(program: &[u8]) -> Vec<u8> {
    archive_of(&[(b"m/models/model.json", program)])
}

/// A stored zip archive of these members.
fn archive_of(members: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let size = (content.len() as u32).to_le_bytes();
        // Version, flags, method, time, date, CRC, sizes, name length, extra length (APPNOTE 4.3.7).
        let common = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &crc32(content).to_le_bytes(),
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        let at = (file.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02", &[20, 0][..], &common, &[0; 10], &at, name].concat());
        file.extend([b"PK\x03\x04", &common[..], name, content].concat());
    }
    let n_members = (members.len() as u16).to_le_bytes();
    let size = (directory.len() as u32).to_le_bytes();
    let at = (file.len() as u32).to_le_bytes();
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &n_members[..], &n_members, &size, &at, &[0, 0]].concat());
    file
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (!(crc & 1)).wrapping_add(1));
        }
    }
    !crc
}
