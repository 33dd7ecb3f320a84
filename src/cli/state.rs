//! What the program keeps between runs: the secret and the API key of a start without configuration.
//!
//! Each is a file of its own, mode 0600 from its first moment, whole or not there at all. A file that others can read
//! is refused, with the command that closes it. Never overwrites, never deletes what it did not just make.
#![forbid(unsafe_code)]

use crate::config::{ApiKey, Scope};
use crate::turn::credential::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::fmt;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The directory, which may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    folder: PathBuf,
}

/// Why something cannot be kept or used.
#[derive(Debug)]
pub(super) enum StateError {
    /// Neither a directory was named nor a home to put one into.
    Nowhere,
    /// The system refuses.
    Io(PathBuf, io::Error),
    /// Others can read or write the file.
    Open(PathBuf, u32),
    /// It holds nothing usable.
    Unusable(PathBuf),
}

/// Where the unit file has the service keep its own.
pub(super) const SERVICE_STATE: &str = "/var/lib/turnserver";

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str(
                "no directory to keep a secret in: set STATE_DIRECTORY to one, or configure auth.secrets and http.keys",
            ),
            Self::Io(path, error) => write!(
                f,
                "{}: {error}; set STATE_DIRECTORY to a directory of your own, or configure auth.secrets and http.keys",
                path.display()
            ),
            Self::Open(path, mode) => {
                let path = path.display();
                write!(f, "{path}: others can use this secret (mode {mode:04o}); run: chmod 600 '{path}'")
            }
            Self::Unusable(path) => {
                let path = path.display();
                write!(f, "{path}: holds no secret; remove it and start again: rm '{path}'")
            }
        }
    }
}

impl State {
    /// `$STATE_DIRECTORY` (the first, when systemd gives several), else `$XDG_STATE_HOME/turnserver`, else
    /// `~/.local/state/turnserver`.
    pub(super) fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, StateError> {
        let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let given = variable("STATE_DIRECTORY").filter(|paths| !paths.is_empty());
        let given = given.map(|paths| {
            paths
                .to_str()
                .and_then(|paths| paths.split(':').next())
                .map_or_else(|| PathBuf::from(&paths), PathBuf::from)
        });
        let folder = given
            .or_else(|| path("XDG_STATE_HOME").map(|home| home.join("turnserver")))
            .or_else(|| path("HOME").map(|home| home.join(".local/state/turnserver")));
        folder.map(|folder| Self { folder }).ok_or(StateError::Nowhere)
    }

    /// Where the secret is kept.
    pub(super) fn secret_path(&self) -> PathBuf {
        self.folder.join("secret")
    }

    /// Where the API key is kept.
    pub(super) fn api_key_path(&self) -> PathBuf {
        self.folder.join("api-key")
    }

    /// The kept secret, if there is one.
    pub(super) fn secret(&self) -> Result<Option<Secret>, StateError> {
        read(&self.secret_path())
    }

    /// The kept secret, made if there is none.
    pub(super) fn secret_or_new(&self) -> Result<Secret, StateError> {
        self.read_or_make(&self.secret_path())
    }

    /// The kept API key, made if there is none. It may do everything.
    pub(super) fn api_key_or_new(&self) -> Result<ApiKey, StateError> {
        self.read_or_make(&self.api_key_path()).map(api_key)
    }

    /// The kept API key, if there is one.
    pub(super) fn api_key(&self) -> Result<Option<ApiKey>, StateError> {
        Ok(read(&self.api_key_path())?.map(api_key))
    }

    fn read_or_make(&self, path: &Path) -> Result<Secret, StateError> {
        if let Some(secret) = read(path)? {
            return Ok(secret);
        }
        let io = |error| StateError::Io(path.into(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(io)?;
        make(path).map_err(io)?;
        // Of two that start at once, both take what the first one made.
        read(path)?.ok_or_else(|| StateError::Unusable(path.into()))
    }
}

fn api_key(secret: Secret) -> ApiKey {
    ApiKey { id: "first".into(), secret, scopes: vec![Scope::Mint, Scope::Read, Scope::Admin] }
}

fn read(path: &Path) -> Result<Option<Secret>, StateError> {
    let io = |error| StateError::Io(path.into(), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mode = file.metadata().map_err(io)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Open(path.into(), mode));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(SECRET_FILE_MAX).read_to_string(&mut text).map_err(io)?;
    match text.trim() {
        secret if secret.len() < SECRET_MIN => Err(StateError::Unusable(path.into())),
        secret => Ok(Some(Secret::new(secret))),
    }
}

const SECRET_FILE_MAX: u64 = 4096; // bytes; what is made here has 44
const SECRET_MIN: usize = 16; // characters

/// Writes a new secret beside its place and links it there: whole, or not at all, and never over another.
fn make(path: &Path) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes) + "\n");
    // Named by chance: one left by a start that was killed, perhaps under the same process id, is in nobody's way.
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    let draft = path.with_extension(format!("{:016x}.new", u64::from_ne_bytes(name)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let kept = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    std::fs::remove_file(&draft)?;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(variables: &[(&str, &str)]) -> Result<PathBuf, StateError> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        State::find(variable).map(|state| state.folder)
    }

    #[test]
    fn systemd_s_directory_comes_before_xdg_s_before_home_s() {
        let all = [("STATE_DIRECTORY", "/var/lib/t:/x"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/you")];
        assert_eq!(folder(&all).unwrap(), Path::new("/var/lib/t"));
        assert_eq!(folder(&all[1..]).unwrap(), Path::new("/xdg/turnserver"));
        assert_eq!(folder(&all[2..]).unwrap(), Path::new("/home/you/.local/state/turnserver"));
        assert!(matches!(folder(&[("HOME", "")]), Err(StateError::Nowhere)));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_closes_it() {
        let folder = std::env::temp_dir().join(format!("turnserver-state-{}", std::process::id()));
        let state = State { folder: folder.clone() };
        assert_eq!(state.secret().unwrap(), None);
        let made = state.secret_or_new().unwrap();
        assert_eq!(state.secret().unwrap(), Some(made.clone()));
        assert_eq!(made.expose().len(), 43);
        assert_eq!(std::fs::metadata(state.secret_path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_ne!(state.api_key_or_new().unwrap().secret, made);

        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(state.secret_path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = state.secret_or_new().unwrap_err().to_string();
        let path = state.secret_path();
        let path = path.display();
        assert_eq!(refusal, format!("{path}: others can use this secret (mode 0640); run: chmod 600 '{path}'"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no draft is left");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
