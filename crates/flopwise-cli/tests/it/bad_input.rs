//! Damaged, hostile and mistaken input: one clear line on stderr, exit code 2, nothing on stdout.

use crate::run::{data, flopwise, folder};
use std::fs;
use std::io::Write;
use std::path::Path;

#[track_caller]
fn check(file: &Path, expected: &str) {
    let name = file.to_str().unwrap();
    let ran = flopwise(&["count", name]);
    assert_eq!(ran.code, 2, "{name}: {}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "", "{name}");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(name), "the file is not named: {}", ran.stderr);
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

fn archive(file: &Path, members: &[(&str, &[u8])]) {
    let mut archive = zip::ZipWriter::new(fs::File::create(file).unwrap());
    for (name, content) in members {
        let options: zip::write::SimpleFileOptions = Default::default();
        let deflated = options.compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(*name, deflated).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn what_is_no_model_is_named() {
    let folder = folder();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    check(&folder.path().join("absent.onnx"), "no such file, and no built-in model");
    check(folder.path(), "is a directory");
    check(&file("empty.onnx", b""), "is empty");
    check(&file("text.onnx", b"this is not a model\n"), "not an ONNX model");
    check(&file("zeros.onnx", &[0; 4096]), "not an ONNX model");
    check(&file("text.pt2", b"this is not a model\n"), "not an ONNX model");
    check(&file("start.pt2", b"PK\x03\x04 and then nothing"), "damaged zip file");
}

#[test]
fn archives_without_a_program_are_named() {
    let folder = folder();
    let path = folder.path().join("weights.pt2");
    archive(&path, &[("weights/data.pkl", b"x")]);
    check(&path, "without an exported program");
    archive(&path, &[("m/models/model.json", b"{\"graph_module\": 3}")]);
    check(&path, "member `m/models/model.json`: is not an exported program");
    archive(&path, &[("m/models/model.json", &[b'['; 100_000])]);
    check(&path, "is not an exported program");
}

#[test]
fn a_zip_bomb_is_refused() {
    let folder = folder();
    let path = folder.path().join("bomb.pt2");
    let mut bomb = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options: zip::write::SimpleFileOptions = Default::default();
    let deflated = options.compression_method(zip::CompressionMethod::Deflated);
    bomb.start_file("m/models/model.json", deflated).unwrap();
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..300 {
        bomb.write_all(&spaces).unwrap();
    }
    bomb.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    check(&path, "inflates to more than 256 MiB");
}

/// A field of a protobuf message that holds another message or text.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while 0x7f < length {
        out.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// `If` in the branch of an `If`, and so on.
#[test]
fn graphs_nested_without_end_are_refused() {
    let folder = folder();
    for depth in [100, 10_000] {
        let mut graph = Vec::new();
        for _ in 0..depth {
            let branch = [field(1, b"then_branch"), field(6, &graph)].concat();
            graph = field(1, &[field(4, b"If"), field(5, &branch)].concat());
        }
        let path = folder.path().join(format!("nested{depth}.onnx"));
        fs::write(&path, [vec![8, 8], field(7, &graph)].concat()).unwrap();
        check(&path, "nested deeper than");
    }
}

#[test]
fn a_truncated_file_never_panics() {
    let folder = folder();
    let path = folder.path().join("cut.model");
    for whole in ["onnx/unknown_operator.onnx", "pt2/linear.pt2"] {
        let whole = fs::read(data(whole)).unwrap();
        // Every length would start thousands of processes; the library's own tests try each one.
        for length in (1..whole.len()).step_by(1 + whole.len() / 23) {
            fs::write(&path, &whole[..length]).unwrap();
            let ran = flopwise(&["count", path.to_str().unwrap()]);
            assert!(ran.code == 0 || ran.code == 2, "{length}: exit code {}", ran.code);
            assert!(!ran.stderr.contains("panicked"), "{length}: {}", ran.stderr);
        }
    }
}

#[test]
fn profiles_are_checked() {
    let folder = folder();
    let path = folder.path().join("machine.json");
    let check = |content: &str, expected: &str| {
        fs::write(&path, content).unwrap();
        let ran = flopwise(&["estimate", "resnet18", "--on", path.to_str().unwrap()]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{content}");
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    };
    let profile = include_str!("../data/profile.json");
    check("{}", "not a machine profile");
    check(&profile.replacen("\"schema\": 2", "\"schema\": 9", 1), "schema 9");
    check("{\"kind\": \"measure\", \"schema\": 1}", "run `flopwise measure` again");
    check(&profile.replacen("256000000000.0", "-1.0", 1), "impossible number");
    check(&profile.replacen("\"peak\"", "\"gemm\"", 1), "holds no FP32 peak");
    let ran = flopwise(&["estimate", "resnet18", "--on", "h100"]);
    assert!(ran.code == 2 && ran.stderr.contains("h100: no such profile"), "{}", ran.stderr);
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = folder();
    let path = folder.path().join("diary.txt");
    fs::write(&path, "dear diary").unwrap();
    let ran = flopwise(&["measure", "--output", path.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("was not written by flopwise"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
}
