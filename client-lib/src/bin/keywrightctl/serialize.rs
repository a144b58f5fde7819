//! `serialize`: makes a Key with the answers given on the command line.

use keywright_client::{
    Client, ErrorName, Key, Kind, Pin, Serialization, Situation, State, Wizard, Word,
    model::{KeyState, Review, Step, Who},
};
use serde::Serialize;

use crate::{
    answers::{Answers, CodeState, Selection, Verdict},
    args,
    drive::drive,
    failure::Failure,
    lookup,
    output::Output,
    secrets::{self, RecoveryFile},
    terminal, wizard,
};

/// The arguments, with every file opened and checked.
pub struct Prepared {
    args: args::Serialize,
    issuer_pin: Option<Pin>,
    candidate_pin: Option<Pin>,
    new_pin: Option<Pin>,
    recovery: Option<RecoveryFile>,
}

/// Output of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    serialization: &'a Serialization,
    key: Option<&'a Key>,
}

impl Prepared {
    /// Checks the arguments and files, without the daemon.
    pub fn new(args: args::Serialize) -> Result<Self, Failure> {
        let has_locks = !args.locks.is_empty() || args.all_locks;
        if has_locks != (args.kind == Kind::Sub) {
            let text = "--kind sub needs --lock or --all-locks; other kinds do not take them";
            return Err(Failure::Usage(text.into()));
        }
        if args.kind == Kind::Master && args.issuer.is_some() {
            return Err(Failure::Usage("a Master has no issuer; leave --issuer out".into()));
        }
        if !args.yes && !terminal::is_interactive() {
            return Err(Failure::Usage("there is no terminal to ask at; give --yes".into()));
        }
        Ok(Self {
            issuer_pin: secrets::read_optional(args.issuer_pin_file.as_deref())?,
            candidate_pin: secrets::read_optional(args.candidate_pin_file.as_deref())?,
            new_pin: secrets::read_optional(args.new_pin_file.as_deref())?,
            recovery: args.recovery_code_file.as_deref().map(RecoveryFile::prepare).transpose()?,
            args,
        })
    }

    /// Makes the Key.
    pub async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let state = client.state().await?;
        let locks = lookup::lock_ids(client, &self.args.locks).await?;
        let issuer = match &self.args.issuer {
            Some(wanted) => Some(lookup::key_object(client, wanted).await?.path),
            None => None,
        };
        let (path, is_new) = match offer(&state, &self.args, issuer.as_deref())? {
            Some(path) => (path, false),
            None => (self.start(client, &state, issuer).await?, true),
        };
        let mut wizard = client.wizard(&path).await?;
        wizard.claim().await?;
        let first = if is_new {
            wizard.next_step().await?
        } else {
            rewind(&mut wizard, &self.args).await?
        };
        let mut answers = FromArgs { prepared: self, locks };
        let job = drive(&mut wizard, first, &mut answers).await?;
        let key = wizard.state().keys.get(&job.result);
        output.show(&Done { serialization: &job, key }, || wizard::result(&job, key))
    }

    async fn start(
        &self,
        client: &Client,
        state: &State,
        issuer: Option<String>,
    ) -> Result<String, Failure> {
        let issuer = match (self.args.kind, issuer) {
            (Kind::Master, _) => None,
            (_, None) => Some(lookup::issuer(client, None).await?.path),
            (_, issuer) => issuer,
        };
        let candidate = match &self.args.candidate {
            Some(path) => path.clone(),
            None => candidate(state, self.args.kind, issuer.as_deref())?,
        };
        let name = Some(self.args.name.as_str());
        let kind = Some(self.args.kind);
        Ok(client.start_serialization(issuer.as_deref(), &candidate, kind, name).await?)
    }
}

/// Finds the open serialization that fits the arguments; None if there is none yet.
fn offer(
    state: &State,
    args: &args::Serialize,
    issuer: Option<&str>,
) -> Result<Option<String>, Failure> {
    let fits = |job: &&Serialization| {
        job.is_live()
            && job.kinds.contains(&args.kind)
            && issuer.is_none_or(|issuer| job.issuer == issuer)
            && args.candidate.as_ref().is_none_or(|candidate| job.candidate == *candidate)
    };
    let offers: Vec<&Serialization> = state.serializations.values().filter(fits).collect();
    match offers.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.path.clone())),
        several => {
            let mut text = String::from(
                "several pairs have an offer; choose one with --issuer and --candidate:",
            );
            for job in several {
                let label = |path: &str| state.keys.get(path).map(Key::label).unwrap_or_default();
                text.push_str(&format!(
                    "\n  {} ({}) beside {}",
                    job.candidate,
                    label(&job.candidate),
                    label(&job.issuer)
                ));
            }
            Err(Failure::refused(text))
        }
    }
}

/// Finds the only present Key that can become one of this kind.
fn candidate(state: &State, kind: Kind, issuer: Option<&str>) -> Result<String, Failure> {
    let others =
        || state.keys.values().filter(|key| key.present && Some(key.path.as_str()) != issuer);
    let mut fitting: Vec<&Key> = others().filter(|key| key.state == KeyState::Blank).collect();
    if fitting.is_empty() && kind == Kind::Sub {
        fitting = others().collect();
    }
    match fitting.as_slice() {
        [only] => Ok(only.path.clone()),
        [] => Err(Failure::named(
            ErrorName::KeyAbsent,
            "no blank Key is plugged in; plug in the Key to be made",
        )),
        several => {
            let mut text = String::from("several Keys could be made; choose one with --candidate:");
            for key in several {
                text.push_str(&format!("\n  {}  {}", key.path, key.label()));
            }
            Err(Failure::refused(text))
        }
    }
}

/// Goes back to the first question, because another client may have given other answers. A job that was already
/// saved has to match the arguments.
async fn rewind(wizard: &mut Wizard, args: &args::Serialize) -> Result<Situation, Failure> {
    loop {
        let situation = wizard.next_step().await?;
        let job = wizard.serialization();
        if matches!(job.step.known(), Some(Step::Pins | Step::Writing | Step::AwaitingKey)) {
            check_as_requested(job.kind, &job.name, args)?;
        }
        let is_first = job.steps.first() == Some(&job.step);
        if is_first || !matches!(job.step.known(), Some(Step::Name | Step::Locks | Step::Review)) {
            return Ok(situation);
        }
        wizard.back().await?;
    }
}

/// Checks that a job matches the arguments.
///
/// # Errors
/// InvalidStep if it does not.
fn check_as_requested(
    kind: Option<Kind>,
    name: &str,
    args: &args::Serialize,
) -> Result<(), Failure> {
    if kind == Some(args.kind) && name == args.name {
        return Ok(());
    }
    let text = format!(
        "this pair already has a job that makes a {} Key named {name:?}; \
         continue it with `keywrightctl wizard`",
        kind.map_or("new", Kind::as_str)
    );
    Err(Failure::named(ErrorName::InvalidStep, text))
}

/// Answers from the command line; without `--yes` a person is asked for missing ones.
struct FromArgs {
    prepared: Prepared,
    locks: Vec<String>,
}

impl Answers for FromArgs {
    async fn kind(&mut self, _: &[Kind]) -> Result<Kind, Failure> {
        Ok(self.prepared.args.kind)
    }

    async fn name(&mut self) -> Result<String, Failure> {
        Ok(self.prepared.args.name.clone())
    }

    async fn locks(&mut self, _: Option<&Key>) -> Result<Selection, Failure> {
        Ok(if self.prepared.args.all_locks {
            Selection::All
        } else {
            Selection::Listed(self.locks.clone())
        })
    }

    async fn confirm(&mut self, review: &Review) -> Result<Verdict, Failure> {
        check_as_requested(review.kind, &review.name, &self.prepared.args)?;
        terminal::say(&wizard::summary(review));
        if self.prepared.args.yes || terminal::confirm("Write it?").await? {
            return Ok(Verdict::Write);
        }
        Err(Failure::named(ErrorName::Cancelled, "nothing was written, as you answered"))
    }

    async fn pin(&mut self, who: &Word<Who>, key: Option<&Key>) -> Result<Pin, Failure> {
        let (given, option) = match who.known() {
            Some(Who::Issuer) => (&self.prepared.issuer_pin, "--issuer-pin-file"),
            Some(Who::CandidateNew) => (&self.prepared.new_pin, "--new-pin-file"),
            _ => (&self.prepared.candidate_pin, "--candidate-pin-file"),
        };
        match given {
            Some(pin) => Ok(pin.clone()),
            None if !self.prepared.args.yes => wizard::ask_pin(who, key, true).await,
            None => {
                let text = format!("the {} is required; use {option}", wizard::whose(who, key));
                Err(Failure::named(ErrorName::PinRequired, text))
            }
        }
    }

    fn wants_recovery_code(&self) -> bool {
        self.prepared.recovery.is_some()
    }

    fn keep_code(&mut self, code: Pin) -> Result<(), Failure> {
        match &mut self.prepared.recovery {
            Some(file) => file.write(&code),
            None => Ok(()),
        }
    }

    fn job_ended(&mut self, code: CodeState) {
        let Some(file) = self.prepared.recovery.as_ref().filter(|file| file.is_used()) else {
            return;
        };
        let path = file.path().display();
        match code {
            CodeState::Yes => {}
            CodeState::No => terminal::say(&format!(
                "the recovery code in {path} is not in force: the Key keeps its previous PUK"
            )),
            CodeState::Later => terminal::say(&format!(
                "keep {path}: its recovery code will be in force once the job is continued and finished"
            )),
            CodeState::Unknown => terminal::say(&format!(
                "keep {path} and the previous PUK: which of them is in force is not known"
            )),
        }
    }

    /// Never retries: a PIN that a token refused must not be sent again.
    fn may_retry(&mut self, _: &Failure, _: &Wizard) -> bool {
        false
    }

    fn report(&mut self, situation: &Situation) {
        wizard::report(situation);
    }

    fn note(&mut self, text: &str) {
        terminal::say(text);
    }
}
