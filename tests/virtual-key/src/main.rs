//! A Key without hardware: the PIV firmware of a real product, speaking the vpcd protocol of
//! vsmartcard as the card. Started, it is plugged in; ended in whatever way, it is pulled out.
#![forbid(unsafe_code)]

mod card;
mod command_name;
mod firmware;
mod flash;
mod vpcd;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

/// Plugs a virtual Key into a reader that listens on a Unix socket.
#[derive(Parser)]
struct Options {
    /// The socket on which the reader listens.
    #[arg(long)]
    socket: PathBuf,
    /// The token's flash memory; made when it does not exist.
    #[arg(long)]
    state: PathBuf,
    /// Decides the CHUID's GUID: another text is another unit.
    #[arg(long, default_value = "1")]
    serial: String,
    /// Milliseconds that every use of a private key takes on top of its own time.
    #[arg(long, default_value_t = 0)]
    sign_delay_ms: u64,
    /// A file to which each command's name, status word and time in microseconds are added.
    #[arg(long)]
    log: Option<PathBuf>,
}

/// Why the Key could not be plugged in, or stopped.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reader listens on {0}: {1}")]
    Socket(PathBuf, io::Error),
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
        let mut reader = UnixStream::connect(&options.socket)
            .map_err(|error| Error::Socket(options.socket.clone(), error))?;
        writeln!(io::stdout(), "ready")?;
        vpcd::serve(&mut reader, |command| {
            let start = Instant::now();
            let answer = card.transmit(command);
            if let Some(log) = &mut log {
                let status = answer.last_chunk::<2>().map_or(0, |sw| u16::from_be_bytes(*sw));
                let name = command_name::of(command);
                writeln!(log, "{name}\t{status:04X}\t{}", start.elapsed().as_micros())?;
            }
            Ok(answer)
        })?;
        Ok(())
    })
}

fn open_log(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|error| Error::Log(path.to_owned(), error))
}
