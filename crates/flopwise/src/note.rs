//! [`Note`]: a doubt or a flaw that does not stop the answer, and what to do about it.

use std::fmt;

/// Something the reader of an answer should know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// What is so, as a sentence without full stop.
    pub text: String,
}

impl Note {
    /// A note with this text.
    pub fn new(text: impl Into<String>) -> Note {
        Note { text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}
