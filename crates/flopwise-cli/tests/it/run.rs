//! Running the built program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What one run gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A fresh folder that goes when the test ends.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("the test machine has a temporary folder")
}

/// Runs `flopwise` with its own data directory, without colour.
pub(crate) fn flopwise_in(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flopwise"));
    command.args(args).current_dir(folder).env("XDG_DATA_HOME", folder).env("NO_COLOR", "1");
    ran(command.output().expect("the built program runs"))
}

/// Runs `flopwise` in a folder of its own.
pub(crate) fn flopwise(args: &[&str]) -> Ran {
    flopwise_in(folder().path(), args)
}

/// Runs `flopwise` with this text on stdin.
pub(crate) fn flopwise_with_stdin(args: &[&str], stdin: &str) -> Ran {
    let folder = folder();
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_flopwise"));
    command.args(args).current_dir(folder.path()).env("NO_COLOR", "1").write_stdin(stdin);
    ran(command.output().expect("the built program runs"))
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    let code = output.status.code().expect("the program was not killed by a signal");
    Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A file under the library's test data.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../flopwise/tests/data").join(name)
}
