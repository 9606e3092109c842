//! The built-in image networks against figures others published: timm's benchmark (counted with
//! fvcore), torchvision's own metadata, and the READMEs of calculate-flops, Swin and ConvNeXt.
//!
//! `tests/data/published/vision.jsonl` holds a row for each: the figures as they are printed, and
//! where. A figure agrees if it rounds to what is printed.

use flopwise::cost;
use flopwise::cost::convention::Convention;
use flopwise::graph::Bindings;
use flopwise::query::{Conventions, CountQuery, Query, Working, answer, open_model};
use flopwise::report::{ConventionFigure, Report};
use serde_json::Value;
use std::collections::BTreeMap;

const ROWS: &str = include_str!("../data/published/vision.jsonl");

/// Rows that are not met, and why. A row that comes to agree has no place here.
const NOT_MET: &[(&str, &str, &str)] = &[
    // 28,589,128 parameters; line 47 of the same README rounds them to 29M.
    ("convnext_tiny", "ConvNeXt@048efcea897d README.md:36", "cut to 28M, not rounded"),
    ("timm/convnext_tiny", "ConvNeXt@048efcea897d README.md:36", "cut to 28M, not rounded"),
    ("densenet169", "calculate-flops.pytorch", "14.195M is a slip for torchvision's 14,149,480"),
    // timm's own benchmark has 12.62 GMACs and 59.88M for the same network.
    ("timm/mixer_b16_224", "Swin-Transformer", "taken from the paper, cut and not counted alike"),
];

fn figure(model: &str, convention: Convention) -> ConventionFigure {
    let query = CountQuery { bindings: vec![("batch".to_owned(), 1)], ..CountQuery::of(model) };
    let query = Query::Convention(query, Conventions::One(convention), Working::Hidden);
    let Report::Convention(mut report) = answer(&query).expect("the model is counted") else {
        panic!("a convention query has a convention report")
    };
    report.rows.pop().expect("one row").figure.expect("the convention covers image networks")
}

/// Whether `count / unit` rounds to what is printed.
fn rounds_to(count: i128, unit: f64, printed: &str) -> bool {
    let decimals = printed.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let step = 10_f64.powi(-i32::try_from(decimals).expect("a few"));
    let printed: f64 = printed.parse().expect("a number");
    // A tie may have been rounded either way.
    (count as f64 / unit - printed).abs() <= 0.5 * step + 1e-9
}

/// A built-in network, opened once for all its rows.
struct Network {
    name: String,
    macs: i128,
    parameters: i128,
    figures: BTreeMap<&'static str, ConventionFigure>,
}

impl Network {
    fn open(name: &str) -> Network {
        let graph = open_model(name).expect("it is built in");
        let work = cost::work(&graph);
        let unknown: Vec<_> = work.unknown().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let at = Bindings([("batch".to_owned(), 1)].into());
        let macs = work.bind(&graph, &at).expect("every symbol is bound").total.macs.0;
        let parameters = work.stored(&at).expect("every size is known").parameters;
        let [macs, parameters] =
            [macs, parameters].map(|count| i128::try_from(count).expect("a small number"));
        Network { name: name.to_owned(), macs, parameters, figures: BTreeMap::new() }
    }

    /// What is counted for a row, where it does not round to what is printed.
    fn differs(&mut self, row: &Value) -> Option<String> {
        let text = |field: &str| row[field].as_str().unwrap_or_default();
        let mut checked = vec![(self.parameters, 1e6, "params_m")];
        match text("figure") {
            "macs" => checked.push((self.macs, 1e9, "gmacs")),
            named => {
                let known = Convention::ALL.into_iter().find(|known| known.name() == named);
                let convention = known.expect("a convention");
                let made = || figure(&self.name, convention);
                let figure = self.figures.entry(convention.name()).or_insert_with(made);
                checked.extend([(figure.total, 1e9, "gmacs"), (figure.total, 1e9, "gflops")]);
                let activations =
                    figure.also.iter().filter(|(what, _)| what.contains("activation"));
                checked.extend(activations.map(|(_, count)| (*count, 1e6, "mactivations")));
            }
        }
        let off = checked.into_iter().filter(|(count, unit, field)| {
            row[*field].is_string() && !rounds_to(*count, *unit, text(field))
        });
        let off: Vec<String> = off
            .map(|(count, _, field)| format!("{field} {} is counted as {count}", text(field)))
            .collect();
        (!off.is_empty()).then(|| off.join(", "))
    }
}

#[test]
fn every_image_network_is_counted_in_full_and_as_published() {
    let rows: Vec<Value> =
        ROWS.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let models = flopwise::arch::list().into_iter();
    let networks = models.filter(|model| model.group.starts_with("Image networks"));
    let (mut n_checked, mut wrong) = (0, Vec::new());
    for model in networks {
        let name = model.name.as_str();
        let mut network = Network::open(name);
        let its = rows.iter().filter(|row| row["name"] == name);
        let n_before = n_checked;
        for row in its {
            n_checked += 1;
            let source = row["source"].as_str().expect("text");
            let is_such =
                |(other, part, _): &&(&str, &str, &str)| *other == name && source.contains(part);
            let excuse = NOT_MET.iter().find(is_such);
            match (network.differs(row), excuse) {
                (None, None) | (Some(_), Some(_)) => {}
                (Some(off), None) => wrong.push(format!("{name}: {off} ({source})")),
                (None, Some(_)) => wrong.push(format!("{name} agrees with {source}")),
            }
        }
        assert!(n_before < n_checked, "{name} has no published figure");
    }
    assert_eq!(n_checked, rows.len(), "a row names no built-in network");
    assert!(wrong.is_empty(), "{} of {n_checked} rows:\n{}", wrong.len(), wrong.join("\n"));
}
