//! The USB/IP protocol, version 1.1.1 (the kernel's `Documentation/usb/usbip_protocol.rst`), the server's side: exports
//! one device as bus id 1-1 until the host that imports it releases it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use super::{Answer, Device, Setup};

/// Bus id of the device.
pub const BUS_ID: &[u8] = b"1-1";
/// `devid` of the device: bus 1, device 2.
pub const DEVICE_ID: u32 = 0x0001_0002;

const VERSION: [u8; 2] = [0x01, 0x11];
const LIST: u16 = 0x8005;
const IMPORT: u16 = 0x8003;
const SUBMIT: u32 = 1;
const UNLINK: u32 = 2;
const FULL_SPEED: u32 = 2;
const HEADER: usize = 48;
/// Longest transfer that is accepted, in bytes.
const MAX_LEN: u32 = 1 << 20;

const STALLED: i32 = -32; // EPIPE
const UNLINKED: i32 = -104; // ECONNRESET

/// Waits until a host imports the device, then serves it until the host releases it or it answers
/// [`Answer::Unplugged`].
///
/// # Errors
/// Errors of the socket, and InvalidData for what is not USB/IP.
pub fn serve(listener: &TcpListener, device: &mut impl Device) -> io::Result<()> {
    loop {
        let (mut host, _) = listener.accept()?;
        host.set_nodelay(true)?;
        // A client that only lists devices, or sends something else, changes nothing.
        if handshake(&mut host, device).unwrap_or(false) {
            return transfers(&mut host, device);
        }
    }
}

/// Answers the first request of a client; true if it imports the device.
fn handshake(host: &mut TcpStream, device: &impl Device) -> io::Result<bool> {
    let mut request = [0; 8];
    host.read_exact(&mut request)?;
    let reply = |code: u8, status: u8| [&VERSION[..], &[0, code, 0, 0, 0, status]].concat();
    match u16::from_be_bytes([request[2], request[3]]) {
        LIST => {
            let one = 1_u32.to_be_bytes();
            // The list has only the class of its interface: CCID.
            let interface = [0x0B, 0, 0, 0];
            host.write_all(&[&reply(5, 0)[..], &one, &record(device), &interface].concat())?;
            Ok(false)
        }
        IMPORT => {
            let mut bus_id = [0; 32];
            host.read_exact(&mut bus_id)?;
            let ours = bus_id.starts_with(BUS_ID) && bus_id[BUS_ID.len()] == 0;
            let record = if ours { record(device) } else { Vec::new() };
            host.write_all(&[&reply(3, u8::from(!ours))[..], &record].concat())?;
            Ok(ours)
        }
        _ => Ok(false),
    }
}

/// Builds the device's record for lists and imports; the kernel reads the real descriptors afterwards.
fn record(device: &impl Device) -> Vec<u8> {
    let descriptor = device.descriptor();
    let mut record = vec![0; 256 + 32];
    record[..8].copy_from_slice(b"/virtual");
    record[256..256 + BUS_ID.len()].copy_from_slice(BUS_ID);
    let [busnum, devnum] = [DEVICE_ID >> 16, DEVICE_ID & 0xFFFF];
    for number in [busnum, devnum, FULL_SPEED] {
        record.extend(number.to_be_bytes());
    }
    // Vendor, product, release: little endian in the descriptor, big endian in the record.
    for at in [8, 10, 12] {
        record.extend([descriptor[at + 1], descriptor[at]]);
    }
    // Class, subclass, protocol; configuration 1 of 1 with 1 interface.
    record.extend([descriptor[4], descriptor[5], descriptor[6], 1, 1, 1]);
    record
}

/// A transfer to the host for which the device has no data yet.
struct Waiting {
    number: u32,
    endpoint: u8,
    wanted: usize,
}

fn transfers(host: &mut TcpStream, device: &mut impl Device) -> io::Result<()> {
    let mut waiting = VecDeque::new();
    // Transfers that never get an answer; the host unlinks them at some time.
    let mut silent = Vec::new();
    let mut header = [0; HEADER];
    loop {
        match host.read_exact(&mut header) {
            Err(error) if is_disconnect(&error) => return Ok(()),
            result => result?,
        }
        let word = |at: usize| header[at..].first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        let (command, number) = (word(0), word(4));
        match command {
            SUBMIT => {
                let (to_host, endpoint, length) = (word(12) == 1, word(16), word(24));
                let too_long = || io::Error::new(ErrorKind::InvalidData, "unsupported transfer");
                let endpoint = u8::try_from(endpoint).map_err(|_| too_long())?;
                let length =
                    Some(length).filter(|&length| length <= MAX_LEN).ok_or_else(too_long)?;
                let mut data = vec![0; if to_host { 0 } else { length as usize }];
                host.read_exact(&mut data)?;
                let answer = match (endpoint, to_host) {
                    (0, _) => {
                        let setup = header.last_chunk().map_or([0; 8], |bytes| *bytes);
                        device.control(Setup::parse(setup), &data)
                    }
                    (_, false) => device.receive(endpoint, &data),
                    (_, true) => {
                        waiting.push_back(Waiting { number, endpoint, wanted: length as usize });
                        Answer::Nak
                    }
                };
                let sent = if to_host { None } else { Some(data.len()) };
                if answer == Answer::Nak && (endpoint == 0 || !to_host) {
                    silent.push(number);
                }
                if !complete(host, number, sent, answer)? {
                    return Ok(());
                }
            }
            UNLINK => {
                let victim = word(20);
                let before = waiting.len() + silent.len();
                waiting.retain(|transfer: &Waiting| transfer.number != victim);
                silent.retain(|&number| number != victim);
                let open = waiting.len() + silent.len() < before;
                let status = if open { UNLINKED } else { 0 };
                reply(host, 4, number, status, 0, &[])?;
            }
            _ => return Err(io::Error::new(ErrorKind::InvalidData, "not a USB/IP command")),
        }
        // This message may have given the device something to send.
        for _ in 0..waiting.len() {
            let Some(transfer) = waiting.pop_front() else { break };
            match device.send(transfer.endpoint, transfer.wanted) {
                Answer::Nak => waiting.push_back(transfer),
                answer => {
                    if !complete(host, transfer.number, None, answer)? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Completes a transfer; `sent` is the length of the host's data, if it was the sender. False if the device is
/// unplugged.
fn complete(
    host: &mut TcpStream,
    number: u32,
    sent: Option<usize>,
    answer: Answer,
) -> io::Result<bool> {
    match answer {
        Answer::Data(data) => match sent {
            Some(length) => reply(host, 3, number, 0, length, &[])?,
            None => reply(host, 3, number, 0, data.len(), &data)?,
        },
        Answer::Stall => reply(host, 3, number, STALLED, 0, &[])?,
        Answer::Nak => (),
        Answer::Unplugged => return Ok(false),
    }
    Ok(true)
}

/// Writes header and data in one call: two writes would wait for a delayed acknowledgement.
fn reply(
    host: &mut TcpStream,
    command: u32,
    number: u32,
    status: i32,
    length: usize,
    data: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADER + data.len());
    for word in [command, number, 0, 0, 0, status.cast_unsigned(), length] {
        message.extend(word.to_be_bytes());
    }
    message.resize(HEADER, 0);
    message.extend(data);
    host.write_all(&message)
}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}
