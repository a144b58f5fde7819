//! Reads PINs and passwords from files or the terminal, and writes recovery codes to files.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use keywright_client::Pin;
use zeroize::Zeroizing;

use crate::{failure::Failure, terminal};

/// Longest secret that is accepted, in bytes; a longer file is a mistake.
const MAX_LEN: usize = 256;

/// Reads a secret from a file. One newline at its end is not part of the secret.
pub fn read_file(path: &Path) -> Result<Pin, Failure> {
    let usage = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(|error| usage(error.to_string()))?;
    let mut bytes = Zeroizing::new([0; MAX_LEN + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(usage(error.to_string())),
        }
    }
    let secret = bytes[..length].strip_suffix(b"\n").unwrap_or(&bytes[..length]);
    match secret.len() {
        0 => Err(usage("the file is empty; it must contain the PIN and nothing else".into())),
        1..=MAX_LEN => Ok(Pin::new(secret)),
        _ => Err(usage(
            "the file is too long for a PIN; it must contain the PIN and nothing else".into(),
        )),
    }
}

/// Reads a secret from a file if one was given. Called first, so that a bad file is found before anything is started.
pub fn read_optional(path: Option<&Path>) -> Result<Option<Pin>, Failure> {
    path.map(read_file).transpose()
}

/// Reads a secret from a file, or asks for it. `option` is the option that names the file.
pub async fn file_or_ask(
    path: Option<&Path>,
    question: &str,
    option: &str,
) -> Result<Pin, Failure> {
    match path {
        Some(path) => read_file(path),
        None if terminal::is_interactive() => terminal::ask_secret(question).await,
        None => Err(Failure::Usage(format!("there is no terminal to ask at; use {option}"))),
    }
}

/// Reads a new secret from a file, or asks for it twice. `option` is the option that names the file.
pub async fn file_or_ask_new(
    path: Option<&Path>,
    question: &str,
    option: &str,
) -> Result<Pin, Failure> {
    match path {
        None if terminal::is_interactive() => ask_new(question).await,
        _ => file_or_ask(path, question, option).await,
    }
}

/// Asks for a new secret twice, until both answers are equal.
pub async fn ask_new(question: &str) -> Result<Pin, Failure> {
    loop {
        let pin = terminal::ask_secret(question).await?;
        if terminal::ask_secret("Once more: ").await? == pin {
            return Ok(pin);
        }
        terminal::say("The two entries differ. Please try again.");
    }
}

/// A file for the recovery code. It is created before the job starts, because the code is handed out only once and
/// must have a place to be written to.
#[derive(Debug)]
pub struct RecoveryFile {
    path: PathBuf,
    file: File,
    /// Whether this program created the file; if so, it is removed unless it was used.
    is_new: bool,
    used: bool,
}

impl RecoveryFile {
    /// Creates the file with mode 0600, or uses an existing empty one.
    pub fn prepare(path: &Path) -> Result<Self, Failure> {
        let usage = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let (file, is_new) = match options.clone().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.open(path).map_err(|error| usage(error.to_string()))?, false)
            }
            Err(error) => return Err(usage(error.to_string())),
        };
        let metadata = file.metadata().map_err(|error| usage(error.to_string()))?;
        if !metadata.is_file() || metadata.len() > 0 {
            return Err(usage("the file is not empty; choose another one".into()));
        }
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|error| usage(error.to_string()))?;
        Ok(Self { path: path.to_owned(), file, is_new, used: false })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a code was written.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Writes the code and a newline, and syncs the file. A later code of the same job replaces an earlier one, which
    /// never was in force.
    pub fn write(&mut self, code: &Pin) -> Result<(), Failure> {
        self.used = true;
        let mut line = Zeroizing::new(Vec::with_capacity(code.as_bytes().len() + 1));
        line.extend_from_slice(code.as_bytes());
        line.push(b'\n');
        let written = || {
            self.file.set_len(0)?;
            self.file.write_all_at(&line, 0)?;
            self.file.sync_all()
        };
        written().map_err(|error| {
            Failure::refused(format!(
                "the recovery code could not be written to {}: {error}; \
                 the Key is still being made, and its PUK will be unknown",
                self.path.display()
            ))
        })
    }
}

impl Drop for RecoveryFile {
    fn drop(&mut self) {
        if self.is_new && !self.used {
            // Best effort: an empty file does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_trailing_newline_is_not_part_of_the_pin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        for (content, pin) in [
            ("123456\n", Some("123456")),
            ("123456", Some("123456")),
            ("123456\n\n", Some("123456\n")),
            (" 123456 ", Some(" 123456 ")),
            ("", None),
            ("\n", None),
            (&"1".repeat(257), None),
        ] {
            fs::write(&path, content).unwrap();
            match (read_file(&path), pin) {
                (Ok(found), Some(pin)) => assert_eq!(found.as_bytes(), pin.as_bytes()),
                (Err(Failure::Usage(_)), None) => {}
                (found, pin) => panic!("{content:?}: {found:?} is not {pin:?}"),
            }
        }
        assert!(matches!(read_file(dir.path()), Err(Failure::Usage(_))), "a directory");
        assert!(matches!(read_file(&dir.path().join("none")), Err(Failure::Usage(_))));
    }

    #[test]
    fn recovery_file_is_0600_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        let mut file = RecoveryFile::prepare(&path).unwrap();
        file.write(&Pin::new(*b"1234567890")).unwrap();
        file.write(&Pin::new(*b"87654321")).unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"87654321\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(RecoveryFile::prepare(&path), Err(Failure::Usage(_))));
        assert_eq!(fs::read(&path).unwrap(), b"87654321\n");
    }

    #[test]
    fn empty_recovery_file_is_reused_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(RecoveryFile::prepare(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn unused_recovery_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        drop(RecoveryFile::prepare(&path).unwrap());
        assert!(!path.exists());
    }
}
