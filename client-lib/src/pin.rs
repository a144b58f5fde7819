//! PINs and recovery codes. They cross the bus as file descriptors only, never in a message.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    os::unix::fs::FileExt,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// Longest secret that is accepted, in bytes. A PIN or PUK has at most 8 (SP 800-73-4).
const MAX_LEN: usize = 256;

/// A PIN or a recovery code. Zeroized when dropped; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Creates a sealed memfd with exactly these bytes.
    ///
    /// # Errors
    /// [`Error::Secret`] if the system has no descriptor or memory left.
    pub fn to_fd(&self) -> Result<OwnedFd> {
        let fd = memfd_create("keywright-pin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(Error::secret)?;
        let file = File::from(fd);
        // Written with pwrite, so that the file position stays at 0 for readers that use read().
        file.write_all_at(&self.0, 0).map_err(Error::secret)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(Error::secret)?;
        Ok(file.into())
    }

    /// Reads the secret behind a descriptor from the daemon: a memfd from offset 0, or a pipe to its end.
    ///
    /// # Errors
    /// [`Error::Secret`] if it cannot be read, is empty, or is longer than 256 bytes.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let file = File::from(fd);
        // Allocated in full: a growing Vec would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(vec![0; MAX_LEN + 1]);
        let length = read(&file, &mut bytes).map_err(Error::secret)?;
        if length == 0 || length > MAX_LEN {
            return Err(Error::Secret(format!("the descriptor holds {length} bytes")));
        }
        bytes[length..].zeroize();
        bytes.truncate(length);
        Ok(Self(bytes))
    }
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
fn read(mut file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let seekable = file.metadata()?.is_file();
    let mut length = 0;
    while length < bytes.len() {
        let rest = &mut bytes[length..];
        let read = if seekable { file.read_at(rest, length as u64) } else { file.read(rest) };
        match read {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

impl From<String> for Pin {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use rustix::fs::fcntl_get_seals;

    use super::*;

    #[test]
    fn pin_is_a_sealed_memfd_at_offset_0() {
        let fd = Pin::new(*b"123456").to_fd().unwrap();
        let seals = fcntl_get_seals(&fd).unwrap();
        for seal in [SealFlags::WRITE, SealFlags::GROW, SealFlags::SHRINK, SealFlags::SEAL] {
            assert!(seals.contains(seal), "{seal:?} is missing");
        }
        let mut file = File::from(fd);
        assert_eq!(file.stream_position().unwrap(), 0);
        assert!((&file).write_all(b"9").is_err(), "a sealed memfd cannot be written");
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "123456");
    }

    #[test]
    fn code_is_read_from_offset_0_whatever_the_file_position() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"87654321").unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(Pin::from_fd(file.into()).unwrap().as_bytes(), b"87654321");
    }

    #[test]
    fn code_is_read_from_a_pipe() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        File::from(writer).write_all(b"87654321").unwrap();
        assert_eq!(Pin::from_fd(reader).unwrap().as_bytes(), b"87654321");
    }

    #[test]
    fn empty_and_oversized_secrets_are_refused() {
        for length in [0, MAX_LEN + 1, 100_000] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![b'7'; length]).unwrap();
            assert!(matches!(Pin::from_fd(file.into()), Err(Error::Secret(_))), "{length}");
        }
    }

    #[test]
    fn debug_output_hides_the_pin() {
        assert_eq!(format!("{:?}", Pin::new(*b"123456")), "Pin(…)");
    }
}
