//! The roofline of a machine as a drawing: a roof for each format, a slope for each level of
//! memory, the matrix products measured, and a model's operators where there is one.
//!
//! Not here: numbers of its own (see `roofline.rs`), and the axes and marks, which are those of the
//! model's roofline (`svg.rs`).

use super::figures::threads;
use super::machine::operations;
use super::svg::{
    self, Axes, BOTTOM, LEFT, LINE_HEIGHT, Mark, RIGHT, TOP, WIDTH, anchored, decades, escaped,
    line, text,
};
use super::{EstimateReport, Roofline, RooflineGemm, Slope, roofline};
use crate::machine::{MemoryLevel, Profile};
use crate::units::{BytesPerSec, FlopsPerByte};

#[cfg(test)]
#[path = "machine_svg_tests.rs"]
mod tests;

/// Formats drawn: more labels than this do not fit beside the plot.
const MAX_ROOFS: usize = 20;
/// Products drawn, of each format.
const MAX_GEMMS: usize = 200;
/// From one label beside the plot to the next.
const LABEL_HEIGHT: f64 = 16.0;
/// A level's name stands on its slope, each further right than the one before.
const LEVEL_WIDTH: f64 = 52.0;
/// Colours of the formats in turn, 4.5:1 on the ground; the labels say which is which as well.
const COLOURS: [(&str, &str); 6] = [
    ("#0b62c4", "#63b0ff"),
    ("#b8480b", "#ff9d5c"),
    ("#0a7a4b", "#3fd08f"),
    ("#8d3fb5", "#d79bf5"),
    ("#b02a5b", "#ff8fb4"),
    ("#7a6200", "#e3c53d"),
];

/// Draws a machine's roofline, log-log; with a report, its model's operators too.
///
/// ```
/// use flopwise::machine::Profile;
/// use flopwise::report::machine_svg;
/// fn save(profile: &Profile) -> std::io::Result<()> {
///     std::fs::write("machine.svg", machine_svg(profile, None))
/// }
/// ```
#[must_use]
pub fn machine_svg(profile: &Profile, report: Option<&EstimateReport>) -> String {
    let mut drawn = roofline(profile);
    let n_hidden = drawn.roofs.len().saturating_sub(MAX_ROOFS);
    drawn.roofs.truncate(MAX_ROOFS);
    let Some(axes) = axes(&drawn, report) else {
        return without_roofs();
    };
    let (marks, _) = report.map(|report| svg::marks(&axes, report)).unwrap_or_default();
    let (legend, legend_bottom) = legend(&drawn, &marks);
    let notes = notes(&drawn, &marks, n_hidden);
    let height = legend_bottom + LINE_HEIGHT * notes.len() as f64;
    let mut svg = opening(height, &description(profile, &drawn));
    svg.push_str(&svg::css(&marks));
    svg.push_str(&css(drawn.roofs.len()));
    svg.push_str(&format!("<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"));
    svg.push_str(&svg::grid(&axes, "op", "operations per byte of traffic"));
    svg.push_str(&slopes(&axes, &drawn));
    svg.push_str(&roofs(&axes, &drawn));
    if let Some(report) = report {
        for mark in &marks {
            svg.push_str(&svg::mark_element(mark, report.estimate.time));
        }
    }
    svg.push_str(&gemms(&axes, &drawn));
    svg.push_str(&level_names(&axes, &drawn));
    svg.push_str(&roof_labels(&axes, &drawn));
    svg.push_str(&legend);
    for (note_idx, note) in notes.iter().enumerate() {
        let y = legend_bottom + LINE_HEIGHT * note_idx as f64;
        svg.push_str(&text(LEFT, y, "quiet", note));
    }
    svg.push_str("</svg>\n");
    svg
}

/// All roofs, slopes and products are in sight; operators beyond stand at the edge.
fn axes(drawn: &Roofline, report: Option<&EstimateReport>) -> Option<Axes> {
    let roofs: Vec<f64> = drawn.roofs.iter().filter_map(|roof| decades(roof.ops_per_s)).collect();
    let slopes: Vec<f64> =
        drawn.slopes.iter().filter_map(|slope| decades(slope.bytes_per_s)).collect();
    let highest = roofs.iter().copied().max_by(f64::total_cmp)?;
    let lowest = roofs.iter().copied().min_by(f64::total_cmp)?;
    let fastest = slopes.iter().copied().max_by(f64::total_cmp)?;
    let slowest = slopes.iter().copied().min_by(f64::total_cmp)?;
    let mut axes = Axes {
        left: lowest - fastest - 1.6,
        right: highest - slowest + 0.8,
        bottom: lowest - 2.0,
        top: highest + 0.3,
        peak: highest,
        matmul: None,
        bandwidth: slowest,
        ridge: highest - slowest,
    };
    let gemms = drawn.gemms.iter();
    let gemms =
        gemms.filter_map(|gemm| Some((decades(gemm.ops_per_byte)?, decades(gemm.ops_per_s)?)));
    let points = report.into_iter().flat_map(svg::places);
    for (intensity, rate) in gemms.chain(points) {
        axes.left = axes.left.min(intensity - 0.1).max(lowest - fastest - 4.0);
        axes.right = axes.right.max(intensity + 0.1).min(highest - slowest + 3.0);
        axes.bottom = axes.bottom.min(rate - 0.1).max(lowest - 6.0);
    }
    Some(axes)
}

fn opening(height: f64, description: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"roofline\" role=\"img\" \
         viewBox=\"0 0 {WIDTH} {height}\" aria-labelledby=\"machine-title machine-desc\">\n\
         <title id=\"machine-title\">Roofline of the machine</title>\n\
         <desc id=\"machine-desc\">{}</desc>\n",
        escaped(description)
    )
}

fn description(profile: &Profile, drawn: &Roofline) -> String {
    let roofs = drawn.roofs.iter();
    let roofs =
        roofs.map(|roof| format!("{} {}", roof.format, operations(&roof.format, roof.ops_per_s)));
    let slopes = drawn.slopes.iter().map(slope_label);
    format!(
        "{}: peaks {}; {}. Matrix products are marked, {} in all.",
        svg::shortened(&profile.machine.name),
        roofs.collect::<Vec<String>>().join(", "),
        slopes.collect::<Vec<String>>().join(", "),
        drawn.gemms.len()
    )
}

fn css(n_roofs: usize) -> String {
    let rules = |colour: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        let n_colours = n_roofs.min(COLOURS.len());
        let shown = COLOURS.iter().take(n_colours).enumerate();
        shown
            .map(|(colour_idx, both)| {
                let colour = colour(both);
                format!(
                    ".roofline .format-{colour_idx}{{stroke:{colour}}}\n\
                     .roofline .gemm.format-{colour_idx}{{fill:{colour}}}\n"
                )
            })
            .collect()
    };
    format!(
        "<style>\n\
         .roofline .level{{fill:none;stroke:currentColor;stroke-width:1.4;stroke-opacity:.7}}\n\
         .roofline .L2{{stroke-dasharray:9 3}}\n\
         .roofline .L3{{stroke-dasharray:5 3}}\n\
         .roofline .DRAM{{stroke-width:2;stroke-opacity:1}}\n\
         .roofline .peak{{fill:none;stroke-width:2}}\n\
         .roofline .leader{{stroke:currentColor;stroke-opacity:.4}}\n\
         .roofline .gemm{{fill-opacity:.75;stroke-width:1}}\n\
         {}@media screen and (prefers-color-scheme:dark){{\n{}}}\n\
         </style>\n",
        rules(|both| both.0),
        rules(|both| both.1)
    )
}

fn format_class(roof_idx: usize) -> String {
    format!("format-{}", roof_idx % COLOURS.len())
}

/// Each slope from the plot's left edge, or its lower one, up to the highest roof.
fn slopes(axes: &Axes, drawn: &Roofline) -> String {
    let drawn = drawn.slopes.iter().filter_map(|slope| {
        let bandwidth = decades(slope.bytes_per_s)?;
        let from = axes.left.max(axes.bottom - bandwidth);
        let to = (axes.peak - bandwidth).min(axes.right);
        let class = format!("level {}", slope.level.name());
        let start = (axes.x(from), axes.y(from + bandwidth));
        Some(line(&class, start, (axes.x(to), axes.y(to + bandwidth))))
    });
    drawn.collect()
}

/// Each roof from where it meets the fastest level on.
fn roofs(axes: &Axes, drawn: &Roofline) -> String {
    let slopes = drawn.slopes.iter().filter_map(|slope| decades(slope.bytes_per_s));
    let Some(fastest) = slopes.max_by(f64::total_cmp) else { return String::new() };
    let each = drawn.roofs.iter().enumerate().filter_map(|(roof_idx, roof)| {
        let peak = decades(roof.ops_per_s)?;
        let y = axes.y(peak);
        let class = format!("peak {}", format_class(roof_idx));
        Some(line(&class, (axes.x(peak - fastest), y), (RIGHT, y)))
    });
    each.collect()
}

/// `L2` on its slope. Each name has its own stretch of the horizontal axis: however near two slopes
/// are, no two names touch.
fn level_names(axes: &Axes, drawn: &Roofline) -> String {
    let mut svg = String::new();
    for (slope_idx, slope) in drawn.slopes.iter().enumerate() {
        let Some(bandwidth) = decades(slope.bytes_per_s) else { continue };
        let x = LEFT + 30.0 + LEVEL_WIDTH * slope_idx as f64;
        let intensity = axes.left + (x - LEFT) / (RIGHT - LEFT) * (axes.right - axes.left);
        let y = axes.y(intensity + bandwidth);
        // Where the slope is above or below the plot there, the name stands at its edge.
        let y = (y + 4.0).clamp(TOP + 14.0, BOTTOM - 4.0);
        svg.push_str(&anchored(x, y, "middle", "halo", slope.level.name()));
    }
    svg
}

/// Right of the plot, from the highest down, pushed apart where roofs are near.
fn roof_labels(axes: &Axes, drawn: &Roofline) -> String {
    let mut labels: Vec<(f64, String)> = drawn
        .roofs
        .iter()
        .filter_map(|roof| {
            let label = format!("{} {}", roof.format, operations(&roof.format, roof.ops_per_s));
            Some((axes.y(decades(roof.ops_per_s)?), label))
        })
        .collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut svg = String::new();
    let rest = |label_idx: usize| (labels.len() - label_idx - 1) as f64 * LABEL_HEIGHT;
    let mut lowest = TOP - LABEL_HEIGHT;
    for (label_idx, (roof, label)) in labels.iter().enumerate() {
        // Low enough for those above, high enough for those below.
        let y = roof.min(BOTTOM - rest(label_idx)).max(lowest + LABEL_HEIGHT);
        lowest = y;
        svg.push_str(&line("leader", (RIGHT, *roof), (RIGHT + 10.0, y)));
        svg.push_str(&text(RIGHT + 13.0, y + 4.0, "halo", label));
    }
    svg
}

fn gemms(axes: &Axes, drawn: &Roofline) -> String {
    let mut svg = String::new();
    for (roof_idx, roof) in drawn.roofs.iter().enumerate() {
        let of_format = drawn.gemms.iter().filter(|gemm| gemm.format == roof.format);
        for gemm in of_format.take(MAX_GEMMS) {
            let (Some(intensity), Some(rate)) =
                (decades(gemm.ops_per_byte), decades(gemm.ops_per_s))
            else {
                continue;
            };
            let place = (axes.x(intensity), axes.y(rate));
            svg.push_str(&diamond(place, roof_idx, &tooltip(gemm, roof.ops_per_s)));
        }
    }
    svg
}

/// No kind of operator is a diamond as narrow as this.
fn diamond((x, y): (f64, f64), roof_idx: usize, title: &str) -> String {
    let title = match title {
        "" => String::new(),
        title => format!("<title>{}</title>", escaped(title)),
    };
    format!(
        "<polygon class=\"gemm {}\" points=\"{x:.1},{:.1} {:.1},{y:.1} {x:.1},{:.1} {:.1},{y:.1}\">\
         {title}</polygon>\n",
        format_class(roof_idx),
        y - 6.0,
        x + 3.5,
        y + 6.0,
        x - 3.5
    )
}

fn tooltip(gemm: &RooflineGemm, peak: f64) -> String {
    let [m, n, k] = gemm.shape;
    let intensity = FlopsPerByte(gemm.ops_per_byte).to_string();
    format!(
        "{} {m}x{n}x{k}, {}, {}\n{} at {}\n{:.1} % of the instruction peak",
        gemm.format,
        gemm.backend,
        threads(gemm.threads),
        operations(&gemm.format, gemm.ops_per_s),
        intensity.replace("FLOP/B", "op/B"),
        100.0 * gemm.ops_per_s / peak
    )
}

fn slope_label(slope: &Slope) -> String {
    let what = match slope.level {
        MemoryLevel::L1 | MemoryLevel::L2 | MemoryLevel::L3 => slope.level.name(),
        MemoryLevel::Dram => "main memory (DRAM)",
    };
    format!("{what} read {}", BytesPerSec(slope.bytes_per_s))
}

/// The legend, and the baseline of the line below it.
fn legend(drawn: &Roofline, marks: &[Mark]) -> (String, f64) {
    let mut legend = svg::Legend::new();
    for slope in &drawn.slopes {
        let class = format!("level {}", slope.level.name());
        legend.put(&|(x, y)| line(&class, (x - 6.0, y), (x + 8.0, y)), &slope_label(slope));
    }
    for (roof_idx, roof) in drawn.roofs.iter().enumerate() {
        if drawn.gemms.iter().any(|gemm| gemm.format == roof.format) {
            let label = format!("{} products", roof.format);
            legend.put(&|at| diamond(at, roof_idx, ""), &label);
        }
    }
    for kind in svg::kinds_shown(marks) {
        legend.put(&|at| svg::shape_element(kind, at, 5.5, ""), kind.name());
    }
    legend.finish()
}

fn notes(drawn: &Roofline, marks: &[Mark], n_hidden: usize) -> Vec<String> {
    let mut notes = vec![
        "A roof: the instruction peak of a format, all threads; a slope: a level of memory, read."
            .to_owned(),
    ];
    if drawn.gemms.is_empty() {
        notes.push("No matrix product was measured.".to_owned());
    } else {
        notes.push(
            "A diamond: a matrix product, the fastest library; its traffic is each operand once."
                .to_owned(),
        );
    }
    if !marks.is_empty() {
        notes.push(
            "A mark: operators of the model, as estimated from main memory; area: share of time."
                .to_owned(),
        );
    }
    if 0 < n_hidden {
        notes.push(format!("Without room for a label, not drawn: {n_hidden} formats."));
    }
    notes
}

fn without_roofs() -> String {
    let text = "No roofline: no instruction peak or no bandwidth was measured.";
    let mut svg = opening(60.0, text);
    svg.push_str(&svg::css(&[]));
    svg.push_str(&format!("<rect class=\"ground\" width=\"{WIDTH}\" height=\"60\"/>\n"));
    svg.push_str(&anchored(WIDTH / 2.0, 34.0, "middle", "", text));
    svg.push_str("</svg>\n");
    svg
}
