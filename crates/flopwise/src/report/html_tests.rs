//! Tests of the page: every branch of the template is filled by one of them.

use super::super::svg::tests::{assert_balanced, node_row, report};
use super::{MAX_NODES, html};
use crate::graph::{Dim, Kind, Shape, Symbol};
use crate::note::Note;
use crate::report::{EstimateReport, Unknown};
use std::collections::BTreeMap;

/// Elements without an end tag.
const VOID: &[&str] = &["meta", "br"];

fn with_unknown() -> EstimateReport {
    let mut report = report();
    report.count.is_lower_bound = true;
    report.count.unknown = vec![Unknown {
        operator: "my::op".to_owned(),
        node: "op_1".to_owned(),
        module: None,
        count: 3,
        reason: "no rule for it".to_owned(),
    }];
    report.count.nodes[2].counts = None;
    report
}

#[test]
fn the_page_holds_the_answer() {
    let page = html(&report());
    assert_balanced(&page, VOID);
    for figure in [
        "<h1>tiny on box</h1>",
        "1.172 ms",
        "853.2 samples/s",
        "75.0 %",
        "155.3 GFLOP/s of 207 GFLOP/s",
        "compute",
        "182,000,000 FLOP",
        "ridge 6.9 FLOP/B",
        "3.2 GHz measured; 2.4 GHz according to the operating system",
        "38 of 40",
        "2 more measured rates",
        "a busy neighbour",
        "nothing is fused",
        "All 3 nodes, in order",
        "net.py:7",
    ] {
        assert!(page.replace("&#x2f;", "/").contains(figure), "{figure}");
    }
    assert!(!page.to_lowercase().contains("at least"));
}

#[test]
fn a_lower_bound_is_said_to_be_one() {
    let page = html(&with_unknown());
    assert_balanced(&page, VOID);
    assert!(page.contains("At least: 3 nodes could not be counted"));
    assert!(page.contains("<span class=\"least\">at least</span> 1.172 ms"));
    assert!(page.contains("at least 182 MFLOP"));
    assert!(page.contains("no rule for it"));
    assert!(page.contains("<td colspan=\"3\">not counted</td>"));
}

#[test]
fn names_are_escaped() {
    let mut report = with_unknown();
    let hostile = "</title><script>alert(\"&'\")</script>\u{0}{{ 7 * 191 }}";
    let text = || hostile.to_owned();
    report.count.model = text();
    report.count.notes = vec![Note::new(hostile)];
    report.count.unknown[0].operator = text();
    report.count.nodes[0].name = text();
    report.count.nodes[1].output = Some(Shape(vec![Dim::symbol(hostile)]));
    report.costliest[0].name = text();
    report.points[0].name = text();
    report.profile.machine.cpu = text();
    report.profile.machine.name = text();
    report.profile.notes = vec![text()];
    let page = html(&report);
    assert_balanced(&page, VOID);
    assert!(!page.contains("<script"));
    assert!(!page.contains("1337"));
    assert!(!page.contains('\u{0}'));
    assert!(page.contains("<h1>&lt;&#x2f;title&gt;&lt;script&gt;"));
}

#[test]
fn symbols_and_formulas() {
    let mut report = report();
    let symbol = |name: &str, max| Symbol {
        name: name.to_owned(),
        aliases: Vec::new(),
        min: 1,
        max,
        place: "dim 0 of input x".to_owned(),
        at_most: None,
    };
    report.count.symbols =
        vec![symbol("batch", Some(4096)), symbol("seq", None), symbol("k", None)];
    report.count.bindings = BTreeMap::from([("seq".to_owned(), 256)]);
    report.count.assumed = BTreeMap::from([("batch".to_owned(), 1)]);
    report.count.formula.macs = "91000000*batch".to_owned();
    let page = html(&report);
    assert_balanced(&page, VOID);
    assert!(page.contains("at seq = 256, batch = 1 (assumed):"));
    assert!(page.contains("<code>91000000*batch</code>"));
    assert!(!page.contains("<code>3000</code>"), "a formula without a symbol is a number");
    assert!(page.contains("<td>assumed</td><td>1 to 4096</td>"));
    assert!(page.contains("<td>given</td><td>1 or more</td>"));
    assert!(page.contains("<td>open</td>"));
}

#[test]
fn next_to_nothing() {
    let mut report = report();
    report.count.counted = None;
    report.count.nodes.clear();
    report.points.clear();
    report.costliest.clear();
    report.estimate.nodes.clear();
    report.estimate.time_by_bound.clear();
    report.estimate.assumptions.clear();
    report.estimate.share_of_peak = f64::NAN;
    let profile = &mut report.profile;
    (profile.compute, profile.memory, profile.notes) = (Vec::new(), Vec::new(), Vec::new());
    let machine = &mut profile.machine;
    (machine.clock_hz, machine.os_clock_hz, machine.memory_bytes) = (None, None, None);
    let page = html(&report);
    assert_balanced(&page, VOID);
    assert!(page.contains("No totals in numbers"));
    assert!(page.contains("<li>nothing</li>"));
    assert!(!page.contains("more measured rates"));
}

#[test]
fn a_node_may_lack_what_its_file_does_not_say() {
    let mut report = report();
    let row = &mut report.count.nodes[0];
    (row.module, row.line, row.output) = (None, None, None);
    report.count.nodes[1].module = None;
    report.estimate.nodes.remove(1);
    let page = html(&report);
    assert_balanced(&page, VOID);
}

#[test]
fn many_nodes_are_cut_and_it_is_said() {
    let mut report = report();
    report.count.nodes = vec![node_row(("n", Kind::MatMul), None); MAX_NODES + 1];
    let page = html(&report);
    assert!(page.contains("The first 2,000 of 2,001 nodes, in order"));
    assert_eq!(page.matches("not counted</td>").count(), MAX_NODES);
}

#[test]
fn nothing_is_fetched() {
    let page = html(&with_unknown()).replace("http://www.w3.org/2000/svg", "");
    for fetching in ["http:", "https:", "src=", "url(", "@import", "<link", "<script", "href="] {
        assert!(!page.contains(fetching), "{fetching}");
    }
}
