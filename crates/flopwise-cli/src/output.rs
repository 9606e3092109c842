//! stdout for data, stderr for talk, and files that appear whole or not at all.

use anyhow::{Context, bail};
use flopwise::report::{Paint, Report, json, text};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Prints a report to stdout.
pub(crate) fn print(report: &Report, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return write_stdout(&json(report));
    }
    let has_colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    let paint = if has_colour { Paint::Colour } else { Paint::Plain };
    write_stdout(&text(report, paint))
}

/// Writes to stdout, to the last byte.
pub(crate) fn write_stdout(data: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Says something to the user on stderr; that nobody may be listening is no error.
pub(crate) fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Prints an error on one line.
pub(crate) fn complain(error: &anyhow::Error) {
    let line = format!("{error:#}").replace(['\n', '\r'], " ");
    say(&format!("error: {line}"));
}

/// A reader that went away (`| head`) is no error.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a person watches stderr.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Bytes at the start of a file searched for its mark.
const MARK_WITHIN: usize = 4096;

/// Refuses to replace anything but a file of ours (its first bytes hold `mark`) or an empty one.
pub(crate) fn check_place(path: &Path, mark: &str) -> anyhow::Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() {
        bail!("{}: is not a regular file; name another", path.display());
    }
    if metadata.len() != 0 && !is_ours(path, mark)? {
        bail!("{}: exists and was not written by flopwise; name another file", path.display());
    }
    Ok(())
}

/// Writes a file under a temporary name beside it and renames it, so that it appears whole. Only a
/// file of ours is replaced ([`check_place`]).
pub(crate) fn write_file(path: &Path, data: &str, mark: &str) -> anyhow::Result<()> {
    check_place(path, mark)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let cannot = || format!("{}: cannot be written", path.display());
    let mut file =
        tempfile::Builder::new().prefix(".flopwise-").tempfile_in(folder).with_context(cannot)?;
    file.write_all(data.as_bytes()).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    allow_reading(file.as_file()).with_context(cannot)?;
    file.persist(path).map_err(|error| error.error).with_context(cannot)?;
    Ok(())
}

/// A temporary file is made for its owner only; a report or profile is as public as any file.
#[cfg(unix)]
fn allow_reading(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn allow_reading(_: &fs::File) -> io::Result<()> {
    Ok(())
}

fn is_ours(path: &Path, mark: &str) -> anyhow::Result<bool> {
    let cannot = || format!("{}: cannot be read", path.display());
    let mut start = Vec::new();
    let file = fs::File::open(path).with_context(cannot)?;
    io::Read::read_to_end(&mut io::Read::take(file, MARK_WITHIN as u64), &mut start)
        .with_context(cannot)?;
    Ok(String::from_utf8_lossy(&start).contains(mark))
}
