//! Runs tests one after the other; prints the time of each, and the daemon's log of those that fail.

use std::{
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{machine, system, tests};

/// Longer than any test takes, except for the plug cycles, which get more time.
const LIMIT: Duration = Duration::from_secs(300);
/// Longer than a plug cycle takes.
const CYCLE: Duration = Duration::from_secs(10);

/// A test; it passes unless it panics.
pub struct Test {
    /// Name as `subject::behaviour`.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes a list of tests from paths of async functions.
#[macro_export]
macro_rules! tests {
    ($($test:path),* $(,)?) => {
        [$($crate::runner::Test {
            name: stringify!($test),
            run: || Box::pin($test()),
        }),*]
    };
}

/// Runs the tests whose names contain one of the filters (none: all); of these only every `of`-th, from the `part`-th on.
pub fn run(all: &[Test], filters: &[String], (part, of): (usize, usize)) -> ExitCode {
    let wanted = |test: &&Test| {
        filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()))
    };
    let limit = LIMIT + CYCLE * tests::cycles::cycles();
    let (mut passed, mut failed) = (0, Vec::new());
    let begun = Instant::now();
    for test in all.iter().filter(wanted).skip(part - 1).step_by(of) {
        let cursor = system::journal_cursor();
        let start = Instant::now();
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let limited = async { tokio::time::timeout(limit, (test.run)()).await };
            runtime.unwrap().block_on(limited).expect("the test took longer than its limit");
        }));
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok     {seconds:6.1} s  {}", test.name);
            }
            Err(_) => {
                failed.push(test.name);
                println!("FAILED {seconds:6.1} s  {}", test.name);
                println!("--- log of keywrightd ---\n{}---", system::journal_since(&cursor));
                println!("--- log of the kernel ---\n{}---", system::kernel_since(&cursor));
            }
        }
        machine::reset();
    }
    for name in &failed {
        println!("failed: {name}");
    }
    // In the format of `cargo test`, for scripts that add up results.
    let well = failed.is_empty() && passed > 0;
    println!(
        "test result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        if well { "ok" } else { "FAILED" },
        failed.len(),
        all.len() - passed - failed.len(),
        begun.elapsed().as_secs_f32()
    );
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
