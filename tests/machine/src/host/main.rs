//! Boots the guest, brings what was built into it, and runs there what is to be run: `machine-tests`.
//!
//! `make test-machine` calls this with everything built. What it prints is what the guest prints.
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
    /// Where the image is, as `build-image` makes it.
    #[arg(long)]
    image: PathBuf,
    /// A directory that is brought into the guest as /payload.
    #[arg(long)]
    payload: PathBuf,
    /// The guest's processors.
    #[arg(long, default_value_t = 2)]
    processors: u32,
    /// Minutes after which the guest is stopped, whatever it does: it needs 17 on two processors.
    #[arg(long, default_value_t = 45)]
    minutes: u64,
    /// Boot, even where a guest that has booted was saved; and save none.
    #[arg(long)]
    fresh: bool,
    /// What is run in the guest, by its shell.
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
