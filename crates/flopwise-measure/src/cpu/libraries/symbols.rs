//! A loaded library and its functions by name, with the prefixes and suffixes that builds add.
//!
//! Not here: what the functions do.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;

/// SciPy's builds of OpenBLAS call every function `scipy_...`.
const PREFIXES: [&str; 2] = ["", "scipy_"];
/// Builds with 64-bit sizes call it `..64_`, so that both kinds can be in one process.
const SUFFIXES: [&str; 3] = ["", "64_", "_64"];

/// Libraries that wheels put beside others without telling the loader where.
const COMPANIONS: [&str; 7] = [
    "libiomp5.so",
    "libgomp.so.1",
    "libintlc.so.5",
    "libimf.so",
    "libsvml.so",
    "libirng.so",
    "libtbb.so.12",
];

/// The runtimes of Intel's, LLVM's and GNU's OpenMP.
const OPENMP: [&str; 3] = ["libiomp5.so", "libomp.so", "libgomp.so.1"];

/// A library that stays loaded until the process ends: its threads do not end before it.
#[derive(Clone, Copy)]
pub(super) struct Symbols {
    library: &'static libloading::Library,
    prefix: &'static str,
    suffix: &'static str,
}

/// Loads a file, which was found to be a library of this machine.
///
/// # Errors
/// What the loader says, in one line.
pub(super) fn load(path: &Path) -> Result<Symbols, String> {
    let library = open(path).or_else(|reason| {
        let Some(folder) = path.parent() else { return Err(reason) };
        if !COMPANIONS.iter().any(|name| reason.contains(name)) {
            return Err(reason);
        }
        // Once loaded they satisfy whoever needs a library of that name.
        for name in COMPANIONS.iter().rev() {
            let companion = folder.join(name);
            if companion.exists() {
                open(&companion).map(forget).ok();
            }
        }
        open(path)
    })?;
    Ok(Symbols { library: forget(library), prefix: "", suffix: "" })
}

/// Sets the threads of every OpenMP runtime in this process, for the calling thread's next parallel
/// regions: libraries load one by themselves, and some ask it alone.
pub(super) fn set_openmp_threads(n_threads: usize) {
    for library in OPENMP.into_iter().filter_map(already_loaded) {
        // SAFETY: the type in `omp.h`; any positive number is allowed.
        unsafe {
            if let Ok(set) = library.get::<unsafe extern "C" fn(c_int)>("omp_set_num_threads") {
                set(n_threads as c_int);
            }
        }
    }
}

/// A library that is in this process already.
#[cfg(target_os = "linux")]
fn already_loaded(name: &str) -> Option<libloading::Library> {
    use libloading::os::unix;
    // SAFETY: nothing is loaded, so nothing runs.
    let library = unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | libc::RTLD_NOLOAD) };
    library.ok().map(Into::into)
}

/// Not asked here.
#[cfg(not(target_os = "linux"))]
fn already_loaded(_name: &str) -> Option<libloading::Library> {
    None
}

fn forget(library: libloading::Library) -> &'static libloading::Library {
    Box::leak(Box::new(library))
}

#[cfg(unix)]
fn open(path: &Path) -> Result<libloading::Library, String> {
    use libloading::os::unix;
    // All functions at once: one that is missing is then an error here and not a crash later.
    // SAFETY: the library's initialisers run, which nothing can vouch for; a child process ran
    // them before where there can be one (`trial.rs`).
    let library = unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) };
    library.map(Into::into).map_err(|error| reason(path, &error))
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<libloading::Library, String> {
    // SAFETY: the library's initialisers run, which nothing can vouch for: the user's programs run
    // the same ones.
    unsafe { libloading::Library::new(path) }.map_err(|error| reason(path, &error))
}

/// The loader's own words without the file's name, which every complaint starts with.
fn reason(path: &Path, error: &dyn std::error::Error) -> String {
    let text = match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    let text = text.replace(&format!("{}: ", path.display()), "");
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("cannot be loaded: {}", line.join(" "))
}

impl Symbols {
    /// With the prefix and suffix under which this function is there, if it is.
    pub(super) fn named_like(self, name: &str) -> Option<Symbols> {
        let named = PREFIXES.into_iter().flat_map(|prefix| {
            SUFFIXES.into_iter().map(move |suffix| Symbols { prefix, suffix, ..self })
        });
        let mut named = named.filter(|symbols| symbols.has(name));
        named.next()
    }

    /// Whether its names say that sizes have 64 bits.
    pub(super) fn is_64_bit_by_name(self) -> bool {
        !self.suffix.is_empty()
    }

    /// Whether there is a function of this name.
    pub(super) fn has(self, name: &str) -> bool {
        // SAFETY: the address is not used.
        unsafe { self.get::<unsafe extern "C" fn()>(name) }.is_some()
    }

    /// A function by its name, prefix and suffix added.
    ///
    /// # Safety
    /// `F` is the type of a function pointer, and the function's own type.
    pub(super) unsafe fn get<F: Copy>(self, name: &str) -> Option<F> {
        let full = format!("{}{name}{}", self.prefix, self.suffix);
        // SAFETY: the caller vouches for the type.
        let symbol = unsafe { self.library.get::<F>(full.as_str()) };
        symbol.ok().map(|symbol| *symbol)
    }

    /// The same, or why not.
    ///
    /// # Safety
    /// As [`get`](Symbols::get).
    pub(super) unsafe fn need<F: Copy>(self, name: &str) -> Result<F, String> {
        // SAFETY: the caller vouches for the type.
        unsafe { self.get(name) }
            .ok_or_else(|| format!("has no function {}{name}{}", self.prefix, self.suffix))
    }
}

/// A string that a library owns for good; empty if there is none.
///
/// # Safety
/// `text` is null or a C string that lives as long as the process.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().split_whitespace().collect::<Vec<_>>().join(" ")
}
