//! Who the machine is: names, memory and the clock its operating system claims.
//!
//! Not here: anything measured; caches and memory nodes (`cpu/caches.rs`, `cpu/nodes.rs`). What a
//! system does not tell is `None`.

use flopwise::machine::Host;
use flopwise::units::Hertz;
use std::fs;
use std::path::Path;

/// The machine's own account of itself; measured clock and date are left open.
pub(crate) fn host(n_logical_cpus: u32, isa: &str) -> Host {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let os_clock_mhz = field(&cpuinfo, "cpu MHz").and_then(|text| text.parse::<f64>().ok());
    let cpu = field(&cpuinfo, "model name").map(str::to_owned).or_else(cpu_brand);
    Host {
        name: host_name().unwrap_or_else(|| "localhost".to_owned()),
        cpu: cpu.unwrap_or_else(|| format!("unnamed {} processor", std::env::consts::ARCH)),
        logical_cpus: n_logical_cpus,
        clock_hz: None,
        os_clock_hz: os_clock_mhz.map(|megahertz| Hertz(megahertz * 1e6)),
        isa: isa.to_owned(),
        memory_bytes: meminfo_bytes("MemTotal"),
        caches: Vec::new(),
        numa_nodes: None,
        libraries: Vec::new(),
        os: os_name(),
        measured_at: String::new(),
        flopwise_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Memory that can be taken without pushing anything out, or reaching the limit of a container,
/// where a process that takes more is killed.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    let in_machine = meminfo_bytes("MemAvailable")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // The limits of all groups around this process hold.
    let left = Path::new(group).ancestors().filter_map(|group| {
        let folder = Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").ok()?);
        let read =
            |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // Without a limit the file says `max`.
        Some(read("memory.max")?.saturating_sub(read("memory.current")?))
    });
    left.chain([in_machine]).min()
}

/// Processors' worth of time that control groups let this process have; `None` without a limit. In
/// each period of some milliseconds a group's threads run until its quota is spent (Linux
/// admin-guide: cgroup-v2, cpu.max; cgroup-v1, cpu.cfs_quota_us).
pub(crate) fn quota_cpus() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let is_old = controllers.split(',').any(|name| name == "cpu");
        (is_old || controllers.is_empty()).then_some((is_old, group))
    });
    let of_group = |(is_old, group): (bool, &str)| {
        let root = Path::new(if is_old { "/sys/fs/cgroup/cpu" } else { "/sys/fs/cgroup" });
        // The limits of all groups around this process hold.
        let folders = Path::new(group).ancestors().filter_map(|group| {
            let folder = root.join(group.strip_prefix("/").ok()?);
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            match is_old {
                true => {
                    quota(&format!("{} {}", read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?))
                }
                false => quota(&read("cpu.max")?),
            }
        });
        folders.reduce(f64::min)
    };
    limits.filter_map(of_group).reduce(f64::min)
}

/// `50000 100000`, the quota and its period; `max` or a negative quota is none.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().ok());
    let (quota, period) = (numbers.next()??, numbers.next()??);
    (0.0 < quota && 0.0 < period).then_some(quota / period)
}

fn meminfo_bytes(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    field(&text, name)?.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The first `name : value` line's value.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

fn os_name() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let words = [std::env::consts::OS, release.trim(), std::env::consts::ARCH];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(unix)]
fn host_name() -> Option<String> {
    let mut name = [0u8; 256]; // POSIX names have at most 255 bytes
    // SAFETY: `name` is valid for writes of its length.
    let status = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    if status != 0 {
        return None;
    }
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(not(unix))]
fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}

/// The processor's name for itself, for systems without `/proc` (Intel SDM and AMD APM, CPUID
/// leaves 8000_0002 to 8000_0004).
#[cfg(target_arch = "x86_64")]
fn cpu_brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return None;
    }
    let leaves = (0x8000_0002..=0x8000_0004).map(__cpuid);
    let words = leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|&byte| byte != 0).collect();
    let name = String::from_utf8(bytes).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_brand() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_parse() {
        assert_eq!(quota("50000 100000\n"), Some(0.5));
        assert_eq!(quota("300000\n 100000\n"), Some(3.0));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("-1 100000"), None);
        assert_eq!(quota("50000"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC\nmicrocode :\nMemTotal:  24 kB\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC"));
        assert_eq!(field(text, "model"), Some("1"));
        assert_eq!(field(text, "MemTotal"), Some("24 kB"));
        assert_eq!(field(text, "microcode"), None);
        assert_eq!(field(text, "name"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_a_name_and_memory() {
        let host = host(3, "scalar");
        assert_eq!((host.logical_cpus, host.isa.as_str()), (3, "scalar"));
        assert!(host.clock_hz.is_none());
        assert!(available_memory_bytes() <= host.memory_bytes);
    }
}
