//! The invariants of ARCHITECTURE.md, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `flopwise` from the ground up; none may name a later one.
const LAYERS: &[&[&str]] = &[
    &["units", "error", "note"],
    &["graph"],
    &["import", "arch", "weights"],
    &["cost"],
    &["machine"],
    &["estimate"],
    &["report"],
    &["query"],
];

/// `error` turns the graph's errors into its own; it knows no more of it than their names.
const EXCEPTIONS: &[(&str, &str)] = &[("error", "graph"), ("graph", "error")];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file below `folder`, with its text up to its unit tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Without unit tests, and without files that hold only those.
fn product_sources(krate: &str) -> Vec<(PathBuf, String)> {
    let all = sources(&crates().join(krate).join("src"));
    let is_test = |path: &Path| path.to_string_lossy().ends_with("tests.rs");
    let product = all.into_iter().filter(|(path, _)| !is_test(path));
    let product = product.map(|(path, text)| {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        (path, text[..end].to_owned())
    });
    product.collect()
}

/// Lines of code, comments left out.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

#[track_caller]
fn assert_absent(krate: &str, words: &[&str], allowed: &[&str]) {
    for (path, text) in product_sources(krate) {
        if allowed.iter().any(|file| path.ends_with(file)) {
            continue;
        }
        for line in code_lines(&text) {
            for word in words {
                assert!(!line.contains(word), "{}: `{word}` in `{line}`", path.display());
            }
        }
    }
}

#[test]
fn no_layer_names_a_later_one() {
    let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let root = crates().join("flopwise/src");
    for (path, text) in product_sources("flopwise") {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.iter().next().unwrap().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let Some(layer) = layer_of(module) else {
            assert_eq!(module, "lib", "{} belongs to no layer", path.display());
            continue;
        };
        for line in code_lines(&text) {
            for named in line.split("crate::").skip(1) {
                let named: String = named.chars().take_while(|c| c.is_alphanumeric()).collect();
                let is_exception = EXCEPTIONS.contains(&(module, named.as_str()));
                let points_back = layer_of(&named).is_none_or(|other| other <= layer);
                assert!(points_back || is_exception, "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn machine_does_not_see_graphs_and_cost_does_not_see_machines() {
    for (path, text) in product_sources("flopwise") {
        let path = path.to_string_lossy().replace('\\', "/");
        let hidden = match path.as_str() {
            path if path.contains("src/machine/") => "crate::graph",
            path if path.contains("src/cost/") => "crate::machine",
            _ => continue,
        };
        assert!(!text.contains(hidden), "{path} names {hidden}");
    }
}

#[test]
fn the_library_neither_prints_nor_runs_threads_nor_reads_clocks() {
    let words = ["std::thread", "Instant::", "SystemTime", "println!", "print!(", "std::env"];
    assert_absent("flopwise", &words, &[]);
    assert_absent("flopwise-formats", &words, &[]);
}

#[test]
fn files_are_opened_in_one_place() {
    let words = ["File::open", "fs::read", "fs::write", "OpenOptions", "std::net"];
    assert_absent("flopwise", &words, &["import/mod.rs"]);
    assert_absent("flopwise-formats", &words, &[]);
}

#[test]
fn unsafe_code_stands_in_measure_the_memory_map_and_the_choice_of_avx2() {
    assert_absent("flopwise", &["unsafe {", "unsafe fn"], &["import/mod.rs"]);
    assert_absent("flopwise-formats", &["unsafe {", "unsafe fn"], &["bulk/lanes.rs"]);
    let lanes = crates().join("flopwise-formats/src/bulk/lanes.rs");
    assert_eq!(fs::read_to_string(lanes).unwrap().matches("unsafe {").count(), 1);
    assert_absent("flopwise-cli", &["unsafe {", "unsafe fn"], &[]);
    let map = crates().join("flopwise/src/import/mod.rs");
    assert_eq!(fs::read_to_string(map).unwrap().matches("unsafe {").count(), 1);
}

#[test]
fn measuring_knows_no_models() {
    let words = ["flopwise::graph", "flopwise::import", "flopwise::cost", "flopwise::arch"];
    assert_absent("flopwise-measure", &words, &[]);
}

#[test]
fn json_is_written_in_two_places() {
    // The others read it: programs of .pt2 archives, headers of safetensors files and their
    // indices.
    let allowed = [
        "report/json.rs",
        "machine/profile.rs",
        "pt2/mod.rs",
        "pt2/schema.rs",
        "weights/json.rs",
        "arch/config.rs",
        "arch/names.rs",
    ];
    assert_absent("flopwise", &["serde_json::"], &allowed);
}

#[test]
fn every_file_says_what_it_is_and_can_be_held_in_mind() {
    const MAX_LINES: usize = 800;
    for krate in ["flopwise-formats", "flopwise", "flopwise-measure", "flopwise-cli"] {
        for (path, text) in sources(&crates().join(krate)) {
            if path.components().any(|part| part.as_os_str() == "target") {
                continue;
            }
            assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
            let n_lines = text.lines().count();
            assert!(n_lines <= MAX_LINES, "{} has {n_lines} lines", path.display());
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"];
    for krate in ["flopwise-formats", "flopwise", "flopwise-measure", "flopwise-cli"] {
        assert_absent(krate, &words, &[]);
    }
}

#[test]
fn every_dependency_has_its_reason_beside_it() {
    for krate in ["flopwise-formats", "flopwise", "flopwise-measure", "flopwise-cli"] {
        let manifest = fs::read_to_string(crates().join(krate).join("Cargo.toml")).unwrap();
        let mut before = "";
        for line in manifest.lines() {
            let is_dependency = line.contains("workspace = true") && line.contains(" = {");
            let is_ours = line.starts_with("flopwise");
            let has_reason = line.contains(" # ") || before.starts_with('#');
            assert!(!is_dependency || is_ours || has_reason, "{krate}: {line}");
            before = line;
        }
    }
}
