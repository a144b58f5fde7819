//! Drives a serialization from its first step to its end, answering each question.

use zbus::{OwnedObjectPath, Variant};

use crate::{
    Client, Watch,
    api::{NONE, Options},
    client::error_name,
    pins::{self, FACTORY_PIN, PIN},
};

/// The answers to the wizard's questions.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// `master`, `backup` or `sub`.
    pub kind: &'static str,
    /// The new Key's name.
    pub name: String,
    /// The Locks of a Sub Key; none means all.
    pub locks: Vec<String>,
    /// The PINs.
    pub pins: Pins,
}

/// The PINs to provide.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The issuer's.
    pub issuer: String,
    /// The candidate's.
    pub candidate: String,
    /// The candidate's new PIN.
    pub candidate_new: String,
}

impl Default for Pins {
    /// The PINs of an issuer made by these tests and of a candidate in factory state.
    fn default() -> Self {
        Self { issuer: PIN.into(), candidate: FACTORY_PIN.into(), candidate_new: PIN.into() }
    }
}

impl Answers {
    /// A Master Key.
    pub fn master(name: &str) -> Self {
        Self { kind: "master", name: name.into(), ..Self::default() }
    }

    /// A Backup Key.
    pub fn backup(name: &str) -> Self {
        Self { kind: "backup", name: name.into(), ..Self::default() }
    }

    /// A Sub Key for these Locks; for all Locks if the list is empty.
    pub fn sub(name: &str, locks: &[&str]) -> Self {
        let locks = locks.iter().map(|&lock| lock.into()).collect();
        Self { kind: "sub", name: name.into(), locks, ..Self::default() }
    }

    fn pin(&self, who: &str) -> &str {
        match who {
            "issuer" => &self.pins.issuer,
            "candidate" => &self.pins.candidate,
            "candidate-new" => &self.pins.candidate_new,
            _ => panic!("whose PIN is {who:?}?"),
        }
    }
}

/// Where a serialization stopped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `finished`, `failed`, `cancelled`, `awaiting-key`, or `pins` after a refusal.
    pub step: String,
    /// The error's name without its prefix; empty if there was no error.
    pub outcome: String,
}

impl Ended {
    /// Panics unless it was `finished`.
    #[track_caller]
    pub fn assert_finished(&self) {
        assert_eq!(self.step, "finished", "{}", self.outcome);
    }
}

impl Client {
    /// Starts a job for a new Master on a blank Key; the wizard asks for everything that the options leave open.
    pub async fn start_master(&self, blank: &OwnedObjectPath, name: &str) -> OwnedObjectPath {
        let options = Options::from([("kind", Variant::from("master")), ("name", name.into())]);
        self.manager().await.start_serialization(&NONE, blank, options).await.unwrap()
    }

    /// Answers the current step; at `pins`, gives only the first missing PIN.
    ///
    /// Returns the error of the call that answers.
    pub async fn answer(
        &self,
        watch: &Watch,
        path: &OwnedObjectPath,
        answers: &Answers,
    ) -> zbus::Result<()> {
        let objects = watch.objects().await;
        let state = objects.serialization(path).expect("the serialization is there");
        let job = self.serialization(path).await;
        match state.text("Step").as_str() {
            "kind" => job.set_kind(answers.kind).await,
            "name" => job.set_name(&answers.name).await,
            "locks" => {
                let ids: Vec<_> = answers.locks.iter().map(String::as_str).collect();
                job.select_locks(&ids, ids.is_empty()).await
            }
            "review" => {
                let (_, revision) = job.review().await?;
                job.save(revision).await
            }
            "pins" => {
                let needed = state.words("PinsNeeded");
                let who = needed.first().expect("at pins, one is needed");
                job.provide_pin(who, pins::pipe(answers.pin(who)), Options::new()).await
            }
            step => panic!("nothing is asked at {step}:\n{objects:?}"),
        }
    }

    /// Answers until the serialization is at this step.
    pub async fn answer_until(
        &self,
        watch: &mut Watch,
        path: &OwnedObjectPath,
        answers: &Answers,
        step: &str,
    ) {
        loop {
            let before = asked(watch, path).await;
            if before.0 == step {
                return;
            }
            self.answer(watch, path, answers).await.unwrap();
            await_change(watch, path, &before).await;
        }
    }

    /// Answers everything until the serialization ends, waits for a Key, or refuses an answer.
    pub async fn answer_all(
        &self,
        watch: &mut Watch,
        path: &OwnedObjectPath,
        answers: &Answers,
    ) -> Ended {
        loop {
            let before = asked(watch, path).await;
            match before.0.as_str() {
                "finished" | "failed" | "cancelled" | "awaiting-key" => {
                    return Ended { step: before.0, outcome: before.2 };
                }
                "writing" => (),
                _ => {
                    if let Err(error) = self.answer(watch, path, answers).await {
                        let outcome = error_name(&error).to_owned();
                        return Ended { step: asked(watch, path).await.0, outcome };
                    }
                }
            }
            await_change(watch, path, &before).await;
        }
    }
}

/// Step, PinsNeeded and Outcome, the properties that change with each answer.
type Asked = (String, Vec<String>, String);

async fn asked(watch: &Watch, path: &OwnedObjectPath) -> Asked {
    let objects = watch.objects().await;
    let job = objects.serialization(path);
    let job = job.unwrap_or_else(|| panic!("{path} is gone:\n{objects:?}"));
    (job.text("Step"), job.words("PinsNeeded"), job.outcome())
}

async fn await_change(watch: &mut Watch, path: &OwnedObjectPath, before: &Asked) {
    let what = format!("{} beyond {before:?}", path.as_str());
    watch
        .until(&what, |objects| {
            let job = objects.serialization(path)?;
            let now = (job.text("Step"), job.words("PinsNeeded"), job.outcome());
            (now != *before).then_some(())
        })
        .await;
}
