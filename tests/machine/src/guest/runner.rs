//! One test after the other, each with its time, and what the daemon said where one fails.

use std::{
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{machine, system, tests};

/// Far longer than any test takes, but the one that plugs Keys in and pulls them out as often as it is told.
const LIMIT: Duration = Duration::from_secs(300);
/// Far longer than a plug cycle takes.
const CYCLE: Duration = Duration::from_secs(10);

/// A test: it has passed when it ends.
pub struct Test {
    /// `subject::what_holds`.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// The tests of these names, which are paths of async functions.
#[macro_export]
macro_rules! tests {
    ($($test:path),* $(,)?) => {
        [$($crate::runner::Test {
            name: stringify!($test),
            run: || Box::pin($test()),
        }),*]
    };
}

/// Runs those whose names contain one of the filters; all, where there is none. Of these only a part: every n-th.
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
            runtime.unwrap().block_on(limited).expect("it takes no longer than the limit");
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
                println!("--- what keywrightd said ---\n{}---", system::journal_since(&cursor));
                println!("what the kernel said ---\n{}---", system::kernel_since(&cursor));
            }
        }
        machine::reset();
    }
    for name in &failed {
        println!("failed: {name}");
    }
    // In the words of `cargo test`, for whoever adds up.
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
