//! PINs as file descriptors, as the D-Bus methods take them.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    pipe::PipeFlags,
};
use zbus::Fd;

/// A token's factory PIN.
pub const FACTORY_PIN: &str = "123456";
/// The PIN that every Key made by these tests gets.
pub const PIN: &str = "246802";
/// The PIN that a test changes a Key's to.
pub const NEW_PIN: &str = "135791";
/// A PIN that no Key here has.
pub const WRONG_PIN: &str = "999999";
/// A token's factory PUK.
pub const FACTORY_PUK: &str = "12345678";

/// Whether a text contains this secret. Digits within a longer number, such as a hash, match by chance and do not count.
pub fn tells(text: &str, secret: &str) -> bool {
    let of_number = |end: Option<char>| end.is_some_and(|c| c.is_ascii_hexdigit() || c == '.');
    text.match_indices(secret).any(|(at, found)| {
        !of_number(text[..at].chars().next_back())
            && !of_number(text[at + found.len()..].chars().next())
    })
}

/// A pipe that contains these bytes and is closed after them.
pub fn pipe(pin: impl AsRef<[u8]>) -> Fd<'static> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    File::from(writer).write_all(pin.as_ref()).unwrap();
    Fd::from(reader)
}

/// A pipe and its write end; the pipe ends when the write end is dropped.
pub fn open_pipe() -> (Fd<'static>, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    (Fd::from(reader), writer)
}

/// A sealed memfd with its offset at the end; the daemon reads it from offset 0.
pub fn memfd(pin: impl AsRef<[u8]>) -> Fd<'static> {
    let mut file = unsealed(pin.as_ref());
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    Fd::from(OwnedFd::from(file))
}

/// A memfd without seals, which the caller could still change.
pub fn unsealed_memfd(pin: impl AsRef<[u8]>) -> Fd<'static> {
    Fd::from(OwnedFd::from(unsealed(pin.as_ref())))
}

fn unsealed(pin: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("pin", flags).unwrap());
    file.write_all(pin).unwrap();
    file
}

/// Reads a descriptor from the daemon, such as that of a recovery code.
pub fn read(handed_out: zbus::OwnedFd) -> String {
    let mut text = String::new();
    File::from(OwnedFd::from(handed_out)).read_to_string(&mut text).unwrap();
    text
}
