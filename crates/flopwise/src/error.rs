//! [`Error`]: why there is no answer. It names the file, the place in it, and a remedy.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why there is no answer: what is wrong, in which file and where in it, and what to do.
///
/// Prints on one line: ``model.onnx: node `conv1`: the kernel is larger than the padded input``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    file: Option<PathBuf>,
    place: Option<String>,
    what: String,
    remedy: Option<String>,
}

impl Error {
    /// An error that says `what` is wrong: lower case, no full stop.
    pub fn new(what: impl Into<String>) -> Error {
        Error { file: None, place: None, what: what.into(), remedy: None }
    }

    /// Names the file, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Error {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// Names the place in the file (``node `conv1` ``), unless one is named already.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.place.get_or_insert_with(|| place.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// The file it is about, when there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(formatter, "{}: ", one_line(place))?;
        }
        formatter.write_str(&one_line(&self.what))?;
        if let Some(remedy) = &self.remedy {
            write!(formatter, "; {remedy}")?;
        }
        Ok(())
    }
}

/// Names inside files may hold anything; an error stays one line of bounded length.
fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let is_long = text.chars().nth(MAX_CHARS).is_some();
    let shown = text.chars().take(MAX_CHARS);
    let mut line: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
    if is_long {
        line.push('…');
    }
    line
}

impl std::error::Error for Error {}

macro_rules! from_errors {
    ($($source:ty),*) => {$(
        impl From<$source> for Error {
            fn from(error: $source) -> Error {
                Error::new(error.to_string())
            }
        }
    )*};
}

from_errors!(
    crate::graph::BuildError,
    crate::graph::BindError,
    crate::graph::DimError,
    crate::graph::ShapeError
);
