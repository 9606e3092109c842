//! Memory nodes (NUMA): which there are, and which processors are near them.
//!
//! Not here: caches. A system that does not tell has an unknown number of nodes, not one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Its number in the system.
    pub(super) number: u32,
    /// Its processors, whether this process may use them or not.
    pub(super) cpus: BTreeSet<usize>,
    /// Its memory.
    pub(super) memory_bytes: Option<u64>,
}

/// The nodes of the system in order; empty if it does not tell.
pub(super) fn detect() -> Vec<Node> {
    nodes_in(Path::new("/sys/devices/system/node"))
}

/// Those that the given processors belong to.
pub(super) fn of_cpus<'a>(nodes: &'a [Node], cpus: &[usize]) -> Vec<&'a Node> {
    nodes.iter().filter(|node| cpus.iter().any(|cpu| node.cpus.contains(cpu))).collect()
}

/// The first of `cpus` that belongs to another node than the first of all; `None` if all belong to
/// one, or the system does not tell.
pub(super) fn remote_cpu(nodes: &[Node], cpus: &[usize]) -> Option<usize> {
    let first = cpus.first()?;
    let own = nodes.iter().find(|node| node.cpus.contains(first))?;
    let is_elsewhere = |cpu: &&usize| {
        let mut others = nodes.iter().filter(|node| node.number != own.number);
        others.any(|node| node.cpus.contains(cpu))
    };
    cpus.iter().find(is_elsewhere).copied()
}

/// What several nodes mean for the figures.
pub(super) fn caveat(nodes: &[&Node]) -> Option<String> {
    if nodes.len() < 2 {
        return None;
    }
    let each = nodes.iter().map(|node| {
        let memory = node.memory_bytes.map_or_else(
            || "unknown memory".to_owned(),
            |n_bytes| format!("{:.0} GiB", n_bytes as f64 / f64::from(1 << 30)),
        );
        format!("node {} has {memory}", node.number)
    });
    Some(format!(
        "the processors belong to {} memory nodes ({}): each thread reads memory of its own node, \
         and one thread alone that of the first processor's",
        nodes.len(),
        each.collect::<Vec<_>>().join(", ")
    ))
}

/// In a folder as of `/sys/devices/system/node` (Linux,
/// Documentation/ABI/stable/sysfs-devices-node).
fn nodes_in(folder: &Path) -> Vec<Node> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut nodes: Vec<Node> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let cpus = cpu_list(read("cpulist")?.trim())?;
            let memory_bytes = read("meminfo").and_then(|text| memory_bytes(&text));
            Some(Node { number, cpus, memory_bytes })
        })
        .collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// `Node 0 MemTotal:       24684096 kB`.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.contains(" MemTotal:"))?;
    let (_, kibibytes) = line.split_once(':')?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Lists are no longer than this: a kernel is built for at most 8192 processors.
const MAX_CPUS: usize = 1 << 16;

/// `0-3,8,10-11` as sysfs writes it; the empty text is no processor.
pub(super) fn cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if MAX_CPUS <= last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_parse() {
        let check = |text: &str, expected: Option<&[usize]>| {
            let expected = expected.map(|cpus| cpus.iter().copied().collect());
            assert_eq!(cpu_list(text), expected, "{text}");
        };
        check("0-1", Some(&[0, 1]));
        check("0-3,8,10-11", Some(&[0, 1, 2, 3, 8, 10, 11]));
        check("7", Some(&[7]));
        check("", Some(&[]));
        check("0-x", None);
        check("0-99999999999", None);
    }

    #[test]
    fn nodes_are_read_from_their_folder() {
        let name = format!("flopwise-nodes-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let write = |node: &str, name: &str, text: &str| {
            fs::create_dir_all(folder.join(node)).unwrap();
            fs::write(folder.join(node).join(name), text).unwrap();
        };
        write("node1", "cpulist", "4-7\n");
        write("node0", "cpulist", "0-3\n");
        write("node0", "meminfo", "Node 0 MemTotal:       24 kB\nNode 0 MemFree: 1 kB\n");
        write("node2", "cpulist", "\n"); // memory without processors
        write("power", "cpulist", "0\n");
        let nodes = nodes_in(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let numbers: Vec<_> = nodes.iter().map(|node| (node.number, node.cpus.len())).collect();
        assert_eq!(numbers, [(0, 4), (1, 4), (2, 0)]);
        assert_eq!((nodes[0].memory_bytes, nodes[1].memory_bytes), (Some(24 << 10), None));
        let of = |cpus: &[usize]| of_cpus(&nodes, cpus).len();
        assert_eq!([of(&[]), of(&[1, 2]), of(&[3, 4]), of(&[9])], [0, 1, 2, 0]);
        let remote = |cpus: &[usize]| remote_cpu(&nodes, cpus);
        assert_eq!([remote(&[1, 2, 4, 5]), remote(&[5, 0])], [Some(4), Some(0)]);
        assert_eq!([remote(&[]), remote(&[1, 2]), remote(&[9, 1]), remote(&[1, 9])], [None; 4]);
        assert_eq!(nodes_in(&folder), []);
        let said = caveat(&of_cpus(&nodes, &[0, 4])).unwrap();
        assert!(said.contains("2 memory nodes (node 0 has 0 GiB, node 1 has unknown memory)"));
        assert_eq!(caveat(&of_cpus(&nodes, &[0, 1])), None);
    }
}
