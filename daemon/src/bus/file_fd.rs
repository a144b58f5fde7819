//! Reads and writes files that callers pass as a file descriptor: a regular file or a pipe.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
};

use super::arguments::invalid;
use crate::error::Error;

/// How long to wait until a pipe is ready for the next chunk, in seconds.
const READY_TIMEOUT: i64 = 5;
/// Bytes read or written at once. A pipe that is ready for writing takes this many without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// Reads to the end, at most `longest` bytes. Blocks.
///
/// # Errors
/// `InvalidArgument`: neither a file nor a pipe, too long, or no more data for 5 s.
pub fn read_file(argument: &str, fd: OwnedFd, longest: usize) -> Result<Vec<u8>, Error> {
    let is_pipe = is_pipe(argument, &fd)?;
    let (mut file, mut bytes, mut chunk) = (File::from(fd), Vec::new(), [0; CHUNK]);
    loop {
        if is_pipe {
            await_ready(argument, &file, PollFlags::IN)?;
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(invalid(argument, error)),
        }
        if bytes.len() > longest {
            return Err(invalid(argument, format!("it has more than {longest} bytes")));
        }
    }
}

/// Writes all bytes. Blocks.
///
/// # Errors
/// `InvalidArgument`: neither a file nor a pipe, or it takes no more data for 5 s.
pub fn write_file(argument: &'static str, fd: OwnedFd, bytes: &[u8]) -> Result<(), Error> {
    OutputFile::open(argument, fd)?.write(bytes)
}

/// A file or pipe that is written chunk by chunk.
pub struct OutputFile {
    argument: &'static str,
    file: File,
    is_pipe: bool,
}

impl OutputFile {
    /// Takes the file descriptor that was passed as this argument.
    ///
    /// # Errors
    /// `InvalidArgument`: neither a file nor a pipe.
    pub fn open(argument: &'static str, fd: OwnedFd) -> Result<Self, Error> {
        let is_pipe = is_pipe(argument, &fd)?;
        Ok(Self { argument, file: File::from(fd), is_pipe })
    }

    /// Writes all bytes. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument`: it takes no more data for 5 s.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for chunk in bytes.chunks(CHUNK) {
            if self.is_pipe {
                await_ready(self.argument, &self.file, PollFlags::OUT)?;
            }
            self.file.write_all(chunk).map_err(|error| invalid(self.argument, error))?;
        }
        Ok(())
    }
}

fn is_pipe(argument: &str, fd: &OwnedFd) -> Result<bool, Error> {
    let stat = fstat(fd).map_err(|error| invalid(argument, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Ok(true),
        FileType::RegularFile => Ok(false),
        _ => Err(invalid(argument, "give a file or a pipe")),
    }
}

fn await_ready(argument: &str, file: &File, what: PollFlags) -> Result<(), Error> {
    let patience = Timespec { tv_sec: READY_TIMEOUT, tv_nsec: 0 };
    match poll(&mut [PollFd::new(file, what)], Some(&patience)) {
        Ok(0) => Err(invalid(argument, format!("nothing more came or went for {READY_TIMEOUT} s"))),
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(argument, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use keywright_proto::ErrorName;
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn files_and_pipes_are_read_up_to_the_limit() {
        let content = vec![7; 3 * CHUNK + 5];
        let mut file = tempfile::tempfile().unwrap();
        write_file("out", file.try_clone().unwrap().into(), &content).unwrap();
        file.rewind().unwrap();
        assert_eq!(read_file("in", file.into(), content.len()).unwrap(), content);
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let sent = content.clone();
        let writing = std::thread::spawn(move || write_file("out", writer, &sent).unwrap());
        assert_eq!(read_file("in", reader, content.len()).unwrap(), content);
        writing.join().unwrap();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        write_file("out", writer, &content[..10]).unwrap();
        let refused = read_file("in", reader, 9).unwrap_err();
        assert_eq!(refused.name(), ErrorName::InvalidArgument);
    }

    #[test]
    fn devices_and_directories_are_refused() {
        for path in ["/dev/zero", "/"] {
            assert!(read_file("in", File::open(path).unwrap().into(), 10).is_err(), "{path}");
        }
    }
}
