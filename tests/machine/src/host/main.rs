//! `machine`: boots a Debian guest with the built programs and packages, and runs a command in it: `machine-tests`.
//!
//! `tests/machine/run` calls this. It prints the guest's output.
#![forbid(unsafe_code)]

mod payload;
mod qemu;
mod qmp;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use qemu::{Guest, GuestError};

/// Runs a program of the payload in a Debian guest.
#[derive(Parser)]
struct Options {
    /// Directory of the image that `build-image` makes
    #[arg(long)]
    image: PathBuf,
    /// A directory that appears in the guest as /payload
    #[arg(long)]
    payload: PathBuf,
    /// Number of the guest's processors
    #[arg(long, default_value_t = 2)]
    processors: u32,
    /// Stop the guest after this many minutes; all tests need 17 on two processors
    #[arg(long, default_value_t = 45)]
    minutes: u64,
    /// Boot even if a saved guest exists, and do not save one
    #[arg(long)]
    fresh: bool,
    /// The shell command to run in the guest
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "machine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, GuestError> {
    let start = Instant::now();
    let guest = Guest::start(options)?;
    say(&format!("guest {} in {:.1} s", guest.how(), start.elapsed().as_secs_f32()));
    let limit = Duration::from_secs(60 * options.minutes);
    guest.run(&options.command.join(" "), limit)
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
