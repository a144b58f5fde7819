//! `keywright-bench`: prints a table of the daemon's speed and memory, measured over D-Bus on a private
//! `dbus-daemon`, with real PIV firmware behind the virtual reader.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that fails stops the program"
)]

mod cards;
mod commands;
mod cycles;
mod grant;
#[cfg(test)]
mod groups;
mod idle;
mod job;
mod judging;
mod lists;
mod loader;
mod lock;
mod machine;
mod offers;
mod plug;
mod process;
mod reasons;
mod scale;
mod startup;
mod table;
mod token_log;

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Parser;
use keywright_bus_tests::Station;
use table::Row;

/// Measures the daemon that was built in the same target directory.
#[derive(Parser)]
struct Options {
    /// Print Markdown, as in docs/benchmarks.md
    #[arg(long)]
    markdown: bool,
    /// Repeat less often, watch an idle process for 10 s instead of 60, and run `scale` only if it is given
    #[arg(long)]
    quick: bool,
    /// Number of Locks for `scale`
    #[arg(long, default_value_t = 2_000)]
    locks: usize,
    /// Measure only these subjects
    #[arg(value_enum)]
    subjects: Vec<Subject>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Time from a plug to the offer.
    Plug,
    /// Number of commands to tokens.
    Commands,
    /// Memory growth over many plugs.
    Cycles,
    /// Start time and idle memory with a small registry.
    Small,
    /// Jobs, lists and start time with 100,000 Locks.
    Large,
    /// An idle Lock with its link, and the size of a grant.
    Lock,
    /// Who is trusted after 20,000 revocations.
    Judging,
    /// 2,000 Locks on one broker, each a process of its own.
    Scale,
}

/// Number of repetitions of each measurement, and the time for which idle processes are watched.
struct Repetitions {
    plugs: usize,
    starts: usize,
    jobs: usize,
    cycles: usize,
    pages: usize,
    window: Duration,
}

impl Repetitions {
    const FULL: Self = Self {
        plugs: 200,
        starts: 50,
        jobs: 5,
        cycles: 600,
        pages: 1_000,
        window: Duration::from_secs(60),
    };
    const QUICK: Self = Self {
        plugs: 30,
        starts: 10,
        jobs: 2,
        cycles: 100,
        pages: 100,
        window: Duration::from_secs(10),
    };
}

/// Number of Locks in the large registry.
const LOCKS: u32 = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let repetitions = if options.quick { Repetitions::QUICK } else { Repetitions::FULL };
    let wanted = |subject| options.subjects.is_empty() || options.subjects.contains(&subject);
    let (mut rows, mut lists) = (Vec::new(), Vec::new());
    if wanted(Subject::Plug) {
        rows.extend(plug::measure(repetitions.plugs).await);
    }
    if wanted(Subject::Commands) {
        rows.extend(commands::measure().await);
        let (counts, named) = commands::whole_jobs().await;
        rows.extend(counts);
        lists = named;
    }
    if wanted(Subject::Large) {
        rows.extend(large(&repetitions).await);
    }
    if wanted(Subject::Cycles) {
        rows.extend(cycles::measure(repetitions.cycles).await);
    }
    if wanted(Subject::Small) {
        rows.extend(small(&repetitions).await);
    }
    if wanted(Subject::Lock) {
        rows.extend(grant::measure(repetitions.plugs));
        rows.extend(lock::measure(repetitions.window).await);
    }
    if wanted(Subject::Judging) {
        rows.extend(judging::measure(repetitions.jobs));
    }
    // Needs some minutes and some gigabytes of memory.
    if wanted(Subject::Scale) && (!options.quick || !options.subjects.is_empty()) {
        rows.extend(scale::measure(options.locks).await);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n", machine::describe())?;
    let table = if options.markdown { table::markdown(&rows) } else { table::plain(&rows) };
    write!(out, "{table}")?;
    for (title, lines) in &lists {
        write!(out, "\n{}", commands::list(title, lines, options.markdown))?;
    }
    Ok(())
}

/// Measures with a registry of one Master and one Lock.
async fn small(repetitions: &Repetitions) -> Vec<Row> {
    let mut station = Station::unwatched(|_| ()).await;
    let master = plug::with_lock(&mut station).await;
    station.unplug(master).await;
    let name = "start to name, small registry";
    let mut rows = vec![startup::measure(&mut station, name, 30.0, repetitions.starts).await];
    rows.extend(idle::measure(&station, "idle, just started", repetitions.window).await);
    let master = station.plug("master").await;
    let blank = station.plug("blank").await;
    station.offer(&master, &blank).await;
    rows.extend(idle::measure(&station, "idle, two Keys and an offer", repetitions.window).await);
    rows
}

/// Measures with a registry of 100,000 Locks.
async fn large(repetitions: &Repetitions) -> Vec<Row> {
    let mut station = Station::unwatched(|_| ()).await;
    let master = plug::with_lock(&mut station).await;
    station.unplug(master).await;
    assert!(station.daemon.stop().await.success(), "SIGTERM ends it cleanly");
    loader::fill(&station.launch.state_dir, LOCKS);
    station.daemon.restart(station.client.connection()).await;
    let name = "start to name, 100,000 Locks";
    let start = startup::measure(&mut station, name, 100.0, repetitions.starts / 2).await;
    let master = job::plug_master(&mut station).await;
    let (mut rows, sub) = job::measure(&mut station, &master, repetitions.jobs).await;
    rows.extend(lists::measure(&station, &sub, repetitions.pages).await);
    rows.extend(cards::measure(&mut station, &master).await);
    rows.push(lists::measure_selection(&mut station, &master, repetitions.pages / 10).await);
    rows.push(start);
    rows
}
