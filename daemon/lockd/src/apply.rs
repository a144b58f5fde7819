//! `keywright-lockd apply FILE…`: judges grants itself if no service runs, otherwise hands them to the service's
//! inbox.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use keywright_proto::{Confirmation, Effect, PublicKey, grant::MAX_GRANT};

use crate::{
    config::Config,
    error::{Error, Refusal},
    files::{self, Readers},
    identity::Identity,
    inbox::{DirectoryEvent, Watch},
    membership::Membership,
    outbox::{CONFIRMATION, OUTBOX, REFUSED, answer_name},
    service::{INBOX, Origin, Service},
};

/// How long to wait for the service's answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4096;

/// A file and its result: what the Lock does for the Key now, or why the grant changes nothing.
pub type Outcome = (PathBuf, Result<String, String>);

/// Judges these grants.
pub fn apply(state: &Path, config: Config, paths: &[PathBuf]) -> Result<Vec<Outcome>, Error> {
    match Service::open(state, config) {
        Ok(service) => apply_directly(state, service, paths),
        Err(Error::InUse(_)) => apply_through_service(state, paths),
        Err(error) => Err(error),
    }
}

fn apply_directly(
    state: &Path,
    mut service: Service,
    paths: &[PathBuf],
) -> Result<Vec<Outcome>, Error> {
    let mut taken = Vec::new();
    for path in paths {
        let name = answer_name(path.file_name().unwrap_or_default());
        let grant = files::read(path, MAX_GRANT).map_err(Refusal::Unreadable);
        let outcome = grant.and_then(|grant| service.take(&grant, Origin::File(name.clone())));
        taken.push((path, name, outcome));
    }
    let settled = service.settle().map_err(|error| error.to_string());
    let lock = service.gate().identity().public().clone();
    let outcomes = taken.into_iter().map(|(path, name, outcome)| {
        let result = match (outcome, &settled) {
            (Err(refusal), _) => Err(refusal.to_string()),
            (Ok(_), Err(error)) => Err(error.clone()),
            (Ok(taken), Ok(_)) if taken.parked => Ok(PARKED.to_owned()),
            (Ok(_), Ok(_)) => describe(&answer(state, &name, CONFIRMATION), &lock),
        };
        (path.clone(), result)
    });
    Ok(outcomes.collect())
}

const PARKED: &str = "its version is in the future; it takes effect at that time";

fn answer(state: &Path, name: &str, kind: &str) -> PathBuf {
    state.join(OUTBOX).join(format!("{name}.{kind}"))
}

/// Describes a confirmation to a person.
fn describe(path: &Path, lock: &PublicKey) -> Result<String, String> {
    let bytes = files::read(path, MAX_ANSWER).map_err(|error| error.to_string())?;
    let confirmation = Confirmation::verify(&bytes, lock).map_err(|error| error.to_string())?;
    let effect = match confirmation.effect {
        Effect::Allow => "the Key is admitted",
        Effect::Deny => "the Key is not admitted",
    };
    Ok(format!("{effect}; confirmed in {}", path.display()))
}

/// Copies the grants into the inbox of the running service and waits for its answers.
fn apply_through_service(state: &Path, paths: &[PathBuf]) -> Result<Vec<Outcome>, Error> {
    let identity = Identity::load_or_create(state)?;
    Membership::load(state, identity.public())?.ok_or(Error::Unclaimed)?;
    let outbox = state.join(OUTBOX);
    let watch = Watch::start(&outbox).map_err(Error::file(&outbox))?;
    let (send, answers) = mpsc::channel();
    thread::spawn(move || watch.run(|dropped| send.send(dropped).is_ok()));
    let mut outcomes = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let name = format!("apply-{}-{number}", std::process::id());
        let outcome = match files::read(path, MAX_GRANT) {
            Err(error) => Err(Refusal::Unreadable(error).to_string()),
            Ok(grant) => {
                let dropped = state.join(INBOX).join(&name);
                files::replace(&dropped, &grant, Readers::Owner).map_err(Error::file(&dropped))?;
                wait(state, &name, &answers, identity.public())
            }
        };
        outcomes.push((path.clone(), outcome));
    }
    Ok(outcomes)
}

fn wait(
    state: &Path,
    name: &str,
    answers: &mpsc::Receiver<DirectoryEvent>,
    lock: &PublicKey,
) -> Result<String, String> {
    let deadline = Instant::now() + TIMEOUT;
    let confirmation = OsString::from(format!("{name}.{CONFIRMATION}"));
    let refused = OsString::from(format!("{name}.{REFUSED}"));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok(DirectoryEvent::File(found)) if found == confirmation => {
                return describe(&answer(state, name, CONFIRMATION), lock);
            }
            Ok(DirectoryEvent::File(found)) if found == refused => {
                let text = files::read(&answer(state, name, REFUSED), MAX_ANSWER);
                let text = text.map_err(|error| error.to_string())?;
                return Err(String::from_utf8_lossy(&text).trim_end().to_owned());
            }
            Ok(_) => {}
            Err(_) => return Err("no answer from the service within 60 s; read its log".into()),
        }
    }
}
