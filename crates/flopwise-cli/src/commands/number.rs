//! `flopwise number`: what values become in number formats.

use crate::Outcome;
use crate::args::{CastSystem, NumberArgs, as_typed};
use crate::output;
use anyhow::{Context, bail};
use flopwise::query::{NumberQuery, Query, answer};
use flopwise_formats::block::BlockRules;
use std::io::{self, Read};

/// Bytes read from stdin.
const MAX_INPUT: u64 = 16 << 20;

pub(super) fn run(args: &NumberArgs) -> anyhow::Result<Outcome> {
    let query = NumberQuery {
        values: values(&args.values)?,
        formats: args.format.iter().flat_map(|names| split(names)).collect(),
        rules: args.rules.rules()?,
        block_rules: BlockRules { scale: args.scale_rule.rule(), ..BlockRules::OCP },
        system: args.system.map(CastSystem::system),
        is_explained: args.explain,
    };
    output::print(&answer(&Query::Number(query))?, args.json)?;
    Ok(Outcome::Yes)
}

/// The values typed, `-` replaced by what stdin holds.
fn values(typed: &[String]) -> anyhow::Result<Vec<String>> {
    let mut values = Vec::new();
    for value in typed {
        if value != "-" {
            values.push(as_typed(value));
            continue;
        }
        let mut text = String::new();
        let mut stdin = io::stdin().lock().take(MAX_INPUT + 1);
        stdin.read_to_string(&mut text).context("stdin: cannot be read as text")?;
        if text.len() as u64 > MAX_INPUT {
            bail!("stdin: more than 16 MiB of values; convert them in parts");
        }
        values.extend(text.split_whitespace().map(str::to_owned));
    }
    if values.is_empty() {
        bail!("stdin: holds no value; write one such as 0.052");
    }
    Ok(values)
}

/// Names apart by commas, but for those between parentheses.
pub(super) fn split(names: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    for symbol in names.chars() {
        match symbol {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match parts.last_mut() {
            Some(part) if symbol != ',' || depth > 0 => part.push(symbol),
            Some(_) | None => parts.push(String::new()),
        }
    }
    parts
}
