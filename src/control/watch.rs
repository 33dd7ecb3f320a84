//! Files that are looked at now and then: whether they have changed, and the secrets in one of them.
//!
//! Looks at time, size and inode, so that a file replaced by a rename counts as changed. Never keeps the secrets.
#![forbid(unsafe_code)]

use crate::turn::credential::Secret;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The secrets in a file, one a line, newest first. Blank lines and blanks around a secret do not count.
pub fn secrets(path: &Path) -> io::Result<Vec<Secret>> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::new).collect())
}

/// A file that is looked at now and then.
#[derive(Debug, Default)]
pub(super) struct Watch {
    path: Option<PathBuf>,
    seen: Option<Stamp>,
}

type Stamp = (i64, i64, u64, u64);

impl Watch {
    /// Watches this file from now on; what it is at this moment is no change.
    pub(super) fn on(path: Option<PathBuf>) -> Self {
        let seen = path.as_deref().and_then(stamp);
        Self { path, seen }
    }

    /// Whether the file differs from when it was last looked at. A file that is gone counts once it is back.
    pub(super) fn has_changed(&mut self) -> bool {
        let Some(now) = self.path.as_deref().and_then(stamp) else { return false };
        let before = self.seen.replace(now);
        before != Some(now)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaced_by_a_rename_is_seen_once_and_its_secrets_are_read() {
        let folder = std::env::temp_dir().join(format!("turnserver-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, next) = (folder.join("secrets"), folder.join("next"));
        fs::write(&file, "old\n").unwrap();
        let mut watch = Watch::on(Some(file.clone()));
        assert!(!watch.has_changed());
        fs::write(&next, "new\r\n\n  old\n").unwrap();
        fs::rename(&next, &file).unwrap();
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        assert_eq!(secrets(&file).unwrap(), [Secret::new("new"), Secret::new("old")]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
