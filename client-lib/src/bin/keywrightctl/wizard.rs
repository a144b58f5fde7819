//! `wizard`: makes a Key interactively.

use std::collections::BTreeSet;

use keywright_client::{
    Client, ErrorName, Key, Kind, Pin, Serialization, Situation, State, Watch, WatchEvent, Wizard,
    Word, bus,
    client::LockFilter,
    model::{KeyState, Review, Who},
};

use crate::{
    answers::{Answers, CodeState, Selection, Verdict},
    drive::drive,
    failure::Failure,
    lookup::short,
    output::Output,
    secrets,
    table::Table,
    terminal::{self, ask, confirm, say},
    watch,
};

/// Chooses a pair, asks the questions, and makes the Key.
pub async fn run(client: &Client, output: &mut Output) -> Result<(), Failure> {
    if !terminal::is_interactive() {
        let text = "there is no terminal to ask at; use `keywrightctl serialize --yes`";
        return Err(Failure::Usage(text.into()));
    }
    client.version().await?;
    let path = choose(client).await?;
    let mut wizard = client.wizard(&path).await?;
    wizard.claim().await?;
    let mut person = Person { client: client.clone(), code: None, last_pin_refused: false };
    let first = wizard.next_step().await?;
    let driven = tokio::select! {
        driven = drive(&mut wizard, first, &mut person) => driven,
        _ = tokio::signal::ctrl_c() => {
            person.job_ended(CodeState::Later);
            Err(Failure::refused("interrupted; the daemon keeps the job, run `keywrightctl wizard` to continue it"))
        }
    };
    let job = match driven {
        Ok(job) => job,
        Err(failure) => {
            // The person did not cancel: the offer stays for another try.
            let _ = wizard.release().await;
            return Err(failure);
        }
    };
    let key = wizard.state().keys.get(&job.result);
    output.show(&job, || self::result(&job, key))
}

/// Chooses the serialization to drive: an offer or a new Master. Waits until there is one.
async fn choose(client: &Client) -> Result<String, Failure> {
    let mut watch = Watch::start(client).await?;
    let mut last_text = String::new();
    loop {
        let offers: Vec<&Serialization> =
            watch.state().serializations.values().filter(|job| job.is_live()).collect();
        match offers.as_slice() {
            [] => {
                if let Some(path) = new_master(client, watch.state()).await? {
                    return Ok(path);
                }
                let text = why_no_offer(watch.state());
                if text != last_text {
                    say(&text);
                    last_text = text;
                }
            }
            [only] => {
                say(&describe_pair(watch.state(), only));
                return Ok(only.path.clone());
            }
            several => return choose_offer(watch.state(), several).await,
        }
        while !may_change_offers(&watch.next().await?) {}
    }
}

fn may_change_offers(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::OfferAdded { .. } | WatchEvent::DecisionsChanged { .. } => true,
        WatchEvent::KeyAdded { key } => key.present,
        WatchEvent::KeyRemoved { .. } | WatchEvent::DaemonGone | WatchEvent::DaemonBack => true,
        _ => false,
    }
}

/// Offers to make a blank Key a new Master if only blank Keys are plugged in.
async fn new_master(client: &Client, state: &State) -> Result<Option<String>, Failure> {
    let present: Vec<&Key> = state.keys.values().filter(|key| key.present).collect();
    if present.iter().any(|key| key.state != KeyState::Blank) {
        return Ok(None);
    }
    let key = match present.as_slice() {
        [] => return Ok(None),
        [only] => {
            say(&format!("Only a {} is plugged in.", only.label()));
            if !confirm("Make it the Master Key of a new family?").await? {
                return Ok(None);
            }
            only
        }
        several => {
            say("Only blank Keys are plugged in. One can become the Master Key of a new family:");
            let labels = several.iter().map(|key| key.label());
            &several[choice(labels).await?]
        }
    };
    let path = client.start_serialization(None, &key.path, Some(Kind::Master), None).await?;
    Ok(Some(path))
}

fn why_no_offer(state: &State) -> String {
    let mut text = String::new();
    for decision in &state.decisions {
        text.push_str(&format!("{}\n", watch::decision(state, decision)));
    }
    text.push_str(
        "Plug in a Master or Backup Key and the Key to be made. Waiting; press Ctrl-C to stop.",
    );
    text
}

fn describe_pair(state: &State, job: &Serialization) -> String {
    let label = |path: &str| state.keys.get(path).map_or_else(|| path.into(), Key::label);
    if job.issuer == "/" {
        format!("{}: a new Master Key", label(&job.candidate))
    } else {
        format!("{}, by {}", label(&job.candidate), label(&job.issuer))
    }
}

async fn choose_offer(state: &State, offers: &[&Serialization]) -> Result<String, Failure> {
    say("Several Keys can be made:");
    let chosen = choice(offers.iter().map(|job| describe_pair(state, job))).await?;
    Ok(offers[chosen].path.clone())
}

/// Asks for one of these and returns its index.
async fn choice(labels: impl ExactSizeIterator<Item = String>) -> Result<usize, Failure> {
    let count = labels.len();
    for (number, label) in (1..).zip(labels) {
        say(&format!("  {number}  {label}"));
    }
    loop {
        let answer = ask("Which? ").await?.parse::<usize>().ok();
        match answer.and_then(|number| number.checked_sub(1)).filter(|place| *place < count) {
            Some(place) => return Ok(place),
            None => say("Please enter one of the numbers."),
        }
    }
}

/// A person at the terminal.
struct Person {
    client: Client,
    /// The recovery code, shown at the very end so that it does not scroll away.
    code: Option<Pin>,
    /// Whether the last PIN was refused.
    last_pin_refused: bool,
}

impl Answers for Person {
    async fn kind(&mut self, kinds: &[Kind]) -> Result<Kind, Failure> {
        if let [only] = kinds {
            say(&format!("It will be a {only} Key."));
            return Ok(*only);
        }
        say("  backup  has the Master's rights: access to every Lock, can make Keys");
        say("  sub     has access to the Locks that you choose");
        loop {
            match ask("Backup or sub? ").await?.to_lowercase().parse() {
                Ok(kind) if kinds.contains(&kind) => return Ok(kind),
                _ => say("Please enter one of these words."),
            }
        }
    }

    async fn name(&mut self) -> Result<String, Failure> {
        ask("Its name: ").await
    }

    async fn locks(&mut self, issuer: Option<&Key>) -> Result<Selection, Failure> {
        let family = issuer.and_then(|key| key.memberships.first()).map(|m| m.family.clone());
        let locks = self.client.list_locks(&LockFilter { family, ..LockFilter::default() }).await?;
        let mut table = Table::new(["", "LOCK", "ID"]);
        for (number, lock) in (1..).zip(&locks) {
            table.row([format!("{number:>3}"), lock.name.clone(), short(&lock.id)]);
        }
        say(table.to_string().trim_end());
        loop {
            let answer = ask("Which Locks? Numbers, group:NAME, or all: ").await?;
            if answer.starts_with(bus::GROUP_PREFIX) {
                return Ok(Selection::Listed(vec![answer]));
            }
            if answer.eq_ignore_ascii_case("all") {
                return Ok(Selection::All);
            }
            match numbers(&answer, locks.len()) {
                Some(chosen) => {
                    return Ok(Selection::Listed(
                        chosen.into_iter().map(|index| locks[index].id.clone()).collect(),
                    ));
                }
                None => say("Please enter numbers from the list, such as 1,3 or 2-5."),
            }
        }
    }

    async fn confirm(&mut self, review: &Review) -> Result<Verdict, Failure> {
        say(&summary(review));
        if confirm("Write it?").await? {
            return Ok(Verdict::Write);
        }
        if confirm("Change something?").await? {
            return Ok(Verdict::Change);
        }
        Err(Failure::named(ErrorName::Cancelled, "nothing was written, as you answered"))
    }

    async fn pin(&mut self, who: &Word<Who>, key: Option<&Key>) -> Result<Pin, Failure> {
        let known = !std::mem::take(&mut self.last_pin_refused);
        ask_pin(who, key, known).await
    }

    fn wants_recovery_code(&self) -> bool {
        true
    }

    fn keep_code(&mut self, code: Pin) -> Result<(), Failure> {
        self.code = Some(code);
        Ok(())
    }

    fn job_ended(&mut self, code: CodeState) {
        let Some(shown) = self.code.take() else { return };
        let text = match code {
            CodeState::No => return,
            CodeState::Yes => "It unblocks this Key's PIN.",
            CodeState::Later => {
                "It unblocks this Key's PIN once the job is continued and finished."
            }
            CodeState::Unknown => {
                "It may unblock this Key's PIN; if it does not, the previous PUK is still in force."
            }
        };
        say("");
        say(&format!("Recovery code: {}", String::from_utf8_lossy(shown.as_bytes())));
        say(&format!("{text} It is shown only once and stored nowhere: write it down."));
    }

    fn may_retry(&mut self, failure: &Failure, _: &Wizard) -> bool {
        let again = [
            ErrorName::PinInvalid,
            ErrorName::InvalidArgument,
            ErrorName::NotFound,
            ErrorName::StaleRevision,
            ErrorName::LimitExceeded,
            ErrorName::KeyBusy,
        ];
        let again = again.into_iter().any(|name| failure.is(name));
        if again {
            say(&failure.message().unwrap_or_default());
        }
        // The refusal states the tries left; the Key's property may be older.
        self.last_pin_refused = failure.is(ErrorName::PinInvalid);
        again
    }

    fn report(&mut self, situation: &Situation) {
        report(situation);
    }

    fn note(&mut self, text: &str) {
        say(text);
    }
}

/// Parses numbers and ranges (from 1) into indices (from 0); None if one is not in a list of this many lines.
fn numbers(answer: &str, lines: usize) -> Option<BTreeSet<usize>> {
    let mut chosen = BTreeSet::new();
    for part in answer.split([',', ' ']).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first == 0 || first > last || last > lines {
            return None;
        }
        chosen.extend(first - 1..last);
    }
    (!chosen.is_empty()).then_some(chosen)
}

/// Describes what will be written.
pub fn summary(review: &Review) -> String {
    let kind = review.kind.map_or("new", Kind::as_str);
    let mut text = format!("{kind} Key {:?}", review.name);
    if review.locks > 0 {
        let locks = if review.locks == 1 { "Lock" } else { "Locks" };
        text.push_str(&format!(", for {} {locks}", review.locks));
    }
    if review.pending > 0 {
        text.push_str(&format!(" ({} of them not confirmed yet)", review.pending));
    }
    for (_, warning) in &review.warnings {
        text.push_str(&format!("\n  note: {warning}"));
    }
    text
}

/// Describes which PIN is asked for.
pub fn whose(who: &Word<Who>, key: Option<&Key>) -> String {
    let label = key.map_or_else(|| "the Key".to_owned(), Key::label);
    match who.known() {
        Some(Who::CandidateNew) => format!("new PIN for {label}"),
        _ => format!("PIN of {label}"),
    }
}

/// Asks for a PIN; a new one is asked for twice. `known` says whether the Key's number of tries is up to date and
/// can be shown.
pub async fn ask_pin(who: &Word<Who>, key: Option<&Key>, known: bool) -> Result<Pin, Failure> {
    let tries = match key {
        Some(key) if known && *who != Who::CandidateNew && key.pin_retries >= 0 => {
            format!(" ({} tries left)", key.pin_retries)
        }
        _ => String::new(),
    };
    let question = format!("The {}{tries}: ", whose(who, key));
    match who.known() {
        Some(Who::CandidateNew) => secrets::ask_new(&question).await,
        _ => terminal::ask_secret(&question).await,
    }
}

/// Reports a step that needs no answer.
pub fn report(situation: &Situation) {
    match situation {
        Situation::Writing { stage, progress } => {
            terminal::overwrite_line(&watch::bar(stage, *progress), false);
        }
        Situation::AwaitingKey { outcome } => {
            let text =
                outcome.as_ref().map_or("A Key was unplugged; plug it in again.", |o| &o.text);
            say(text);
        }
        Situation::Finished { .. } => terminal::overwrite_line("written and verified", true),
        _ => {}
    }
}

/// Describes the Key that was made.
pub fn result(job: &Serialization, key: Option<&Key>) -> String {
    let kind = job.kind.map(|kind| kind.to_string()).unwrap_or_default();
    let id = key.map(|key| key.id.as_str()).unwrap_or_default();
    format!("{} is a {kind} Key now, id {id}", job.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_must_be_in_the_list() {
        for (answer, expected) in [
            ("1", Some(vec![0])),
            ("3, 1 1", Some(vec![0, 2])),
            ("2-4", Some(vec![1, 2, 3])),
            ("0", None),
            ("5", None),
            ("4-2", None),
            ("one", None),
            ("", None),
        ] {
            let found = numbers(answer, 4).map(|set| set.into_iter().collect::<Vec<_>>());
            assert_eq!(found, expected, "{answer:?}");
        }
    }
}
