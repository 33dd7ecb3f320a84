//! What is wrong with a configuration, in words an operator can act on.
//!
//! A mistake says where it stands, which key, what was written and what to mend. What a secret key holds is never shown.
#![forbid(unsafe_code)]

use core::fmt;

/// One thing to mend, or, among the warnings, to think about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it was written.
    pub source: Source,
    /// The dotted path of the key, empty when the text is no TOML at all.
    pub key: String,
    /// What was written, as far as it may be shown.
    pub given: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: Option<String>,
}

/// Where a value comes from. A file comes before the environment, as in the list of mistakes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A line of the configuration file, counted from 1.
    File {
        /// The name of the file as it was given.
        name: String,
        /// The line.
        line: usize,
    },
    /// An environment variable, as it is spelled.
    Environment(String),
    /// The built-in default, or no single place.
    Default,
}

impl Mistake {
    /// A mistake at `key`.
    pub fn new(source: Source, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source, key: key.into(), given: None, message: message.into(), hint: None }
    }

    /// The same, showing what was written.
    pub fn given(mut self, given: impl Into<String>) -> Self {
        self.given = Some(given.into());
        self
    }

    /// The same, saying what to write.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source != Source::Default {
            write!(f, "{}: ", self.source)?;
        }
        f.write_str(&self.key)?;
        if let Some(given) = &self.given {
            write!(f, " = {given}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

impl From<Mistake> for Vec<Mistake> {
    fn from(mistake: Mistake) -> Self {
        vec![mistake]
    }
}
