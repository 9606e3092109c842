//! Tensor files written by hand and by the libraries (`tools/make_tensor_files.py`): what is whole
//! is read to the byte, what is damaged is refused.

use super::*;
use proptest::prelude::*;
use std::io::Write;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tensors").join(file)
}

/// A safetensors file of this header and `n_bytes` bytes of data: 0, 1, 2 ...
pub(super) fn safetensors(header: &str, n_bytes: usize) -> Vec<u8> {
    let data = (0..n_bytes).map(|byte| byte as u8);
    let length = (header.len() as u64).to_le_bytes();
    length.into_iter().chain(header.bytes()).chain(data).collect()
}

/// A version 1 array with this header text.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [MAGIC_1, &length, header.as_bytes(), data].concat()
}

const MAGIC_1: &[u8] = b"\x93NUMPY\x01\x00";

pub(super) fn npz(members: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn parse(file: Vec<u8>) -> Result<Checkpoint, String> {
    from_bytes("test", file.into()).map_err(|error| error.to_string())
}

pub(super) fn index(checkpoint: &Checkpoint, name: &str) -> usize {
    let found = checkpoint.tensors().iter().position(|tensor| tensor.name == name);
    found.unwrap_or_else(|| panic!("no tensor `{name}`"))
}

/// All bytes of a tensor, read in pieces of `max_bytes`.
pub(super) fn read_all(checkpoint: &Checkpoint, tensor_idx: usize, max_bytes: usize) -> Vec<u8> {
    let (mut all, mut next, mut buffer) = (Vec::new(), 0, Vec::new());
    for piece in checkpoint.pieces(tensor_idx, max_bytes) {
        let take = &mut |chunk: Chunk<'_>| {
            assert_eq!(chunk.first_element, next, "chunks come in order");
            next += chunk.elements;
            all.extend_from_slice(chunk.bytes);
        };
        checkpoint.read(&piece, &mut buffer, take).unwrap();
    }
    assert_eq!(next, checkpoint.tensors()[tensor_idx].elements);
    all
}

#[test]
fn every_dtype_of_the_safetensors_library_is_read() {
    let checkpoint = open(&data("dtypes.safetensors")).unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.kind), ("dtypes", Kind::Safetensors));
    assert_eq!(checkpoint.metadata, BTreeMap::from([("format".into(), "pt".into())]));
    let check = |name: &str, format: Format| {
        let tensor_idx = index(&checkpoint, name);
        let tensor = &checkpoint.tensors()[tensor_idx];
        assert_eq!((tensor.format, tensor.elements), (format, 8), "{name}");
        assert_eq!(tensor.shape, [2, 4], "{name}");
        assert_eq!(tensor.bytes, u64::from(format.bits), "{name}: 8 elements");
        let bytes = read_all(&checkpoint, tensor_idx, 1);
        let expected: Vec<u8> = match name {
            "t.bool" => vec![0; 8],
            "t.f4" => vec![0x10, 0x32, 0x54, 0x76],
            _ => (0..tensor.bytes as u8).collect(),
        };
        assert_eq!(bytes, expected, "{name}");
    };
    check("t.bool", Format::BOOL);
    check("t.u8", Format::UINT8);
    check("t.i8", Format::INT8);
    check("t.f4", Format::E2M1);
    check("t.f8_e5m2", Format::E5M2);
    check("t.f8_e4m3", Format::E4M3FN);
    check("t.f8_e8m0", Format::E8M0);
    check("t.f8_e4m3fnuz", Format::E4M3FNUZ);
    check("t.f8_e5m2fnuz", Format::E5M2FNUZ);
    check("t.i16", Format::INT16);
    check("t.u16", Format::UINT16);
    check("t.f16", Format::FP16);
    check("t.bf16", Format::BF16);
    check("t.i32", Format::INT32);
    check("t.u32", Format::UINT32);
    check("t.f32", Format::FP32);
    check("t.c64", Format::COMPLEX64);
    check("t.f64", Format::FP64);
    check("t.i64", Format::INT64);
    check("t.u64", Format::UINT64);
    let scalar = index(&checkpoint, "scalar");
    assert!(checkpoint.tensors()[scalar].shape.is_empty());
    assert_eq!(read_all(&checkpoint, scalar, 64), 1.5f32.to_le_bytes());
    let empty = index(&checkpoint, "empty");
    assert_eq!((checkpoint.tensors()[empty].bytes, checkpoint.pieces(empty, 64).len()), (0, 0));
}

#[test]
fn six_bit_elements_take_three_bytes_for_four() {
    let header = r#"{"a":{"dtype":"F6_E2M3","shape":[3,4],"data_offsets":[0,9]},
                     "b":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[9,12]}}"#;
    let checkpoint = parse(safetensors(header, 12)).unwrap();
    assert_eq!(checkpoint.tensors()[0].format, Format::E2M3);
    assert_eq!(checkpoint.tensors()[1].format, Format::E3M2);
    let pieces: Vec<Piece> = checkpoint.pieces(0, 7).collect();
    let ranges: Vec<_> = pieces.iter().map(|piece| (piece.first_element, piece.elements)).collect();
    assert_eq!(ranges, [(0, 8), (8, 4)]);
    assert_eq!(read_all(&checkpoint, 0, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read_all(&checkpoint, 1, 0), [9, 10, 11]);
}

#[test]
fn numpy_arrays_are_read_in_every_dtype_and_order() {
    for file in ["stored.npz", "deflated.npz"] {
        let checkpoint = open(&data(file)).unwrap();
        assert_eq!(checkpoint.kind, Kind::Npz);
        assert_eq!(checkpoint.tensors().len(), 31, "{file}");
        let check = |name: &str, format: Format, expected: &[u8]| {
            let tensor_idx = index(&checkpoint, name);
            assert_eq!(checkpoint.tensors()[tensor_idx].format, format, "{file} {name}");
            for max_bytes in [0, 5, 1 << 20] {
                let bytes = read_all(&checkpoint, tensor_idx, max_bytes);
                assert_eq!(bytes, expected, "{file} {name}");
            }
        };
        /// 0 to 5 as little-endian numbers.
        macro_rules! numbers {
            ($type:ty) => {
                [0, 1, 2, 3, 4, 5].map(|n| (n as $type).to_le_bytes()).concat()
            };
        }
        macro_rules! both_orders {
            ($name:literal, $format:expr, $expected:expr) => {
                check(concat!($name, "_little"), $format, &$expected);
                check(concat!($name, "_big"), $format, &$expected);
            };
        }
        check("i1_little", Format::INT8, &[0, 1, 2, 3, 4, 5]);
        check("u1_little", Format::UINT8, &[0, 1, 2, 3, 4, 5]);
        both_orders!("i2", Format::INT16, numbers!(i16));
        both_orders!("i4", Format::INT32, numbers!(i32));
        both_orders!("i8", Format::INT64, numbers!(i64));
        both_orders!("u2", Format::UINT16, numbers!(u16));
        both_orders!("u4", Format::UINT32, numbers!(u32));
        both_orders!("u8", Format::UINT64, numbers!(u64));
        // 0, 1, 2, 3, 4, 5 as binary16.
        let halves = [0u16, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500].map(u16::to_le_bytes).concat();
        both_orders!("f2", Format::FP16, halves);
        both_orders!("f4", Format::FP32, numbers!(f32));
        both_orders!("f8", Format::FP64, numbers!(f64));
        let pairs = [0., 0., 1., 0., 2., 0., 3., 0., 4., 0., 5., 0.];
        both_orders!("c8", Format::COMPLEX64, pairs.map(|n| (n as f32).to_le_bytes()).concat());
        both_orders!("c16", Format::COMPLEX128, pairs.map(f64::to_le_bytes).concat());
        check("bool", Format::BOOL, &[0, 1, 0, 1, 0, 1]);
        check("scalar", Format::FP64, &2.5f64.to_le_bytes());
        check("empty", Format::FP32, &[]);
        check("fortran", Format::FP32, &[0., 3., 1., 4., 2., 5.].map(f32::to_le_bytes).concat());
        let fortran = &checkpoint.tensors()[index(&checkpoint, "fortran")];
        assert_eq!(fortran.axis_order, AxisOrder::FirstFastest);
        let big = &checkpoint.tensors()[index(&checkpoint, "f4_big")];
        assert_eq!((big.byte_order, big.shape.as_slice()), (ByteOrder::Big, &[2, 3][..]));
        // Types of ml_dtypes, whose names numpy.save loses.
        let bf16s = [0u16, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0].map(u16::to_le_bytes).concat();
        check("bfloat16", Format::BF16, &bf16s);
        check("float8_e5m2", Format::E5M2, &[0, 0x3c, 0x40, 0x42, 0x44, 0x45]);
        check("float8_e4m3fn", Format::UINT8, &[0, 0x38, 0x40, 0x44, 0x48, 0x4a]);
    }
}

#[test]
fn every_version_of_npy_is_read() {
    for version in 1..=3 {
        let checkpoint = open(&data(&format!("version{version}.npy"))).unwrap();
        assert_eq!(checkpoint.kind, Kind::Npy);
        assert_eq!(checkpoint.tensors()[0].name, format!("version{version}"));
        assert_eq!(checkpoint.tensors()[0].shape, [2, 3]);
        let expected = [0., 1., 2., 3., 4., 5.].map(f32::to_le_bytes).concat();
        assert_eq!(read_all(&checkpoint, 0, 8), expected);
        assert!(checkpoint.notes.is_empty());
    }
}

#[test]
fn a_lost_dtype_is_said_and_can_be_named() {
    let mut checkpoint = open(&data("stored.npz")).unwrap();
    let note = |word: &str| {
        let notes = checkpoint.notes.iter().map(Note::to_string);
        let found: Vec<String> = notes.filter(|note| note.starts_with(word)).collect();
        assert_eq!(found.len(), 1, "{word}");
        found.into_iter().next().unwrap()
    };
    assert!(note("`bfloat16`").contains("read as bf16"));
    assert!(note("`float8_e5m2`").contains("read as e5m2"));
    assert!(note("`float8_e4m3fn`").contains("may be e4m3fn"));
    let tensor_idx = index(&checkpoint, "float8_e4m3fn");
    assert!(matches!(checkpoint.tensors()[tensor_idx].meaning, Meaning::Codes { .. }));
    assert!(checkpoint.read_as(tensor_idx, Format::FP16).is_err(), "another width");
    checkpoint.read_as(tensor_idx, Format::E4M3FN).unwrap();
    let tensor = &checkpoint.tensors()[tensor_idx];
    assert_eq!((tensor.format, &tensor.meaning), (Format::E4M3FN, &Meaning::Values));
}

#[test]
fn broken_rules_of_safetensors_are_named() {
    let check = |header: &str, n_bytes: usize, expected: &str| {
        let error = parse(safetensors(header, n_bytes)).expect_err(header);
        assert!(error.contains(expected), "{header}\n{error}\nlacks {expected}");
        assert!(!error.contains('\n'), "{error}");
    };
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let a4 = tensor("[1]", 0, 4);
    check(&format!(r#"{{"a":{a4},"a":{a4}}}"#), 4, "tensor `a`: stands twice");
    check(&format!(r#"{{"a":{a4},"b":{a4}}}"#), 4, "tensor `b`: overlaps `a`");
    check(&format!(r#"{{"a":{a4},"b":{}}}"#, tensor("[1]", 2, 6)), 6, "`b`: overlaps `a`");
    check(&format!(r#"{{"a":{a4},"b":{}}}"#, tensor("[1]", 8, 12)), 12, "bytes 4 to 8 before");
    check(&format!(r#"{{"a":{}}}"#, tensor("[1]", 4, 8)), 8, "bytes 0 to 4 before it belong");
    check(&format!(r#"{{"a":{a4}}}"#), 3, "holds 3 of the 4 bytes");
    check(&format!(r#"{{"a":{a4}}}"#), 9, "5 bytes behind the last tensor");
    check(&format!(r#"{{"a":{}}}"#, tensor("[2]", 0, 4)), 4, "takes 8 bytes, its offsets span 4");
    check(&format!(r#"{{"a":{}}}"#, tensor("[]", 4, 0)), 4, "ends at byte 0, before it begins");
    let huge = "[4294967296,4294967296]";
    check(&format!(r#"{{"a":{}}}"#, tensor(huge, 0, 4)), 4, "is too large to have a size");
    // An axis of 0 hides nothing.
    let hidden = "[0,4294967296,4294967296]";
    check(&format!(r#"{{"a":{}}}"#, tensor(hidden, 0, 0)), 0, "is too large to have a size");
    let end = u64::MAX;
    check(&format!(r#"{{"a":{}}}"#, tensor("[1]", end - 4, end)), 4, "too large");
    check(&format!(r#"{{"a":{}}}"#, tensor("[-1]", 0, 4)), 4, "`a`: invalid value");
    check(&format!(r#"{{"a":{}}}"#, tensor("[1.5]", 0, 4)), 4, "`a`: invalid type");
    let axes = format!("[{}1]", "1,".repeat(64));
    check(&format!(r#"{{"a":{}}}"#, tensor(&axes, 0, 4)), 4, "more than 64 axes");
    let dtype = |dtype: &str| a4.replace("F32", dtype);
    check(&format!(r#"{{"a":{}}}"#, dtype("F33")), 4, "has dtype `F33`; known are BOOL");
    check(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2, "a whole byte");
    check(r#"{"a":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]}}"#, 2, "a whole byte");
    check(r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4, "missing field `data_offsets`");
    check(r#"{"a":{"dtype":"F32","dtype":"F32"}}"#, 4, "duplicate field `dtype`");
    check(r#"{"a":7}"#, 4, "`a`: invalid type");
    check(r#"{"__metadata__":{"a":7}}"#, 0, "`__metadata__`: invalid type");
    check(r#"{"__metadata__":{"a":"7","a":"8"}}"#, 0, "a name stands twice");
    check(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "duplicate field `__metadata__`");
    check(r#"{"a":"#, 0, "header: is not as safetensors defines it: `a`: EOF");
    check(&format!("{{\"a\":{a4}}} x"), 4, "trailing characters");
    check(&format!("{{\"a\":{}", "[".repeat(10_000)), 0, "is not as safetensors defines it");
}

#[test]
fn what_the_rules_of_safetensors_allow_is_read() {
    let check = |header: &str, n_bytes: usize, n_tensors: usize| {
        let checkpoint = parse(safetensors(header, n_bytes)).expect(header);
        assert_eq!(checkpoint.tensors().len(), n_tensors, "{header}");
    };
    check("{}", 0, 0);
    check(r#"{"__metadata__":{}}      "#, 0, 0);
    check(r#"{"\u0061":{"dtype":"\u00468_E5M2","shape":[],"data_offsets":[0,1]}}"#, 1, 1);
    check(r#"{"a":{"data_offsets":[0,0],"shape":[0,7],"dtype":"F64","more":[1,{}]}}"#, 0, 1);
    // Not in order of position, and odd offsets.
    let header = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},
                     "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let checkpoint = parse(safetensors(header, 5)).unwrap();
    assert_eq!(checkpoint.tensors()[0].name, "a");
    assert_eq!(read_all(&checkpoint, 1, 9), [1, 2, 3, 4]);
}

#[test]
fn a_header_is_not_believed() {
    let check = |length: u64, rest: &[u8], expected: &str| {
        let error = parse([&length.to_le_bytes()[..], rest].concat()).expect_err(expected);
        assert!(error.contains(expected), "{error} lacks {expected}");
    };
    check(u64::MAX, b"{}", "header: claims 18446744073709551615 bytes, more than the 100000000");
    check(100_000_001, b"{}", "more than the 100000000 allowed");
    check(100_000_000, b"{}", "claims 100000000 bytes, but 2 follow its length");
    check(3, b"{}", "claims 3 bytes, but 2 follow");
    check(5, b"{\"\xff\"}", "invalid unicode code point");
    check(0, b"{}", "header: is not as safetensors defines it: EOF");
}

#[test]
fn broken_headers_of_numpy_are_named() {
    let check = |header: &str, expected: &str| {
        let error = parse(npy(header, &[0; 64])).expect_err(header);
        assert!(error.contains(expected), "{header}\n{error}\nlacks {expected}");
    };
    let with =
        |descr: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n");
    check("", "has `` where `{` belongs");
    check("{", "where `'` belongs");
    check("{}", "has no entry `descr`");
    check("{'descr': '<f4', 'shape': (2,)}", "has no entry `fortran_order`");
    check("{'descr': '<f4', 'descr': '<f4'}", "`descr` stands twice");
    check("{'descr': '<f4' 'shape': (2,)}", "where `}` belongs");
    check("{'descr': '<f4}", "has a text without an end");
    check("{'descr': 7}", "where `(` belongs");
    check("{'color': True}", "entry `color` is not understood");
    check("{'shape': (-1,)}", "has `-1,)}` where a size belongs");
    check("{'shape': (99999999999999999999,)}", "where a size belongs");
    check("{'shape': (1.5,)}", "where `)` belongs");
    check(&format!("{{'shape': ({})}}", "1,".repeat(65)), "more than 64 axes");
    check(&(with("'<f4'") + "x"), "text behind the closing brace");
    check(&with("[('a', '<f4')"), "has a list without an end");
    check(&with("'<f4'").replace("2,", "4294967296, 4294967296"), "too large to have a size");
    check(&with("'<f4'").replace("2,", "17"), "64 of its 68 bytes are there");
    check(&with("'|O'"), "Python objects, which only a pickle can restore");
    check(&with("[('a', '<f4'), (']', [('b', '<i2')])]"), "holds records of several fields");
    check(&with("'<U5'"), "holds text (`<U5`)");
    check(&with("'|S5'"), "holds text");
    check(&with("'<M8[ns]'"), "holds dates or times");
    check(&with("'<f16'"), "holds long doubles");
    check(&with("'|V4'"), "elements of a type that lost its name (`|V4`)");
    check(&with("''"), "elements of a type not known here");
    let check = |file: &[u8], expected: &str| {
        let error = parse(file.to_vec()).expect_err(expected);
        assert!(error.contains(expected), "{error} lacks {expected}");
    };
    check(b"\x93NUMPY\x04\x00\x10\x00", "versions 1 to 3");
    check(b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "claims 4294967295 bytes, more than the 1048576");
    check(b"\x93NUMPY\x01\x00\xff\xff{", "ends too early");
}

#[test]
fn unusual_headers_of_numpy_are_read() {
    let check = |header: &str, shape: &[u64], n_notes: usize| {
        let checkpoint = parse(npy(header, &[0; 8])).expect(header);
        assert_eq!(checkpoint.tensors()[0].shape, shape, "{header}");
        assert_eq!(checkpoint.notes.len(), n_notes, "{header}");
    };
    check(r#"{"shape":(2L,),"descr":"<f4","fortran_order":True}"#, &[2], 0);
    check("  { 'descr' : '=f4' , 'fortran_order':False,'shape':( 1 , 2 ) , }  \n", &[1, 2], 0);
    check("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", &[], 1);
}

#[test]
fn real_files_of_other_things_are_refused_in_one_line() {
    let check = |file: &str, expected: &str| {
        let error = open(&data(file)).expect_err(file).to_string();
        assert!(error.contains(file) && error.contains(expected), "{error} lacks {expected}");
    };
    check("objects.npy", "array `objects`: holds Python objects");
    check("records.npy", "holds records of several fields");
    check("text.npy", "holds text");
    check("long_double.npy", "holds long doubles");
    check("missing.npy", "cannot be opened");
}

#[test]
fn other_kinds_are_told_by_their_first_bytes() {
    let check = |file: &[u8], expected: &str| {
        let error = parse(file.to_vec()).expect_err(expected);
        assert!(error.contains(expected), "{error} lacks {expected}");
    };
    check(b"", "is no file of tensors known here; give a .safetensors, .gguf, .pt");
    check(b"\0\0\0\0\0\0\0\0", "is no file of tensors known here");
    check(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull");
    check(b"GGUF\x03\0\0\0", "header: takes 8 bytes at byte 8, the file has 8");
    check(b"\x89HDF\r\n\x1a\n", "is an HDF5 (Keras) file");
    check(b"\x80\x02}q\0.", "a Python pickle, but none of PyTorch's; pickles are never run");
    check(&[&[b'a'; 257][..], b"ustar\0"].concat(), "a tar archive, as PyTorch wrote before");
    check(b"\n<!DOCTYPE html>", "is a web page");
    check(b"{\n  \"metadata\": {}}", "name it by its path");
    let stored = zip::CompressionMethod::Stored;
    check(
        &npz(&[("m/data.pkl", vec![1])], stored),
        "member `m/data.pkl`: is a damaged pickle: no pickle has",
    );
    check(&npz(&[("readme", vec![1])], stored), "without .npy arrays (it holds `readme`)");
    check(b"PK\x03\x04 and no more", "is a damaged zip file");
}

#[test]
fn members_that_are_no_numbers_are_left_out_with_a_note() {
    let numbers = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", &[1, 2, 3]);
    let objects = npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", &[0; 9]);
    let longer = [numbers.as_slice(), &[7; 5]].concat();
    let members = [
        ("a.npy", numbers.clone()),
        ("o.npy", objects.clone()),
        ("readme", vec![1]),
        ("dir/long.npy", longer),
    ];
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        let checkpoint = parse(npz(&members, method)).unwrap();
        let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "dir/long"]);
        let notes: Vec<String> = checkpoint.notes.iter().map(Note::to_string).collect();
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].contains("`dir/long` is followed by 5 bytes that are left out"));
        assert!(notes[1].contains("array `o`: holds Python objects"));
        assert!(notes[2].contains("left out (first: `readme`)"));
        assert_eq!(read_all(&checkpoint, 1, 2), [1, 2, 3]);
        assert!(parse(npz(&[("o.npy", objects.clone())], method)).is_err());
        assert_eq!(parse(npz(&[], method)).unwrap().tensors().len(), 0);
        let short = numbers[..numbers.len() - 1].to_vec();
        let error = parse(npz(&[("a.npy", short)], method)).unwrap_err();
        assert!(error.contains("array `a`: 2 of its 3 bytes are there"), "{error}");
    }
}

#[test]
fn a_deflated_member_is_inflated_in_bounded_memory() {
    const N_BYTES: usize = 3_000_000;
    const MAX_BYTES: usize = 10_000;
    let header = format!("{{'descr': '>u2', 'fortran_order': False, 'shape': ({},)}}", N_BYTES / 2);
    let file =
        npz(&[("big.npy", npy(&header, &vec![1; N_BYTES]))], zip::CompressionMethod::Deflated);
    assert!(file.len() < N_BYTES / 100);
    let checkpoint = parse(file.clone()).unwrap();
    let pieces: Vec<Piece> = checkpoint.pieces(0, MAX_BYTES).collect();
    assert_eq!(pieces.len(), 1, "a deflated member cannot be cut");
    let (mut buffer, mut n_chunks, mut n_bytes) = (Vec::new(), 0, 0);
    let take = &mut |chunk: Chunk<'_>| {
        assert!(chunk.bytes.len() <= MAX_BYTES && chunk.bytes.iter().all(|byte| *byte == 1));
        // Whole blocks, so that a shared scale is not cut.
        assert!(chunk.first_element.is_multiple_of(BLOCK_ELEMENTS));
        (n_chunks, n_bytes) = (n_chunks + 1, n_bytes + chunk.bytes.len());
    };
    checkpoint.read(&pieces[0], &mut buffer, take).unwrap();
    assert_eq!((n_bytes, n_chunks), (N_BYTES, N_BYTES.div_ceil(19 * 512)));
    assert!(buffer.len() <= MAX_BYTES + PAGE_BYTES);
    // Its checksum is looked at: a flipped byte in the middle is found, at the end at the latest.
    let mut damaged = file;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    let checkpoint = parse(damaged).unwrap();
    let piece = checkpoint.pieces(0, MAX_BYTES).next().unwrap();
    let error = checkpoint.read(&piece, &mut buffer, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("tensor `big`: "), "{error}");
}

#[test]
fn a_file_cut_short_meanwhile_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let header = r#"{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#;
    std::fs::write(&path, safetensors(header, 4000)).unwrap();
    let checkpoint = open(&path).unwrap();
    let pieces: Vec<Piece> = checkpoint.pieces(0, 1024).collect();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2000).unwrap();
    let mut buffer = Vec::new();
    assert!(checkpoint.read(&pieces[0], &mut buffer, &mut |_| {}).is_ok());
    let error = checkpoint.read(&pieces[3], &mut buffer, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("w.safetensors: tensor `a`: ends too early"), "{error}");
    let foreign = Piece { tensor_idx: 1, ..pieces[0] };
    assert!(checkpoint.read(&foreign, &mut buffer, &mut |_| {}).is_err());
    let beyond = Piece { first_element: u64::MAX, ..pieces[0] };
    assert!(checkpoint.read(&beyond, &mut buffer, &mut |_| {}).is_err());
}

#[test]
fn room_is_aligned_and_keeps_its_distance_from_the_page() {
    let mut buffer = Vec::new();
    for at in (0..2 * PAGE_BYTES as u64).chain([u64::MAX]) {
        let room = room(&mut buffer, 1000, at);
        assert_eq!(room.len(), 1000);
        let address = room.as_ptr().addr();
        assert!(address.is_multiple_of(LINE_BYTES));
        let ahead = (address as u64).wrapping_sub(at) % PAGE_BYTES as u64;
        assert!((64..128).contains(&ahead), "{at}: {ahead}");
    }
    assert_eq!(buffer.len(), 1000 + PAGE_BYTES, "it is used again");
}

#[test]
fn many_threads_may_read_from_one_checkpoint() {
    fn assert_shared<T: Send + Sync>(_: &T) {}
    assert_shared(&open(&data("deflated.npz")).unwrap());
    assert_shared(&open(&data("dtypes.safetensors")).unwrap());
}

/// Opens whatever it is and reads it to the end; a panic is the failure.
fn try_all(file: Vec<u8>) -> bool {
    let Ok(checkpoint) = from_bytes("any", file.into()) else { return false };
    let mut buffer = Vec::new();
    let is_short = |tensor: &StoredTensor| tensor.bytes < 1 << 20;
    let mut is_whole = true;
    for tensor_idx in 0..checkpoint.tensors().len() {
        if is_short(&checkpoint.tensors()[tensor_idx]) {
            for piece in checkpoint.pieces(tensor_idx, 64) {
                is_whole &= checkpoint.read(&piece, &mut buffer, &mut |_| {}).is_ok();
            }
        }
    }
    is_whole
}

#[test]
fn files_cut_at_every_byte_are_refused() {
    for file in ["dtypes.safetensors", "version1.npy", "version3.npy", "stored.npz", "deflated.npz"]
    {
        let whole = std::fs::read(data(file)).unwrap();
        for n_bytes in 0..whole.len() {
            assert!(!try_all(whole[..n_bytes].to_vec()), "{file} cut to {n_bytes} bytes");
        }
        assert!(try_all(whole));
    }
}

#[test]
fn files_with_any_byte_changed_do_not_panic() {
    for file in ["dtypes.safetensors", "version2.npy", "records.npy", "deflated.npz", "stored.npz"]
    {
        let whole = std::fs::read(data(file)).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            try_all(changed);
        }
    }
}

/// The codes' name and format, the others with shapes, and what is found.
#[track_caller]
fn check_scales(
    codes: &str,
    dtype: &str,
    shape: &[u64],
    others: &[(&str, &str, &[u64])],
    want: &str,
) {
    let mut header = Vec::new();
    let mut at = 0;
    let all = [(codes, dtype, shape)].into_iter().chain(others.iter().copied());
    for (name, dtype, shape) in all {
        let bits = match dtype {
            "F4" => 4,
            "F32" | "I32" | "U32" => 32,
            "F16" | "BF16" => 16,
            _ => 8,
        };
        let end = at + shape.iter().product::<u64>() * bits / 8;
        header.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#
        ));
        at = end;
    }
    let file = safetensors(&format!("{{{}}}", header.join(",")), at as usize);
    let checkpoint = parse(file).unwrap();
    let found = match &checkpoint.tensors()[index(&checkpoint, codes)].meaning {
        Meaning::Values => "values".to_owned(),
        Meaning::Codes { why } => why.clone(),
        Meaning::Serves { role, .. } => format!("{role:?}"),
        Meaning::Scaled(companion) => {
            for Part { tensor_idx, .. } in &companion.parts {
                let meaning = &checkpoint.tensors()[*tensor_idx].meaning;
                assert!(matches!(meaning, Meaning::Serves { .. }), "{meaning:?}");
            }
            let codes = companion.codes.map_or("?".to_owned(), |format| format.to_string());
            format!("{codes}: {companion}")
        }
    };
    assert!(found.contains(want), "{codes} {dtype} {shape:?}\nfound {found}\nnot   {want}");
}

#[test]
fn companions_are_found_by_every_spelling() {
    const ONE: &[u64] = &[1];
    let check = check_scales;
    let fp8 = |other: &'static str, shape: &'static [u64], want: &str| {
        check("l.weight", "F8_E4M3", &[192, 256], &[(other, "F32", shape)], want);
    };
    fp8("l.weight_scale", ONE, "e4m3fn: `l.weight_scale` (multiply, blocks of 192x256)");
    fp8("l.weight_scale", &[192, 1], "(multiply, blocks of 1x256)");
    fp8("l.weight_scale", &[192], "(multiply, blocks of 1x256)");
    fp8("l.weight_scale", &[256, 9, 9], "`l.weight_scale` (multiply)");
    fp8("l.scale_weight", &[], "`l.scale_weight` (multiply, blocks of 192x256)");
    // DeepSeek-V3: multiplied by, in spite of its name; the second block of rows is short.
    fp8("l.weight_scale_inv", &[2, 2], "`l.weight_scale_inv` (multiply, blocks of 128x128)");
    fp8("l.weight_scales", ONE, "`l.weight_scales` (direction unknown");
    fp8("l.scale", ONE, "`l.scale` (direction unknown");
    fp8(
        "l.input_scale",
        ONE,
        "raw e4m3fn codes, scale not found: no tensor is named like `l.weight_scale`",
    );
    fp8("k.weight_scale", ONE, "scale not found");
    check(
        "l.weight",
        "F8_E4M3",
        &[8, 64],
        &[("l.scale", "F8_E8M0", &[8, 2])],
        "l.scale` (multiply, blocks of 1x32)",
    );
    check(
        "x.kernel",
        "F8_E5M2",
        &[4],
        &[("x.kernel_scale_inv", "F32", ONE)],
        "e5m2: `x.kernel_scale_inv` (multiply",
    );
}

#[test]
fn companions_of_packed_codes_are_found() {
    const ONE: &[u64] = &[1];
    let check = check_scales;
    // NVFP4: the second scale is multiplied by or divided by, depending on who wrote it.
    let nvfp4 = "e2m1: `l.weight_scale` (multiply, blocks of 1x8) and `l.weight_scale_2` \
                 (multiply, blocks of 4x16)";
    let others: &[(&str, &str, &[u64])] = &[
        ("l.weight_scale", "F8_E4M3", &[4, 2]),
        ("l.weight_scale_2", "F32", &[]),
        ("l.input_scale", "F32", &[]),
    ];
    check("l.weight", "U8", &[4, 16], others, nvfp4);
    let others: &[(&str, &str, &[u64])] =
        &[("l.weight_global_scale", "F32", ONE), ("l.weight_scale", "F8_E4M3", &[4, 2])];
    check(
        "l.weight_packed",
        "U8",
        &[4, 16],
        others,
        "e2m1: `l.weight_scale` (multiply, blocks of 1x8) and `l.weight_global_scale` (divide",
    );
    check(
        "l.weight",
        "F4",
        &[4, 32],
        &[("l.weight_scale", "F8_E8M0", &[4, 1])],
        "e2m1: `l.weight_scale` (multiply, blocks of 1x32)",
    );
    // gpt-oss: bytes of two codes, 16 of them to an exponent.
    check(
        "m.up_blocks",
        "U8",
        &[2, 3, 4, 16],
        &[("m.up_scales", "U8", &[2, 3, 4])],
        "e2m1: `m.up_scales` (multiply, blocks of 1x1x1x16)",
    );
    check(
        "m.up_blocks",
        "U8",
        &[2, 16],
        &[("m.other", "U8", &[2])],
        "raw uint8 codes, scale not found",
    );
    let others: &[(&str, &str, &[u64])] =
        &[("l.scales", "F16", &[2, 8]), ("l.qzeros", "I32", &[2, 1]), ("l.g_idx", "I32", &[16])];
    check("l.qweight", "I32", &[16, 8], others, "?: `l.scales` (multiply, blocks of 8x1)");
    check(
        "l.weight",
        "U32",
        &[8, 16],
        &[("l.scales", "BF16", &[8, 2]), ("l.biases", "BF16", &[8, 2])],
        "?: `l.scales` (multiply, blocks of 1x8)",
    );
    let others: &[(&str, &str, &[u64])] = &[
        ("l.weight.absmax", "U8", &[2]),
        ("l.weight.quant_map", "F32", &[16]),
        ("l.weight.nested_absmax", "F32", &[1]),
        ("l.weight.quant_state.bitsandbytes__nf4", "U8", &[9]),
    ];
    check("l.weight", "U8", &[64, 1], others, "?: `l.weight.absmax` (multiply, blocks of 32x1)");
    check(
        "l.weight",
        "I8",
        &[4, 8],
        &[("l.SCB", "F32", &[4])],
        "int8: `l.SCB` (direction unknown, blocks of 1x8)",
    );
    check("l.weight", "I8", &[4, 8], &[], "raw int8 codes, scale not found");
    // Integers that are no weights, and weights that are no codes.
    check("position_ids", "I32", &[1, 512], &[], "values");
    check("l.weight", "BF16", &[4, 8], &[("l.weight_scale", "F32", ONE)], "values");
    check("scaled_fp8", "F8_E4M3", &[0], &[], "values");
}

#[test]
fn a_file_that_describes_its_codes_is_not_guessed_at() {
    let header = r#"{"__metadata__":{"_quantization_metadata":"{}"},
        "l.weight":{"dtype":"U8","shape":[128,2],"data_offsets":[0,256]},
        "l.weight_scale":{"dtype":"U8","shape":[128,1],"data_offsets":[256,384]}}"#;
    let checkpoint = parse(safetensors(header, 384)).unwrap();
    assert!(checkpoint.notes[0].text.contains("_quantization_metadata"));
    let companion = checkpoint.tensors()[0].meaning.scale().unwrap();
    // Its scales may lie in another order than its shape says.
    assert_eq!((&companion.parts[0].block, companion.parts[0].format), (&None, Format::E8M0));
}

/// Any tensors, one after the other: dtype index, shape.
fn any_tensors() -> impl Strategy<Value = Vec<(usize, Vec<u64>)>> {
    let shape = proptest::collection::vec(0..7u64, 0..4);
    proptest::collection::vec((0..6usize, shape), 0..6)
}

proptest! {
    #[test]
    fn what_is_written_is_read(tensors in any_tensors(), max_bytes in 0..3000usize) {
        const DTYPES: [(&str, u64); 6] =
            [("F4", 4), ("F6_E3M2", 6), ("F8_E4M3", 8), ("BF16", 16), ("F32", 32), ("C64", 64)];
        let (mut at, mut header, mut expected) = (0, Vec::new(), Vec::new());
        for (dtype_idx, mut shape) in tensors {
            let (dtype, bits) = DTYPES[dtype_idx];
            shape.push(4);
            let end = at + shape.iter().product::<u64>() * bits / 8;
            let name = format!("t{}", header.len());
            header.push(format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#
            ));
            expected.push((name, shape, (at..end).map(|byte| byte as u8).collect::<Vec<u8>>()));
            at = end;
        }
        let file = safetensors(&format!("{{{}}}", header.join(",")), at as usize);
        let checkpoint = parse(file).unwrap();
        for (name, shape, bytes) in expected {
            let tensor_idx = index(&checkpoint, &name);
            prop_assert_eq!(&checkpoint.tensors()[tensor_idx].shape, &shape);
            prop_assert_eq!(read_all(&checkpoint, tensor_idx, max_bytes), bytes);
        }
    }

    #[test]
    fn pieces_cover_a_tensor_once(
        bits_idx in 0..5usize,
        groups in 0..5000u64,
        max in 0..9000usize,
    ) {
        let formats = [Format::E2M1, Format::E2M3, Format::INT8, Format::BF16, Format::COMPLEX128];
        let format = formats[bits_idx];
        let tensor = StoredTensor::new("t".into(), format, vec![groups * 4], Place::At(0)).unwrap();
        let source = Source::Memory(Bytes::from(vec![0; tensor.bytes as usize]));
        let checkpoint = Checkpoint {
            name: String::new(),
            kind: Kind::Npy,
            notes: Vec::new(),
            metadata: BTreeMap::new(),
            tensors: vec![tensor],
            files: vec![File { path: None, source, archive: None }],
        };
        let (mut next, mut buffer) = (0, Vec::new());
        for piece in checkpoint.pieces(0, max) {
            prop_assert_eq!(piece.first_element, next);
            prop_assert!(0 < piece.elements);
            next += piece.elements;
            let bits = piece.elements * u64::from(format.bits);
            prop_assert!(bits.is_multiple_of(8), "pieces end on a byte");
            let is_single = bits <= 128;
            prop_assert!(bits / 8 <= max as u64 || is_single, "{} bytes", bits / 8);
            checkpoint.read(&piece, &mut buffer, &mut |chunk| {
                assert_eq!(chunk.bytes.len() as u64, bits / 8);
            }).unwrap();
        }
        prop_assert_eq!(next, groups * 4);
    }

    #[test]
    fn any_bytes_are_refused_or_read(
        start in 0..4usize,
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let starts: [&[u8]; 4] = [b"", MAGIC_1, b"\x20\0\0\0\0\0\0\0{", b"PK\x03\x04"];
        try_all([starts[start], &rest].concat());
    }

    #[test]
    fn any_text_is_refused_or_read_as_a_header(
        text in "[{}()\\[\\]'\",:0-9L<fdescrhapotn_ TruFals]{0,80}",
    ) {
        try_all(npy(&text, &[0; 64]));
        try_all(safetensors(&format!("{{{text}"), 64));
    }
}

#[test]
fn blocks_follow_from_two_shapes() {
    // 576 rows in blocks of 128 make five, the last one short (DeepSeek-V3 `kv_a_proj_with_mqa`).
    check_scales(
        "l.weight",
        "F8_E4M3",
        &[576, 7168],
        &[("l.weight_scale_inv", "F32", &[5, 56])],
        "blocks of 128x128",
    );
    check_scales(
        "l.weight",
        "I8",
        &[6, 10],
        &[("l.weight_scale", "F32", &[2, 1])],
        "blocks of 4x10",
    );
    check_scales("l.weight", "I8", &[9, 9], &[("l.weight_scale", "F32", &[3, 9])], "blocks of 4x1");
    check_scales("l.weight", "I8", &[2, 2], &[("l.weight_scale", "F32", &[3, 9])], "(multiply)");
}
