//! Finding libraries where there are none that work, and what is asked of one; no library is
//! needed.

use super::*;
use std::fs;

const FP32: ElementFormat = ElementFormat::Fp32;

fn surroundings() -> Surroundings {
    let (cache_bytes, memory_bytes) = (Some(32 << 20), Some(1 << 30));
    Surroundings { cpus: vec![4, 6], n_logical_cpus: 2, cache_bytes, memory_bytes }
}

/// What is found among `files`, written into a folder of the test's own.
fn found(name: &str, files: &[(&str, &[u8])]) -> (Vec<LibraryAbility>, Vec<String>) {
    let folder = std::env::temp_dir().join(format!("flopwise-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder); // one left by a process of the same id
    fs::create_dir_all(&folder).unwrap();
    for (file, contents) in files {
        fs::write(folder.join(file), contents).unwrap();
    }
    let places = Places { named: Vec::new(), folders: vec![folder.clone()] };
    let (backends, caveats) = find_in(&places, &surroundings());
    let prefix = format!("{}/", folder.display());
    let caveats = caveats.into_iter().map(|caveat| caveat.replace(&prefix, "")).collect();
    fs::remove_dir_all(&folder).unwrap();
    (backends.iter().map(|backend| backend.ability()).collect(), caveats)
}

#[test]
#[cfg(target_os = "linux")]
fn broken_files_are_told_and_nothing_is_found_in_them() {
    let zeros = vec![0u8; 1 << 16];
    let (libraries, caveats) = found(
        "broken",
        &[
            ("libopenblas.so", &zeros),
            ("libblis.so.4", b"GROUP ( libblis.so.4.0 )\n"),
            ("libdnnl.so.3", b""),
            ("libmkl_rt.so.3", b"\x7fELF\x02\x01\x01"),
            ("libm.so.6", &zeros),
        ],
    );
    assert_eq!(libraries, []);
    assert_eq!(
        caveats,
        [
            "libblis.so.4: holds text, not a library",
            "libdnnl.so.3: is empty",
            "libmkl_rt.so.3: is cut short",
            "libopenblas.so: holds zeros, not a library",
        ]
    );
}

/// A file of the right architecture that is no library must fail in the loader, not crash it.
#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
fn a_library_that_the_loader_refuses_is_told() {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut head = own[..4096].to_vec();
    head[16..18].copy_from_slice(&3u16.to_le_bytes()); // a shared library by its header
    head[56..58].copy_from_slice(&0u16.to_le_bytes()); // without any segment
    let (libraries, caveats) = found("refused", &[("libdnnl.so.3", &head)]);
    assert_eq!(libraries, []);
    assert_eq!(caveats.len(), 1);
    let loader = "libdnnl.so.3: cannot be loaded: ";
    assert!(caveats[0].starts_with(loader) && !caveats[0].contains('\n'), "{caveats:?}");
}

#[test]
fn files_of_a_kind_that_is_measured_already_are_named() {
    let one = |name: &str| Candidate { library: None, path: PathBuf::from(name) };
    let check = |names: &[&str], expected: Option<&str>| {
        let passed_over: Vec<Candidate> = names.iter().map(|name| one(name)).collect();
        let start = "not measured, since another library of the same kind came first: ";
        let expected = expected.map(|end| format!("{start}{end}"));
        assert_eq!(told_apart(&passed_over), expected);
    };
    check(&[], None);
    check(&["a"], Some("a"));
    check(&["a", "b", "c", "d", "e"], Some("a, b, c and 2 more"));
}

#[test]
fn an_order_holds_what_memory_and_caches_allow() {
    let load = |shape, cache| GemmLoad { cache, ..GemmLoad::of(FP32, shape) };
    let check = |load: GemmLoad, expected: Result<usize, &str>| {
        let order = order(load, 2, &surroundings());
        let n_copies = order.as_ref().map(|order| order.n_copies).map_err(ToString::to_string);
        assert_eq!(n_copies, expected.map_err(str::to_owned), "{load:?}");
    };
    check(load([512; 3], CacheState::Hot), Ok(1));
    // 3 MiB a set of operands, 64 MiB in between: 22 more of them.
    check(load([512; 3], CacheState::Cold), Ok(23));
    check(load([4096; 3], CacheState::Cold), Ok(2));
    check(
        load([8192; 3], CacheState::Hot),
        Err("8192x8192x8192 takes 805306368 bytes of memory, and 1073741824 can be had"),
    );
    check(load([0, 4, 4], CacheState::Hot), Err("0x4x4 is nothing to multiply"));
    check(load([4, 4, 0], CacheState::Hot), Err("4x4x0 is nothing to multiply"));
    let most = u64::MAX;
    let text = format!("no memory holds {most}x{most}x1");
    check(load([most, most, 1], CacheState::Hot), Err(&text));
}

#[test]
fn threads_beyond_the_first_have_their_processors() {
    let on =
        |n_threads| order(GemmLoad::of(FP32, [8; 3]), n_threads, &surroundings()).unwrap().cpus;
    assert_eq!(on(1), [4]);
    assert_eq!(on(2), [4, 6]);
    let unknown = Surroundings { cpus: Vec::new(), ..surroundings() };
    assert!(order(GemmLoad::of(FP32, [8; 3]), 2, &unknown).unwrap().cpus.is_empty());
}

#[test]
fn flaws_are_handed_on_by_name() {
    for format in ElementFormat::ALL {
        for flaw in [Flaw::Wrong, Flaw::Unruly] {
            assert_eq!(flaw_of(&flaw_name((format, flaw))), Some((format, flaw)));
        }
    }
    assert_eq!(flaw_of(""), None);
    assert_eq!(flaw_of("int8"), None);
    let flaws = vec![(ElementFormat::Int8, Flaw::Wrong), (FP32, Flaw::Unruly)];
    let tried = Tried { threading: None, flaws };
    assert_eq!(tried.formats_with(Flaw::Wrong), [ElementFormat::Int8]);
    assert_eq!(tried.formats_with(Flaw::Unruly), [FP32]);
}
