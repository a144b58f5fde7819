//! `virtual-key`: a Key without hardware, with the PIV firmware of a real product.
//!
//! Starting the program plugs the Key in: into a vpcd reader (vsmartcard), or over USB/IP into the machine that imports it.
//! Ending or killing the program pulls it out.
#![forbid(unsafe_code)]

mod aes192;
mod card;
mod command_name;
mod firmware;
mod flash;
mod habits;
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
use habits::{Habit, Habits};
use keywright_virtual_key::usb::{
    ccid::{Card, Reader},
    descriptors::{Descriptors, Identity, ccid_interface},
    usbip,
};

/// Longest CCID message in bytes, as in the product.
const MAX_MESSAGE_LEN: u32 = 3072;

/// Answer to GET METADATA of the PIN: factory PIN, 3 of 3 tries left.
const FACTORY_PIN: [u8; 9] = [5, 1, 1, 6, 2, 3, 3, 0x90, 0];

/// Plugs a virtual Key into a reader that listens on a Unix socket, or exports it over USB/IP.
#[derive(Parser)]
struct Options {
    /// The socket on which the reader listens
    #[arg(long, required_unless_present = "usbip", conflicts_with = "usbip")]
    socket: Option<PathBuf>,
    /// Export the Key over USB/IP as bus id 1-1 on this TCP port (0: any free port)
    ///
    /// The machine that imports it chooses the port of its hub.
    #[arg(long)]
    usbip: Option<u16>,
    /// File with the token's flash memory; created if it does not exist
    #[arg(long)]
    state: PathBuf,
    /// Text that determines the CHUID's GUID: another text is another unit
    #[arg(long, default_value = "1")]
    serial: String,
    /// The USB serial number; default: as `--serial`; empty: none
    #[arg(long)]
    usb_serial: Option<String>,
    /// idVendor, in hexadecimal
    #[arg(long, default_value = "20a0", value_parser = hexadecimal)]
    vendor: u16,
    /// idProduct, in hexadecimal
    #[arg(long, default_value = "42b2", value_parser = hexadecimal)]
    product: u16,
    /// The USB product name
    #[arg(long, default_value = "Virtual Key")]
    product_name: String,
    /// Extra milliseconds for every use of a private key
    #[arg(long, default_value_t = 0)]
    sign_delay_ms: u64,
    /// Over USB/IP: pull the Key out at this command, counted from 1
    #[arg(long)]
    pull_at: Option<usize>,
    /// With `--pull-at`: execute the command before the Key is pulled out
    #[arg(long, requires = "pull_at")]
    execute_first: bool,
    /// Answer GET METADATA of the PIN with "factory PIN", as other vendors' firmware does
    #[arg(long)]
    tells_factory_pin: bool,
    /// Behave as the firmware of other tokens; may be given several times
    #[arg(long = "habit", value_enum)]
    habits: Vec<Habit>,
    /// Append each command's name, status word and time in microseconds to this file
    #[arg(long)]
    log: Option<PathBuf>,
}

/// Why the Key could not be plugged in, or ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reader listens on {0}: {1}")]
    Socket(PathBuf, io::Error),
    #[error("cannot listen on TCP port {0}: {1}")]
    Port(u16, io::Error),
    #[error("the connection to the reader failed: {0}")]
    Reader(#[from] io::Error),
    #[error("cannot use the state file {0}: {1}")]
    State(PathBuf, io::Error),
    #[error("cannot write the log {0}: {1}")]
    Log(PathBuf, io::Error),
    #[error("the firmware is already running in this process")]
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
    let habits = Habits::new(&options.habits, options.state.with_extension("habits"))
        .map_err(|error| Error::State(options.state.clone(), error))?;
    let delay = Duration::from_millis(options.sign_delay_ms);
    flash.with_store(|store| {
        let piv = firmware::boot(store, &options.serial).ok_or(Error::Running)?;
        let mut card = card::Card::new(piv, delay, habits);
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

/// Prints "ready" and the TCP port, then serves the machine that imports the Key.
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

/// The card in the USB reader; pulls the Key out at a given command.
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
