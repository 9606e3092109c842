//! What can be typed about the memory of a model.

use clap::Args as ClapArgs;
use flopwise::graph::StoredFormat;
use flopwise::query::{MemoryQuery, Working};

/// Largest page taken: far beyond any engine's.
const MAX_PAGE: u64 = 1 << 20;

/// What a model keeps of its sequences, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct MemoryChoice {
    /// Keep keys and values in another format, scales included: fp8_e4m3, int8, mxfp4, q8_0 ...
    #[arg(long, value_name = "FORMAT", value_parser = |text: &str| text.parse::<StoredFormat>())]
    pub(crate) kv_format: Option<StoredFormat>,
    /// Also lay the cache out in pages of so many tokens, by the rule of vLLM's allocator
    #[arg(long, value_name = "TOKENS", value_parser = page)]
    pub(crate) kv_page: Option<u64>,
}

impl MemoryChoice {
    pub(crate) fn query(&self, table: Working) -> MemoryQuery {
        MemoryQuery { cache: self.kv_format, page: self.kv_page, table }
    }
}

fn page(text: &str) -> Result<u64, String> {
    let page = super::count(text)?;
    match page <= MAX_PAGE {
        true => Ok(page),
        false => Err(format!("a page of more than {MAX_PAGE} tokens")),
    }
}
