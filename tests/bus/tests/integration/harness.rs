//! Tests of the harness itself that need no daemon.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

use keywright_bus_tests::{
    bus::Bus,
    card::{Card, Reaction},
    key::VirtualKey,
    pins,
};
use tempfile::TempDir;

const SELECT: &[u8] = b"\x00\xA4\x04\x00\x09\xA0\x00\x00\x03\x08\x00\x00\x10\x00\x00";
const WRONG_PIN: &[u8] = b"\x00\x20\x00\x80\x08999999\xFF\xFF";
const RETRIES: &[u8] = b"\x00\x20\x00\x80";

/// A virtual Key behind a card in a reader, and the reader's end of it.
fn plug(dir: &TempDir) -> (VirtualKey, Card, UnixStream) {
    let [reader, socket] = ["reader", "card"].map(|name| dir.path().join(name));
    let [reader_listener, listener] = [&reader, &socket].map(|path| {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path).unwrap()
    });
    let key = VirtualKey::plug(&socket, &dir.path().join("memory"), "1", &[]);
    let plugging = thread::spawn(move || Card::in_front_of(&listener, &reader));
    let (stream, _) = reader_listener.accept().unwrap();
    (key, plugging.join().unwrap(), stream)
}

/// The status word; none if the connection was cut.
fn status(stream: &mut UnixStream, command: &[u8]) -> Option<u16> {
    let length = u16::try_from(command.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, command].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    Some(u16::from_be_bytes(*answer.last_chunk().unwrap()))
}

#[test]
fn card_forwards_and_counts_commands() {
    let dir = TempDir::new().unwrap();
    let (_key, card, mut stream) = plug(&dir);
    assert_eq!(status(&mut stream, SELECT), Some(0x9000));
    assert_eq!(status(&mut stream, RETRIES), Some(0x63C3));
    assert_eq!(card.count(), 2);
    card.at(2, Reaction::Answer(vec![0x6F, 0]));
    assert_eq!(status(&mut stream, RETRIES), Some(0x63C3));
    assert_eq!(status(&mut stream, RETRIES), Some(0x6F00));
    assert_eq!(card.take_commands(), [SELECT, RETRIES, RETRIES, RETRIES]);
}

#[test]
fn cut_command_is_executed_only_if_the_script_says_so() {
    let dir = TempDir::new().unwrap();
    for (reaction, retries) in [(Reaction::Cut, 0x63C3), (Reaction::ExecuteAndCut, 0x63C2)] {
        let (_key, card, mut stream) = plug(&dir);
        card.at(2, reaction);
        assert_eq!(status(&mut stream, SELECT), Some(0x9000));
        assert_eq!(status(&mut stream, WRONG_PIN), None);
        drop((card, stream));
        let (_key, _card, mut stream) = plug(&dir);
        assert_eq!(status(&mut stream, SELECT), Some(0x9000));
        assert_eq!(status(&mut stream, RETRIES), Some(retries));
    }
}

#[tokio::test]
async fn private_bus_ends_when_dropped() {
    let dir = TempDir::new().unwrap();
    let bus = Bus::start(dir.path());
    let connection = bus.connect().await;
    assert!(connection.unique_name().is_some());
    drop(bus);
    connection.closed().await;
}

#[test]
fn pin_descriptors_contain_the_pin() {
    for fd in [pins::pipe("123456"), pins::memfd("123456")] {
        let mut file = std::fs::File::from(std::os::fd::OwnedFd::try_from(fd).unwrap());
        let _ = std::io::Seek::rewind(&mut file);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "123456");
    }
}
