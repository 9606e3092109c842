//! The built-in models as text and JSON.

use super::json::SCHEMA;
use super::text::Page;
use crate::units::grouped;
use serde::Serialize;

/// Characters of a line of names.
const LINE: usize = 100;
/// Characters before the description of names that stand alone.
const NAME: usize = 34;

/// Built-in models, as a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelsReport {
    /// What their names hold; `None` where all are listed.
    pub filter: Option<String>,
    /// The models, by name.
    pub models: Vec<ModelEntry>,
}

/// A built-in model in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// The name to type.
    pub name: String,
    /// What it is.
    pub description: String,
    /// What it is listed under.
    pub group: String,
}

/// One built-in model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// The name to type.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Where its description comes from.
    pub source: String,
    /// The inputs it takes: `x [batch, 3, 224, 224] fp32`.
    pub inputs: String,
    /// Trained numbers; `None` if the size of a weight hangs on a symbol.
    pub parameters: Option<u128>,
    /// Multiply-accumulates as a formula.
    pub macs: String,
}

#[derive(Serialize)]
pub(super) struct ModelsJson<'a> {
    schema: u32,
    kind: &'static str,
    models: &'a [ModelEntry],
}

#[derive(Serialize)]
pub(super) struct ModelJson<'a> {
    schema: u32,
    kind: &'static str,
    #[serde(flatten)]
    model: &'a ModelReport,
}

pub(super) fn list_wire(report: &ModelsReport) -> ModelsJson<'_> {
    ModelsJson { schema: SCHEMA, kind: "models", models: &report.models }
}

pub(super) fn wire(model: &ModelReport) -> ModelJson<'_> {
    ModelJson { schema: SCHEMA, kind: "model", model }
}

impl Page {
    pub(super) fn models(&mut self, report: &ModelsReport) {
        let of = |filter: &String| format!(" whose names hold `{filter}`");
        let filter = report.filter.as_ref().map_or_else(String::new, of);
        self.heading(&format!("{} built-in models{filter}", report.models.len()));
        let mut groups: Vec<&str> = report.models.iter().map(|model| &*model.group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            self.heading(group);
            self.families(report.models.iter().filter(|model| model.group == group));
        }
        self.line("");
        self.line(
            "`flopwise model NAME` shows one, `flopwise model PART` those with PART in their name.",
        );
    }

    /// A line for each model; one for all of a family, where they are described in the same words.
    fn families<'m>(&mut self, models: impl Iterator<Item = &'m ModelEntry>) {
        let mut families: Vec<(&str, Vec<&str>)> = Vec::new();
        for model in models {
            match families.iter_mut().find(|(known, _)| *known == model.description) {
                Some((_, names)) => names.push(&model.name),
                None => families.push((&model.description, vec![&model.name])),
            }
        }
        for (description, names) in families {
            if let [name] = names.as_slice() {
                self.line(&format!("  {name:<NAME$} {description}"));
                continue;
            }
            self.line(&format!("  {description}:"));
            let mut line = String::new();
            for name in names {
                if LINE < line.len() + name.len() {
                    self.line(&format!("   {line}"));
                    line.clear();
                }
                line.push(' ');
                line.push_str(name);
            }
            self.line(&format!("   {line}"));
        }
    }

    pub(super) fn built_in_model(&mut self, model: &ModelReport) {
        self.heading(&format!("{}: {}", model.name, model.description));
        let parameters = model.parameters.map_or_else(|| "?".to_owned(), grouped);
        self.fact("inputs", &model.inputs, "");
        self.fact("parameters", &parameters, "");
        self.fact("MACs", &model.macs, "");
        self.fact("source", &model.source, "");
    }
}
