//! Built-in names that are described by a config: the tables in `data/models/*.toml`.
//!
//! Each table is one model: `about` and `source` for people, `like` to take over the fields of another
//! table of the same file, and the fields of its config.

use super::BuiltIn;
use super::config::Config;
use crate::error::Error;
use serde_json::{Map, Value};

/// One file per field of models.
const FILES: &[&str] = &[
    include_str!("../../data/models/dense.toml"),
    include_str!("../../data/models/moe.toml"),
    include_str!("../../data/models/other.toml"),
    include_str!("../../data/models/recurrent.toml"),
];

/// One name.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) config: Config,
    about: String,
    source: String,
}

impl Entry {
    pub(super) fn described(self) -> BuiltIn {
        let Entry { name, config: _, about, source } = self;
        BuiltIn { name, about, group: "Described by their config".to_owned(), source }
    }
}

/// The model of a name with `_` for `-`.
pub(super) fn find(name: &str) -> Option<Result<Entry, Error>> {
    FILES.iter().find_map(|file| {
        // A whole file is parsed only when it has the name.
        let is_such = |line: &str| {
            let known = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
            known.is_some_and(|known| known.trim_matches('"').replace('-', "_") == name)
        };
        let line = file.lines().find(|line| is_such(line))?;
        let key = line.trim_matches(['[', ']', '"']);
        Some(entries(file).and_then(|tables| entry(key, &tables)))
    })
}

/// Every model, in the order of the files.
pub(super) fn all() -> Vec<Entry> {
    let tables = FILES.iter().filter_map(|file| entries(file).ok());
    let all = tables.flat_map(|tables| {
        tables.keys().filter_map(|key| entry(key, &tables).ok()).collect::<Vec<_>>()
    });
    all.collect()
}

fn entries(file: &str) -> Result<Map<String, Value>, Error> {
    toml::from_str(file).map_err(|error| Error::new(format!("built-in models: {error}")))
}

fn entry(key: &str, tables: &Map<String, Value>) -> Result<Entry, Error> {
    let damaged = |what: &str| Error::new(format!("built-in model {key}: {what}"));
    let Some(Value::Object(own)) = tables.get(key) else { return Err(damaged("no table")) };
    let mut fields = match own.get("like").and_then(Value::as_str) {
        Some(other) => match tables.get(other) {
            Some(Value::Object(other)) => other.clone(),
            _ => return Err(damaged("is like a table that is not there")),
        },
        None => Map::new(),
    };
    fields.extend(own.clone());
    let about = match fields.remove("about") {
        Some(Value::String(about)) => about,
        _ => return Err(damaged("says nothing about itself")),
    };
    let source = match fields.remove("source") {
        Some(Value::String(source)) => source,
        _ => return Err(damaged("has no source")),
    };
    fields.remove("like");
    let config = Config::from_value(Value::Object(fields))?;
    Ok(Entry { name: key.to_owned(), config, about, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_a_model_with_a_source() {
        for file in FILES {
            let tables = entries(file).unwrap();
            for (key, table) in &tables {
                assert!(entry(key, &tables).is_ok(), "{key}");
                assert!(table.get("source").is_some(), "{key} has no source");
                let found = find(&key.replace('-', "_")).unwrap().unwrap();
                assert_eq!(found.name, *key);
            }
        }
    }
}
