//! The secret file. Never keeps the secrets.
#![forbid(unsafe_code)]

use crate::turn::credential::Secret;
use std::fs;
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// The secrets in a file, one a line, newest first. Blank lines and blanks around a secret do not count.
pub fn secrets(path: &Path) -> io::Result<Vec<Secret>> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::new).collect())
}
