//! `watch`: prints the daemon's events, one line each.

use std::collections::BTreeSet;

use keywright_client::{
    Client, ConfirmedRight, Decision, Error, Key, Serialization, State, Watch, WatchEvent, Word,
    model::{KeyState, Progress, Stage, Step},
};

use crate::{failure::Failure, output::Output, terminal, times};

/// Width of a progress bar in characters.
const BAR: u64 = 20;

/// Prints the current state, then each event, until it is interrupted.
pub async fn run(client: &Client, output: &mut Output) -> Result<(), Failure> {
    match client.version().await {
        // There is nothing to show yet; the next plug starts the daemon.
        Err(Error::NotRunning(text)) => {
            terminal::say(&format!("the daemon is not running ({text}); waiting for it"));
        }
        result => drop(result?),
    }
    let mut watch = Watch::start(client).await?;
    let mut unplugged = BTreeSet::new();
    for event in current_events(watch.state()) {
        show(output, watch.state(), &mut unplugged, &event)?;
    }
    loop {
        let event = watch.next().await?;
        show(output, watch.state(), &mut unplugged, &event)?;
    }
}

/// Returns the events that would have led to this state.
fn current_events(state: &State) -> Vec<WatchEvent> {
    let mut events = Vec::new();
    events.extend(state.keys.values().cloned().map(|key| WatchEvent::KeyAdded { key }));
    let jobs = state.serializations.values().cloned();
    events.extend(jobs.map(|serialization| WatchEvent::OfferAdded { serialization }));
    if !state.decisions.is_empty() {
        events.push(WatchEvent::DecisionsChanged { decisions: state.decisions.clone() });
    }
    events
}

fn show(
    output: &mut Output,
    state: &State,
    unplugged: &mut BTreeSet<String>,
    event: &WatchEvent,
) -> Result<(), Failure> {
    let news = is_news(unplugged, event);
    if !output.is_json() && (!news || line(state, event).is_empty()) {
        return Ok(());
    }
    output.show(event, || format!("{}  {}", times::now(), line(state, event)))
}

/// Whether to show an event: changes of a Key that is not plugged in are shown only when it is unplugged.
/// `unplugged` has the paths of the Keys whose unplug was shown.
fn is_news(unplugged: &mut BTreeSet<String>, event: &WatchEvent) -> bool {
    match event {
        WatchEvent::KeyAdded { key } | WatchEvent::KeyChanged { key } if !key.present => {
            unplugged.insert(key.path.clone())
        }
        WatchEvent::KeyAdded { key } | WatchEvent::KeyChanged { key } => {
            unplugged.remove(&key.path);
            true
        }
        WatchEvent::KeyRemoved { key } => !unplugged.remove(&key.path),
        _ => true,
    }
}

/// Describes an event; empty if there is nothing to show.
fn line(state: &State, event: &WatchEvent) -> String {
    match event {
        WatchEvent::KeyAdded { key } if key.present => format!("plugged in: {}", describe(key)),
        WatchEvent::KeyAdded { .. } => String::new(),
        WatchEvent::KeyChanged { key } if key.present => format!("Key: {}", describe(key)),
        WatchEvent::KeyChanged { key } | WatchEvent::KeyRemoved { key } => {
            format!("unplugged: {}", key.label())
        }
        WatchEvent::OfferAdded { serialization } => {
            format!("offer: {}", offer(state, serialization))
        }
        WatchEvent::StepChanged { serialization } => step(serialization),
        WatchEvent::Progress { serialization } => bar(&serialization.stage, serialization.progress),
        WatchEvent::OfferChanged { serialization } => outcome(serialization),
        WatchEvent::OfferRemoved { serialization } => {
            format!("offer ended: {}", offer(state, serialization))
        }
        WatchEvent::DecisionsChanged { decisions } => {
            decisions.iter().map(|d| decision(state, d)).collect::<Vec<_>>().join("\n          ")
        }
        WatchEvent::RightsConfirmed { key_id, rights } => confirmed(state, key_id, rights),
        WatchEvent::DaemonGone => "the daemon stopped; the next plug starts it".into(),
        WatchEvent::DaemonBack => "the daemon is running".into(),
    }
}

/// Describes confirmations of a Key's rights: the first Lock by its id, and the number of others.
fn confirmed(state: &State, key_id: &str, rights: &[ConfirmedRight]) -> String {
    let key = state.keys.values().find(|key| key.id == key_id);
    let key = key.map_or_else(|| format!("Key {key_id}"), Key::label);
    let words = [("active", "admitted by"), ("removed", "no longer admitted by")];
    let told = words.into_iter().filter_map(|(word, text)| {
        let locks: Vec<_> = rights.iter().filter(|right| right.state == word).collect();
        let (first, longest) = (locks.first()?, locks.iter().map(|right| right.waited).max()?);
        let more = match locks.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("{text} Lock {}{more}, after {longest} s", first.lock_id))
    });
    format!("{key}: {}", told.collect::<Vec<_>>().join("; "))
}

/// Labels a Key, with its state unless the label contains it.
fn describe(key: &Key) -> String {
    match key.state.known() {
        Some(KeyState::Blank) => key.label(),
        _ => format!("{} ({})", key.label(), key.kind()),
    }
}

fn label(state: &State, path: &str) -> String {
    state.keys.get(path).map_or_else(|| path.to_owned(), Key::label)
}

fn offer(state: &State, job: &Serialization) -> String {
    let kinds: Vec<&str> = job.kinds.iter().map(|kind| kind.as_str()).collect();
    let candidate = label(state, &job.candidate);
    match job.issuer.as_str() {
        "/" => format!("{candidate} can become a Master Key"),
        issuer => {
            let issuer = label(state, issuer);
            format!("{candidate} beside {issuer} can become: {}", kinds.join(" or "))
        }
    }
}

fn step(job: &Serialization) -> String {
    let name = if job.name.is_empty() { "new Key" } else { &job.name };
    let text = match &job.step {
        Word::Known(Step::Kind) => "is waiting for its kind",
        Word::Known(Step::Name) => "is waiting for its name",
        Word::Known(Step::Locks) => "is waiting for its Locks",
        Word::Known(Step::Review) => "is waiting for confirmation",
        Word::Known(Step::Pins) => "is waiting for PINs",
        Word::Known(Step::Writing) => "is being written; leave both Keys plugged in",
        Word::Known(Step::Finished) => "is finished",
        Word::Known(Step::Cancelled) => "was cancelled",
        Word::Known(Step::Failed) => "failed",
        Word::Known(Step::AwaitingKey) => "is waiting for a Key that was unplugged",
        Word::Unknown(word) => word,
    };
    let why = outcome(job);
    if why.is_empty() { format!("{name} {text}") } else { format!("{name} {text}: {why}") }
}

fn outcome(job: &Serialization) -> String {
    job.outcome.as_ref().map(|outcome| outcome.text.clone()).unwrap_or_default()
}

/// Draws the progress of a write.
pub fn bar(stage: &Word<Stage>, progress: Progress) -> String {
    let Progress { done, total } = progress;
    let full = (BAR * u64::from(done)).checked_div(u64::from(total)).unwrap_or_default();
    let cells: String = (0..BAR).map(|cell| if cell < full { '#' } else { '.' }).collect();
    format!("[{cells}] {done}/{total} {stage}")
}

/// Explains why a pair has no offer, and what to do.
pub fn decision(state: &State, decision: &Decision) -> String {
    let other = label(state, &decision.other);
    let pair = match decision.issuer.as_str() {
        "/" => other,
        issuer => format!("{other} beside {}", label(state, issuer)),
    };
    let why = match &decision.reason {
        Word::Known(reason) => reason.text(),
        Word::Unknown(word) => word,
    };
    format!("no offer for {pair}: {why}")
}

#[cfg(test)]
mod tests {
    use keywright_client::model::Reason;

    use super::*;

    #[test]
    fn progress_bar_never_overflows() {
        let bar = |done, total| super::bar(&Word::Known(Stage::Keys), Progress { done, total });
        assert_eq!(bar(0, 0), "[....................] 0/0 keys");
        assert_eq!(bar(5, 10), "[##########..........] 5/10 keys");
        assert_eq!(bar(11, 10), "[####################] 11/10 keys");
    }

    #[test]
    fn unplug_is_shown_once() {
        let row = keywright_client::KeyRow {
            id: "5b".into(),
            name: "K".into(),
            role: None,
            family: "f".into(),
            last_seen: 0,
        };
        let key = |present| Key { path: "/k".into(), present, ..Key::from_row(&row) };
        let changed = |present| WatchEvent::KeyChanged { key: key(present) };
        let mut unplugged = BTreeSet::new();
        let mut news = |event: &WatchEvent| is_news(&mut unplugged, event);
        assert!(news(&changed(true)) && news(&changed(false)));
        // Now only the number of Locks that admit it changes.
        assert!(!news(&changed(false)) && !news(&changed(false)));
        assert!(news(&changed(true)) && news(&changed(true)) && news(&changed(false)));
        assert!(!news(&WatchEvent::KeyRemoved { key: key(false) }));
        assert!(news(&WatchEvent::KeyAdded { key: key(true) }));
        assert!(news(&WatchEvent::KeyRemoved { key: key(true) }));
    }

    #[test]
    fn confirmed_rights_are_one_line() {
        let right = |lock: &str, state: &str, waited| ConfirmedRight {
            lock_id: lock.into(),
            state: state.into(),
            waited,
        };
        let text = |rights: &[ConfirmedRight]| confirmed(&State::default(), "5b", rights);
        let one = [right("0a", "active", 7)];
        assert_eq!(text(&one), "Key 5b: admitted by Lock 0a, after 7 s");
        let three = [right("0a", "active", 7), right("0b", "removed", 3), right("0c", "active", 9)];
        assert_eq!(
            text(&three),
            "Key 5b: admitted by Lock 0a and 1 more, after 9 s; no longer admitted by Lock 0b, after 3 s"
        );
    }

    #[test]
    fn every_reason_has_an_explanation() {
        for reason in Reason::ALL {
            let reason = Word::Known(*reason);
            let pair = Decision { issuer: "/".into(), other: "/k".into(), reason: reason.clone() };
            let text = decision(&State::default(), &pair);
            assert!(!text.ends_with(&format!(": {reason}")), "{text}");
        }
    }
}
