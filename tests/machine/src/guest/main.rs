//! The tests of the installed product, run as root in the guest that `machine` boots. All in one boot: each begins with
//! no Key plugged in and the daemon without state.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and says so on standard output"
)]

mod bench;
mod by_hand;
mod device;
mod install;
mod key;
mod machine;
mod runner;
mod system;
mod tests;
mod vhci;

use std::process::ExitCode;

use clap::Parser;

/// Runs the tests.
#[derive(Parser)]
struct Options {
    /// Only tests (with --bench: only parts) whose names contain one of these.
    filters: Vec<String>,
    /// How often Keys are plugged in and pulled out by the test that counts.
    #[arg(long)]
    cycles: Option<u32>,
    /// Only this part of all, such as 1/2.
    #[arg(long, value_parser = part, default_value = "1/1")]
    part: (usize, usize),
    /// Measure instead.
    #[arg(long)]
    bench: bool,
    /// The product is installed already.
    #[arg(long)]
    installed: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(cycles) = options.cycles {
        tests::cycles::CYCLES.get_or_init(|| cycles);
    }
    vhci::disable_autosuspend();
    if !options.installed {
        install::install();
    }
    if options.bench {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(bench::run(&options.filters));
        machine::reset();
        return ExitCode::SUCCESS;
    }
    runner::run(&tests::all(), &options.filters, options.part)
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').map(|(part, of)| (part.parse(), of.parse()));
    match parsed {
        Some((Ok(part), Ok(of))) if (1..=of).contains(&part) => Ok((part, of)),
        _ => Err("two numbers as in 1/2".into()),
    }
}
