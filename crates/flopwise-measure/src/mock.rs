//! A mock machine: configured rates, exactly and at once, with preempted slices among them.
//!
//! Not here: clocks, threads or noise. It makes `measure -> estimate -> report` a snapshot test.

use crate::bench::{
    Abilities, Bench, ElementFormat, Experiment, Library, LibraryAbility, Load, Mix, Outcome,
    PeakAbility, Place, Setup, Slice, Unmeasurable,
};
use flopwise::machine::{Host, MemoryLevel, MemoryOp};
use flopwise::units::Hertz;

/// Each slice lasts 1/1024 s: a power of two, so that rate x time / time is the rate exactly.
const SLICE_S: f64 = 1.0 / 1024.0;

/// Chains that hide the latency of the mock machine's multiply-add.
const MOCK_CHAINS: u32 = 8;
/// Dependent loads a second from main memory.
const MOCK_LOADS_PER_S: f64 = 1e7;

/// How many times the FP32 rate a format has.
fn wider(format: ElementFormat) -> f64 {
    4.0 / format.bytes() as f64
}

/// How many times main memory's rate a place has.
fn nearer(place: Place) -> f64 {
    match place {
        Place::Level(MemoryLevel::L1) => 8.0,
        Place::Level(MemoryLevel::L2) => 4.0,
        Place::Level(MemoryLevel::L3) => 2.0,
        Place::Level(MemoryLevel::Dram) => 1.0,
        Place::Bytes(bytes) if bytes <= 1 << 15 => 8.0,
        Place::Bytes(bytes) if bytes <= 1 << 20 => 4.0,
        Place::Bytes(bytes) if bytes <= 1 << 25 => 2.0,
        Place::Bytes(_) => 1.0,
    }
}

/// A machine whose every answer is given.
///
/// ```
/// use flopwise_measure::{Mock, MockRates, Plan, measure};
/// let slow_memory = MockRates { read_bytes_per_s: 2e9, ..MockRates::default() };
/// let plan = Plan::quick(String::new());
/// let profile = measure(&mut Mock::new(slow_memory), &plan, &mut |_progress| ());
/// assert_eq!(profile.dram_read().unwrap().to_string(), "4 GB/s"); // two threads
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mock {
    rates: MockRates,
    prepared: Vec<Experiment>,
    current: usize,
    n_slices: u32,
}

/// What a [`Mock`] answers.
#[derive(Clone, Debug, PartialEq)]
pub struct MockRates {
    /// Logical processors, each a core of its own.
    pub n_logical_cpus: u32,
    /// True clock; `None` is a machine without a known add chain.
    pub clock_hz: Option<f64>,
    /// What its operating system claims.
    pub os_clock_hz: Option<f64>,
    /// FP32 FLOP per cycle of one thread alone.
    pub flops_per_cycle: f64,
    /// What is left of that for each thread when all run: 1 for cores, 0.5 for hyper-threads.
    pub share_when_all_run: f64,
    /// Share of the peak that a GEMM reaches.
    pub gemm_efficiency: f64,
    /// Read bandwidth of each thread.
    pub read_bytes_per_s: f64,
    /// Copy bandwidth of each thread.
    pub copy_bytes_per_s: f64,
    /// Every so manieth slice is preempted and has half its rate; `None` is a quiet machine.
    pub preempt_every: Option<u32>,
    /// A load that gives wrong results.
    pub wrong: Option<Load>,
}

impl Default for MockRates {
    /// Two cores of 4 GHz with 32 FLOP a cycle, 16 GB/s each, on a quiet machine.
    fn default() -> MockRates {
        MockRates {
            n_logical_cpus: 2,
            clock_hz: Some(4e9),
            os_clock_hz: Some(4e9),
            flops_per_cycle: 32.0,
            share_when_all_run: 1.0,
            gemm_efficiency: 0.875,
            read_bytes_per_s: 16e9,
            copy_bytes_per_s: 12e9,
            preempt_every: None,
            wrong: None,
        }
    }
}

impl Mock {
    /// A machine with these rates.
    #[must_use]
    pub fn new(rates: MockRates) -> Mock {
        Mock { rates, ..Mock::default() }
    }

    fn current(&self) -> Experiment {
        *self.prepared.get(self.current).expect("an experiment is prepared before its slices")
    }

    fn slice(&mut self, rate: f64) -> Slice {
        self.n_slices += 1;
        let preempted =
            self.rates.preempt_every.is_some_and(|every| self.n_slices.is_multiple_of(every));
        let (rate, outcome) =
            if preempted { (rate / 2.0, Outcome::Disturbed) } else { (rate, Outcome::Clean) };
        let (seconds, work) = (SLICE_S, rate * SLICE_S);
        Slice { seconds, work, spent_s: SLICE_S, processor_s: None, outcome }
    }

    /// Per thread; a machine without a measurable clock still has one.
    fn peak_rate(&self, n_threads: u32) -> f64 {
        let share = if n_threads == 1 { 1.0 } else { self.rates.share_when_all_run };
        self.rates.clock_hz.unwrap_or(4e9) * self.rates.flops_per_cycle * share
    }
}

impl Bench for Mock {
    fn host(&self) -> Host {
        Host {
            name: "mock".to_owned(),
            cpu: "Mock CPU".to_owned(),
            logical_cpus: self.rates.n_logical_cpus,
            clock_hz: None,
            os_clock_hz: self.rates.os_clock_hz.map(Hertz),
            isa: "mock".to_owned(),
            memory_bytes: Some(16 << 30),
            caches: Vec::new(),
            numa_nodes: Some(1),
            libraries: Vec::new(),
            os: "mock".to_owned(),
            measured_at: String::new(),
            flopwise_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn abilities(&self) -> Abilities {
        let peak = |format| PeakAbility {
            format,
            isa: "mock",
            instruction: "mock",
            ops_per_instruction: 16,
            chains: vec![1, 2, 4, 8, 16],
            has_add_mix: format == ElementFormat::Fp32,
            is_float: !matches!(format, ElementFormat::Int8 | ElementFormat::Int16),
        };
        Abilities {
            peaks: ElementFormat::ALL.map(peak).to_vec(),
            libraries: vec![LibraryAbility {
                library: Library::BuiltIn,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                path: None,
                formats: ElementFormat::ALL.to_vec(),
            }],
            levels: vec![MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3, MemoryLevel::Dram],
            has_non_temporal_stores: true,
        }
    }

    fn caveats(&self) -> Vec<String> {
        Vec::new()
    }

    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        self.prepared.clear();
        self.prepare_beside(experiment)
    }

    fn turn_to(&mut self, number: usize) {
        self.current = number;
    }

    fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        self.current = self.prepared.len();
        self.prepared.push(*experiment);
        let (backend, array_bytes) = match experiment.load {
            Load::Peak(_) => ("mock-fma", None),
            Load::Gemm(..) => ("mock-gemm", None),
            Load::Stream(_) | Load::Chase(_) => ("mock-stream", Some(1 << 27)),
        };
        let (instruction, chains) = match experiment.load {
            Load::Peak(peak) => (Some("mock".to_owned()), Some(peak.chains.unwrap_or(MOCK_CHAINS))),
            Load::Gemm(_) | Load::Stream(_) | Load::Chase(_) => (None, None),
        };
        let backend = backend.to_owned();
        Ok(Setup { backend, instruction, chains, array_bytes, spent_s: 0.0 })
    }

    fn clock_slice(&mut self) -> Option<Slice> {
        let n_threads = self.current().n_threads;
        let clock_hz = self.rates.clock_hz?;
        Some(self.slice(clock_hz * f64::from(n_threads)))
    }

    fn slice_on(&mut self, threads: &[u32]) -> Option<Slice> {
        Some(self.slice_of(threads.len() as u32))
    }

    fn load_slice(&mut self) -> Slice {
        self.slice_of(self.current().n_threads)
    }
}

impl Mock {
    fn slice_of(&mut self, n_threads: u32) -> Slice {
        let load = self.current().load;
        let thread_rate = match load {
            Load::Peak(peak) => {
                let chains = peak.chains.map_or(1.0, |chains| f64::from(chains.min(MOCK_CHAINS)));
                let in_flight = peak.chains.map_or(1.0, |_| chains / f64::from(MOCK_CHAINS));
                let added = if peak.mix == Mix::MultiplyAddAndAdd { 1.25 } else { 1.0 };
                self.peak_rate(n_threads) * wider(peak.format) * in_flight * added
            }
            Load::Gemm(gemm) => {
                self.peak_rate(n_threads) * wider(gemm.format) * self.rates.gemm_efficiency
            }
            Load::Stream(stream) => {
                let bandwidth = match stream.op {
                    MemoryOp::Read | MemoryOp::ReadSpread => self.rates.read_bytes_per_s,
                    MemoryOp::Write | MemoryOp::Copy | MemoryOp::Triad => {
                        self.rates.copy_bytes_per_s
                    }
                };
                bandwidth * nearer(stream.place)
            }
            Load::Chase(place) => MOCK_LOADS_PER_S * nearer(place),
        };
        let slice = self.slice(thread_rate * f64::from(n_threads));
        match self.rates.wrong == Some(load) {
            true => Slice { outcome: Outcome::Wrong, ..slice },
            false => slice,
        }
    }
}
