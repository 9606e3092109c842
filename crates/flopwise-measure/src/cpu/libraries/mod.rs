//! Libraries that multiply matrices: found on the machine, loaded at run time, measured like our
//! own kernels.
//!
//! Not here: our own kernels. Nothing is linked: a library that is missing is not listed, one that
//! is broken is one sentence among the caveats.

mod find;
mod image;
mod symbols;
mod trial;

mod cblas;
mod onednn;

mod operands;
mod product;

use super::workers::Build;
use super::{Backend, Runnable};
use crate::bench::{ElementFormat, GemmLoad, Library, LibraryAbility, Unmeasurable};
use find::{Candidate, Places};
use flopwise::machine::CacheState;
use operands::Layout;
use product::{Flaw, Order};
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use symbols::Symbols;

/// Ways to thread MKL that are tried in turn: its own choice, then GNU's OpenMP, then none, since
/// the runtime that it wants may be missing, and it ends the process then.
const MKL_THREADINGS: [Option<c_int>; 3] = [None, Some(3), Some(cblas::MKL_WITHOUT_THREADS)];
/// Where Accelerate is, whether or not a file is there to be seen.
const ACCELERATE: &str = "/System/Library/Frameworks/Accelerate.framework/Accelerate";
/// Taken for the last-level cache where the system does not say: larger than most.
const UNKNOWN_CACHE_BYTES: u64 = 64 << 20;
/// Times the last-level cache that is used before an operand's turn comes again, if it is to be
/// cold: caches do not forget the oldest line first.
const COLD_CACHES: u64 = 2;
/// Candidates whose paths a sentence about what is not measured names.
const MAX_NAMED: usize = 3;

/// A library that multiplies matrices, loaded.
trait GemmLibrary: Send + Sync {
    /// Which it is.
    fn library(&self) -> Library;
    /// Its own account of itself.
    fn version(&self) -> String;
    /// What it multiplies on this machine.
    fn formats(&self) -> Vec<ElementFormat>;
    /// The calling thread's next products run on so many threads, the calling one among them.
    fn set_threads(&self, n_threads: usize) -> Result<(), Unmeasurable>;
    /// Readies C = A x B for these sizes on the calling thread.
    fn product(&self, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable>;
}

/// C = A x B of given sizes.
trait Product {
    /// Multiplies.
    ///
    /// # Safety
    /// A, B and C begin at these places with the layout that the product was made for.
    unsafe fn multiply(&mut self, a: *const u8, b: *const u8, c: *mut u8);
}

/// The machine's processors and memory, as far as libraries need to know.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// Logical processors that may be used; empty where the system does not say.
    pub(super) cpus: Vec<usize>,
    /// How many there are.
    pub(super) n_logical_cpus: usize,
    /// All last-level caches together.
    pub(super) cache_bytes: Option<u64>,
    /// Memory that can be had.
    pub(super) memory_bytes: Option<u64>,
}

/// A library as a backend of the bench.
struct Loaded {
    gemm: Arc<dyn GemmLibrary>,
    /// What its trial found wrong with it.
    flaws: Vec<(ElementFormat, Flaw)>,
    path: PathBuf,
    surroundings: Surroundings,
}

/// All libraries that work, one of each kind, and a sentence for each file that does not or that is
/// passed over.
pub(super) fn find(
    named: &[PathBuf],
    surroundings: &Surroundings,
) -> (Vec<Box<dyn Backend>>, Vec<String>) {
    find_in(&Places::here(named), surroundings)
}

fn find_in(places: &Places, surroundings: &Surroundings) -> (Vec<Box<dyn Backend>>, Vec<String>) {
    let (mut candidates, mut caveats) = find::candidates(places);
    if cfg!(target_os = "macos") {
        let path = PathBuf::from(ACCELERATE);
        candidates.push(Candidate { library: Some(Library::Accelerate), path });
    }
    let machine = image::this_machine();
    candidates.retain(|candidate| {
        if candidate.path == Path::new(ACCELERATE) {
            return true; // in the loader's cache, not in a file
        }
        let checked = image::check_file(&candidate.path, machine);
        let path = candidate.path.display();
        caveats.extend(checked.as_ref().err().map(|reason| format!("{path}: {reason}")));
        checked.is_ok()
    });
    let n_threads = surroundings.n_logical_cpus;
    // All are tried before any is loaded: the children are then copies of a small process.
    let mut chosen: Vec<(Candidate, Tried)> = Vec::new();
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let is_chosen = |library| chosen.iter().any(|(one, _)| one.library == Some(library));
        if candidate.library.is_some_and(is_chosen) {
            passed_over.push(candidate);
            continue;
        }
        match try_candidate(&candidate, n_threads) {
            Ok(tried) => {
                let wrong = tried.formats_with(Flaw::Wrong);
                caveats.extend(wrong.iter().map(|format| {
                    let path = candidate.path.display();
                    format!("{path}: multiplies {} wrong: left out", format.name())
                }));
                chosen.push((candidate, tried));
            }
            Err(reason) => caveats.push(format!("{}: {reason}", candidate.path.display())),
        }
    }
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    for (candidate, Tried { threading, flaws }) in chosen {
        let Candidate { path, .. } = &candidate;
        match open(&candidate, threading) {
            Ok(gemm) if backends.iter().any(|one| one.ability().library == gemm.library()) => {
                passed_over.push(candidate);
            }
            Ok(gemm) => {
                let (path, surroundings) = (path.clone(), surroundings.clone());
                let gemm = Arc::from(gemm);
                backends.push(Box::new(Loaded { gemm, flaws, path, surroundings }));
            }
            Err(reason) => caveats.push(format!("{}: {reason}", path.display())),
        }
    }
    backends.sort_by_key(|backend| backend.ability().library);
    caveats.extend(told_apart(&passed_over));
    (backends, caveats)
}

/// One sentence about further files of kinds that are measured already.
fn told_apart(passed_over: &[Candidate]) -> Option<String> {
    let paths = passed_over.iter().map(|one| one.path.display().to_string());
    let shown: Vec<String> = paths.take(MAX_NAMED).collect();
    let more = match passed_over.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        n_more => format!(" and {n_more} more"),
    };
    let names = shown.join(", ");
    (!shown.is_empty()).then(|| {
        format!("not measured, since another library of the same kind came first: {names}{more}")
    })
}

/// What a trial found out.
struct Tried {
    /// How MKL's threads are had.
    threading: Option<c_int>,
    flaws: Vec<(ElementFormat, Flaw)>,
}

impl Tried {
    fn formats_with(&self, flaw: Flaw) -> Vec<ElementFormat> {
        let is_flawed = |format: &ElementFormat| self.flaws.contains(&(*format, flaw));
        ElementFormat::ALL.into_iter().filter(is_flawed).collect()
    }
}

/// Loads and multiplies in a child process.
fn try_candidate(candidate: &Candidate, n_threads: usize) -> Result<Tried, String> {
    let threadings = match candidate.library {
        Some(Library::Mkl) | None => &MKL_THREADINGS[..],
        _ => &MKL_THREADINGS[..1],
    };
    let mut first_reason = None;
    for &threading in threadings {
        let tried = trial::in_child(&mut |step| {
            step("it is loaded");
            let library = open(candidate, threading)?;
            let flaws = product::try_once(&*library, n_threads, step)?;
            let is_wrong = |format: &ElementFormat| flaws.contains(&(*format, Flaw::Wrong));
            if library.formats().iter().all(is_wrong) {
                return Err("multiplies nothing right".to_owned());
            }
            Ok(flaws.into_iter().map(flaw_name).collect::<Vec<_>>().join(" "))
        });
        match tried {
            Ok(names) => {
                let flaws = names.split(' ').filter_map(flaw_of).collect();
                return Ok(Tried { threading, flaws });
            }
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Err(first_reason.expect("at least one way was tried"))
}

/// `int8=wrong`: how a child process tells of it.
fn flaw_name((format, flaw): (ElementFormat, Flaw)) -> String {
    let flaw = match flaw {
        Flaw::Wrong => "wrong",
        Flaw::Unruly => "unruly",
    };
    format!("{}={flaw}", format.name())
}

/// What [`flaw_name`] wrote.
fn flaw_of(name: &str) -> Option<(ElementFormat, Flaw)> {
    let flaws = [Flaw::Wrong, Flaw::Unruly].into_iter();
    let mut all = flaws.flat_map(|flaw| ElementFormat::ALL.map(|format| (format, flaw)));
    all.find(|&one| flaw_name(one) == name)
}

/// Loads a library and finds its functions.
fn open(candidate: &Candidate, threading: Option<c_int>) -> Result<Box<dyn GemmLibrary>, String> {
    let symbols = symbols::load(&candidate.path)?;
    let Some(library) = candidate.library.or_else(|| kind(symbols)) else {
        return Err("is none of the libraries known here".to_owned());
    };
    match library {
        Library::OpenBlas => cblas::openblas(symbols),
        Library::Blis => cblas::blis(symbols),
        Library::Mkl => cblas::mkl(symbols, threading),
        Library::OneDnn => onednn::onednn(symbols),
        Library::Accelerate => cblas::accelerate(symbols),
        Library::BuiltIn => Err("is none of the libraries known here".to_owned()),
    }
}

/// What a file with an unknown name is, by a function that only this library has.
fn kind(symbols: Symbols) -> Option<Library> {
    let marks = [
        ("openblas_get_config", Library::OpenBlas),
        ("bli_info_get_version_str", Library::Blis),
        ("MKL_Get_Version_String", Library::Mkl),
        ("dnnl_version", Library::OneDnn),
    ];
    let is_here = |name: &str| symbols.named_like(name).is_some();
    marks.into_iter().find(|(name, _)| is_here(name)).map(|(_, library)| library)
}

impl Loaded {
    fn formats(&self) -> Vec<ElementFormat> {
        let is_right = |format: &ElementFormat| !self.flaws.contains(&(*format, Flaw::Wrong));
        self.gemm.formats().into_iter().filter(is_right).collect()
    }
}

impl Backend for Loaded {
    fn ability(&self) -> LibraryAbility {
        LibraryAbility {
            library: self.gemm.library(),
            version: self.gemm.version(),
            path: Some(self.path.display().to_string()),
            formats: self.formats(),
        }
    }

    /// One worker calls the library, which has threads of its own.
    fn runnable(&self, load: GemmLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
        if n_threads == 1 && self.flaws.contains(&(load.format, Flaw::Unruly)) {
            return Err(Unmeasurable(format!(
                "{} multiplies {} on several threads even when it is told to use one",
                load.library.name(),
                load.format.name()
            )));
        }
        let order = order(load, n_threads, &self.surroundings)?;
        let gemm = Arc::clone(&self.gemm);
        let build: Build = Box::new(move || product::build(&gemm, &order));
        Ok(Runnable {
            builds: vec![build],
            backend: load.library.name().to_owned(),
            instruction: None,
            chains: None,
            array_bytes: None,
        })
    }
}

/// Sizes that can be had in memory, and how often each operand is there.
fn order(
    load: GemmLoad,
    n_threads: usize,
    surroundings: &Surroundings,
) -> Result<Order, Unmeasurable> {
    let [m, n, k] = load.shape;
    let size = |size: u64| usize::try_from(size).ok();
    let layout = || {
        let (m, n, k) = (size(m)?, size(n)?, size(k)?);
        Some(Layout { format: load.format, m, n, k, padding: size(load.padding)? })
    };
    let sized = layout().and_then(|layout| Some((layout, layout.n_bytes()? as u64)));
    let Some((layout, n_bytes)) = sized else {
        return Err(Unmeasurable(format!("no memory holds {m}x{n}x{k}")));
    };
    if n_bytes == 0 || layout.n_operations() <= 0.0 {
        return Err(Unmeasurable(format!("{m}x{n}x{k} is nothing to multiply")));
    }
    let cache_bytes = surroundings.cache_bytes.unwrap_or(UNKNOWN_CACHE_BYTES);
    let n_copies = match load.cache {
        CacheState::Hot => 1,
        CacheState::Cold => 1 + (COLD_CACHES * cache_bytes).div_ceil(n_bytes),
    };
    let needed = n_bytes.saturating_mul(n_copies);
    if let Some(available) = surroundings.memory_bytes
        && available / 2 < needed
    {
        return Err(Unmeasurable(format!(
            "{m}x{n}x{k} takes {needed} bytes of memory, and {available} can be had"
        )));
    }
    let n_cpus = n_threads.min(surroundings.cpus.len());
    let cpus = surroundings.cpus[..n_cpus].to_vec();
    let n_copies = size(n_copies).ok_or_else(|| Unmeasurable("too many copies".to_owned()))?;
    Ok(Order { layout, n_copies, n_threads, cpus })
}

#[cfg(test)]
mod tests;
