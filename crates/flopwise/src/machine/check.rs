//! Which numbers a profile may hold. A file may come from anywhere, and every rate is divided by.
//!
//! Not here: the form of the file (`profile.rs`).

use super::{ComputeRate, Latency, MemoryRate, Profile, Sampled};

/// The first number that no machine has, with its place.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    check_host(profile)?;
    for rate in &profile.compute {
        check_compute(rate).map_err(|flaw| format!("{flaw} of `{}`", compute_place(rate)))?;
    }
    for rate in &profile.memory {
        let place = format!("{} {}", rate.level.name(), rate.op.name());
        check_memory(rate).map_err(|flaw| format!("{flaw} of `{place}`"))?;
    }
    for latency in &profile.latency {
        let place = format!("{} latency", latency.level.name());
        check_latency(latency).map_err(|flaw| format!("{flaw} of `{place}`"))?;
    }
    for probe in &profile.probes {
        if !probe.value.is_finite() {
            return Err(format!("the value {} of the probe `{}`", probe.value, probe.name));
        }
    }
    Ok(())
}

fn compute_place(rate: &ComputeRate) -> String {
    format!("{} {}", rate.format, rate.backend)
}

fn check_host(profile: &Profile) -> Result<(), String> {
    let host = &profile.machine;
    positive("the measured clock", host.clock_hz.map(|clock| clock.0))?;
    positive("the system's clock", host.os_clock_hz.map(|clock| clock.0))?;
    counted("logical_cpus", Some(u64::from(host.logical_cpus)))?;
    counted("numa_nodes", host.numa_nodes.map(u64::from))?;
    counted("memory_bytes", host.memory_bytes)?;
    for cache in &host.caches {
        let in_cache = |flaw: String| format!("{flaw} of the {} cache", cache.level.name());
        counted("os_bytes", cache.os_bytes).map_err(in_cache)?;
        counted("measured_bytes", cache.measured_bytes).map_err(in_cache)?;
        counted("shared_by", cache.shared_by.map(u64::from)).map_err(in_cache)?;
    }
    Ok(())
}

fn check_compute(rate: &ComputeRate) -> Result<(), String> {
    check_sampled(&rate.flops_per_s)?;
    counted("threads", Some(u64::from(rate.threads)))?;
    counted("chains", rate.chains.map(u64::from))?;
    for length in rate.shape.into_iter().flatten() {
        counted("a length of the shape", Some(length))?;
    }
    positive("fraction_of_peak", rate.fraction_of_peak)?;
    positive("fraction_of_roofline", rate.fraction_of_roofline)?;
    positive("flops_per_cycle", rate.flops_per_cycle)
}

fn check_memory(rate: &MemoryRate) -> Result<(), String> {
    check_sampled(&rate.bytes_per_s)?;
    counted("threads", Some(u64::from(rate.threads)))?;
    positive("bytes_per_cycle", rate.bytes_per_cycle)?;
    rate.range.map_or(Ok(()), |range| ordered("range", range))
}

fn check_latency(latency: &Latency) -> Result<(), String> {
    check_sampled(&latency.loads_per_s)?;
    positive("cycles", latency.cycles)
}

fn check_sampled(sampled: &Sampled) -> Result<(), String> {
    positive("the median", Some(sampled.median))?;
    positive("the best", Some(sampled.best))?;
    if !(sampled.spread.is_finite() && 0.0 <= sampled.spread) {
        return Err(format!("the spread {}", sampled.spread));
    }
    if sampled.taken < sampled.samples {
        let (samples, taken) = (sampled.samples, sampled.taken);
        return Err(format!("{samples} samples kept of {taken} taken"));
    }
    ordered("interval", sampled.interval)
}

/// What is not known may be left open.
fn positive(what: &str, number: Option<f64>) -> Result<(), String> {
    match number {
        Some(number) if !(number.is_finite() && 0.0 < number) => Err(format!("{what} {number}")),
        Some(_) | None => Ok(()),
    }
}

/// Zero stands for nothing that is known: that is written as null.
fn counted(what: &str, count: Option<u64>) -> Result<(), String> {
    if count == Some(0) { Err(format!("{what} 0")) } else { Ok(()) }
}

fn ordered(what: &str, [low, high]: [f64; 2]) -> Result<(), String> {
    positive(what, Some(low))?;
    positive(what, Some(high))?;
    if high < low { Err(format!("{what} from {low} to {high}")) } else { Ok(()) }
}
