//! Where the bytes of a checkpoint come from: an opened file, or memory. Read by offset, so that
//! threads do not share a position.
//!
//! Not here: opening files (`import/mod.rs`).

use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Bytes that can be read at any offset.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// An opened file and its size when it was opened.
    File { file: Arc<File>, len: u64 },
    /// The whole file in memory.
    Memory(Bytes),
    /// Several one after the other, each with where it begins.
    Joined { parts: Arc<[(u64, Source)]>, len: u64 },
}

impl Source {
    /// Several as if they were one.
    pub(super) fn joined(sources: Vec<Source>) -> Source {
        let mut len = 0;
        let parts = sources.into_iter().map(|source| {
            let start = len;
            len += source.len();
            (start, source)
        });
        let parts = parts.collect();
        Source::Joined { parts, len }
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Source::File { len, .. } => *len,
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Joined { len, .. } => *len,
        }
    }

    /// Fills `into` from byte `at` on; an error where the bytes end before, also those of one part.
    pub(super) fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Source::File { file, .. } => read_exact_at(file, into, at),
            Source::Memory(bytes) => {
                let found = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
                let found = found.and_then(|found| found.get(..into.len()));
                let found = found.ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(found);
                Ok(())
            }
            Source::Joined { parts, .. } => {
                let after = parts.partition_point(|(start, _)| *start <= at);
                let (start, part) = parts[..after].last().ok_or(io::ErrorKind::UnexpectedEof)?;
                part.read_exact_at(into, at - start)
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let n_bytes = std::os::windows::fs::FileExt::seek_read(file, into, at)?;
        if n_bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (into, at) = (&mut into[n_bytes..], at + n_bytes as u64);
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_exact_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A position in a [`Source`], for readers that want a stream.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    source: Source,
    at: u64,
}

impl Reader {
    /// Stands at byte 0.
    pub(super) fn new(source: Source) -> Reader {
        Reader::at(source, 0)
    }

    /// Stands at this byte.
    pub(super) fn at(source: Source, at: u64) -> Reader {
        Reader { source, at }
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len().saturating_sub(self.at);
        let n_bytes = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        self.source.read_exact_at(&mut into[..n_bytes], self.at)?;
        self.at += n_bytes as u64;
        Ok(n_bytes)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.source.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
