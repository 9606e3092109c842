//! Measurements of the mock machine: exact, instant, through the public interface only.

use flopwise::machine::{ComputeKind, Host, MemoryLevel, MemoryOp, Profile};
use flopwise_measure::{
    Abilities, Bench, ElementFormat, Experiment, GemmLoad, GemmShape, Library, LibraryAbility,
    Load, Mock, MockRates, Plan, Progress, Setup, Slice, Threads, Unmeasurable, measure,
    measure_until,
};
use std::cell::Cell;

fn quick() -> Plan {
    Plan::quick("2026-11-23T13:38:00Z".to_owned())
}

fn profile_of(rates: MockRates) -> Profile {
    measure(&mut Mock::new(rates), &quick(), &mut |_progress| ())
}

/// One line for each rate: what, threads, median, samples kept/taken.
fn table(profile: &Profile) -> Vec<String> {
    let compute = profile.compute.iter().map(|rate| {
        let what = match rate.shape {
            Some([m, n, k]) => format!("gemm {m}x{n}x{k}"),
            None => "peak".to_owned(),
        };
        let sampled = rate.flops_per_s;
        let (median, kept, taken) = (sampled.median, sampled.samples, sampled.taken);
        format!("{} {what} {}T {:.0} G {kept}/{taken}", rate.format, rate.threads, median / 1e9)
    });
    let memory = profile.memory.iter().map(|rate| {
        let sampled = rate.bytes_per_s;
        let (median, kept, taken) = (sampled.median, sampled.samples, sampled.taken);
        format!("{:?} {}T {:.0} G {kept}/{taken}", rate.op, rate.threads, median / 1e9)
    });
    compute.chain(memory).collect()
}

#[test]
fn a_quiet_machine_is_measured_exactly() {
    let profile = profile_of(MockRates::default());
    // Load and clock slices of 1/1024 s alternate: 0.38 s hold 195 of each. Streams need no clock
    // and have their 301 before that.
    let expected = [
        "fp32 peak 1T 128 G 195/195",
        "fp32 peak 2T 256 G 195/195",
        "fp32 gemm 384x384x384 1T 112 G 195/195",
        "fp32 gemm 768x768x768 1T 112 G 195/195",
        "fp32 gemm 512x512x512 2T 224 G 195/195",
        "fp32 gemm 1024x1024x1024 2T 224 G 195/195",
        "Read 1T 16 G 301/301",
        "Read 2T 32 G 301/301",
        "ReadSpread 1T 16 G 301/301",
        "ReadSpread 2T 32 G 301/301",
        "Copy 1T 12 G 301/301",
        "Copy 2T 24 G 301/301",
    ];
    assert_eq!(table(&profile), expected);
    assert_eq!(profile.notes, Vec::<String>::new());
    assert_eq!(profile.machine.measured_at, "2026-11-23T13:38:00Z");
    assert_eq!(profile.machine.clock_hz.unwrap().to_string(), "4 GHz");
    for rate in &profile.compute {
        let (per_cycle, share) = match rate.kind {
            ComputeKind::Peak | ComputeKind::FmaAdd => (32.0, None),
            ComputeKind::Gemm => (28.0, Some(0.875)),
        };
        assert_eq!(rate.flops_per_cycle, Some(per_cycle));
        assert_eq!(rate.fraction_of_peak, share);
        assert!(rate.flops_per_s.spread.abs() < 1e-15);
    }
}

#[test]
fn preempted_slices_are_dropped_and_counted() {
    let quiet = profile_of(MockRates::default());
    let busy = profile_of(MockRates { preempt_every: Some(3), ..MockRates::default() });
    for (quiet, busy) in quiet.compute.iter().zip(&busy.compute) {
        let (quiet_rate, busy_rate) = (quiet.flops_per_s, busy.flops_per_s);
        assert!((quiet_rate.median - busy_rate.median).abs() < 1e-3, "{:?}", busy.kind);
        assert!(busy_rate.samples < busy_rate.taken);
        assert_eq!(quiet.flops_per_cycle, busy.flops_per_cycle);
    }
    assert_eq!(quiet.machine.clock_hz, busy.machine.clock_hz);
    assert_eq!(busy.notes, Vec::<String>::new(), "two thirds are enough");
}

#[test]
fn a_machine_that_is_never_quiet_gives_notes_instead_of_rates() {
    let profile = profile_of(MockRates { preempt_every: Some(1), ..MockRates::default() });
    assert_eq!(table(&profile), Vec::<String>::new());
    assert_eq!(profile.machine.clock_hz, None);
    assert_eq!(profile.notes.len(), 13);
    assert!(profile.notes[12].starts_with("this machine was too busy"));
    // Half as much again as the budget, since fewer than the least number were clean: 0.57 s.
    assert!(profile.notes[0].starts_with("fp32 peak, 1 thread: left out: none of 292 samples"));
}

#[test]
fn a_wrong_result_is_left_out() {
    let shape = GemmShape::Cube(384).on(1);
    let wrong = Some(Load::Gemm(GemmLoad::of(ElementFormat::Fp32, shape)));
    let profile = profile_of(MockRates { wrong, ..MockRates::default() });
    assert!(profile.compute.iter().all(|rate| rate.shape != Some(shape)));
    assert_eq!(profile.compute.len(), 5);
    assert_eq!(
        profile.notes,
        ["fp32 GEMM 384x384x384, 1 thread: left out: a slice gave a wrong result"]
    );
}

#[test]
fn shared_cores_are_noticed() {
    let profile = profile_of(MockRates { share_when_all_run: 0.5, ..MockRates::default() });
    assert_eq!(
        profile.notes,
        ["2 threads issue 16.0 fp32 FLOP per cycle each, one alone 32.0: \
          logical processors share cores"]
    );
}

#[test]
fn a_wrong_clock_of_the_system_is_noticed() {
    let notes = |os_clock_hz| profile_of(MockRates { os_clock_hz, ..MockRates::default() }).notes;
    assert_eq!(
        notes(Some(2.5e9)),
        ["the operating system says the clock is 2.5 GHz, measured is 4 GHz: \
          a percentage of the former would be 60 % off"]
    );
    assert_eq!(notes(Some(3.9e9)), Vec::<String>::new());
    assert_eq!(notes(None), Vec::<String>::new());
}

#[test]
fn a_machine_without_a_clock_still_has_rates() {
    let profile = profile_of(MockRates { clock_hz: None, ..MockRates::default() });
    assert_eq!(profile.machine.clock_hz, None);
    let peak = profile.compute_rate("fp32", ComputeKind::Peak).unwrap();
    assert_eq!((peak.threads, peak.flops_per_cycle), (2, None));
}

#[test]
fn one_processor_is_measured_once() {
    let profile = profile_of(MockRates { n_logical_cpus: 1, ..MockRates::default() });
    assert_eq!(profile.compute.len(), 3);
    assert_eq!(profile.memory.len(), 3);
}

#[test]
fn a_plan_may_ask_for_less() {
    let plan = Plan {
        threads: vec![Threads::All],
        gemms: Vec::new(),
        streams: Vec::new(),
        enough_samples: 10,
        ..quick()
    };
    let profile = measure(&mut Mock::default(), &plan, &mut |_progress| ());
    assert_eq!(table(&profile), ["fp32 peak 2T 256 G 10/10"]);
    assert!(profile.dram_rate(MemoryOp::Read).is_none());
}

#[test]
fn a_profile_survives_its_file() {
    let profile = profile_of(MockRates { preempt_every: Some(5), ..MockRates::default() });
    assert_eq!(Profile::from_json(&profile.to_json()), Ok(profile));
}

#[test]
fn progress_rises_from_nothing_to_all() {
    let mut seen = Vec::new();
    measure(&mut Mock::default(), &quick(), &mut |progress| seen.push(progress));
    assert!(seen.is_sorted_by(|a, b| a.fraction <= b.fraction));
    assert!(seen[0].fraction.abs() < 1e-12);
    assert!((seen.last().unwrap().fraction - 1.0).abs() < 1e-12);
    assert_eq!(seen[0].step, "fp32 peak, 1 thread");
    assert_eq!(seen.last().unwrap().step, "memory copy, 2 threads");
}

/// A mock whose processors share a core until its second experiment on two threads' peak.
struct Moved {
    mock: Mock,
    n_shared_peaks: u32,
}

impl Bench for Moved {
    fn host(&self) -> Host {
        self.mock.host()
    }

    fn abilities(&self) -> Abilities {
        self.mock.abilities()
    }

    fn caveats(&self) -> Vec<String> {
        self.mock.caveats()
    }

    fn slice_on(&mut self, threads: &[u32]) -> Option<Slice> {
        self.mock.slice_on(threads)
    }

    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        if matches!(experiment.load, Load::Peak(_)) && experiment.n_threads == 2 {
            self.n_shared_peaks += 1;
            let share_when_all_run = if self.n_shared_peaks == 1 { 0.5 } else { 1.0 };
            self.mock = Mock::new(MockRates { share_when_all_run, ..MockRates::default() });
        }
        self.mock.prepare(experiment)
    }

    fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        self.mock.prepare_beside(experiment)
    }

    fn turn_to(&mut self, number: usize) {
        self.mock.turn_to(number);
    }

    fn clock_slice(&mut self) -> Option<Slice> {
        self.mock.clock_slice()
    }

    fn load_slice(&mut self) -> Slice {
        self.mock.load_slice()
    }
}

#[test]
fn a_moment_on_one_core_is_looked_at_again() {
    let mut machine = Moved { mock: Mock::default(), n_shared_peaks: 0 };
    let profile = measure(&mut machine, &quick(), &mut |_progress| ());
    let peak = profile.compute_rate("fp32", ComputeKind::Peak).unwrap();
    assert_eq!((peak.threads, peak.flops_per_cycle), (2, Some(32.0)));
    assert!(profile.notes[0].contains("at one moment 128 GFLOP/s, at another 256 GFLOP/s"));
}

#[test]
fn cores_that_are_always_shared_stay_so() {
    let profile = profile_of(MockRates { share_when_all_run: 0.5, ..MockRates::default() });
    let peak = profile.compute_rate("fp32", ComputeKind::Peak).unwrap();
    assert_eq!(peak.flops_per_cycle, Some(16.0));
    assert!(profile.notes[0].contains("logical processors share cores"));
}

/// A mock with a second library, each of whose slices is slower than the one before.
struct Tiring {
    mock: Mock,
    n_slices: u32,
    /// Refuses to hold two experiments at once.
    is_small: bool,
}

impl Bench for Tiring {
    fn host(&self) -> Host {
        self.mock.host()
    }
    fn abilities(&self) -> Abilities {
        let mut abilities = self.mock.abilities();
        let own = abilities.libraries[0].clone();
        abilities.libraries.push(LibraryAbility { library: Library::OpenBlas, ..own });
        abilities
    }
    fn caveats(&self) -> Vec<String> {
        self.mock.caveats()
    }
    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        self.mock.prepare(experiment).map(|setup| named(setup, experiment))
    }
    fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
        if self.is_small {
            return Err(Unmeasurable("no room".to_owned()));
        }
        self.mock.prepare_beside(experiment).map(|setup| named(setup, experiment))
    }
    fn turn_to(&mut self, number: usize) {
        self.mock.turn_to(number);
    }
    fn clock_slice(&mut self) -> Option<Slice> {
        self.mock.clock_slice()
    }
    fn slice_on(&mut self, threads: &[u32]) -> Option<Slice> {
        self.mock.slice_on(threads)
    }
    fn load_slice(&mut self) -> Slice {
        self.n_slices += 1;
        let slice = self.mock.load_slice();
        Slice { seconds: slice.seconds * (1.0 + f64::from(self.n_slices) / 1000.0), ..slice }
    }
}

fn named(setup: Setup, experiment: &Experiment) -> Setup {
    match experiment.load {
        Load::Gemm(gemm) => Setup { backend: gemm.library.name().to_owned(), ..setup },
        Load::Peak(_) | Load::Stream(_) | Load::Chase(_) => setup,
    }
}

/// What tires a machine tires all that are compared; where only one fits in memory at a time each
/// has an answer still.
#[test]
fn libraries_that_are_compared_take_turns() {
    let rates = |is_small: bool| {
        let mut machine = Tiring { mock: Mock::default(), n_slices: 0, is_small };
        let plan = Plan::products(String::new(), &[[512, 512, 512]]);
        let profile = measure(&mut machine, &plan, &mut |_progress| ());
        let rate = |backend: &str| {
            let rates = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Gemm);
            let mut rates = rates.filter(|rate| (&*rate.format, rate.threads) == ("fp32", 1));
            rates.find(|rate| rate.backend == backend).unwrap().flops_per_s.median
        };
        rate("flopwise") / rate("openblas")
    };
    let (in_turn, one_by_one) = (rates(false), rates(true));
    assert!((in_turn - 1.0).abs() < 0.02, "{in_turn}");
    assert!(1.05 < one_by_one, "{one_by_one}");
}

fn full_profile() -> Profile {
    let plan = Plan::full(String::new());
    measure(&mut Mock::default(), &plan, &mut |_progress| ())
}

/// The mock's multiply-add has a rate of its own for each width of number, hides its latency with
/// eight chains, and knows no unusual values.
#[test]
fn a_full_run_has_every_format_level_and_probe() {
    let profile = full_profile();
    let peak = |format: &str, threads| {
        let mut peaks = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak);
        let peak = peaks.find(|rate| rate.format == format && rate.threads == threads);
        peak.and_then(|rate| rate.flops_per_cycle)
    };
    let check = |format, expected: f64| {
        assert_eq!(peak(format, 1), Some(expected), "{format}");
        assert_eq!(peak(format, 2), Some(expected), "{format}");
    };
    check("fp64", 16.0);
    check("fp32", 32.0);
    check("bf16", 64.0);
    check("fp16", 64.0);
    check("int8", 128.0);
    check("int16", 64.0);
    let levels: Vec<_> = profile.latency.iter().map(|latency| latency.level).collect();
    assert_eq!(levels, [MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3, MemoryLevel::Dram]);
    // Per level four operations, three that go past the caches, and reading at eight places, each on
    // one thread and on two.
    assert_eq!(profile.memory.len(), 2 * (4 * 4 + 3 + 1));
    for rate in profile.memory.iter() {
        let is_dram = rate.level == MemoryLevel::Dram;
        assert_eq!(rate.range.is_some(), is_dram, "{:?} {:?}", rate.level, rate.op);
    }
    let probe = |name: &str| {
        let found = profile.probes.iter().find(|probe| probe.name == name);
        found.map(|probe| probe.value)
    };
    // One chain has an eighth of the 32 operations a cycle.
    let latency = f64::from(Mock::default().abilities().peaks[1].ops_per_instruction) / 4.0;
    assert_eq!(probe("fp32 latency of mock"), Some(latency));
    assert_eq!(probe("fp32 multiply-add of subnormals"), Some(1.0));
    assert_eq!(probe("processors 0 and 1 together"), Some(2.0));
    assert_eq!(probe("fp64 peak, 2 threads: first 100 ms over sustained"), Some(1.0));
    assert_eq!(profile.notes, Vec::<String>::new());
}

/// 0.875 of the peak; the roof of a product that waits for memory is bandwidth times intensity.
#[test]
fn products_are_related_to_both_roofs() {
    let profile = full_profile();
    let shares = |format: &str, shape: [u64; 3]| {
        let mut gemms = profile.compute.iter().filter(|rate| rate.shape == Some(shape));
        let gemm = gemms.find(|rate| rate.format == format && rate.threads == 1).unwrap();
        (gemm.fraction_of_peak.unwrap(), gemm.fraction_of_roofline.unwrap())
    };
    assert_eq!(shares("fp32", [1024, 1024, 1024]), (0.875, 0.875));
    let (of_peak, of_roof) = shares("fp32", [1, 4096, 4096]);
    // 2 FLOP for each 4 bytes of B, and one row of A and C: 0.4998 FLOP/B at 16 GB/s.
    let intensity = 2.0 * 4096.0 * 4096.0 / (4.0 * (4096.0 * 4096.0 + 2.0 * 4096.0));
    assert!((of_peak - 0.875).abs() < 1e-12);
    assert!((of_roof - 112e9 / (16e9 * intensity)).abs() < 1e-9, "{of_roof}");
}

#[test]
fn a_stopped_run_keeps_what_is_done() {
    let is_fp32 = Cell::new(false);
    let plan = Plan::full(String::new());
    let mut look = |progress: Progress| is_fp32.set(progress.step.starts_with("fp32"));
    let profile = measure_until(&mut Mock::default(), &plan, &mut look, &|| is_fp32.get());
    let formats: Vec<&str> = profile.compute.iter().map(|rate| rate.format.as_str()).collect();
    assert_eq!(formats, ["fp64", "fp64", "fp32"]);
    assert!(profile.notes[0].starts_with("stopped after 3 of "), "{:?}", profile.notes);
}

#[test]
fn formats_that_a_machine_lacks_are_named() {
    struct Old(Mock);
    impl Bench for Old {
        fn host(&self) -> Host {
            self.0.host()
        }
        fn abilities(&self) -> Abilities {
            let mut abilities = self.0.abilities();
            abilities.peaks.retain(|peak| peak.format == ElementFormat::Fp32);
            abilities
        }
        fn caveats(&self) -> Vec<String> {
            self.0.caveats()
        }
        fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
            self.0.prepare(experiment)
        }
        fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable> {
            self.0.prepare_beside(experiment)
        }
        fn turn_to(&mut self, number: usize) {
            self.0.turn_to(number);
        }
        fn clock_slice(&mut self) -> Option<Slice> {
            self.0.clock_slice()
        }
        fn slice_on(&mut self, threads: &[u32]) -> Option<Slice> {
            self.0.slice_on(threads)
        }
        fn load_slice(&mut self) -> Slice {
            self.0.load_slice()
        }
    }
    let plan = Plan::full(String::new());
    let profile = measure(&mut Old(Mock::default()), &plan, &mut |_progress| ());
    assert_eq!(
        profile.notes[0],
        "this processor has no multiply-adds of fp64, bf16, fp16, int8, int16: nothing is \
         measured of it"
    );
    assert!(
        profile
            .compute
            .iter()
            .filter(|rate| rate.kind == ComputeKind::Peak)
            .all(|rate| { rate.format == "fp32" })
    );
}
