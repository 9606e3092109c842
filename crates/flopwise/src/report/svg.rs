//! The roofline as a drawing: every node's rate over its arithmetic intensity, under the
//! machine's memory and compute roofs, as one self-contained SVG.
//!
//! Not here: numbers of its own; each one drawn or written comes from the report.
//! The plot: Williams, Waterman, Patterson 2009, "Roofline".

use super::{EstimateReport, Point};
use crate::graph::Kind;
use crate::units::{FlopsPerByte, FlopsPerSec, Seconds, grouped};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;

#[cfg(test)]
#[path = "svg_tests.rs"]
pub(super) mod tests;

/// User units; a page scales them.
pub(super) const WIDTH: f64 = 820.0;
/// The plot area. Right of it stand the compute roofs' labels, where no mark can be.
pub(super) const LEFT: f64 = 96.0;
pub(super) const RIGHT: f64 = 668.0;
pub(super) const TOP: f64 = 26.0;
pub(super) const BOTTOM: f64 = 392.0;
/// From the plot's lower edge to the legend: tick labels and the axis title.
const AXIS_HEIGHT: f64 = 66.0;
pub(super) const LINE_HEIGHT: f64 = 20.0;
/// The legend's entries stand in columns, which look even in any font.
const COLUMN_WIDTH: f64 = 124.0;
/// Width of a character at 12 units, on the wide side: layout must hold in any sans-serif font.
const CHARACTER_WIDTH: f64 = 7.2;
/// Radius of a mark that holds the whole time. With it 1 % still has a radius of 3 units.
const FULL_RADIUS: f64 = 30.0;
/// Marks stay visible (and can be pointed at) however short their nodes are.
const MIN_RADIUS: f64 = 2.2;
/// Marks drawn: beyond it a browser becomes slow, and on the plot they lie on one another anyway.
const MAX_MARKS: usize = 2000;
/// Decades drawn left and right of the ridge, and below the peak; marks beyond stand at the edge.
const MAX_INTENSITY_DECADES: f64 = 6.0;
const MAX_RATE_DECADES: f64 = 9.0;
/// Characters of a name in a tooltip.
const MAX_NAME: usize = 160;

/// How a kind of operator is drawn. No two share a shape, so that colour is never needed.
struct Style {
    shape: Shape,
    light: &'static str,
    dark: &'static str,
}

#[derive(Clone, Copy)]
enum Shape {
    Circle,
    /// A regular polygon; its first corner points up, turned clockwise by this angle.
    Polygon(u32, f64),
}

/// Every kind's mark. Colours: 4.5:1 on the ground they are drawn on.
fn style(kind: Kind) -> Style {
    let (shape, light, dark) = match kind {
        Kind::Convolution => (Shape::Circle, "#0b62c4", "#63b0ff"),
        Kind::MatMul => (Shape::Polygon(4, 45.0), "#b8480b", "#ff9d5c"),
        Kind::Attention => (Shape::Polygon(3, 0.0), "#0a7a4b", "#3fd08f"),
        Kind::Embedding => (Shape::Polygon(4, 0.0), "#8d3fb5", "#d79bf5"),
        Kind::Normalization => (Shape::Polygon(5, 0.0), "#7a6200", "#e3c53d"),
        Kind::Softmax => (Shape::Polygon(3, 180.0), "#b02a5b", "#ff8fb4"),
        Kind::Activation => (Shape::Polygon(6, 0.0), "#0f7285", "#4fd3e6"),
        Kind::Elementwise => (Shape::Polygon(5, 180.0), "#50606f", "#b2c0cd"),
        Kind::Reduction => (Shape::Polygon(3, 90.0), "#94551a", "#e8b27c"),
        Kind::Recurrent => (Shape::Polygon(4, 22.5), "#a3340a", "#ffb38a"),
        Kind::Fourier => (Shape::Polygon(6, 15.0), "#2d5fa8", "#8fbcf7"),
        Kind::Pooling => (Shape::Polygon(3, 270.0), "#3f51c9", "#a9b4ff"),
        Kind::Movement => (Shape::Polygon(8, 22.5), "#4c6b1f", "#aed36c"),
        Kind::Opaque => (Shape::Polygon(6, 30.0), "#555555", "#bbbbbb"),
    };
    Style { shape, light, dark }
}

/// Draws the roofline of a report: log-log, marks as large in area as their share of the time.
///
/// ```
/// use flopwise::report::{EstimateReport, roofline_svg};
/// fn save(report: &EstimateReport) -> std::io::Result<()> {
///     std::fs::write("roofline.svg", roofline_svg(report))
/// }
/// ```
#[must_use]
pub fn roofline_svg(report: &EstimateReport) -> String {
    let Some(axes) = Axes::new(report) else {
        return without_roofs();
    };
    let (marks, n_hidden) = marks(&axes, report);
    let (legend, legend_bottom) = legend(&marks, report);
    let notes = notes(&axes, report, &marks, n_hidden);
    let height = legend_bottom + LINE_HEIGHT * notes.len() as f64;
    let mut svg = opening(height, &description(report));
    svg.push_str(&css(&marks));
    svg.push_str(&format!("<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"));
    svg.push_str(&grid(&axes, "FLOP", "arithmetic intensity, FLOP per byte of memory traffic"));
    svg.push_str(&roofs(&axes));
    for mark in &marks {
        svg.push_str(&mark_element(mark, report.estimate.time));
    }
    svg.push_str(&whole_model(&axes, report));
    svg.push_str(&roof_labels(&axes, report));
    svg.push_str(&legend);
    for (note_idx, note) in notes.iter().enumerate() {
        let y = legend_bottom + LINE_HEIGHT * note_idx as f64;
        svg.push_str(&text(LEFT, y, "quiet", note));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The plot's ranges and roofs, all as powers of ten.
pub(super) struct Axes {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) top: f64,
    pub(super) peak: f64,
    /// Matrix products; `None` where the peak is taken for them.
    pub(super) matmul: Option<f64>,
    pub(super) bandwidth: f64,
    pub(super) ridge: f64,
}

impl Axes {
    /// `None` when there is no roof to draw.
    fn new(report: &EstimateReport) -> Option<Axes> {
        let rates = &report.estimate.rates;
        let (peak, bandwidth) = (decades(rates.peak.0)?, decades(rates.bandwidth.0)?);
        let matmul = decades(rates.matmul.0).filter(|rate| 0.002 < (peak - rate).abs());
        let ridge = peak - bandwidth;
        // The ridge and a good part of both roofs are always in sight.
        let (mut left, mut right) = (ridge - 1.5, ridge + 1.0);
        let (mut bottom, mut top) = (peak - 2.0, peak);
        for (intensity, rate) in places(report) {
            (left, right) = (left.min(intensity), right.max(intensity));
            (bottom, top) = (bottom.min(rate), top.max(rate));
        }
        right = right.min(ridge + MAX_INTENSITY_DECADES);
        left = left.max(ridge - MAX_INTENSITY_DECADES);
        right += (0.05 * (right - left)).max(0.3);
        // The slope takes at least 45 % of the width, so that its label has room.
        left = left.min(ridge - 0.82 * (right - ridge)) - 0.2;
        bottom = bottom.max(peak - MAX_RATE_DECADES).min(bandwidth + left) - 0.15;
        top = top.max(matmul.unwrap_or(peak)).min(peak + 1.0);
        // Above the roof stands the ridge's label.
        top += (0.1 * (top - bottom)).max(0.25);
        Some(Axes { left, right, bottom, top, peak, matmul, bandwidth, ridge })
    }

    pub(super) fn x(&self, intensity: f64) -> f64 {
        let share = (intensity - self.left) / (self.right - self.left);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    pub(super) fn y(&self, rate: f64) -> f64 {
        let share = (rate - self.bottom) / (self.top - self.bottom);
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn holds(&self, (intensity, rate): (f64, f64)) -> bool {
        (self.left..=self.right).contains(&intensity) && (self.bottom..=self.top).contains(&rate)
    }
}

/// log10 of what a logarithmic axis can show.
pub(super) fn decades(quantity: f64) -> Option<f64> {
    (quantity.is_finite() && 0.0 < quantity).then(|| quantity.log10())
}

fn place(intensity: FlopsPerByte, rate: FlopsPerSec) -> Option<(f64, f64)> {
    Some((decades(intensity.0)?, decades(rate.0)?))
}

/// Where the points and the whole model stand.
pub(super) fn places(report: &EstimateReport) -> impl Iterator<Item = (f64, f64)> {
    let points = report.points.iter().filter_map(|point| place(point.intensity, point.rate));
    points.chain(place(report.estimate.intensity, report.estimate.achieved))
}

/// Points of one kind that fall on one pixel.
pub(super) struct Mark<'r> {
    kind: Kind,
    x: f64,
    y: f64,
    seconds: f64,
    longest: &'r Point,
    n_points: usize,
}

/// The marks, the largest first so that none is covered whole; and how many were left out.
pub(super) fn marks<'r>(axes: &Axes, report: &'r EstimateReport) -> (Vec<Mark<'r>>, usize) {
    let mut by_pixel: BTreeMap<(Kind, i64, i64), Mark<'r>> = BTreeMap::new();
    for point in &report.points {
        let Some((intensity, rate)) = place(point.intensity, point.rate) else { continue };
        let (x, y) = (axes.x(intensity), axes.y(rate));
        let seconds = if point.seconds.0.is_finite() { point.seconds.0.max(0.0) } else { 0.0 };
        let pixel = (point.kind, x.round() as i64, y.round() as i64);
        let mark = by_pixel.entry(pixel).or_insert(Mark {
            kind: point.kind,
            x,
            y,
            seconds: 0.0,
            longest: point,
            n_points: 0,
        });
        mark.seconds += seconds;
        mark.n_points += 1;
        if mark.longest.seconds < point.seconds {
            (mark.longest, mark.x, mark.y) = (point, x, y);
        }
    }
    let mut marks: Vec<Mark<'r>> = by_pixel.into_values().collect();
    // Stable: equal times stay in the order of kind and place.
    marks.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let n_hidden = marks.len().saturating_sub(MAX_MARKS);
    marks.truncate(MAX_MARKS);
    (marks, n_hidden)
}

fn opening(height: f64, description: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"roofline\" role=\"img\" \
         viewBox=\"0 0 {WIDTH} {height}\" aria-labelledby=\"roofline-title roofline-desc\">\n\
         <title id=\"roofline-title\">Roofline</title>\n\
         <desc id=\"roofline-desc\">{}</desc>\n",
        escaped(description)
    )
}

fn description(report: &EstimateReport) -> String {
    let (count, estimate) = (&report.count, &report.estimate);
    format!(
        "{} on {}: {} at {}, bound by {}. Roofs: {} of memory bandwidth up to the ridge at {}, \
         then a peak of {}. The nodes with multiply-accumulates are marked, {} in all.",
        shortened(&count.model),
        shortened(&estimate.machine),
        estimate.achieved,
        estimate.intensity,
        estimate.bound.name(),
        estimate.rates.bandwidth,
        estimate.ridge_point,
        estimate.rates.peak,
        report.points.len(),
    )
}

/// Plain properties instead of CSS variables: not only browsers draw SVG. Dark on screens alone.
pub(super) fn css(marks: &[Mark]) -> String {
    let shown = kinds_shown(marks);
    let rules = |colour: fn(&Style) -> &'static str| -> String {
        let rule = |kind: &Kind| {
            let (class, colour) = (class(*kind), colour(&style(*kind)));
            format!(".roofline .{class}{{fill:{colour};stroke:{colour}}}\n")
        };
        shown.iter().map(rule).collect()
    };
    let light = rules(|style| style.light);
    let dark = rules(|style| style.dark);
    format!(
        "<style>\n\
         .roofline{{color:#1f2328;\
         font:12px system-ui,-apple-system,\"Segoe UI\",Arial,sans-serif}}\n\
         .roofline text{{fill:currentColor}}\n\
         .roofline .quiet{{fill-opacity:.75}}\n\
         .roofline .ground{{fill:#fff}}\n\
         .roofline .halo{{stroke:#fff;stroke-width:4px;stroke-linejoin:round;paint-order:stroke}}\n\
         .roofline .grid{{stroke:currentColor;stroke-opacity:.12}}\n\
         .roofline .frame{{fill:none;stroke:currentColor;stroke-opacity:.35}}\n\
         .roofline .roof{{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}}\n\
         .roofline .dashed{{stroke-width:1.5;stroke-dasharray:7 4}}\n\
         .roofline .dotted{{stroke-width:1;stroke-dasharray:2 4}}\n\
         .roofline .mark{{fill-opacity:.5;stroke-width:1.2}}\n\
         .roofline .model{{fill:#1f2328;stroke:#fff;stroke-width:1.5}}\n\
         {light}\
         @media screen and (prefers-color-scheme:dark){{\n\
         .roofline{{color:#e6e9ee}}\n\
         .roofline .ground{{fill:#161b22}}\n\
         .roofline .halo{{stroke:#161b22}}\n\
         .roofline .model{{fill:#e6e9ee;stroke:#161b22}}\n\
         {dark}}}\n\
         </style>\n"
    )
}

/// The kinds that have a mark, in the order of the enum.
pub(super) fn kinds_shown(marks: &[Mark]) -> Vec<Kind> {
    let kinds: BTreeSet<Kind> = marks.iter().map(|mark| mark.kind).collect();
    kinds.into_iter().collect()
}

/// The CSS class of a kind's marks.
fn class(kind: Kind) -> String {
    format!("kind-{}", kind.name().replace(' ', "-"))
}

/// Lines at powers of ten; `unit` is that of both axes: `FLOP`, `op`.
pub(super) fn grid(axes: &Axes, unit: &str, title: &str) -> String {
    let mut svg = String::new();
    let n_x_decades = (axes.right - axes.left).ceil() as i32;
    for power in axes.left.ceil() as i32..=axes.right.floor() as i32 {
        let x = axes.x(f64::from(power));
        svg.push_str(&line("grid", (x, TOP), (x, BOTTOM)));
        // A decade is at least 40 units wide, a label 35: all fit, but half of them read better.
        if n_x_decades <= 8 || power.rem_euclid(2) == 0 {
            svg.push_str(&anchored(x, BOTTOM + 18.0, "middle", "quiet", &tick(power)));
        }
    }
    for power in axes.bottom.ceil() as i32..=axes.top.floor() as i32 {
        let y = axes.y(f64::from(power));
        svg.push_str(&line("grid", (LEFT, y), (RIGHT, y)));
        let label = FlopsPerSec(10f64.powi(power)).to_string().replace("FLOP", unit);
        svg.push_str(&anchored(LEFT - 8.0, y + 4.0, "end", "quiet", &label));
    }
    svg.push_str(&format!(
        "<rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/>\n",
        RIGHT - LEFT,
        BOTTOM - TOP
    ));
    let middle = f64::midpoint(LEFT, RIGHT);
    svg.push_str(&anchored(middle, BOTTOM + 38.0, "middle", "", title));
    svg
}

/// A power of ten of FLOP per byte: people say 0.1, not 100 m.
fn tick(power: i32) -> String {
    if (-3..0).contains(&power) {
        return format!("{:.*}", power.unsigned_abs() as usize, 10f64.powi(power));
    }
    let label = FlopsPerByte(10f64.powi(power)).to_string();
    label.trim_end_matches("FLOP/B").trim_end().to_owned()
}

fn roofs(axes: &Axes) -> String {
    // The slope enters the plot through its left edge: `Axes::new` puts the bottom below that.
    let start = (LEFT, axes.y(axes.bandwidth + axes.left));
    let ridge = (axes.x(axes.ridge), axes.y(axes.peak));
    let mut svg = format!(
        "<polyline class=\"roof\" points=\"{:.1},{:.1} {:.1},{:.1} {RIGHT:.1},{:.1}\"/>\n",
        start.0, start.1, ridge.0, ridge.1, ridge.1
    );
    if let Some(matmul) = axes.matmul {
        let y = axes.y(matmul);
        let meeting = axes.x(matmul.min(axes.peak) - axes.bandwidth);
        svg.push_str(&line("roof dashed", (meeting, y), (RIGHT, y)));
    }
    svg.push_str(&line("roof dotted", ridge, (ridge.0, BOTTOM)));
    svg
}

/// The figures of the roofs, where no mark can be: above the slope and right of the plot.
fn roof_labels(axes: &Axes, report: &EstimateReport) -> String {
    let estimate = &report.estimate;
    let rates = &estimate.rates;
    let ridge = (axes.x(axes.ridge), axes.y(axes.peak));
    let mut labels = vec![(ridge.1, format!("peak {}", rates.peak))];
    if let Some(matmul) = axes.matmul {
        labels.push((axes.y(matmul), format!("GEMM {}", rates.matmul)));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let [(upper, _), (lower, _)] = labels.as_mut_slice()
        && *lower - *upper < 16.0
    {
        let middle = f64::midpoint(*upper, *lower);
        (*upper, *lower) = (middle - 8.0, middle + 8.0);
    }
    let mut svg = String::new();
    for (y, label) in &labels {
        svg.push_str(&text(RIGHT + 8.0, y + 4.0, "halo", label));
    }
    let label = format!("ridge {}", estimate.ridge_point);
    svg.push_str(&anchored(ridge.0, ridge.1 - 12.0, "middle", "halo", &label));

    let start = (LEFT, axes.y(axes.bandwidth + axes.left));
    let middle = (f64::midpoint(start.0, ridge.0), f64::midpoint(start.1, ridge.1));
    let angle = (ridge.1 - start.1).atan2(ridge.0 - start.0).to_degrees();
    svg.push_str(&format!(
        "<text class=\"halo\" text-anchor=\"middle\" dy=\"-10\" \
         transform=\"translate({:.1} {:.1}) rotate({angle:.1})\">memory read {}</text>\n",
        middle.0,
        middle.1,
        escaped(&rates.bandwidth.to_string())
    ));
    svg
}

pub(super) fn mark_element(mark: &Mark, total: Seconds) -> String {
    let share = mark.seconds / total.0;
    shape_element(mark.kind, (mark.x, mark.y), radius(share), &tooltip(mark, share))
}

fn radius(share: f64) -> f64 {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    (FULL_RADIUS * share.sqrt()).max(MIN_RADIUS)
}

fn tooltip(mark: &Mark, share: f64) -> String {
    let point = mark.longest;
    let mut lines = vec![
        shortened(&point.name),
        format!("{}, bound by {}", point.kind.name(), point.bound.name()),
        format!("{} at {}", point.rate, point.intensity),
        format!("time {}", point.seconds),
    ];
    if 1 < mark.n_points {
        let (n_others, sum) = (mark.n_points - 1, Seconds(mark.seconds));
        lines.push(format!("with {n_others} more of the same kind at this place: {sum} in all"));
    }
    if share.is_finite() {
        lines.push(format!("{:.1} % of the whole time", 100.0 * share));
    }
    lines.join("\n")
}

/// A shape whose area is that of a circle of this radius.
pub(super) fn shape_element(kind: Kind, (x, y): (f64, f64), radius: f64, tooltip: &str) -> String {
    let class = format!("class=\"mark {}\"", class(kind));
    let title = match tooltip {
        "" => String::new(),
        tooltip => format!("<title>{}</title>", escaped(tooltip)),
    };
    match style(kind).shape {
        Shape::Circle => {
            format!(
                "<circle {class} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\">{title}</circle>\n"
            )
        }
        Shape::Polygon(n_corners, turn) => {
            let n = f64::from(n_corners);
            // n/2 R^2 sin(2 pi / n) = pi r^2
            let circumradius = radius * (TAU / (n * (TAU / n).sin())).sqrt();
            let corners: Vec<String> = (0..n_corners)
                .map(|corner_idx| {
                    let angle = TAU * f64::from(corner_idx) / n + turn.to_radians();
                    let corner = (x + circumradius * angle.sin(), y - circumradius * angle.cos());
                    format!("{:.1},{:.1}", corner.0, corner.1)
                })
                .collect();
            format!("<polygon {class} points=\"{}\">{title}</polygon>\n", corners.join(" "))
        }
    }
}

fn whole_model(axes: &Axes, report: &EstimateReport) -> String {
    let estimate = &report.estimate;
    let Some((intensity, rate)) = place(estimate.intensity, estimate.achieved) else {
        return String::new();
    };
    let title = format!(
        "{}, the whole model\n{} at {}\ntime {}, bound by {}",
        shortened(&report.count.model),
        estimate.achieved,
        estimate.intensity,
        estimate.time,
        estimate.bound.name()
    );
    star((axes.x(intensity), axes.y(rate)), &title)
}

/// Five-pointed: no kind has a shape with hollows.
fn star((x, y): (f64, f64), title: &str) -> String {
    let corners: Vec<String> = (0..10)
        .map(|corner_idx| {
            let radius = if corner_idx % 2 == 0 { 10.0 } else { 4.2 };
            let angle = TAU * f64::from(corner_idx) / 10.0;
            format!("{:.1},{:.1}", x + radius * angle.sin(), y - radius * angle.cos())
        })
        .collect();
    let title = match title {
        "" => String::new(),
        title => format!("<title>{}</title>", escaped(title)),
    };
    format!("<polygon class=\"model\" points=\"{}\">{title}</polygon>\n", corners.join(" "))
}

/// Entries in columns, under the plot.
pub(super) struct Legend {
    svg: String,
    x: f64,
    y: f64,
}

impl Legend {
    pub(super) fn new() -> Legend {
        Legend { svg: String::new(), x: LEFT, y: BOTTOM + AXIS_HEIGHT }
    }

    pub(super) fn put(&mut self, sign: &dyn Fn((f64, f64)) -> String, label: &str) {
        let text_width = 30.0 + CHARACTER_WIDTH * label.chars().count() as f64;
        let width = (text_width / COLUMN_WIDTH).ceil() * COLUMN_WIDTH;
        if LEFT < self.x && WIDTH < self.x + text_width {
            (self.x, self.y) = (LEFT, self.y + LINE_HEIGHT);
        }
        self.svg.push_str(&sign((self.x + 6.0, self.y - 4.0)));
        self.svg.push_str(&text(self.x + 18.0, self.y, "", label));
        self.x += width;
    }

    /// The drawing, and the baseline of the line below it.
    pub(super) fn finish(self) -> (String, f64) {
        (self.svg, self.y + LINE_HEIGHT + 2.0)
    }
}

/// The legend, and the baseline of the line below it.
fn legend(marks: &[Mark], report: &EstimateReport) -> (String, f64) {
    let estimate = &report.estimate;
    let mut legend = Legend::new();
    for kind in kinds_shown(marks) {
        legend.put(&|at| shape_element(kind, at, 5.5, ""), kind.name());
    }
    if place(estimate.intensity, estimate.achieved).is_some() {
        let label = format!("whole model: {} at {}", estimate.achieved, estimate.intensity);
        legend.put(&|at| star(at, ""), &label);
    }
    legend.finish()
}

/// What the reader must know to read the drawing, a line each.
fn notes(axes: &Axes, report: &EstimateReport, marks: &[Mark], n_hidden: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if marks.is_empty() {
        notes.push("No node with multiply-accumulates to draw.".to_owned());
    } else {
        notes.push(
            "A mark: a node that computes, or several alike (2 per MAC, 1 per other op); its area: share of time."
                .to_owned(),
        );
    }
    let written = |count: usize| grouped(count as u128);
    if 0 < n_hidden {
        let (n_drawn, n_marks) = (written(marks.len()), written(marks.len() + n_hidden));
        notes.push(format!("Drawn: the {n_drawn} longest of {n_marks} marks."));
    }
    let n_points = report.points.len();
    let point_places = report.points.iter().map(|point| place(point.intensity, point.rate));
    let placed: Vec<(f64, f64)> = point_places.flatten().collect();
    let n_outside = placed.iter().filter(|place| !axes.holds(**place)).count();
    if 0 < n_outside {
        let (n_outside, n_points) = (written(n_outside), written(n_points));
        notes.push(format!(
            "Beyond the axes, drawn at their edge: {n_outside} of {n_points} nodes."
        ));
    }
    let n_placeless = n_points - placed.len();
    if 0 < n_placeless {
        let (n_placeless, n_points) = (written(n_placeless), written(n_points));
        notes.push(format!("Without a finite rate, not drawn: {n_placeless} of {n_points} nodes."));
    }
    notes
}

fn without_roofs() -> String {
    let text = "No roofline: the machine's peak and bandwidth are not positive numbers.";
    let mut svg = opening(60.0, text);
    svg.push_str(&css(&[]));
    svg.push_str(&format!("<rect class=\"ground\" width=\"{WIDTH}\" height=\"60\"/>\n"));
    svg.push_str(&anchored(WIDTH / 2.0, 34.0, "middle", "", text));
    svg.push_str("</svg>\n");
    svg
}

pub(super) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    format!(
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

pub(super) fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    anchored(x, y, "start", class, content)
}

pub(super) fn anchored(x: f64, y: f64, anchor: &str, class: &str, content: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!(
        "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
        escaped(content)
    )
}

/// The end of a long name tells more than its beginning.
pub(super) fn shortened(name: &str) -> String {
    let n_chars = name.chars().count();
    if n_chars <= MAX_NAME {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(n_chars - MAX_NAME + 1).collect();
    format!("…{tail}")
}

/// Text as XML 1.0 may hold it (<https://www.w3.org/TR/xml/#charsets>).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
