//! Reads and writes files that callers pass as a file descriptor: a regular file or a pipe.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
};

use super::arguments::invalid;
use crate::error::Error;

/// How long to wait until a pipe is ready for the next chunk.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other end of a pipe may take for everything. Until then it keeps a thread of the daemon.
pub const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes read or written at once. A pipe that is ready for writing takes this many without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// Reads to the end, at most `longest` bytes and for at most `whole`. Blocks.
///
/// # Errors
/// `InvalidArgument`: neither a file nor a pipe, too long, too slow, or no more data for 5 s.
pub fn read_file(
    argument: &str,
    fd: OwnedFd,
    longest: usize,
    whole: Duration,
) -> Result<Vec<u8>, Error> {
    let end = Instant::now() + whole;
    let is_pipe = is_pipe(argument, &fd)?;
    let (mut file, mut bytes, mut chunk) = (File::from(fd), Vec::new(), [0; CHUNK]);
    loop {
        if is_pipe {
            await_ready(argument, &file, PollFlags::IN, end)?;
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
/// `InvalidArgument`: neither a file nor a pipe, it takes no more data for 5 s, or not all in 60 s.
pub fn write_file(argument: &'static str, fd: OwnedFd, bytes: &[u8]) -> Result<(), Error> {
    OutputFile::open(argument, fd)?.write(bytes)
}

/// A file or pipe that is written chunk by chunk.
pub struct OutputFile {
    argument: &'static str,
    file: File,
    is_pipe: bool,
    end: Instant,
}

impl OutputFile {
    /// Takes the file descriptor that was passed as this argument.
    ///
    /// # Errors
    /// `InvalidArgument`: neither a file nor a pipe.
    pub fn open(argument: &'static str, fd: OwnedFd) -> Result<Self, Error> {
        let is_pipe = is_pipe(argument, &fd)?;
        Ok(Self { argument, file: File::from(fd), is_pipe, end: Instant::now() + WHOLE_TIMEOUT })
    }

    /// Writes all bytes. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument`: it takes no more data for 5 s, or not all in 60 s since it was opened.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for chunk in bytes.chunks(CHUNK) {
            if self.is_pipe {
                await_ready(self.argument, &self.file, PollFlags::OUT, self.end)?;
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

fn await_ready(argument: &str, file: &File, what: PollFlags, end: Instant) -> Result<(), Error> {
    let left = end.saturating_duration_since(Instant::now());
    let patience = Timespec::try_from(left.min(READY_TIMEOUT)).map_err(|e| invalid(argument, e))?;
    match poll(&mut [PollFd::new(file, what)], Some(&patience)) {
        Ok(0) if left < READY_TIMEOUT => Err(invalid(argument, "the other end took too long")),
        Ok(0) => {
            let seconds = READY_TIMEOUT.as_secs();
            Err(invalid(argument, format!("nothing more came or went for {seconds} s")))
        }
        Ok(_) if left.is_zero() => Err(invalid(argument, "the other end took too long")),
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
        assert_eq!(read_file("in", file.into(), content.len(), WHOLE_TIMEOUT).unwrap(), content);
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let sent = content.clone();
        let writing = std::thread::spawn(move || write_file("out", writer, &sent).unwrap());
        assert_eq!(read_file("in", reader, content.len(), WHOLE_TIMEOUT).unwrap(), content);
        writing.join().unwrap();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        write_file("out", writer, &content[..10]).unwrap();
        let refused = read_file("in", reader, 9, WHOLE_TIMEOUT).unwrap_err();
        assert_eq!(refused.name(), ErrorName::InvalidArgument);
    }

    #[test]
    fn devices_and_directories_are_refused() {
        for path in ["/dev/zero", "/"] {
            let opened = File::open(path).unwrap().into();
            assert!(read_file("in", opened, 10, WHOLE_TIMEOUT).is_err(), "{path}");
        }
    }

    /// A byte now and then is no reason to go on reading.
    #[test]
    fn pipe_that_trickles_is_given_up() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let trickle = std::thread::spawn(move || {
            let mut writer = File::from(writer);
            while writer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let refused = read_file("in", reader, 1 << 20, Duration::from_millis(200)).unwrap_err();
        assert!(refused.to_string().contains("took too long"), "{refused}");
        trickle.join().unwrap();
    }
}
