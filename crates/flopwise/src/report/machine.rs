//! What was measured on a machine as tables: instruction peaks, products, memory, latency. The text
//! and the page print the same ones.
//!
//! Not here: numbers that are not in the profile, and how a table looks.

use super::text::{Page, percent};
use crate::machine::{
    CacheState, ComputeKind, ComputeRate, Host, Latency, MemoryLevel, MemoryRate, Profile, Stores,
    TimedBy,
};
use crate::units::{Bytes, BytesPerSec, FlopsPerSec, Seconds};
use comfy_table::CellAlignment;

/// A figure per cycle this near to an integer is one: units issue whole operations.
const WHOLE: f64 = 0.015;

/// One kind of figure.
pub(super) struct MachineTable {
    pub(super) heading: &'static str,
    pub(super) heads: Vec<&'static str>,
    /// The columns that hold words, from the left.
    pub(super) n_words: usize,
    pub(super) rows: Vec<Vec<String>>,
    /// How to read it, a line or several.
    pub(super) remark: &'static str,
}

/// Label, value and remark of what holds for the whole machine.
pub(super) fn facts(profile: &Profile) -> Vec<[String; 3]> {
    let Host { cpu, logical_cpus, clock_hz, os_clock_hz, isa, memory_bytes, os, .. } =
        &profile.machine;
    let fact = |label: &str, value: String, remark: String| [label.to_owned(), value, remark];
    let mut facts = vec![
        fact(
            "processor",
            cpu.clone(),
            format!(
                "{logical_cpus} logical CPU{}, {isa}",
                if *logical_cpus == 1 { "" } else { "s" }
            ),
        ),
        fact("system", os.clone(), String::new()),
    ];
    let said = os_clock_hz.map(|clock| format!("the system says {clock}"));
    match clock_hz {
        Some(clock) => {
            facts.push(fact("clock, measured", clock.to_string(), said.unwrap_or_default()));
        }
        None => facts.push(fact("clock", "not measured".to_owned(), said.unwrap_or_default())),
    }
    if let Some(bytes) = memory_bytes {
        let nodes = profile.machine.numa_nodes.map(|count| match count {
            1 => "one NUMA node".to_owned(),
            count => format!("{count} NUMA nodes"),
        });
        let memory = Bytes(u128::from(*bytes)).to_string();
        facts.push(fact("memory", memory, nodes.unwrap_or_default()));
    }
    let Host { measured_at, flopwise_version, .. } = &profile.machine;
    facts.push(fact("measured", measured_at.clone(), format!("flopwise {flopwise_version}")));
    facts
}

/// Every figure of a profile; tables without rows are left out.
pub(super) fn tables(profile: &Profile) -> Vec<MachineTable> {
    let all = [
        caches(profile),
        libraries(profile),
        peaks(profile),
        mixed(profile),
        products(profile),
        memory(profile),
        latencies(profile),
        ridges(profile),
        probes(profile),
    ];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// What an estimate may use: peaks, the best products and reading, at the most threads; how to read
/// them is said on the machine's own page.
pub(super) fn summary(profile: &Profile) -> Vec<MachineTable> {
    let mut short = profile.clone();
    short.compute.clear();
    for format in profile.formats() {
        short.compute.extend(profile.compute_rate(format, ComputeKind::Peak).cloned());
        let gemms = profile.best_gemms(format);
        let most = gemms.iter().map(|rate| rate.threads).max();
        let widest = gemms.into_iter().filter(|rate| Some(rate.threads) == most);
        short.compute.extend(widest.cloned());
    }
    let read = |level| profile.read_rate(level).cloned();
    short.memory = MemoryLevel::ALL.into_iter().filter_map(read).collect();
    let all = [peaks(&short), products(&short), memory(&short), ridges(profile)];
    let filled = all.into_iter().filter(|table| !table.rows.is_empty());
    filled.map(|table| MachineTable { remark: "", ..table }).collect()
}

/// A rate of operations: of integers they are no FLOP.
pub(super) fn operations(format: &str, rate: f64) -> String {
    let text = FlopsPerSec(rate).to_string();
    if is_integer(format) { text.replace("FLOP/s", "op/s") } else { text }
}

pub(super) fn is_integer(format: &str) -> bool {
    format.starts_with("int") || format.starts_with("uint")
}

/// `32` for 31.9, `39.4` for 39.4.
pub(super) fn per_cycle(figure: f64) -> String {
    let whole = figure.round();
    if (figure - whole).abs() <= WHOLE * whole {
        format!("{whole}")
    } else {
        format!("{figure:.1}")
    }
}

/// `230.1 to 233.4`, in the unit of the column beside it where both have the same.
pub(super) fn interval([low, high]: [f64; 2], print: &dyn Fn(f64) -> String) -> String {
    let (low, high) = (print(low), print(high));
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((first, unit)), Some((second, other))) if unit == other => {
            format!("{first} to {second}")
        }
        _ => format!("{low} to {high}"),
    }
}

fn bytes(count: u64) -> String {
    Bytes(u128::from(count)).to_string()
}

fn optional<T>(known: Option<T>, print: impl Fn(T) -> String) -> String {
    known.map_or_else(|| "-".to_owned(), print)
}

fn caches(profile: &Profile) -> MachineTable {
    let rows = profile.machine.caches.iter().map(|cache| {
        vec![
            cache.level.name().to_owned(),
            optional(cache.os_bytes, bytes),
            optional(cache.measured_bytes, bytes),
            optional(cache.shared_by, |count| count.to_string()),
        ]
    });
    MachineTable {
        heading: "Caches",
        heads: vec!["level", "the system says", "measured", "shared by CPUs"],
        n_words: 1,
        rows: rows.collect(),
        remark: "measured: the largest array that is still as fast",
    }
}

fn libraries(profile: &Profile) -> MachineTable {
    let rows = profile.machine.libraries.iter().map(|library| {
        let file = library.path.clone().unwrap_or_else(|| "built in".to_owned());
        vec![library.name.clone(), library.version.clone(), file]
    });
    MachineTable {
        heading: "Libraries that multiply matrices",
        heads: vec!["library", "version", "file"],
        n_words: 3,
        rows: rows.collect(),
        remark: "",
    }
}

/// One row a format, thread count and instruction: of several numbers of chains the fastest.
fn fastest(profile: &Profile, kind: ComputeKind) -> Vec<&ComputeRate> {
    let mut fastest: Vec<&ComputeRate> = Vec::new();
    for rate in profile.compute.iter().filter(|rate| rate.kind == kind) {
        let place = |rate: &ComputeRate| {
            (rate.format.clone(), rate.threads, rate.instruction.clone(), rate.backend.clone())
        };
        match fastest.iter_mut().find(|other| place(other) == place(rate)) {
            Some(other) if other.flops_per_s.median < rate.flops_per_s.median => *other = rate,
            Some(_) => {}
            None => fastest.push(rate),
        }
    }
    fastest
}

fn issued_cells(rate: &ComputeRate) -> Vec<String> {
    let sampled = &rate.flops_per_s;
    let print = |figure: f64| operations(&rate.format, figure);
    vec![
        rate.format.clone(),
        rate.instruction.clone().unwrap_or_else(|| rate.backend.clone()),
        rate.threads.to_string(),
        optional(rate.chains, |chains| chains.to_string()),
        print(sampled.median),
        interval(sampled.interval, &print),
        optional(rate.flops_per_cycle, per_cycle),
        format!("{}/{}", sampled.samples, sampled.taken),
    ]
}

const ISSUED: [&str; 8] =
    ["format", "instruction", "threads", "chains", "rate", "95 % interval", "op/cycle", "clean"];

fn peaks(profile: &Profile) -> MachineTable {
    MachineTable {
        heading: "Instruction peak",
        heads: ISSUED.to_vec(),
        n_words: 2,
        rows: fastest(profile, ComputeKind::Peak).into_iter().map(issued_cells).collect(),
        remark: "a multiply-add is two operations; clean: slices kept/taken\n\
                 op/cycle: of one thread, by the clock measured beside it",
    }
}

fn mixed(profile: &Profile) -> MachineTable {
    MachineTable {
        heading: "Multiply-adds and additions in turn",
        heads: ISSUED.to_vec(),
        n_words: 2,
        rows: fastest(profile, ComputeKind::FmaAdd).into_iter().map(issued_cells).collect(),
        remark: "more than the peak where a core has units for both; percentages are of the peak",
    }
}

fn products(profile: &Profile) -> MachineTable {
    let gemms = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Gemm);
    let rows = gemms.map(|rate| {
        let print = |figure: f64| operations(&rate.format, figure);
        let [m, n, k] = rate.shape.unwrap_or_default();
        let shape = optional(rate.shape, |_| format!("{m}x{n}x{k}"));
        let mut operands = match rate.cache {
            Some(CacheState::Cold) => "cold".to_owned(),
            Some(CacheState::Hot) => "hot".to_owned(),
            None => "-".to_owned(),
        };
        if let Some(padding) = rate.padding.filter(|padding| *padding != 0) {
            operands.push_str(&format!(" +{padding}"));
        }
        if rate.timed_by == TimedBy::Processor {
            operands.push_str(" cpu");
        }
        vec![
            rate.format.clone(),
            shape,
            rate.backend.clone(),
            rate.threads.to_string(),
            print(rate.flops_per_s.median),
            interval(rate.flops_per_s.interval, &print),
            optional(rate.fraction_of_peak, percent),
            optional(rate.fraction_of_roofline, percent),
            operands,
        ]
    });
    MachineTable {
        heading: "Matrix products",
        heads: vec![
            "format",
            "m x n x k",
            "library",
            "threads",
            "rate",
            "95 % interval",
            "of peak",
            "of roof",
            "data",
        ],
        n_words: 3,
        rows: rows.collect(),
        remark: "roof: min(peak, intensity x memory read) at the shape, each operand moved once\n\
                 hot: where the product before left them, cold: in main memory; +N: elements between \
                 rows\n\
                 cpu: by the time for which the slowest thread held its processor",
    }
}

fn memory(profile: &Profile) -> MachineTable {
    MachineTable {
        heading: "Memory",
        heads: vec![
            "level",
            "access",
            "threads",
            "rate",
            "95 % interval",
            "B/cycle",
            "over the run",
            "arrays",
            "clean",
        ],
        n_words: 2,
        rows: profile.memory.iter().map(memory_cells).collect(),
        remark: "bytes asked for by the program; NT: stores past the caches\n\
                 B/cycle: of one thread; over the run: lowest and highest of repeats",
    }
}

fn memory_cells(rate: &MemoryRate) -> Vec<String> {
    let print = |figure: f64| BytesPerSec(figure).to_string();
    let sampled = &rate.bytes_per_s;
    let access = match rate.stores {
        Stores::Plain => rate.op.name().to_owned(),
        Stores::NonTemporal => format!("{} NT", rate.op.name()),
    };
    vec![
        rate.level.name().to_owned(),
        access,
        rate.threads.to_string(),
        print(sampled.median),
        interval(sampled.interval, &print),
        optional(rate.bytes_per_cycle, |figure| format!("{figure:.1}")),
        optional(rate.range, |range| interval(range, &print)),
        bytes(rate.array_bytes),
        format!("{}/{}", sampled.samples, sampled.taken),
    ]
}

fn latencies(profile: &Profile) -> MachineTable {
    let row = |latency: &Latency| {
        vec![
            latency.level.name().to_owned(),
            Seconds(1.0 / latency.loads_per_s.median).to_string(),
            optional(latency.cycles, |cycles| format!("{cycles:.1}")),
            bytes(latency.array_bytes),
        ]
    };
    MachineTable {
        heading: "Latency",
        heads: vec!["level", "a load", "cycles", "wanders over"],
        n_words: 1,
        rows: profile.latency.iter().map(row).collect(),
        remark: "the address of each load is the result of the one before",
    }
}

fn ridges(profile: &Profile) -> MachineTable {
    let levels = MemoryLevel::ALL;
    let measured: Vec<MemoryLevel> =
        levels.into_iter().filter(|level| profile.read_bandwidth(*level).is_some()).collect();
    let rows = profile.formats().into_iter().map(|format| {
        let ridges = measured.iter().map(|level| {
            optional(profile.ridge_point_at(format, *level), |ridge| {
                let text = ridge.to_string();
                if is_integer(format) { text.replace("FLOP/B", "op/B") } else { text }
            })
        });
        [format.to_owned()].into_iter().chain(ridges).collect()
    });
    let heads = ["format"].into_iter().chain(measured.iter().map(|level| level.name()));
    MachineTable {
        heading: "Ridge points",
        heads: heads.collect(),
        n_words: 1,
        rows: if measured.is_empty() { Vec::new() } else { rows.collect() },
        remark: "peak over read bandwidth, all threads; with fewer operations per byte a kernel waits",
    }
}

fn probes(profile: &Profile) -> MachineTable {
    let rows = profile.probes.iter().map(|probe| {
        let value = format!("{:.4}", probe.value);
        let value = value.trim_end_matches('0').trim_end_matches('.');
        vec![probe.name.clone(), probe.meaning.clone(), format!("{value} {}", probe.unit)]
    });
    MachineTable {
        heading: "Probes",
        heads: vec!["what", "meaning", "found"],
        n_words: 2,
        rows: rows.collect(),
        remark: "",
    }
}

impl Page {
    /// The whole page of `measure`.
    pub(super) fn profile(&mut self, profile: &Profile) {
        self.machine_facts(profile);
        self.machine_tables(&tables(profile));
        self.notes(profile.notes.iter().map(String::as_str));
    }

    /// The machine in short, beside a model.
    pub(super) fn profile_summary(&mut self, profile: &Profile) {
        self.machine_facts(profile);
        self.machine_tables(&summary(profile));
        if !profile.notes.is_empty() {
            self.out.push('\n');
        }
        for note in &profile.notes {
            self.line(&format!("  - {note}"));
        }
    }

    fn machine_facts(&mut self, profile: &Profile) {
        self.heading(&format!("Machine {}", profile.machine.name));
        for [label, value, remark] in facts(profile) {
            self.fact(&label, &value, &remark);
        }
    }

    fn machine_tables(&mut self, tables: &[MachineTable]) {
        for each in tables {
            self.heading(each.heading);
            let mut table = super::text::table(&each.heads);
            for (column_idx, column) in table.column_iter_mut().enumerate() {
                if column_idx < each.n_words {
                    column.set_cell_alignment(CellAlignment::Left);
                }
            }
            for row in &each.rows {
                table.add_row(row.clone());
            }
            self.out.push_str(&super::text::indented(&table));
            for remark in each.remark.lines() {
                self.line(&format!("  ({remark})"));
            }
        }
    }
}
