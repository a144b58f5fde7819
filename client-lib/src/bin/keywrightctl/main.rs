//! `keywrightctl`: the Keywright daemon by hand and by script.
//!
//! Exit status: 0 done, 1 refused (the D-Bus error's name on standard error), 2 usage.
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
    // A prompt may still wait for a line on its own thread; nobody needs that line any more.
    runtime.shutdown_background();
    result
}

async fn dispatch(args: Args, output: &mut Output) -> Result<(), Failure> {
    let bus = Bus::from(args.bus.as_str());
    // These work, or at least say something useful, without a daemon.
    if let Command::Doctor = args.command {
        return doctor::run(&bus, output).await;
    }
    if let Command::Audit(command) = args.command {
        return audit::run(&bus, command, output).await;
    }
    if let Command::Serialize(serialize) = args.command {
        // Files are looked at before anything begins.
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
        Command::Doctor | Command::Audit(_) | Command::Serialize(_) => Ok(()), // done above
    }
}
