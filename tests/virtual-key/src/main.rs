//! A Key without hardware: the PIV firmware of a real product. Started, it is plugged in, be it into a reader of
//! vsmartcard (as the card, by the vpcd protocol) or into a machine that imports it over USB/IP; ended in whatever way,
//! it is pulled out.
#![forbid(unsafe_code)]

mod card;
mod command_name;
mod firmware;
mod flash;
mod vpcd;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use keywright_virtual_key::usb::{
    ccid::{Card, Reader},
    descriptors::{Descriptors, Identity, ccid_interface},
    usbip,
};

/// The longest CCID message of the token, in bytes, as in the product.
const MAX_MESSAGE_LEN: u32 = 3072;

/// Metadata of the PIN: it is the factory's, and 3 tries of 3 are left.
const FACTORY_PIN: [u8; 9] = [5, 1, 1, 6, 2, 3, 3, 0x90, 0];

/// Plugs a virtual Key into a reader that listens on a Unix socket, or offers it to a machine over USB/IP.
#[derive(Parser)]
struct Options {
    /// The socket on which the reader listens.
    #[arg(long, required_unless_present = "usbip", conflicts_with = "usbip")]
    socket: Option<PathBuf>,
    /// A TCP port of this machine (0: any that is free) on which the Key is exported over USB/IP as bus id 1-1. Which
    /// port of a hub it is plugged into is for the machine to say that imports it.
    #[arg(long)]
    usbip: Option<u16>,
    /// The token's flash memory; made when it does not exist.
    #[arg(long)]
    state: PathBuf,
    /// Decides the CHUID's GUID: another text is another unit.
    #[arg(long, default_value = "1")]
    serial: String,
    /// The serial number that USB tells; the same as `serial` where it is not given, none where it is empty.
    #[arg(long)]
    usb_serial: Option<String>,
    /// idVendor, in hexadecimal.
    #[arg(long, default_value = "20a0", value_parser = hexadecimal)]
    vendor: u16,
    /// idProduct, in hexadecimal.
    #[arg(long, default_value = "42b2", value_parser = hexadecimal)]
    product: u16,
    /// The product's name.
    #[arg(long, default_value = "Virtual Key")]
    product_name: String,
    /// Milliseconds that every use of a private key takes on top of its own time.
    #[arg(long, default_value_t = 0)]
    sign_delay_ms: u64,
    /// Over USB/IP: the Key is pulled out when this command comes, counted from 1.
    #[arg(long)]
    pull_at: Option<usize>,
    /// With `pull_at`: after the command was executed, before it is answered.
    #[arg(long, requires = "pull_at")]
    execute_first: bool,
    /// Says what other makers' firmware says where this one is silent (GET METADATA): the PIN is the factory's.
    #[arg(long)]
    tells_factory_pin: bool,
    /// A file to which each command's name, status word and time in microseconds are added.
    #[arg(long)]
    log: Option<PathBuf>,
}

/// Why the Key could not be plugged in, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reader listens on {0}: {1}")]
    Socket(PathBuf, io::Error),
    #[error("TCP port {0} cannot be used: {1}")]
    Port(u16, io::Error),
    #[error("the reader broke off: {0}")]
    Reader(#[from] io::Error),
    #[error("the state file {0} cannot be used: {1}")]
    State(PathBuf, io::Error),
    #[error("the log {0} cannot be written: {1}")]
    Log(PathBuf, io::Error),
    #[error("the firmware runs already in this process")]
    Running,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "virtual-key: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let mut log = options.log.as_deref().map(open_log).transpose()?;
    let mut flash = flash::Flash::open(&options.state)
        .map_err(|error| Error::State(options.state.clone(), error))?;
    let delay = Duration::from_millis(options.sign_delay_ms);
    flash.with_store(|store| {
        let piv = firmware::boot(store, &options.serial).ok_or(Error::Running)?;
        let mut card = card::Card::new(piv, delay);
        let transmit = |command: &[u8]| {
            let start = Instant::now();
            let answer = match command {
                [_, 0xF7, 0, 0x80, ..] if options.tells_factory_pin => FACTORY_PIN.into(),
                _ => card.transmit(command),
            };
            if let Some(log) = &mut log {
                let status = answer.last_chunk::<2>().map_or(0, |sw| u16::from_be_bytes(*sw));
                let name = command_name::name(command);
                writeln!(log, "{name}\t{status:04X}\t{}", start.elapsed().as_micros())?;
            }
            Ok(answer)
        };
        match (&options.socket, options.usbip) {
            (Some(socket), _) => plug_into_reader(socket, transmit),
            (None, port) => export(port.unwrap_or(0), options, transmit),
        }
    })
}

fn plug_into_reader(
    socket: &Path,
    transmit: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> Result<(), Error> {
    let mut reader =
        UnixStream::connect(socket).map_err(|error| Error::Socket(socket.into(), error))?;
    writeln!(io::stdout(), "ready")?;
    Ok(vpcd::serve(&mut reader, transmit)?)
}

/// Says "ready" and the TCP port, and is plugged in when somebody imports the Key.
fn export(
    port: u16,
    options: &Options,
    transmit: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> Result<(), Error> {
    let identity = Identity {
        vendor: options.vendor,
        product: options.product,
        name: options.product_name.clone(),
        serial: options.usb_serial.as_ref().unwrap_or(&options.serial).clone(),
    };
    let descriptors = Descriptors::new(identity, &[ccid_interface(0, MAX_MESSAGE_LEN)]);
    let card =
        UsbCard { transmit, until_pulled: options.pull_at, execute_first: options.execute_first };
    let mut reader = Reader::new(descriptors, MAX_MESSAGE_LEN, Some(card));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| Error::Port(port, error))?;
    writeln!(io::stdout(), "ready {}", listener.local_addr()?.port())?;
    Ok(usbip::serve(&listener, &mut reader)?)
}

/// The card in a reader on USB, which may be told to be pulled out.
struct UsbCard<T> {
    transmit: T,
    until_pulled: Option<usize>,
    execute_first: bool,
}

impl<T: FnMut(&[u8]) -> io::Result<Vec<u8>>> Card for UsbCard<T> {
    fn answer_to_reset(&self) -> Vec<u8> {
        vpcd::ANSWER_TO_RESET.into()
    }

    fn transmit(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        if let Some(left) = &mut self.until_pulled {
            *left = left.saturating_sub(1);
            if *left == 0 {
                if self.execute_first {
                    let _ = (self.transmit)(command);
                }
                return None;
            }
        }
        (self.transmit)(command).ok()
    }
}

fn hexadecimal(text: &str) -> Result<u16, std::num::ParseIntError> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16)
}

fn open_log(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|error| Error::Log(path.to_owned(), error))
}
