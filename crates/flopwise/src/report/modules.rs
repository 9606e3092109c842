//! The modules of a model as a tree: each with what all beneath it costs.
//!
//! Not here: rows that stand beside each other (`groups.rs`).

use super::NodeRow;
use crate::cost::Counts;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Deeper modules are put together with the one at this depth: no model nests so deep, and a path
/// of a million dots would cost as many sums for each node.
const MAX_DEPTH: usize = 32;

/// One module, with all beneath it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleRow {
    /// The path: `layer1.0.conv1`; empty for the model itself.
    pub path: String,
    /// The class, where the file has it: `torch.nn.modules.conv.Conv2d`.
    pub class: Option<String>,
    /// Modules around it.
    pub depth: usize,
    /// Nodes in it and beneath it.
    pub n_nodes: usize,
    /// Their counts.
    pub counts: Counts,
}

/// Modules shown as one row.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedRow {
    /// The last part of the path, or a range of them: `0-31`.
    pub name: String,
    /// The class.
    pub class: Option<String>,
    /// Rows around it.
    pub depth: usize,
    /// How many modules it stands for.
    pub copies: usize,
    /// Nodes in all of them.
    pub n_nodes: usize,
    /// The counts of all of them.
    pub counts: Counts,
}

/// Every module of the nodes, outer ones before those in them, in the order in which they first
/// run. Nodes without a module count to the model itself.
#[must_use]
pub fn modules(nodes: &[NodeRow], classes: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<ModuleRow> {
    let mut tree = Tree::default();
    tree.place("", None, classes);
    for node in nodes {
        let Some(counts) = node.counts else { continue };
        let path = node.module.as_deref().unwrap_or("");
        for place in tree.ways(path, classes) {
            tree.rows[place].n_nodes += 1;
            tree.rows[place].counts = tree.rows[place].counts + counts;
        }
    }
    let mut ordered = Vec::with_capacity(tree.rows.len());
    let mut open = vec![0];
    while let Some(place) = open.pop() {
        ordered.push(tree.rows[place].clone());
        open.extend(tree.children[place].iter().rev());
    }
    ordered
}

#[derive(Default)]
struct Tree {
    rows: Vec<ModuleRow>,
    children: Vec<Vec<usize>>,
    places: HashMap<String, usize>,
    /// The places of each path met, from the model down.
    known: HashMap<String, Vec<usize>>,
}

impl Tree {
    fn place(
        &mut self,
        path: &str,
        around: Option<usize>,
        classes: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> usize {
        if let Some(place) = self.places.get(path) {
            return *place;
        }
        let place = self.rows.len();
        self.rows.push(ModuleRow {
            path: path.to_owned(),
            class: classes.get(path).map(|class| class.to_string()),
            depth: around.map_or(0, |around| self.rows[around].depth + 1),
            n_nodes: 0,
            counts: Counts::default(),
        });
        self.children.push(Vec::new());
        self.places.insert(path.to_owned(), place);
        if let Some(around) = around {
            self.children[around].push(place);
        }
        place
    }

    /// The module at a path and those around it.
    fn ways(&mut self, path: &str, classes: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<usize> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let mut places = vec![0];
        let ends = path.match_indices('.').map(|(dot, _)| dot).take(MAX_DEPTH - 1);
        let ends: Vec<usize> = ends.chain(std::iter::once(path.len())).collect();
        for end in ends.into_iter().filter(|end| 0 < *end) {
            let around = places.last().copied();
            places.push(self.place(&path[..end], around, classes));
        }
        self.known.insert(path.to_owned(), places.clone());
        places
    }
}

/// The tree down to `depth`, with neighbours that are alike (`layers.0` to `layers.31`) as one row.
/// Alike are modules of one class whose counts, and those of all beneath, are the same.
#[must_use]
pub fn folded(rows: &[ModuleRow], depth: usize) -> Vec<FoldedRow> {
    let children = children_of(rows);
    let mut signatures = vec![0u64; rows.len()];
    for place in (0..rows.len()).rev() {
        signatures[place] = signature(&rows[place], &children[place], &signatures, rows);
    }
    let mut shown = Vec::new();
    let mut open: Vec<Vec<usize>> = if rows.is_empty() { Vec::new() } else { vec![vec![0]] };
    while let Some(group) = open.pop() {
        let first = &rows[group[0]];
        shown.push(folded_row(rows, &group));
        if depth <= first.depth {
            continue;
        }
        let mut runs: Vec<Vec<usize>> = Vec::new();
        for (child_idx, child) in children[group[0]].iter().enumerate() {
            // Beside the child of the first module those of the modules like it.
            let all = group.iter().filter_map(|place| children[*place].get(child_idx).copied());
            let before = runs.last().and_then(|run: &Vec<usize>| run.first());
            let is_alike = before.is_some_and(|before| {
                let is_numbered =
                    |place: usize| last_part(&rows[place].path).parse::<u64>().is_ok();
                signatures[*before] == signatures[*child]
                    && is_numbered(*before)
                    && is_numbered(*child)
            });
            match runs.last_mut().filter(|_| is_alike) {
                Some(run) => run.extend(all),
                None => runs.push(all.collect()),
            }
        }
        open.extend(runs.into_iter().rev());
    }
    shown
}

fn children_of(rows: &[ModuleRow]) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); rows.len()];
    let mut around: Vec<usize> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        around.truncate(row.depth);
        if let Some(outer) = around.last() {
            children[*outer].push(place);
        }
        around.push(place);
    }
    children
}

fn signature(row: &ModuleRow, children: &[usize], signatures: &[u64], rows: &[ModuleRow]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let counts = &row.counts;
    (&row.class, row.n_nodes, children.len()).hash(&mut hasher);
    (counts.macs.0, counts.other_ops.0, counts.transcendental_ops.0).hash(&mut hasher);
    (counts.bytes().0, counts.parameters).hash(&mut hasher);
    for child in children {
        (last_part(&rows[*child].path), signatures[*child]).hash(&mut hasher);
    }
    hasher.finish()
}

fn folded_row(rows: &[ModuleRow], group: &[usize]) -> FoldedRow {
    let members = || group.iter().map(|place| &rows[*place]);
    let first = &rows[group[0]];
    let sum = members().fold(Counts::default(), |sum, row| sum + row.counts);
    let own = last_part(&first.path);
    // Members of a run differ in their last part; those beneath a run are like the first.
    let last = members().map(|row| last_part(&row.path)).next_back().unwrap_or(own);
    let name = if own == last { own.to_owned() } else { format!("{own}-{last}") };
    FoldedRow {
        name,
        class: first.class.clone(),
        depth: first.depth,
        copies: group.len(),
        n_nodes: members().map(|row| row.n_nodes).sum(),
        counts: sum,
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Kind;
    use crate::units::Macs;

    fn node(module: &str, macs: u128) -> NodeRow {
        NodeRow {
            name: module.to_owned(),
            op: "matmul".to_owned(),
            operator: "aten.mm.default".to_owned(),
            kind: Kind::MatMul,
            module: (!module.is_empty()).then(|| module.to_owned()),
            line: None,
            output: None,
            counts: Some(Counts { macs: Macs(macs), ..Counts::default() }),
        }
    }

    /// Indented `name xCOPIES macs` of the folded tree.
    fn check(nodes: &[(&str, u128)], depth: usize, expected: &[&str]) {
        let nodes: Vec<NodeRow> = nodes.iter().map(|(module, macs)| node(module, *macs)).collect();
        let rows = modules(&nodes, &BTreeMap::new());
        let shown: Vec<String> = folded(&rows, depth)
            .iter()
            .map(|row| {
                let (indent, name) = ("  ".repeat(row.depth), &row.name);
                format!("{indent}{name} x{} {}", row.copies, row.counts.macs.0)
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_row_is_the_sum_of_all_beneath() {
        let nodes = [("a.b", 3), ("", 1), ("a", 5), ("c", 7), ("a.d", 11)];
        check(&nodes, 9, &[" x1 27", "  a x1 19", "    b x1 3", "    d x1 11", "  c x1 7"]);
        check(&nodes, 1, &[" x1 27", "  a x1 19", "  c x1 7"]);
        check(&[], 9, &[" x1 0"]);
    }

    #[test]
    fn neighbours_alike_are_one_row() {
        let nodes = [
            ("layers.0.q", 2),
            ("layers.0.k", 3),
            ("layers.1.q", 2),
            ("layers.1.k", 3),
            ("layers.2.q", 2),
            ("layers.2.k", 4),
            ("head", 1),
        ];
        let expected = [
            " x1 17",
            "  layers x1 16",
            "    0-1 x2 10",
            "      q x2 4",
            "      k x2 6",
            "    2 x1 6",
            "      q x1 2",
            "      k x1 4",
            "  head x1 1",
        ];
        check(&nodes, 9, &expected);
        // Names that are no numbers stay apart, however alike.
        check(&[("q", 2), ("k", 2)], 9, &[" x1 4", "  q x1 2", "  k x1 2"]);
    }

    #[test]
    fn a_path_of_many_dots_is_bounded() {
        let path = vec!["a"; 100_000].join(".");
        let rows = modules(&[node(&path, 1)], &BTreeMap::new());
        assert!(rows.len() <= MAX_DEPTH + 1, "{}", rows.len());
        assert_eq!(folded(&rows, usize::MAX).len(), rows.len());
    }
}
