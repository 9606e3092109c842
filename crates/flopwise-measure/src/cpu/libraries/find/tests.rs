//! The finder on folders made for it; no library is opened.

use super::*;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("flopwise-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // one left by a process of the same id
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a leftover in the temporary folder harms nobody
    }
}

#[test]
#[cfg(not(windows))]
fn names_stand_for_libraries() {
    let check = |name: &str, expected: Option<Library>| {
        assert_eq!(library_of(OsStr::new(name)), expected, "{name}");
    };
    check("libopenblas.so", Some(Library::OpenBlas));
    check("libopenblas.so.0", Some(Library::OpenBlas));
    check("libopenblasp-r0.3.21.so", Some(Library::OpenBlas));
    check("libopenblas64_.so.0", Some(Library::OpenBlas));
    check("libopenblas.0.dylib", Some(Library::OpenBlas));
    check("libscipy_openblas64_-32a4b2a6.so", Some(Library::OpenBlas));
    check("libblis.so.4", Some(Library::Blis));
    check("libblis-mt.so.5", Some(Library::Blis));
    check("libmkl_rt.so.3", Some(Library::Mkl));
    check("libmkl_rt.2.dylib", Some(Library::Mkl));
    check("libdnnl.so.3.13", Some(Library::OneDnn));
    check("libdnnl_graph.so", None);
    check("libmkl_core.so.3", None);
    check("libopenblas.a", None);
    check("libopenblas.so.0.debug", None);
    check("libopenblas.pc", None);
    check("libm.so.6", None);
    check("", None);
}

#[test]
#[cfg(unix)]
fn files_are_found_once_and_what_the_user_named_comes_first() {
    let folder = Folder::new("order");
    let real = folder.file("system/libopenblas-r0.so", "");
    std::os::unix::fs::symlink(&real, folder.0.join("system/libopenblas.so")).unwrap();
    folder.file("wheel/libdnnl.so", "library");
    folder.file("wheel/libdnnl.so.3", "library");
    folder.file("wheel/libdnnl.so.2", "another library");
    let flavour = folder.file("system/blis-pthread/libblis.so.4", "");
    folder.file("system/readme.txt", "");
    let named = folder.file("own/libdnnl.so", "");
    let odd = folder.file("own/strange", "");
    let missing = folder.0.join("missing.so");
    fs::create_dir(folder.0.join("empty")).unwrap();
    let places = Places {
        named: vec![odd.clone(), named.clone(), missing.clone(), folder.0.join("empty")],
        folders: ["none", "system", "own", "wheel"].map(|name| folder.0.join(name)).to_vec(),
    };
    let (found, complaints) = candidates(&places);
    let expected = [
        (None, odd),
        (Some(Library::OneDnn), named),
        (Some(Library::OpenBlas), real),
        (Some(Library::Blis), flavour),
        (Some(Library::OneDnn), folder.0.join("wheel/libdnnl.so")),
        (Some(Library::OneDnn), folder.0.join("wheel/libdnnl.so.2")),
    ];
    let expected = expected.map(|(library, path)| Candidate { library, path });
    assert_eq!(found, expected);
    assert_eq!(complaints.len(), 2);
    assert_eq!(complaints[0], format!("{}: no such file or folder", missing.display()));
    assert!(complaints[1].ends_with("empty: no library by a known name in it"));
}

#[test]
fn the_loader_s_configuration_is_followed() {
    let folder = Folder::new("loader");
    let pattern = folder.0.join("conf.d").join("*.conf");
    folder.file("conf.d/b.conf", "# a comment\n/opt/b  # and another\n");
    folder.file("conf.d/a.conf", "/opt/a\nrelative\n");
    folder.file("conf.d/c.txt", "/opt/c\n");
    let own = folder.file("ld.so.conf", &format!("include {}\n/opt/z\n", pattern.display()));
    let expected = ["/opt/z", "/opt/a", "/opt/b"].map(PathBuf::from);
    assert_eq!(loader_folders(&own), expected);
    // A file that includes itself ends.
    let own =
        folder.file("loop.conf", &format!("include {}/loop.conf\n/opt/l\n", folder.0.display()));
    assert_eq!(loader_folders(&own).len(), MAX_INCLUDED);
    assert_eq!(loader_folders(&folder.0.join("none")), Vec::<PathBuf>::new());
}

#[test]
fn wheels_of_a_python_are_looked_into() {
    let folder = Folder::new("python");
    folder.file("lib/python3.11/site-packages/numpy.libs/libscipy_openblas64_-1.so", "");
    let folders = python_folders(&folder.0);
    assert_eq!(folders[0], folder.0.join("lib"));
    let (found, _) = candidates(&Places { named: Vec::new(), folders });
    assert_eq!(found.len(), usize::from(!cfg!(windows)));
    folder.file(if cfg!(windows) { "bin/python.exe" } else { "bin/python3" }, "");
    let path = [folder.0.join("none"), folder.0.join("bin")];
    assert_eq!(python_prefix(&path), Some(folder.0.clone()));
}
