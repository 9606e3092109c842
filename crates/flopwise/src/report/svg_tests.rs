//! Tests of the roofline drawing, and the report that they and those of the page are made on.

use super::{BOTTOM, LEFT, MAX_MARKS, RIGHT, TOP, roofline_svg};
use crate::cost::{Counts, Stored};
use crate::estimate::{Assumption, Bound, Estimate, NodeEstimate, Rates};
use crate::graph::{Kind, NodeId, Shape};
use crate::machine::Profile;
use crate::report::{
    Costly, CountReport, Counted, EstimateReport, Formula, Grouping, NodeRow, Point,
};
use crate::units::{
    Bytes, BytesPerSec, FlopsPerByte, FlopsPerSec, Macs, Ops, SamplesPerSec, Seconds,
};
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use std::collections::BTreeMap;

const PROFILE: &str = r#"{
    "schema": 2, "kind": "measure",
    "machine": {
        "name": "box", "cpu": "A CPU", "logical_cpus": 2, "clock_hz": 3.2e9, "os_clock_hz": 2.4e9,
        "isa": "avx2+fma", "memory_bytes": 8589934592, "os": "linux x86_64",
        "measured_at": "2026-11-23T13:38:00Z", "flopwise_version": "0.1.0"
    },
    "compute": [
        {"format": "fp32", "kind": "peak", "backend": "asm-avx2-fma", "threads": 2, "shape": null,
         "flops_per_s": {"median": 2.07e11, "best": 2.1e11, "samples": 38, "taken": 40,
                         "spread": 0.01, "interval": [2.07e11, 2.07e11]},
         "fraction_of_peak": null, "flops_per_cycle": 32.0},
        {"format": "fp32", "kind": "gemm", "backend": "gemm", "threads": 2,
         "shape": [2048, 2048, 2048],
         "flops_per_s": {"median": 1.8e11, "best": 1.9e11, "samples": 37, "taken": 40,
                         "spread": 0.02, "interval": [1.8e11, 1.8e11]},
         "fraction_of_peak": 0.87, "flops_per_cycle": 28.0},
        {"format": "fp64", "kind": "peak", "backend": "asm-avx2-fma", "threads": 1, "shape": null,
         "flops_per_s": {"median": 5e10, "best": 5e10, "samples": 40, "taken": 40,
                         "spread": 0.0, "interval": [5e10, 5e10]},
         "fraction_of_peak": null, "flops_per_cycle": null}
    ],
    "memory": [
        {"level": "DRAM", "op": "read", "threads": 2, "array_bytes": 268435456,
         "bytes_per_s": {"median": 3e10, "best": 3.1e10, "samples": 30, "taken": 40,
                         "spread": 0.04, "interval": [3e10, 3e10]}},
        {"level": "L1", "op": "read", "threads": 2, "array_bytes": 16384,
         "bytes_per_s": {"median": 4e11, "best": 4e11, "samples": 40, "taken": 40,
                         "spread": 0.0, "interval": [4e11, 4e11]}}
    ],
    "notes": ["a busy neighbour"]
}"#;

/// A convolution, a matrix product and an activation on a small machine.
pub(crate) fn report() -> EstimateReport {
    let profile = Profile::from_json(PROFILE).unwrap();
    let names = [("conv", Kind::Convolution), ("fc", Kind::MatMul), ("relu", Kind::Activation)];
    let counts = [counts(90_000_000, 1_800_000), counts(1_000_000, 4_004_000), counts(0, 800_000)];
    let bounds = [(1e-3, Bound::Compute), (1.4e-4, Bound::Memory), (3.2e-5, Bound::Memory)];
    let total: Counts = counts.into_iter().sum();
    let nodes = names.iter().zip(counts).map(|(name, counts)| node_row(*name, Some(counts)));
    let points = names.iter().zip(counts).zip(bounds).take(2);
    let points = points.map(|(((name, kind), counts), (seconds, bound))| Point {
        name: (*name).to_owned(),
        kind: *kind,
        intensity: counts.model_flops() / counts.bytes(),
        rate: counts.model_flops() / Seconds(seconds),
        seconds: Seconds(seconds),
        bound,
        utilisation: None,
    });
    let estimate = estimate(total, bounds);
    let costliest = Costly {
        name: "layer.conv".to_owned(),
        kind: Kind::Convolution,
        n_nodes: 1,
        counts: counts[0],
        seconds: Seconds(1e-3),
        share: Seconds(1e-3) / estimate.time,
        bound: Bound::Compute,
    };
    let (nodes, points) = (nodes.collect(), points.collect());
    EstimateReport {
        count: count_report(nodes, total),
        profile,
        estimate,
        batch: 1,
        costliest: vec![costliest],
        points,
    }
}

fn counts(macs: u128, bytes: u128) -> Counts {
    Counts { macs: Macs(macs), other_ops: Ops(1000), bytes_read: Bytes(bytes), ..Counts::default() }
}

pub(crate) fn node_row((name, kind): (&str, Kind), counts: Option<Counts>) -> NodeRow {
    NodeRow {
        name: name.to_owned(),
        op: kind.name().to_owned(),
        operator: format!("aten.{name}"),
        kind,
        module: Some(format!("layer.{name}")),
        line: Some("net.py:7".to_owned()),
        output: Some(Shape::of(&[1, 64])),
        counts,
    }
}

fn count_report(nodes: Vec<NodeRow>, total: Counts) -> CountReport {
    let text = |text: &str| text.to_owned();
    CountReport {
        model: text("tiny"),
        inputs: Vec::new(),
        outputs: Vec::new(),
        symbols: Vec::new(),
        bindings: BTreeMap::new(),
        assumed: BTreeMap::new(),
        formula: Formula {
            macs: text("91000000"),
            other_ops: text("3000"),
            transcendental_ops: text("0"),
            bytes_read: text("6604000"),
            bytes_written: text("0"),
        },
        stored: Some(Stored {
            parameters: 1_000_000,
            weight_bytes: Bytes(4_000_000),
            buffer_bytes: Bytes(128),
        }),
        active: None,
        state: None,
        memory: None,
        counted: Some(Counted { total, peak_activation_bytes: Bytes(1_600_000), rows: Vec::new() }),
        is_lower_bound: false,
        unknown: Vec::new(),
        grouping: Grouping::Kind,
        modules: Vec::new(),
        depth: None,
        nodes,
        notes: Vec::new(),
    }
}

fn estimate(total: Counts, bounds: [(f64, Bound); 3]) -> Estimate {
    let nodes = bounds.iter().enumerate().map(|(node_idx, (seconds, bound))| NodeEstimate {
        node: NodeId(node_idx),
        compute: Seconds(*seconds),
        memory: Seconds(*seconds),
        overhead: Seconds(0.0),
        time: Seconds(*seconds),
        bound: *bound,
        intensity: None,
        utilisation: None,
    });
    let time = bounds.iter().map(|(seconds, _)| Seconds(*seconds)).sum();
    let rates = Rates {
        peak: FlopsPerSec(2.07e11),
        matmul: FlopsPerSec(1.8e11),
        vector: FlopsPerSec(1.035e11),
        bandwidth: BytesPerSec(3e10),
    };
    let achieved = total.model_flops() / time;
    Estimate {
        machine: "box".to_owned(),
        rates,
        utilisation: None,
        nodes: nodes.collect(),
        time,
        passes: SamplesPerSec(1.0 / time.0),
        achieved,
        share_of_peak: achieved / rates.peak,
        intensity: total.model_flops() / total.bytes(),
        ridge_point: rates.peak / rates.bandwidth,
        time_by_bound: [(Bound::Compute, Seconds(1e-3)), (Bound::Memory, Seconds(1.72e-4))].into(),
        bound: Bound::Compute,
        assumptions: vec![Assumption { text: "nothing is fused".to_owned() }],
    }
}

/// Every element that is opened is closed, in order; attributes are quoted, `&` starts an entity.
pub(crate) fn assert_balanced(markup: &str, void: &[&str]) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some((text, after)) = rest.split_once('<') {
        assert_entities(text);
        let (tag, after) = after.split_once('>').expect("a tag is closed");
        rest = after;
        if tag.starts_with('!') {
            continue;
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes in <{tag}>");
        assert_entities(tag);
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed");
            continue;
        }
        let name = tag.split([' ', '\n']).next().expect("split gives one part");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{tag}>");
        if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
}

fn assert_entities(text: &str) {
    for after in text.split('&').skip(1) {
        let entity = after.split_once(';').map(|(entity, _)| entity);
        let known = ["lt", "gt", "amp", "quot", "#39", "#x27", "#x2f"];
        assert!(entity.is_some_and(|entity| known.contains(&entity)), "&{after}");
    }
}

/// Centre and extent of every mark, and the view box they must lie in.
fn assert_marks_inside(svg: &str) {
    let view_box = attribute(svg, "viewBox").expect("an svg has a view box");
    let view_box: Vec<f64> = view_box.split(' ').map(|side| side.parse().unwrap()).collect();
    let marks = svg.lines().filter(|line| line.contains("class=\"mark"));
    for mark in marks {
        let corners = match attribute(mark, "points") {
            Some(points) => points.split([' ', ',']).map(|side| side.parse().unwrap()).collect(),
            None => {
                let [x, y, r]: [f64; 3] = ["cx", "cy", "r"]
                    .map(|name| attribute(mark, name).expect("a circle").parse().unwrap());
                vec![x - r, y - r, x + r, y + r]
            }
        };
        for corner in corners.chunks(2) {
            assert!((0.0..=view_box[2]).contains(&corner[0]), "{mark}");
            assert!((0.0..=view_box[3]).contains(&corner[1]), "{mark}");
        }
    }
}

pub(crate) fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = tag.split_once(&format!(" {name}=\""))?;
    after.split_once('"').map(|(value, _)| value)
}

fn point(kind: Kind, intensity: f64, rate: f64) -> Point {
    Point {
        name: "n".to_owned(),
        kind,
        intensity: FlopsPerByte(intensity),
        rate: FlopsPerSec(rate),
        seconds: Seconds(1e-6),
        bound: Bound::Memory,
        utilisation: None,
    }
}

#[test]
fn every_text_of_a_small_roofline() {
    let svg = roofline_svg(&report());
    let texts = svg.lines().filter(|line| line.starts_with("<text"));
    let texts: Vec<&str> = texts.map(|line| line.split(['<', '>']).nth(2).unwrap()).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    1
    10
    100
    10 GFLOP/s
    100 GFLOP/s
    arithmetic intensity, FLOP per byte of memory traffic
    peak 207 GFLOP/s
    GEMM 180 GFLOP/s
    ridge 6.9 FLOP/B
    memory read 30 GB/s
    matmul
    convolution
    whole model: 155.3 GFLOP/s at 27.56 FLOP/B
    A mark: a node that computes, or several alike (2 per MAC, 1 per other op); its area: share of time.
    ");
}

#[test]
fn hostile_names_are_escaped() {
    let mut report = report();
    let hostile = "</title><script>alert(\"&'\")</script>\u{0}\u{1b}[1m\u{ffff}";
    report.count.model = hostile.to_owned();
    report.estimate.machine = hostile.to_owned();
    report.points[0].name = hostile.repeat(50);
    let svg = roofline_svg(&report);
    assert_balanced(&svg, &[]);
    assert!(!svg.contains("<script"));
    assert!(svg.contains("&lt;script&gt;alert(&quot;&amp;&#39;&quot;)"));
    assert!(!svg.contains(['\u{0}', '\u{1b}', '\u{ffff}']));
    assert!(svg.len() < 10_000, "long names are cut: {} bytes", svg.len());
}

#[test]
fn points_of_a_kind_on_one_pixel_are_one_mark() {
    let mut report = report();
    report.points = vec![point(Kind::MatMul, 10.0, 1e9); 7];
    report.points.push(point(Kind::Convolution, 10.0, 1e9));
    report.points[3].seconds = Seconds(2e-6);
    let svg = roofline_svg(&report);
    assert_eq!(svg.matches("bound by memory\n").count(), 2, "{svg}");
    assert!(svg.contains("with 6 more of the same kind at this place: 8 µs in all"), "{svg}");
}

#[test]
fn without_points() {
    let mut report = report();
    report.points.clear();
    let svg = roofline_svg(&report);
    assert_balanced(&svg, &[]);
    assert!(svg.contains("ridge 6.9 FLOP/B"));
    assert!(svg.contains("No node with multiply-accumulates to draw."));
}

#[test]
fn without_a_machine() {
    let mut report = report();
    for peak in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        report.estimate.rates.peak = FlopsPerSec(peak);
        let svg = roofline_svg(&report);
        assert_balanced(&svg, &[]);
        assert!(svg.contains("No roofline"));
    }
}

#[test]
fn what_is_not_drawn_is_said() {
    let mut report = report();
    report.points = (0..2_500_u32)
        .map(|idx| {
            let (column, row) = (f64::from(idx / 50), f64::from(idx % 50));
            point(Kind::MatMul, 10f64.powf(column / 10.0 - 2.0), 10f64.powf(row / 10.0 + 6.0))
        })
        .collect();
    report.points.push(point(Kind::MatMul, f64::NAN, 1e9));
    report.points.push(point(Kind::MatMul, 1e300, 1e9));
    let svg = roofline_svg(&report);
    assert_marks_inside(&svg);
    assert!(svg.contains("Drawn: the 2,000 longest of 2,501 marks."));
    assert!(svg.contains("Beyond the axes, drawn at their edge: 1 of 2,502 nodes."));
    assert!(svg.contains("Without a finite rate, not drawn: 1 of 2,502 nodes."));
    assert_eq!(svg.matches("<title>n\n").count(), MAX_MARKS);
}

#[test]
fn a_mark_that_takes_all_the_time_stays_inside() {
    let mut report = report();
    let (low, high) = (point(Kind::MatMul, 1e-300, 1e-300), point(Kind::Softmax, 1e300, 1e300));
    for mut point in [low, high] {
        point.seconds = Seconds(f64::INFINITY);
        assert_marks_inside(&roofline_svg(&EstimateReport {
            points: vec![point.clone()],
            ..report.clone()
        }));
        point.seconds = report.estimate.time;
        report.points = vec![point];
        assert_marks_inside(&roofline_svg(&report));
    }
}

/// Figures of a roofline as found, and as no machine has them.
fn figure() -> impl Strategy<Value = f64> {
    prop_oneof![3 => (-12.0..18.0).prop_map(|power: f64| 10f64.powf(power)), 1 => any::<f64>()]
}

const KINDS: [Kind; 4] = [Kind::Convolution, Kind::MatMul, Kind::Softmax, Kind::Movement];

proptest! {
    #[test]
    fn any_figures_are_drawn_inside(
        peak in figure(),
        matmul in figure(),
        bandwidth in figure(),
        places in prop::collection::vec((0..KINDS.len(), figure(), figure()), 0..20),
    ) {
        let mut report = report();
        let rates = &mut report.estimate.rates;
        rates.peak = FlopsPerSec(peak);
        rates.matmul = FlopsPerSec(matmul);
        rates.bandwidth = BytesPerSec(bandwidth);
        report.points = places.iter().map(|(idx, x, y)| point(KINDS[*idx], *x, *y)).collect();
        let svg = roofline_svg(&report);
        assert_balanced(&svg, &[]);
        assert_marks_inside(&svg);
        assert!(!svg.contains("\"NaN") && !svg.contains(",NaN") && !svg.contains(",inf"), "{svg}");
        if let Some(roof) = svg.lines().find(|line| line.starts_with("<polyline")) {
            let sides = attribute(roof, "points").unwrap().split([' ', ',']);
            let sides: Vec<f64> = sides.map(|side| side.parse().unwrap()).collect();
            // The slope's label has 45 % of the width, the ridge's a line above the roof.
            assert!(LEFT + 0.44 * (RIGHT - LEFT) < sides[2] && sides[2] < RIGHT - 60.0, "{roof}");
            assert!(TOP + 22.0 < sides[3] && sides[1] <= BOTTOM, "{roof}");
        }
    }
}
