//! The machine at hand: its processors under real loads.
//!
//! Not here: which loads, how long, and what the slices mean (`measure.rs`, `sample.rs`).

mod workers;

mod chase;
mod gemm;
mod libraries;
mod peak;
mod stream;

mod caches;
mod nodes;
mod places;
mod words;

mod os;

use crate::bench::{
    Abilities, Bench, Experiment, GemmLoad, LibraryAbility, Load, Setup, Slice, Unmeasurable,
};
use crate::clock::HAS_ADD_CHAIN;
use crate::host;
use caches::Caches;
use flopwise::machine::{Host, LibraryFound, MemoryLevel};
use libraries::Surroundings;
use nodes::Node;
use places::Room;
use std::path::PathBuf;
use std::time::Instant;
use workers::{Build, Which, Workers};

/// A slice is so long: well under the 3 ms for which Linux lets a thread run before it gives the
/// processor to a waiting one, and 10^4 times the cost of reading the time.
const LOAD_SLICE_S: f64 = 1e-3;
/// The clock needs less: nothing has to warm up.
const CLOCK_SLICE_S: f64 = 0.25e-3;

/// The processors that this process may use.
///
/// ```no_run
/// use flopwise_measure::{Cpu, Plan, measure, timestamp};
/// let plan = Plan::quick(timestamp(std::time::SystemTime::now()));
/// let profile = measure(&mut Cpu::new(), &plan, &mut |_progress| ()); // about 5 s
/// println!("{}", profile.to_json());
/// ```
pub struct Cpu {
    workers: Workers,
    /// Logical processor of each worker; empty where the system does not say.
    cpus: Vec<usize>,
    n_logical_cpus: usize,
    caches: Caches,
    /// Memory nodes of the whole system; empty where it does not tell.
    nodes: Vec<Node>,
    clock_amount: u64,
    /// Experiments whose kernels the workers hold, and the current one.
    prepared: Vec<Prepared>,
    current: usize,
    /// Who multiplies matrices, our own kernels first.
    backends: Vec<Box<dyn Backend>>,
    /// What was wrong with libraries.
    library_caveats: Vec<String>,
}

/// Who multiplies matrices on the workers: the kernels of this crate, or a library.
trait Backend: Send {
    /// Who it is and what it multiplies.
    fn ability(&self) -> LibraryAbility;
    /// Makes ready what a load asks for.
    fn runnable(&self, load: GemmLoad, n_threads: usize) -> Result<Runnable, Unmeasurable>;
}

/// The kernels of this crate.
struct BuiltIn;

impl Backend for BuiltIn {
    fn ability(&self) -> LibraryAbility {
        gemm::ability()
    }

    fn runnable(&self, load: GemmLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
        gemm::runnable(load, n_threads)
    }
}

/// What a module makes of a load: a kernel for each thread, to be built on it, and what it is.
struct Runnable {
    builds: Vec<Build>,
    backend: String,
    instruction: Option<String>,
    chains: Option<u32>,
    array_bytes: Option<u64>,
}

/// An experiment whose kernels the workers hold.
#[derive(Clone, Copy)]
struct Prepared {
    n_threads: usize,
    /// Workers that hold a kernel; fewer than threads where a kernel has threads of its own.
    n_workers: usize,
    amount: u64,
}

impl Cpu {
    /// Starts one thread on each processor that affinity and cgroup quota allow, pinned where the
    /// system can; the calling thread stays free. Matrices are multiplied by our own kernels only.
    #[must_use]
    pub fn new() -> Cpu {
        let quota = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut cpus = os::allowed_cpus().unwrap_or_default();
        cpus.truncate(quota);
        let n_logical_cpus = if cpus.is_empty() { quota } else { cpus.len() };
        let places: Vec<Option<usize>> =
            (0..n_logical_cpus).map(|worker_idx| cpus.get(worker_idx).copied()).collect();
        let workers = Workers::start(&places);
        let clock_amount =
            calibrate(CLOCK_SLICE_S, &mut |amount| workers.run(Which::Clock, 1, amount));
        let (caches, nodes) = (Caches::detect(&cpus), nodes::detect());
        Cpu {
            workers,
            cpus,
            n_logical_cpus,
            caches,
            nodes,
            clock_amount,
            prepared: Vec::new(),
            current: 0,
            backends: vec![Box::new(BuiltIn)],
            library_caveats: Vec::new(),
        }
    }

    /// The same, and every library that multiplies matrices: OpenBLAS, BLIS, MKL, oneDNN and
    /// Accelerate where the loader, vendors and the active Python keep them, and the files and
    /// folders `named`, which come first. Each is loaded and tried, in about a second in all; what
    /// was wrong with one is a caveat.
    ///
    /// ```no_run
    /// use flopwise_measure::{Bench, Cpu};
    /// let cpu = Cpu::with_libraries(&["/opt/blas/libopenblas.so".into()]);
    /// for library in cpu.abilities().libraries {
    ///     println!("{} {}", library.library.name(), library.version);
    /// }
    /// ```
    #[must_use]
    pub fn with_libraries(named: &[PathBuf]) -> Cpu {
        let mut cpu = Cpu::new();
        let surroundings = Surroundings {
            cpus: cpu.cpus.clone(),
            n_logical_cpus: cpu.n_logical_cpus,
            cache_bytes: cpu.caches.last_level_bytes(&cpu.cpus, cpu.n_logical_cpus),
            memory_bytes: host::available_memory_bytes(),
        };
        let (backends, caveats) = libraries::find(named, &surroundings);
        cpu.backends.extend(backends);
        cpu.library_caveats = caveats;
        cpu
    }

    /// Makes reading the memory of another node, on one thread, the current experiment, as
    /// [`prepare`](Bench::prepare) does; [`load_slice`](Bench::load_slice) then runs it. The figure
    /// to lay beside it is that of reading main memory on one thread: its own node's.
    ///
    /// # Errors
    /// [`Unmeasurable`]: the processors belong to one node, or the system does not tell.
    pub fn prepare_remote_read(&mut self) -> Result<Setup, Unmeasurable> {
        let called = Instant::now();
        self.forget();
        let Some(there) = nodes::remote_cpu(&self.nodes, &self.cpus) else {
            return Err(Unmeasurable(
                "no processor of another memory node may be used, or none is known".to_owned(),
            ));
        };
        let runnable = stream::remote_read(self.room(1), self.cpus[0], there)?;
        self.start(runnable, 1, called)
    }

    /// Builds the kernels on the first workers and finds out how many rounds last a slice.
    fn start(
        &mut self,
        runnable: Runnable,
        n_threads: usize,
        called: Instant,
    ) -> Result<Setup, Unmeasurable> {
        let Runnable { builds, backend, instruction, chains, array_bytes } = runnable;
        let (n_workers, number) = (builds.len(), self.prepared.len());
        self.workers.build(number, builds)?;
        let mut run = |amount| self.workers.run(Which::Load(number), n_workers, amount);
        let amount = calibrate(LOAD_SLICE_S, &mut run);
        self.prepared.push(Prepared { n_threads, n_workers, amount });
        self.current = number;
        let spent_s = called.elapsed().as_secs_f64();
        Ok(Setup { backend, instruction, chains, array_bytes, spent_s })
    }

    fn current(&self) -> Prepared {
        *self.prepared.get(self.current).expect("an experiment is prepared before its slices")
    }

    /// Frees what the workers hold.
    fn forget(&mut self) {
        self.workers.forget();
        self.prepared.clear();
    }

    /// What so many threads find.
    fn room(&self, n_threads: usize) -> Room<'_> {
        let memory_bytes = host::available_memory_bytes();
        Room { caches: &self.caches, cpus: &self.cpus, n_threads, memory_bytes }
    }

    fn runnable(&self, experiment: &Experiment) -> Result<Runnable, Unmeasurable> {
        let n_threads = experiment.n_threads as usize;
        match experiment.load {
            Load::Peak(load) => peak::runnable(load, n_threads),
            Load::Gemm(load) => {
                let mut backends = self.backends.iter();
                match backends.find(|backend| backend.ability().library == load.library) {
                    Some(backend) => backend.runnable(load, n_threads),
                    None => Err(Unmeasurable(format!("{} is not here", load.library.name()))),
                }
            }
            Load::Stream(load) => stream::runnable(load, self.room(n_threads)),
            Load::Chase(place) => chase::runnable(place, self.room(n_threads)),
        }
    }
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::new()
    }
}

impl Bench for Cpu {
    fn host(&self) -> Host {
        let abilities = self.backends.iter().map(|backend| backend.ability());
        let libraries = abilities.map(|ability| LibraryFound {
            name: ability.library.name().to_owned(),
            version: ability.version,
            path: ability.path,
        });
        let n_nodes = nodes::of_cpus(&self.nodes, &self.cpus).len() as u32;
        Host {
            caches: self.caches.listed(),
            numa_nodes: (0 < n_nodes).then_some(n_nodes),
            libraries: libraries.collect(),
            ..host::host(self.n_logical_cpus as u32, peak::widest_isa())
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            peaks: peak::abilities(),
            libraries: self.backends.iter().map(|backend| backend.ability()).collect(),
            levels: self.caches.levels().into_iter().chain([MemoryLevel::Dram]).collect(),
            has_non_temporal_stores: stream::has_non_temporal_stores(),
        }
    }

    fn caveats(&self) -> Vec<String> {
        let mut caveats = os::caveats();
        if cfg!(target_os = "linux") && !self.workers.are_pinned() {
            caveats.push("threads could not be pinned: they may wander between processors".into());
        }
        if !HAS_ADD_CHAIN {
            caveats.push("the clock is not measured on this architecture".to_owned());
        }
        let short = |quota: &f64| *quota < self.n_logical_cpus as f64;
        if let Some(quota) = host::quota_cpus().filter(short) {
            caveats.push(format!(
                "a control group allows {quota:.2} processors' worth of time: what lasts longer than \
                 some milliseconds gets that share of the rates here, which are those of threads \
                 that run"
            ));
        }
        let thread_counts = [1, self.n_logical_cpus];
        let sizes = thread_counts.map(|n| places::in_main_memory(self.room(n), stream::MAX_ARRAYS));
        caveats.extend(sizes.into_iter().find_map(|size| size.doubt));
        caveats.extend(words::page_caveat());
        caveats.extend(nodes::caveat(&nodes::of_cpus(&self.nodes, &self.cpus)));
        caveats.extend(self.library_caveats.iter().cloned());
        caveats
    }

    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        self.forget();
        self.prepare_beside(experiment)
    }

    fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        let called = Instant::now();
        let n_threads = experiment.n_threads as usize;
        if !(1..=self.n_logical_cpus).contains(&n_threads) {
            return Err(Unmeasurable(format!(
                "{n_threads} threads asked for, {} processors allowed",
                self.n_logical_cpus
            )));
        }
        let runnable = self.runnable(experiment)?;
        self.start(runnable, n_threads, called)
    }

    fn turn_to(&mut self, number: usize) {
        self.current = number;
    }

    fn clock_slice(&mut self) -> Option<Slice> {
        let Prepared { n_threads, n_workers, .. } = self.current();
        if !HAS_ADD_CHAIN {
            return None;
        }
        let slice = self.workers.run(Which::Clock, n_workers, self.clock_amount);
        // A library's own threads wait for work spinning: a clock slice on their processors would
        // be shared with them. All cores are taken to run at the caller's clock then.
        Some(Slice { work: slice.work * n_threads as f64 / n_workers as f64, ..slice })
    }

    fn slice_on(&mut self, threads: &[u32]) -> Option<Slice> {
        let Prepared { n_workers, amount, .. } = self.current();
        let workers: Vec<usize> = threads.iter().map(|thread| *thread as usize).collect();
        let is_there =
            self.workers.are_pinned() && workers.iter().all(|worker| *worker < n_workers);
        is_there.then(|| self.workers.run_on(Which::Load(self.current), &workers, amount))
    }

    fn load_slice(&mut self) -> Slice {
        let Prepared { n_workers, amount, .. } = self.current();
        self.workers.run(Which::Load(self.current), n_workers, amount)
    }
}

/// How many rounds last `target_s`, at least one.
///
/// Grows until a slice is long enough to time, then scales; the shorter of two slices counts, since
/// a neighbour only ever makes one longer.
fn calibrate(target_s: f64, run: &mut dyn FnMut(u64) -> Slice) -> u64 {
    let mut shortest_s = |amount: u64| run(amount).seconds.min(run(amount).seconds);
    let mut amount = 1u64;
    let mut seconds = shortest_s(amount);
    while seconds < target_s / 4.0 && amount < 1 << 40 {
        amount *= 4;
        seconds = shortest_s(amount);
    }
    ((amount as f64 * target_s / seconds) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{ElementFormat, GemmLoad, Outcome, PeakLoad, Place, StreamLoad};
    use flopwise::machine::{MemoryOp, Stores};

    #[test]
    fn calibration_meets_its_target() {
        let check = |per_round_s: f64, expected: u64| {
            let mut run = |amount: u64| Slice {
                seconds: amount as f64 * per_round_s,
                work: 1.0,
                spent_s: 0.0,
                processor_s: None,
                outcome: Outcome::Clean,
            };
            assert_eq!(calibrate(0.5, &mut run), expected, "{per_round_s}");
        };
        check(1.0 / 1024.0, 512);
        check(0.25, 2);
        check(3.0, 1);
    }

    /// Every load that abilities name, matrices small, main memory's arrays seldom.
    fn loads(abilities: &Abilities) -> Vec<Load> {
        let gemm = GemmLoad::of(ElementFormat::Fp32, [64, 96, 80]);
        let mut loads = vec![Load::Peak(PeakLoad::of(ElementFormat::Fp32)), Load::Gemm(gemm)];
        let levels = abilities.levels.iter().map(|&level| Place::Level(level));
        for place in levels.chain([Place::Bytes(40_000)]) {
            loads.push(Load::Chase(place));
            let stream = |op, stores| Load::Stream(StreamLoad { op, place, stores });
            loads.push(stream(MemoryOp::Read, Stores::Plain));
            if place == Place::Level(MemoryLevel::Dram) {
                continue;
            }
            for op in [MemoryOp::Write, MemoryOp::Copy, MemoryOp::Triad] {
                loads.push(stream(op, Stores::Plain));
                if abilities.has_non_temporal_stores {
                    loads.push(stream(op, Stores::NonTemporal));
                }
            }
        }
        loads
    }

    #[test]
    fn every_load_runs_and_verifies_on_each_thread_count() {
        let mut cpu = Cpu::new();
        for load in loads(&cpu.abilities()) {
            for n_threads in [1, cpu.n_logical_cpus as u32] {
                let setup = cpu.prepare(&Experiment { load, n_threads }).unwrap();
                let is_in_memory = matches!(load, Load::Stream(_) | Load::Chase(_));
                assert_eq!(setup.array_bytes.is_some(), is_in_memory, "{load:?}");
                let slice = cpu.load_slice();
                assert_ne!(slice.outcome, Outcome::Wrong, "{load:?} on {n_threads}");
                assert!(0.0 < slice.rate() && slice.rate().is_finite());
                if let Some(clock) = cpu.clock_slice() {
                    assert_ne!(clock.outcome, Outcome::Wrong);
                }
            }
        }
    }

    #[test]
    fn places_that_are_not_there_are_refused() {
        let mut cpu = Cpu::new();
        let refused = [
            (MemoryOp::Read, Place::Level(MemoryLevel::Dram), Stores::NonTemporal),
            (MemoryOp::Read, Place::Bytes(1 << 60), Stores::Plain),
            (MemoryOp::Triad, Place::Bytes(3071), Stores::Plain),
            (MemoryOp::Copy, Place::Bytes(0), Stores::Plain),
        ];
        for (op, place, stores) in refused {
            let load = Load::Stream(StreamLoad { op, place, stores });
            assert!(cpu.prepare(&Experiment { load, n_threads: 1 }).is_err(), "{load:?}");
        }
        for place in [Place::Bytes(128), Place::Bytes(u64::MAX)] {
            let load = Load::Chase(place);
            assert!(cpu.prepare(&Experiment { load, n_threads: 1 }).is_err(), "{load:?}");
        }
    }

    #[test]
    fn memory_of_another_node_is_read_where_there_is_one() {
        let mut cpu = Cpu::new();
        let node = |number: u32, cpu: usize| Node {
            number,
            cpus: [cpu].into_iter().collect(),
            memory_bytes: None,
        };
        // As if each processor were a node of its own.
        cpu.nodes = (0..).zip(&cpu.cpus).map(|(number, &cpu)| node(number, cpu)).collect();
        let n_nodes = cpu.nodes.len() as u32;
        assert_eq!(cpu.host().numa_nodes, (0 < n_nodes).then_some(n_nodes));
        let said = cpu.caveats().iter().any(|caveat| caveat.contains("memory nodes"));
        assert_eq!(said, 1 < n_nodes);
        let prepared = cpu.prepare_remote_read();
        assert_eq!(prepared.is_ok(), 1 < n_nodes);
        if let Ok(setup) = prepared {
            assert!((1 << 20) < setup.array_bytes.unwrap());
            assert_ne!(cpu.load_slice().outcome, Outcome::Wrong);
        }
        cpu.nodes.truncate(1);
        assert!(cpu.prepare_remote_read().is_err());
    }

    #[test]
    fn more_threads_than_processors_are_refused() {
        let mut cpu = Cpu::new();
        let n_threads = cpu.n_logical_cpus as u32 + 1;
        let load = Load::Peak(PeakLoad::of(ElementFormat::Fp32));
        assert!(cpu.prepare(&Experiment { load, n_threads }).is_err());
        assert!(cpu.prepare(&Experiment { load, n_threads: 0 }).is_err());
    }
}
