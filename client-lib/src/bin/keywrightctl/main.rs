//! `keywrightctl`: controls the Keywright daemon from the command line.
//!
//! Exit status: 0 success, 1 refused (with the D-Bus error name on standard error), 2 wrong usage.
#![forbid(unsafe_code)]

mod answers;
mod args;
mod audit;
mod checks;
mod doctor;
mod drive;
mod failure;
mod family;
mod group;
mod installed;
mod key;
mod listing;
mod lock;
mod lookup;
mod machine_checks;
mod output;
mod registry;
mod secrets;
mod serialize;
mod soft_key;
mod table;
mod terminal;
mod times;
mod usb;
mod watch;
mod wizard;

use std::process::ExitCode;

use clap::Parser;
use keywright_client::{Bus, Client};

use args::{Args, Command};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::stdout(args.json);
    match run(args, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.message() {
                eprintln!("keywrightctl: {line}");
            }
            failure.exit_code()
        }
    }
}

fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    let result = runtime.block_on(dispatch(args, output));
    // A prompt's thread may still wait for a line that is no longer needed.
    runtime.shutdown_background();
    result
}

async fn dispatch(args: Args, output: &mut Output) -> Result<(), Failure> {
    let bus = Bus::from(args.bus.as_str());
    // These two work without a running daemon.
    if let Command::Doctor = args.command {
        return doctor::run(&bus, output).await;
    }
    if let Command::Audit(command) = args.command {
        return audit::run(&bus, command, output).await;
    }
    if let Command::Serialize(serialize) = args.command {
        // Files are checked before anything is started.
        let prepared = serialize::Prepared::new(serialize)?;
        return prepared.run(&Client::connect(&bus).await?, output).await;
    }
    let client = Client::connect(&bus).await?;
    match args.command {
        Command::Keys => listing::keys(&client, output).await,
        Command::Locks { key, group } => {
            listing::locks(&client, key.as_deref(), group, output).await
        }
        Command::Decisions => listing::decisions(&client, output).await,
        Command::Watch => watch::run(&client, output).await,
        Command::Wizard => wizard::run(&client, output).await,
        Command::Key(command) => key::run(&client, command, output).await,
        Command::Lock(command) => lock::run(&client, command, output).await,
        Command::Group(command) => group::run(&client, command, output).await,
        Command::SoftKey(command) => soft_key::run(&client, command, output).await,
        Command::Family(command) => family::run(&client, command, output).await,
        Command::Registry(command) => registry::run(&client, command, output).await,
        Command::Doctor | Command::Audit(_) | Command::Serialize(_) => Ok(()), // handled above
    }
}
