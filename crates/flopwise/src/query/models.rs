//! Which models are built in, and what one of them is.
//!
//! Not here: the names themselves (`arch`). A list opens no model; only the one of a name is read.

use crate::arch::{self, BuiltIn, Options};
use crate::cost;
use crate::error::Error;
use crate::graph::Bindings;
use crate::report::{ModelEntry, ModelReport, ModelsReport, Report};

/// All, the one of that name, or those whose names hold the text (`*` at its ends may be left out).
pub(super) fn models(wanted: Option<&str>) -> Result<Report, Error> {
    let Some(wanted) = wanted else { return Ok(listed(None, arch::list())) };
    if let Some(model) = arch::described(wanted) {
        return Ok(Report::Model(Box::new(detail(model?)?)));
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let part = plain(wanted.trim_matches('*'));
    let mut models = arch::list();
    models.retain(|model| plain(&model.name).contains(&part));
    if models.is_empty() {
        return Err(arch::unknown_name(wanted));
    }
    Ok(listed(Some(wanted.to_owned()), models))
}

fn listed(filter: Option<String>, models: Vec<BuiltIn>) -> Report {
    let entry = |model: BuiltIn| ModelEntry {
        name: model.name,
        description: model.about,
        group: model.group,
    };
    Report::Models(ModelsReport { filter, models: models.into_iter().map(entry).collect() })
}

fn detail(model: BuiltIn) -> Result<ModelReport, Error> {
    let Some(graph) = arch::built_in(&model.name, &Options::whole()) else {
        return Err(arch::unknown_name(&model.name));
    };
    let graph = graph?;
    let work = cost::work(&graph);
    let inputs = graph.inputs.iter().map(|id| graph.tensor(*id));
    let inputs = inputs.map(|tensor| match &tensor.tensor_type {
        Some(known) => format!("{} {} {}", tensor.name, known.shape, known.format),
        None => tensor.name.clone(),
    });
    Ok(ModelReport {
        name: model.name,
        description: model.about,
        source: model.source,
        inputs: inputs.collect::<Vec<_>>().join(", "),
        parameters: work.stored(&Bindings::default()).map(|stored| stored.parameters),
        macs: work.total.macs.0.to_string(),
    })
}
