//! A report as one self-contained page: no network, no script, light and dark, printable.
//!
//! Not here: numbers of its own, and the drawings (see [`roofline_svg`] and [`machine_svg`]). How the
//! pages look is in `page.html`, `machine.html` and `page.css`.

use super::machine::{is_integer, operations};
use super::{Costly, CountReport, Counted, EstimateReport, NodeRow, machine_svg, roofline_svg};
use crate::cost::{Counts, Stored};
use crate::estimate::{Bound, Estimate, NodeEstimate};
use crate::graph::Symbol;
use crate::machine::{
    ComputeKind, ComputeRate, Host, MemoryLevel, MemoryOp, MemoryRate, Profile, Sampled, Stores,
};
use crate::units::{Bytes, BytesPerSec, FlopsPerSec, SamplesPerSec, grouped};
use minijinja::{Environment, UndefinedBehavior, Value, context};

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;

/// Rows of the table of all nodes: with more, opening the page takes seconds.
const MAX_NODES: usize = 2000;

/// Prints a report as an HTML page.
///
/// # Panics
/// Never: the template is part of the program, and the tests fill every branch of it.
///
/// ```
/// use flopwise::report::{EstimateReport, html};
/// fn save(report: &EstimateReport) -> std::io::Result<()> {
///     std::fs::write("report.html", html(report))
/// }
/// ```
#[must_use]
pub fn html(report: &EstimateReport) -> String {
    let mut environment = Environment::new();
    // A misspelt name fails the tests instead of leaving a hole in the page.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The name ends in .html: every value is escaped.
    let page = environment.render_named_str("page.html", include_str!("page.html"), page(report));
    printable(&page.expect("the template is compiled in and its tests fill every branch"))
}

/// Prints a measured machine as an HTML page.
///
/// # Panics
/// Never: the template is part of the program, and the tests fill every branch of it.
///
/// ```
/// use flopwise::{machine::Profile, report::measure_html};
/// fn save(profile: &Profile) -> std::io::Result<()> {
///     std::fs::write("machine.html", measure_html(profile))
/// }
/// ```
#[must_use]
pub fn measure_html(profile: &Profile) -> String {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = measured(profile);
    let page = environment.render_named_str("machine.html", include_str!("machine.html"), values);
    printable(&page.expect("the template is compiled in and its tests fill every branch"))
}

fn measured(profile: &Profile) -> Value {
    let facts = super::machine::facts(profile).into_iter();
    let facts = facts.map(|[label, value, remark]| context! { label, value, remark });
    let tables = super::machine::tables(profile).into_iter().map(|table| {
        let (heading, heads) = (table.heading, table.heads);
        let remark = table.remark.replace('\n', "; ");
        context! { heading, heads, n_words => table.n_words, rows => table.rows, remark }
    });
    context! {
        name => &profile.machine.name,
        version => env!("CARGO_PKG_VERSION"),
        style => style(),
        cards => machine_cards(profile),
        roofline => Value::from_safe_string(machine_svg(profile, None)),
        facts => facts.collect::<Vec<Value>>(),
        tables => tables.collect::<Vec<Value>>(),
        notes => texts(profile.notes.iter()),
    }
}

/// The look that all pages share.
fn style() -> Value {
    Value::from_safe_string(include_str!("page.css").trim_end().to_owned())
}

/// The four figures that people ask for first, of those measured.
fn machine_cards(profile: &Profile) -> Vec<Value> {
    let card = |label: String, figure: String, remark: String| {
        context! { label, figure, remark }
    };
    let mut cards = Vec::new();
    let peaks = profile
        .formats()
        .into_iter()
        .filter_map(|format| Some((format, profile.compute_rate(format, ComputeKind::Peak)?)));
    let fastest = profile.compute_rate("fp32", ComputeKind::Peak);
    cards.extend(fastest.map(|rate| {
        let figure = operations("fp32", rate.flops_per_s.median);
        card("fp32 peak".to_owned(), figure, plural(rate.threads as usize, "thread"))
    }));
    let highest = peaks.filter(|(format, _)| *format != "fp32");
    let highest = highest.max_by(|a, b| a.1.flops_per_s.median.total_cmp(&b.1.flops_per_s.median));
    cards.extend(highest.map(|(format, rate)| {
        let figure = operations(format, rate.flops_per_s.median);
        card(format!("{format} peak"), figure, plural(rate.threads as usize, "thread"))
    }));
    cards.extend(profile.read_rate(MemoryLevel::Dram).map(|rate| {
        let figure = BytesPerSec(rate.bytes_per_s.median).to_string();
        card("Main memory, read".to_owned(), figure, plural(rate.threads as usize, "thread"))
    }));
    cards.extend(profile.machine.clock_hz.map(|clock| {
        let said = profile.machine.os_clock_hz.map(|said| format!("the system says {said}"));
        card("Clock, measured".to_owned(), clock.to_string(), said.unwrap_or_default())
    }));
    cards
}

/// Control characters have no place in HTML (names in model files may hold any).
fn printable(page: &str) -> String {
    let is_allowed = |letter: char| !letter.is_control() || letter == '\n';
    page.chars().map(|letter| if is_allowed(letter) { letter } else { '\u{fffd}' }).collect()
}

fn page(report: &EstimateReport) -> Value {
    let (count, estimate) = (&report.count, &report.estimate);
    let n_unknown: usize = count.unknown.iter().map(|unknown| unknown.count).sum();
    let unknown = count.unknown.iter().map(|unknown| {
        context! {
            operator => &unknown.operator,
            count => unknown.count,
            node => &unknown.node,
            module => unknown.module.as_deref().unwrap_or_default(),
            reason => &unknown.reason,
        }
    });
    context! {
        model => &count.model,
        version => env!("CARGO_PKG_VERSION"),
        style => style(),
        bindings => bindings(count),
        cards => cards(report),
        n_unknown => plural(n_unknown, "node"),
        unknown => unknown.collect::<Vec<Value>>(),
        roofline => Value::from_safe_string(roofline_svg(report)),
        ridge => ridge(estimate),
        bounds => bounds(estimate),
        costliest => costliest(&report.costliest),
        totals => count.counted.as_ref().map(|counted| totals(count, counted)).unwrap_or_default(),
        formulas => formulas(count),
        symbols => count.symbols.iter().map(|symbol| symbol_row(count, symbol)).collect::<Vec<_>>(),
        machine => machine(report),
        assumptions => texts(estimate.assumptions.iter().map(|assumption| &assumption.text)),
        notes => texts(count.notes.iter().map(|note| &note.text)),
        nodes_summary => nodes_summary(count.nodes.len()),
        nodes => nodes(&count.nodes, &estimate.nodes),
    }
}

fn texts<'t>(texts: impl Iterator<Item = &'t String>) -> Vec<Value> {
    texts.map(Value::from).collect()
}

/// `batch = 1 (assumed)`, or nothing for a model without symbols.
fn bindings(count: &CountReport) -> String {
    let given = count.bindings.iter().map(|(name, value)| format!("{name} = {value}"));
    let assumed = count.assumed.iter().map(|(name, value)| format!("{name} = {value} (assumed)"));
    given.chain(assumed).collect::<Vec<String>>().join(", ")
}

fn cards(report: &EstimateReport) -> Vec<Value> {
    let estimate = &report.estimate;
    let card = |label: &str, least: &str, figure: String, remark: String| {
        let least = if report.count.is_lower_bound { least } else { "" };
        context! { label, least, figure, remark }
    };
    let samples = SamplesPerSec(report.batch as f64 * estimate.passes.0);
    let longest = estimate.time_by_bound.get(&estimate.bound);
    let limited = longest.map(|time| {
        format!("{} of the time is in nodes that wait for it", percent(*time / estimate.time))
    });
    let batch = if report.batch == 1 { "sample" } else { "samples" };
    vec![
        card(
            "Time",
            "at least",
            estimate.time.to_string(),
            format!("one forward pass of {} {batch}", report.batch),
        ),
        card("Throughput", "at most", samples.to_string(), format!("{} a pass", report.batch)),
        card(
            "Share of peak (MFU)",
            "counted part:",
            percent(estimate.share_of_peak),
            format!("{} of {}", estimate.achieved, estimate.rates.peak),
        ),
        card(
            "Limited by",
            "counted part:",
            estimate.bound.name().to_owned(),
            limited.unwrap_or_default(),
        ),
    ]
}

/// On which side of the ridge the whole model is.
fn ridge(estimate: &Estimate) -> String {
    let side = if estimate.intensity < estimate.ridge_point { "below" } else { "above" };
    format!(
        "The model as a whole does {}, {side} the machine's ridge point of {}.",
        estimate.intensity, estimate.ridge_point
    )
}

fn bounds(estimate: &Estimate) -> Vec<Value> {
    let spent = estimate.time_by_bound.iter().filter(|(_, time)| 0.0 < time.0);
    let rows = spent.map(|(bound, time)| {
        let share = *time / estimate.time;
        context! {
            name => bound.name(),
            time => time.to_string(),
            share => percent(share),
            width => width(share),
            n_nodes => estimate.nodes.iter().filter(|node| node.bound == *bound).count(),
            meaning => meaning(*bound),
        }
    });
    rows.collect()
}

fn meaning(bound: Bound) -> &'static str {
    match bound {
        Bound::Compute => "arithmetic takes longer than traffic",
        Bound::Memory => "traffic to main memory takes longer than arithmetic",
        Bound::Overhead => "starting the kernel takes longer than its work",
        Bound::Nothing => "nothing runs",
    }
}

fn costliest(costliest: &[Costly]) -> Vec<Value> {
    let longest = costliest.iter().map(|row| row.share).fold(0.0, f64::max);
    let rows = costliest.iter().map(|row| {
        context! {
            name => &row.name,
            kind => row.kind.name(),
            n_nodes => row.n_nodes,
            time => row.seconds.to_string(),
            share => percent(row.share),
            width => width(row.share / longest),
            macs => row.counts.macs.to_string(),
            bytes => row.counts.bytes().to_string(),
            bound => row.bound.name(),
        }
    });
    rows.collect()
}

fn totals(count: &CountReport, counted: &Counted) -> Vec<Value> {
    // Weights are summed from the file's tensors: known whatever the operators are.
    let row = |name: &str, short: String, full: String, meaning: &str| {
        context! { name, least => "", short, full, meaning }
    };
    let least_row = |name: &str, short: String, full: String, meaning: &str| {
        context! { name, least => at_least(count), short, full, meaning }
    };
    let Counts { macs, other_ops, transcendental_ops, bytes_read, bytes_written, .. } =
        counted.total;
    let (flops, bytes) = (counted.total.model_flops(), counted.total.bytes());
    let full = |count: u128, unit: &str| format!("{} {unit}", grouped(count));
    let memory = |name: &str, bytes: Bytes, meaning: &str| {
        row(name, bytes.to_string(), full(bytes.0, "B"), meaning)
    };
    let least_memory = |name: &str, bytes: Bytes, meaning: &str| {
        least_row(name, bytes.to_string(), full(bytes.0, "B"), meaning)
    };
    let mut rows = Vec::new();
    if let Some(Stored { parameters, weight_bytes, buffer_bytes }) = count.stored {
        let trained = "trained numbers";
        rows.push(row("parameters", short(parameters), grouped(parameters), trained));
        rows.push(memory("weights", weight_bytes, "the parameters as stored"));
        rows.push(memory("buffers", buffer_bytes, "untrained stored tensors"));
    }
    for [name, each, whole] in super::state::facts(count) {
        rows.push(row(name.trim(), each, whole, "kept from token to token, or active for each"));
    }
    rows.extend([
        least_row("MACs", macs.to_string(), full(macs.0, "MAC"), "multiply-accumulates"),
        least_row("model FLOPs", flops.to_string(), full(flops.0, "FLOP"), "2 per MAC"),
        least_row(
            "other ops",
            other_ops.to_string(),
            full(other_ops.0, "op"),
            "adds, multiplies, compares outside matrix products",
        ),
        least_row(
            "transcendental ops",
            transcendental_ops.to_string(),
            full(transcendental_ops.0, "op"),
            "exp, division, root, erf ...",
        ),
        least_memory("bytes moved", bytes, "read and written, no reuse between nodes"),
        least_memory("read", bytes_read, "operands"),
        least_memory("written", bytes_written, "results"),
        least_memory(
            "peak activations",
            counted.peak_activation_bytes,
            "the most that inputs and results take at once",
        ),
    ]);
    rows
}

fn at_least(count: &CountReport) -> &'static str {
    if count.is_lower_bound { "at least " } else { "" }
}

/// A bare count to four digits: `25.56 M`.
fn short(count: u128) -> String {
    let text = crate::units::Ops(count).to_string();
    text.trim_end_matches("op").trim_end().to_owned()
}

/// The totals that hold a symbol: a number again would say nothing new.
fn formulas(count: &CountReport) -> Vec<Value> {
    let formula = &count.formula;
    let all = [
        ("MACs", &formula.macs),
        ("other ops", &formula.other_ops),
        ("transcendental ops", &formula.transcendental_ops),
        ("bytes read", &formula.bytes_read),
        ("bytes written", &formula.bytes_written),
    ];
    let symbolic = all.into_iter().filter(|(_, text)| text.contains(char::is_alphabetic));
    symbolic.map(|(name, formula)| context! { name, least => at_least(count), formula }).collect()
}

fn symbol_row(count: &CountReport, symbol: &Symbol) -> Value {
    let given = count.bindings.get(&symbol.name);
    let assumed = count.assumed.get(&symbol.name);
    let from = match (given, assumed) {
        (Some(_), _) => "given",
        (None, Some(_)) => "assumed",
        (None, None) => "open",
    };
    let range = match symbol.max {
        Some(max) => format!("{} to {max}", symbol.min),
        None => format!("{} or more", symbol.min),
    };
    context! {
        name => &symbol.name,
        value => given.or(assumed).map(ToString::to_string).unwrap_or_default(),
        from,
        range,
        place => &symbol.place,
    }
}

fn machine(report: &EstimateReport) -> Value {
    let (profile, rates) = (&report.profile, &report.estimate.rates);
    let points = report.estimate.utilisation.as_ref().map(|used| used.points.as_slice());
    let is_used = |rate: &ComputeRate| {
        let is = |wanted: FlopsPerSec| rate.flops_per_s.median.total_cmp(&wanted.0).is_eq();
        match rate.kind {
            ComputeKind::Peak => is(rates.peak),
            ComputeKind::Gemm => match points {
                Some(points) => points.iter().any(|point| {
                    (Some(point.shape), &point.backend) == (rate.shape, &rate.backend)
                        && is(point.rate)
                }),
                None => is(rates.matmul),
            },
            ComputeKind::FmaAdd => false,
        }
    };
    let shown = [profile.read_rate(MemoryLevel::Dram), profile.dram_rate(MemoryOp::Copy)];
    let is_shown = |rate: &MemoryRate| shown.contains(&Some(rate));
    let (used, unused): (Vec<_>, Vec<_>) = profile.compute.iter().partition(|rate| is_used(rate));
    let (copy, other): (Vec<_>, Vec<_>) = profile.memory.iter().partition(|rate| is_shown(rate));
    let compute =
        |rates: Vec<&ComputeRate>| -> Vec<Value> { rates.into_iter().map(compute_row).collect() };
    let memory =
        |rates: Vec<&MemoryRate>| -> Vec<Value> { rates.into_iter().map(memory_row).collect() };
    context! {
        name => &profile.machine.name,
        roofline => Value::from_safe_string(machine_svg(profile, Some(report))),
        facts => facts(profile, &report.estimate),
        rates => [compute(used), memory(copy)].concat(),
        other_rates => [compute(unused), memory(other)].concat(),
        notes => texts(profile.notes.iter()),
    }
}

fn facts(profile: &Profile, estimate: &Estimate) -> Vec<Value> {
    let Host { cpu, logical_cpus, clock_hz, os_clock_hz, isa, memory_bytes, os, .. } =
        &profile.machine;
    let measured = clock_hz.map(|clock| format!("{clock} measured"));
    let said = os_clock_hz.map(|clock| format!("{clock} according to the operating system"));
    let clock: Vec<String> = measured.into_iter().chain(said).collect();
    let memory = memory_bytes.map(|bytes| Bytes(u128::from(bytes)).to_string());
    let fact = |label: &str, value: String| context! { label, value };
    let mut facts = vec![
        fact("processor", cpu.clone()),
        fact("logical CPUs used", logical_cpus.to_string()),
        fact("instruction set", isa.clone()),
    ];
    if !clock.is_empty() {
        facts.push(fact("clock", clock.join("; ")));
    }
    if let Some(memory) = memory {
        facts.push(fact("memory", memory));
    }
    let (ridge, rates) = (estimate.ridge_point, &estimate.rates);
    let ridge = format!(
        "{ridge}: peak {} over {} of memory read; below it a kernel waits for memory",
        rates.peak, rates.bandwidth
    );
    facts.push(fact("ridge point", ridge));
    facts.push(fact("operating system", os.clone()));
    let host = &profile.machine;
    facts.push(fact(
        "measured",
        format!("{}, flopwise {}", host.measured_at, host.flopwise_version),
    ));
    facts
}

fn compute_row(rate: &ComputeRate) -> Value {
    let name = match rate.kind {
        ComputeKind::Peak => format!("{} instruction peak", rate.format),
        ComputeKind::FmaAdd => format!("{} multiply-adds and adds", rate.format),
        ComputeKind::Gemm => format!("{} GEMM", rate.format),
    };
    let mut how = vec![plural(rate.threads as usize, "thread"), rate.backend.clone()];
    how.extend(rate.shape.map(|[m, n, k]| format!("{m} x {n} x {k}")));
    how.extend(rate.fraction_of_peak.map(|share| format!("{} of peak", percent(share))));
    let share = rate.fraction_of_roofline;
    how.extend(share.map(|share| format!("{} of the roofline", percent(share))));
    let unit = if is_integer(&rate.format) { "op" } else { "FLOP" };
    how.extend(rate.flops_per_cycle.map(|flops| format!("{flops:.2} {unit}/cycle/thread")));
    rate_row(name, how, &rate.flops_per_s, |figure| operations(&rate.format, figure))
}

fn memory_row(rate: &MemoryRate) -> Value {
    let arrays = format!("{} arrays", Bytes(u128::from(rate.array_bytes)));
    let mut how = vec![plural(rate.threads as usize, "thread"), arrays];
    if rate.stores == Stores::NonTemporal {
        how.push("stores past the caches".to_owned());
    }
    how.extend(rate.bytes_per_cycle.map(|bytes| format!("{bytes:.1} B/cycle/thread")));
    let name = format!("{} {}", rate.level.name(), rate.op.name());
    rate_row(name, how, &rate.bytes_per_s, |rate| BytesPerSec(rate).to_string())
}

fn rate_row(
    name: String,
    how: Vec<String>,
    sampled: &Sampled,
    print: impl Fn(f64) -> String,
) -> Value {
    context! {
        name,
        how => how.join(", "),
        median => print(sampled.median),
        best => print(sampled.best),
        kept => format!("{} of {}", sampled.samples, sampled.taken),
        spread => percent(sampled.spread),
    }
}

fn nodes_summary(n_nodes: usize) -> String {
    if n_nodes <= MAX_NODES {
        return format!("All {}, in order", plural(n_nodes, "node"));
    }
    format!("The first {} of {} nodes, in order", grouped_size(MAX_NODES), grouped_size(n_nodes))
}

fn nodes(rows: &[NodeRow], estimates: &[NodeEstimate]) -> Vec<Value> {
    let mut estimate_of: Vec<Option<&NodeEstimate>> = vec![None; rows.len()];
    for estimate in estimates {
        if let Some(place) = estimate_of.get_mut(estimate.node.0) {
            *place = Some(estimate);
        }
    }
    let shown = rows.iter().zip(estimate_of).take(MAX_NODES);
    shown.map(|(row, estimate)| node_row(row, estimate)).collect()
}

fn node_row(row: &NodeRow, estimate: Option<&NodeEstimate>) -> Value {
    let counts = row.counts.as_ref();
    context! {
        name => &row.name,
        op => &row.op,
        module => row.module.as_deref().unwrap_or_default(),
        line => row.line.as_deref().unwrap_or_default(),
        output => row.output.as_ref().map(ToString::to_string).unwrap_or_default(),
        macs => counts.map(|counts| counts.macs.to_string()),
        ops => counts.map(|counts| (counts.other_ops + counts.transcendental_ops).to_string()),
        bytes => counts.map(|counts| counts.bytes().to_string()),
        time => estimate.map(|estimate| estimate.time.to_string()).unwrap_or_default(),
        bound => estimate.map(|estimate| estimate.bound.name()).unwrap_or_default(),
    }
}

/// `1 node`, `2,048 nodes`.
fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped_size(count)) }
}

fn grouped_size(count: usize) -> String {
    grouped(count as u128)
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "no share".to_owned() }
}

/// A CSS percentage.
fn width(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.2}", 100.0 * share)
}
