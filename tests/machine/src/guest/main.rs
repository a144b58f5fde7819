//! `machine-tests`: tests the installed packages, as root in the guest that `machine` boots. All tests run in one boot;
//! each begins without Keys and without daemon state.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot continue has failed; results go to standard output"
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
    /// Run only tests (with --bench: parts) whose names contain one of these
    filters: Vec<String>,
    /// Number of cycles of the plug cycle test
    #[arg(long)]
    cycles: Option<u32>,
    /// Run only this part of the tests, such as 1/2
    #[arg(long, value_parser = part, default_value = "1/1")]
    part: (usize, usize),
    /// Run the measurements instead of the tests
    #[arg(long)]
    bench: bool,
    /// Do not install the packages
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
        _ => Err("expected two numbers, as in 1/2".into()),
    }
}
