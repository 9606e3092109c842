//! JSON of headers and indices, read as a stream: neither the text nor a long string of it is held
//! in memory.
//!
//! Not here: what the objects mean (`safetensors.rs`, `shards.rs`).

use serde::de::DeserializeOwned;
use std::io::{self, BufReader, Read};

/// Bytes of one string. Programs keep their own JSON under `__metadata__`, a megabyte at times.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads one value, after which the stream must end.
pub(super) fn read<T: DeserializeOwned>(reader: impl Read) -> Result<T, serde_json::Error> {
    let short = ShortTexts { reader, place: Place::Between, n_bytes: 0 };
    serde_json::from_reader(BufReader::with_capacity(BUFFER_BYTES, short))
}

/// A stream that fails within a string that is too long.
struct ShortTexts<R> {
    reader: R,
    place: Place,
    n_bytes: usize,
}

/// Where in JSON text a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Text,
    Escape,
}

impl<R: Read> Read for ShortTexts<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n_read = self.reader.read(into)?;
        for byte in &into[..n_read] {
            self.place = match (self.place, byte) {
                (Place::Between, b'"') => Place::Text,
                (Place::Between, _) => continue,
                (Place::Text, b'"') => Place::Between,
                (Place::Text, b'\\') => Place::Escape,
                (Place::Text | Place::Escape, _) => Place::Text,
            };
            self.n_bytes = if self.place == Place::Between { 0 } else { self.n_bytes + 1 };
            if MAX_TEXT_BYTES < self.n_bytes {
                let what = format!("a text of it has more than {MAX_TEXT_BYTES} bytes");
                return Err(io::Error::other(what));
            }
        }
        Ok(n_read)
    }
}
