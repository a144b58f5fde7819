//! Counts and names the commands that go to tokens, with the reason for each.

use std::{
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use keywright_bus_tests::{
    Answers, Plugged, Station,
    api::Options,
    card::{Exchange, Reaction, Script},
    pins::{self, FACTORY_PIN, PIN},
};
use tokio::time::sleep;

use crate::{
    offers::Offers,
    plug::with_lock,
    reasons::{Phase, Who, why},
    table::{self, Goal, Row},
    token_log::{self, Command, is_command},
};

/// Number of commands to a blank Key before its offer: SELECT, 9A, 9C and CHUID. [`count_before_offer`] verifies it.
pub const COMMANDS_BEFORE_OFFER: usize = 4;
/// If no offer comes within this time, it depends on the command that is held back.
const NO_OFFER: Duration = Duration::from_secs(1);
/// A token without a command for this time is taken to be idle.
const REST: Duration = Duration::from_millis(500);

/// A command in the list of a job's commands.
#[derive(Debug, Clone)]
pub struct Line {
    phase: Phase,
    who: Who,
    name: String,
    why: &'static str,
}

/// Counts the commands before the offer, and until all properties are read.
pub async fn measure() -> Vec<Row> {
    let mut station = Station::unwatched(|_| ()).await;
    let master = with_lock(&mut station).await;
    let offer = count_before_offer(&station).await;
    let mut rows =
        vec![Row::count("commands to a blank Key before its offer", Goal::at_most(4.0), offer)];
    let blank = station.plug("blank").await;
    let job = station.offer(&master, &blank).await;
    rows.push(all_properties(&blank, "blank").await);
    station.finish(&job, &Answers::sub("Sub", &[])).await;
    station.unplug(blank).await;
    station.unplug(master).await;
    for (name, state) in [("master", "master"), ("blank", "sub")] {
        let key = station.plug(name).await;
        station.until_state(&key.path, state).await;
        rows.push(all_properties(&key, state).await);
    }
    rows
}

/// Finds the number of commands that an offer needs: holds back the commands after the first `n` for growing `n`.
async fn count_before_offer(station: &Station) -> u64 {
    let mut offers = Offers::listen(&station.bus.connect().await).await;
    for n in 1..=20 {
        let (release, held) = mpsc::channel();
        let (card, key) = station.insert_scripted(&format!("held {n}"), &[], hold_after(n, held));
        let offer = offers.next_offer(NO_OFFER).await;
        drop(release);
        if let Some((job, _)) = offer {
            station.client.serialization(&job).await.cancel().await.unwrap();
            return n;
        }
        // The offer comes now; it must not be counted for the next try.
        let (job, _) = offers.next_offer(NO_OFFER).await.expect("an offer");
        station.client.serialization(&job).await.cancel().await.unwrap();
        drop((card, key));
    }
    panic!("no offer before 20 commands")
}

/// Forwards `n` commands with all their pieces; the next one waits until the channel is closed.
fn hold_after(n: u64, held: mpsc::Receiver<()>) -> Script {
    let mut commands = 0;
    Box::new(move |_, message| {
        commands += u64::from(is_command(message));
        if commands > n {
            while held.recv_timeout(NO_OFFER) == Err(RecvTimeoutError::Timeout) {}
        }
        Reaction::Forward
    })
}

async fn all_properties(key: &Plugged, what: &str) -> Row {
    let commands = commands_until_idle(key).await;
    let count = commands.iter().filter(|exchange| is_command(&exchange.message)).count() as u64;
    Row::count(format!("commands to all properties of a {what} Key"), Goal::at_most(9.0), count)
}

/// Returns the commands to a token once it is idle.
async fn commands_until_idle(key: &Plugged) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    loop {
        sleep(REST).await;
        let more = key.card.take_exchanges();
        if more.is_empty() {
            return exchanges;
        }
        exchanges.extend(more);
    }
}

/// Lists all commands that making a Sub Key and a Backup Key needs, from the plug of both tokens on. The goals exclude
/// the plugs, which have goals of their own.
pub async fn whole_jobs() -> (Vec<Row>, Vec<(&'static str, Vec<Line>)>) {
    let jobs = [("Sub", Answers::sub("Sub", &[]), 40.0), ("Backup", Answers::backup("B"), 60.0)];
    let (mut rows, mut lists) = (Vec::new(), Vec::new());
    for (title, answers, limit) in jobs {
        let lines = whole_job(&answers).await;
        let plugs = lines.iter().filter(|line| line.phase == Phase::Plug).count() as u64;
        let count = lines.len() as u64 - plugs;
        let what = format!("commands of a whole {title} Key, both tokens, offer to finished");
        rows.push(Row::count(what, Goal::at_most(limit), count));
        rows.push(Row::count(
            format!("{title} Key: commands of the plugs before"),
            Goal::NONE,
            plugs,
        ));
        lists.push((title, lines));
    }
    (rows, lists)
}

async fn whole_job(answers: &Answers) -> Vec<Line> {
    let mut station = Station::unwatched(|_| ()).await;
    let master = with_lock(&mut station).await;
    station.unplug(master).await;
    let log = |name: &str| station.dir.path().join(format!("{name}.log"));
    let logs = [log("master"), log("blank")];
    let master = plug_logged(&mut station, "master", &logs[0]).await;
    let blank = plug_logged(&mut station, "blank", &logs[1]).await;
    let job = station.offer(&master, &blank).await;
    station.client.answer_until(&mut station.watch, &job, answers, "pins").await;
    let serialization = station.client.serialization(&job).await;
    let mut offers = Offers::listen(&station.bus.connect().await).await;
    let mut phases = vec![(Phase::Plug, None)];
    for (who, pin) in [("issuer", PIN), ("candidate", FACTORY_PIN), ("candidate-new", PIN)] {
        phases.push((Phase::Pins, Some(Instant::now())));
        serialization.provide_pin(who, pins::pipe(pin), Options::new()).await.unwrap();
        if who == "candidate" {
            phases.push((Phase::Write, Some(Instant::now())));
        }
    }
    offers.until_step(&job, "finished").await;
    let write = phases.iter().rev().find(|(phase, _)| *phase == Phase::Write);
    let (first_pin, write) = (phases[1].1, write.and_then(|(_, at)| *at));
    let [master, blank] = [commands_until_idle(&master).await, commands_until_idle(&blank).await];
    let mut commands: Vec<(Who, Command)> = Vec::new();
    for (who, exchanges, log) in
        [(Who::Issuer, master, &logs[0]), (Who::Candidate, blank, &logs[1])]
    {
        commands
            .extend(token_log::named(&exchanges, log).into_iter().map(|command| (who, command)));
    }
    commands.sort_by_key(|(_, command)| command.came);
    let phase = |came: Instant| match (first_pin, write) {
        (Some(first), _) if came < first => Phase::Plug,
        (_, Some(write)) if came >= write => Phase::Write,
        _ => Phase::Pins,
    };
    let placed = commands.into_iter().map(|(who, c)| (phase(c.came), who, c.name));
    explain(placed.collect())
}

async fn plug_logged(station: &mut Station, name: &str, log: &Path) -> Plugged {
    let key = station.plug_with(name, &["--log", log.to_str().unwrap()]).await;
    sleep(REST).await;
    key
}

/// Finds the reason for each command, by its phase, its token and how often it came there before.
fn explain(placed: Vec<(Phase, Who, String)>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (phase, who, name) in placed {
        let there = || lines.iter().filter(|line| line.phase == phase && line.who == who);
        let nth = there().filter(|line| line.name == name).count();
        let before = there().next_back().map_or("", |line| &line.name);
        let why = why(phase, who, &name, nth, before);
        lines.push(Line { phase, who, name, why });
    }
    lines
}

/// Formats the list of a job's commands.
pub fn list(title: &str, lines: &[Line], markdown: bool) -> String {
    let numbers: Vec<_> = (1..=lines.len()).map(|number| number.to_string()).collect();
    let cells: Vec<[&str; 5]> = lines
        .iter()
        .zip(&numbers)
        .map(|(line, number)| {
            [number, line.phase.as_str(), line.who.as_str(), line.name.as_str(), line.why]
        })
        .collect();
    let headings = ["", "when", "token", "command", "why it is needed"];
    if markdown {
        let table = table::markdown_of(&headings, &cells);
        format!("### A whole {title} Key: {} commands\n\n{table}", lines.len())
    } else {
        let table = table::aligned(&headings, &cells);
        format!("A whole {title} Key: {} commands\n{table}", lines.len())
    }
}
