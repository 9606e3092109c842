//! Where libraries that multiply matrices may lie: folders of the system, of vendors and of Python.
//!
//! Not here: opening any of them. Names decide; a library under another name is found only if the
//! user names its file.

use crate::bench::Library;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Included files of the loader's configuration that are read.
const MAX_INCLUDED: usize = 256;
/// Entries of one folder that are looked at: `/usr/lib` has some thousands.
const MAX_ENTRIES: usize = 100_000;

/// Folders that hold libraries whatever the environment says.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/local/lib",
    "/usr/local/lib64",
    "/lib64",
    "/usr/lib64",
    "/usr/lib",
    "/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/intel/oneapi/mkl/latest/lib",
    "/opt/intel/oneapi/mkl/latest/lib/intel64",
    "/opt/intel/oneapi/dnnl/latest/lib",
    "/opt/intel/mkl/lib/intel64",
    "/opt/OpenBLAS/lib",
    "/opt/openblas/lib",
    "/opt/arm/lib",
    "/opt/conda/lib",
    "/opt/homebrew/lib",
    "/opt/homebrew/opt/openblas/lib",
    "/opt/homebrew/opt/blis/lib",
    "/opt/homebrew/opt/onednn/lib",
    "/usr/local/opt/openblas/lib",
    "/usr/local/opt/blis/lib",
    "/usr/local/opt/onednn/lib",
    "/opt/local/lib",
];

/// Debian keeps builds of one library side by side in subfolders of these names.
const FLAVOURS: &[&str] = &["openblas", "blis", "mkl"];

/// Folders of a Python's packages that hold libraries: wheels bring their own.
const WHEEL_FOLDERS: &[&str] = &[
    "scipy_openblas64/lib",
    "scipy_openblas32/lib",
    "numpy.libs",
    "scipy.libs",
    "scipy_libs.libs",
    "numpy/.dylibs",
    "scipy/.dylibs",
];

/// A file that may be a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// By its name; `None` for a file that the user named and whose name says nothing.
    pub(super) library: Option<Library>,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// What the environment says about where to look, in the order in which it counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Files and folders that the user named.
    pub(super) named: Vec<PathBuf>,
    /// Folders to look into.
    pub(super) folders: Vec<PathBuf>,
}

impl Places {
    /// Those of this process: its environment, its Python, the loader's configuration, the usual.
    pub(super) fn here(named: &[PathBuf]) -> Places {
        let variable = |name: &str| std::env::var_os(name);
        let list = |name: &str| -> Vec<PathBuf> {
            variable(name).map(|text| std::env::split_paths(&text).collect()).unwrap_or_default()
        };
        let mut folders = list("LD_LIBRARY_PATH");
        folders.extend(list("DYLD_LIBRARY_PATH"));
        let below = |name: &str, inner: &[&str]| -> Vec<PathBuf> {
            let root = variable(name).map(PathBuf::from);
            root.into_iter().flat_map(|root| inner.iter().map(move |one| root.join(one))).collect()
        };
        let mut prefixes = below("VIRTUAL_ENV", &[""]);
        prefixes.extend(below("CONDA_PREFIX", &[""]));
        prefixes.extend(python_prefix(&list("PATH")));
        prefixes.extend(below("HOME", &[".local"]));
        folders.extend(prefixes.iter().flat_map(|prefix| python_folders(prefix)));
        folders.extend(below("MKLROOT", &["lib", "lib/intel64"]));
        folders.extend(below("DNNLROOT", &["lib"]));
        folders.extend(below("ONEAPI_ROOT", &["mkl/latest/lib", "dnnl/latest/lib"]));
        folders.extend(below("AOCL_ROOT", &["lib"]));
        folders.extend(below("OPENBLAS_HOME", &["lib"]));
        folders.extend(loader_folders(Path::new("/etc/ld.so.conf")));
        folders.extend(USUAL_FOLDERS.iter().map(PathBuf::from));
        if cfg!(windows) {
            folders.extend(list("PATH"));
        }
        Places { named: named.to_vec(), folders }
    }
}

/// All files that may be libraries, each once, those named by the user first; and what was wrong
/// with what the user named.
pub(super) fn candidates(places: &Places) -> (Vec<Candidate>, Vec<String>) {
    let mut found = Vec::new();
    let mut complaints = Vec::new();
    for named in &places.named {
        // A name without a folder would be looked for where the loader likes.
        let path = std::path::absolute(named).unwrap_or_else(|_| named.clone());
        if named.is_dir() {
            let before = found.len();
            found.extend(in_folder(&path));
            if found.len() == before {
                complaints.push(format!("{}: no library by a known name in it", named.display()));
            }
        } else if named.exists() {
            found.push(Candidate { library: named.file_name().and_then(library_of), path });
        } else {
            complaints.push(format!("{}: no such file or folder", named.display()));
        }
    }
    for folder in &places.folders {
        found.extend(in_folder(folder));
    }
    let mut files = BTreeSet::new();
    let mut copies = BTreeSet::new();
    // Links to one file are one library, and so are the copies that wheels put side by side.
    found.retain(|one| {
        let file = fs::canonicalize(&one.path).unwrap_or_else(|_| one.path.clone());
        let n_bytes = fs::metadata(&file).map(|described| described.len()).ok();
        let copy = (one.library, file.parent().map(Path::to_owned), n_bytes);
        let is_new_copy = one.library.is_none() || copies.insert(copy);
        files.insert(file) && is_new_copy
    });
    (found, complaints)
}

/// The libraries in a folder and in its flavours, in the order of their names.
fn in_folder(folder: &Path) -> Vec<Candidate> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    let mut flavours = Vec::new();
    for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
        let name = entry.file_name();
        let path = entry.path();
        if let Some(library) = library_of(&name) {
            found.push(Candidate { library: Some(library), path });
        } else if is_flavour(&name) && path.is_dir() {
            flavours.push(path);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    flavours.sort();
    for flavour in flavours {
        let files = fs::read_dir(flavour).into_iter().flatten().filter_map(Result::ok);
        let mut inner: Vec<Candidate> = files
            .filter_map(|entry| {
                let library = Some(library_of(&entry.file_name())?);
                Some(Candidate { library, path: entry.path() })
            })
            .collect();
        inner.sort_by(|a, b| a.path.cmp(&b.path));
        found.extend(inner);
    }
    found
}

/// `openblas-pthread` beside the files themselves.
fn is_flavour(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    FLAVOURS.iter().any(|flavour| name.starts_with(flavour))
}

/// Which library a file's name stands for.
fn library_of(name: &OsStr) -> Option<Library> {
    let stem = stem(name.to_str()?)?;
    let stem = stem.strip_prefix("lib").unwrap_or(stem);
    if stem.starts_with("openblas") || stem.starts_with("scipy_openblas") {
        Some(Library::OpenBlas)
    } else if stem == "blis" || stem.starts_with("blis-") || stem.starts_with("blis_") {
        Some(Library::Blis)
    } else if stem == "mkl_rt" || stem.starts_with("mkl_rt.") {
        Some(Library::Mkl)
    } else if stem == "dnnl" {
        Some(Library::OneDnn)
    } else {
        None
    }
}

/// A library's name without what follows: `libblis` of `libblis.so.4`; `None` for other files.
fn stem(name: &str) -> Option<&str> {
    let is_version = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if let Some((stem, version)) = name.rsplit_once(".so") {
        return is_version(version).then_some(stem);
    }
    if cfg!(windows) {
        return name.strip_suffix(".dll");
    }
    let stem = name.strip_suffix(".dylib")?;
    // `libopenblas.0.dylib`: the version stands before the extension there.
    Some(stem.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

/// The prefix of the first Python on the path: `/usr` of `/usr/bin/python3`.
fn python_prefix(path: &[PathBuf]) -> Option<PathBuf> {
    let name = if cfg!(windows) { "python.exe" } else { "python3" };
    let bin = path.iter().find(|folder| folder.join(name).is_file())?;
    bin.parent().map(Path::to_owned)
}

/// Folders below a Python's prefix that hold libraries.
fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let lib = prefix.join("lib");
    let mut versions: Vec<PathBuf> = fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .collect();
    versions.sort();
    let mut folders = vec![lib];
    for version in versions {
        for packages in ["site-packages", "dist-packages"] {
            let packages = version.join(packages);
            folders.extend(WHEEL_FOLDERS.iter().map(|wheel| packages.join(wheel)));
        }
    }
    folders
}

/// The folders in the loader's configuration (ld.so.conf(5)): one a line, `include` with a pattern.
fn loader_folders(configuration: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut files = vec![configuration.to_owned()];
    let mut file_idx = 0;
    while let Some(file) = files.get(file_idx).cloned() {
        file_idx += 1;
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.strip_prefix("include ") {
                Some(pattern) if files.len() < MAX_INCLUDED => files.extend(matching(pattern)),
                Some(_) => (),
                None if line.starts_with('/') => folders.push(PathBuf::from(line)),
                None => (),
            }
        }
    }
    folders
}

/// The files that `/etc/ld.so.conf.d/*.conf` stands for: one star in the last part, as all systems
/// write it.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let pattern = Path::new(pattern.trim());
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let (start, end) = name.split_once('*').unwrap_or((&name, ""));
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests;
