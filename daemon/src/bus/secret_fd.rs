//! Reads PINs from file descriptors, and returns the recovery code as one, so that no D-Bus message contains a secret.

use std::{os::fd::OwnedFd, time::Duration};

use keywright_token::{Pin, PinFormat, RecoveryCode};
use rustix::{
    fs::{FileType, SealFlags, fcntl_get_seals, fstat},
    io::{pread, write},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{net::unix::pipe, time::timeout};
use zeroize::Zeroizing;

use super::arguments::invalid;
use crate::error::Error;

/// How long the writer of a pipe may take until it closes it.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// One byte more than the longest PIN: enough to notice a longer one without reading it all.
const BUFFER_LENGTH: usize = Pin::MAX_LENGTH + 1;

type Buffer = Zeroizing<[u8; BUFFER_LENGTH]>;

/// Reads a PIN from a pipe, or from the beginning of a memfd sealed against writing.
///
/// # Errors
/// `InvalidArgument`: another kind of descriptor, a pipe not closed within 5 s, or not 6 to 8 bytes.
pub async fn read_pin(argument: &str, fd: OwnedFd) -> Result<Pin, Error> {
    read(argument, fd, Pin::new).await
}

/// Reads a recovery code in the same way.
///
/// # Errors
/// As for [`read_pin`].
pub async fn read_recovery_code(argument: &str, fd: OwnedFd) -> Result<RecoveryCode, Error> {
    read(argument, fd, RecoveryCode::new).await
}

async fn read<T>(
    argument: &str,
    fd: OwnedFd,
    form: impl FnOnce(&[u8]) -> Result<T, PinFormat>,
) -> Result<T, Error> {
    let mut buffer = Buffer::new([0; BUFFER_LENGTH]);
    let stat = fstat(&fd).map_err(|error| invalid(argument, error))?;
    let length = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => read_pipe(argument, fd, &mut buffer).await?,
        FileType::RegularFile => read_memfd(argument, &fd, &mut buffer)?,
        _ => return Err(not_pipe_or_memfd(argument)),
    };
    form(&buffer[..length]).map_err(|error| invalid(argument, error))
}

/// A pipe for a recovery code. Opened before the station is asked, because it gives the code out only once.
pub struct CodePipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl CodePipe {
    /// Opens an empty pipe.
    ///
    /// # Errors
    /// `LimitExceeded`: the daemon has too many files open.
    pub fn open() -> Result<Self, Error> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(no_pipe)?;
        Ok(Self { reader, writer })
    }

    /// Writes the code, closes the writing end, and returns the reading end.
    ///
    /// # Errors
    /// `LimitExceeded`: the system has no memory for it.
    pub fn fill(self, code: &RecoveryCode) -> Result<OwnedFd, Error> {
        // An empty pipe takes a page at least, so this neither blocks nor writes only a part.
        write(&self.writer, code.as_bytes()).map_err(no_pipe)?;
        Ok(self.reader)
    }
}

fn no_pipe(error: rustix::io::Errno) -> Error {
    Error::LimitExceeded(format!(
        "there is no pipe for the recovery code ({error}); try again later"
    ))
}

async fn read_pipe(argument: &str, fd: OwnedFd, buffer: &mut Buffer) -> Result<usize, Error> {
    let pipe = pipe::Receiver::from_owned_fd(fd).map_err(|error| invalid(argument, error))?;
    let read = async {
        let mut length = 0;
        while length < BUFFER_LENGTH {
            pipe.readable().await?;
            match pipe.try_read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    };
    match timeout(READ_TIMEOUT, read).await {
        Ok(read) => read.map_err(|error| invalid(argument, error)),
        Err(_) => {
            let why = format!("the pipe was not closed within {} s", READ_TIMEOUT.as_secs());
            Err(invalid(argument, why))
        }
    }
}

fn read_memfd(argument: &str, fd: &OwnedFd, buffer: &mut Buffer) -> Result<usize, Error> {
    // Only memfds can be sealed. A plain file on tmpfs answers F_GET_SEALS too, but never with F_SEAL_WRITE.
    let sealed = fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    if !sealed {
        return Err(not_pipe_or_memfd(argument));
    }
    let mut length = 0;
    while length < BUFFER_LENGTH {
        match pread(fd, &mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) => return Err(invalid(argument, error)),
        }
    }
    Ok(length)
}

fn not_pipe_or_memfd(argument: &str) -> Error {
    invalid(argument, "give a pipe, or a memfd sealed against writing")
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use keywright_proto::ErrorName;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn pipe_with_bytes(bytes: &[u8]) -> OwnedFd {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        write(&writer, bytes).unwrap();
        reader
    }

    fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("pin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        write(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    async fn refusal(fd: OwnedFd) -> String {
        let error = read_pin("pin", fd).await.unwrap_err();
        assert_eq!(error.name(), ErrorName::InvalidArgument);
        error.to_string()
    }

    #[tokio::test]
    async fn pin_has_six_to_eight_bytes() {
        for bytes in [&b"246810"[..], b"2468101", b"24681012"] {
            assert!(read_pin("pin", pipe_with_bytes(bytes)).await.is_ok());
            assert!(read_pin("pin", memfd(bytes, SealFlags::WRITE)).await.is_ok());
        }
        for bytes in [&b""[..], b"24681", b"246810121", &[b'2'; 4096]] {
            assert!(refusal(pipe_with_bytes(bytes)).await.contains("6 to 8"));
            assert!(refusal(memfd(bytes, SealFlags::WRITE)).await.contains("6 to 8"));
        }
    }

    #[tokio::test]
    async fn memfd_is_read_from_its_beginning() {
        let fd = memfd(b"246810", SealFlags::WRITE);
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)).unwrap();
        assert!(read_pin("pin", fd).await.is_ok());
    }

    #[tokio::test]
    async fn unsealed_and_other_descriptors_are_refused() {
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        write(&file, b"246810").unwrap();
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        for fd in [
            memfd(b"246810", SealFlags::SHRINK),
            file.into(),
            File::open("/").unwrap().into(),
            File::open("/dev/zero").unwrap().into(),
            stream.into(),
            writer,
        ] {
            refusal(fd).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pipe_left_open_times_out() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        write(&writer, b"246810").unwrap();
        assert!(refusal(reader).await.contains("5 s"));
    }

    #[test]
    fn recovery_code_pipe_ends_after_the_code() {
        let code = RecoveryCode::new(b"13572468").unwrap();
        let fd = CodePipe::open().unwrap().fill(&code).unwrap();
        let mut read = Vec::new();
        File::from(fd).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"13572468");
    }
}
