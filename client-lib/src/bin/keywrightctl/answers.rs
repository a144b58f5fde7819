//! The interface that answers the wizard's questions: implemented for the command line and for a person.

use keywright_client::{Kind, Pin, Situation, Word, model::Key, model::Review, model::Who};

use crate::failure::Failure;

/// The Locks of a Sub Key.
#[derive(Debug)]
pub enum Selection {
    /// Every Lock that the family has now.
    All,
    /// These Locks: ids, or groups as `group:NAME`.
    Listed(Vec<String>),
}

/// Whether the recovery code that was handed out is the Key's PUK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeState {
    /// It is.
    Yes,
    /// It is not: the token keeps its previous PUK.
    No,
    /// It will be once the job is resumed and finished.
    Later,
    /// Unknown: the job was interrupted while it changed the PUK.
    Unknown,
}

/// The person's answer to the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Write,
    /// Ask all questions again.
    Change,
}

/// The answers to the wizard's questions, in the order of its steps.
pub trait Answers {
    /// Returns the kind of Key to make.
    async fn kind(&mut self, kinds: &[Kind]) -> Result<Kind, Failure>;
    /// Returns its name.
    async fn name(&mut self) -> Result<String, Failure>;
    /// Returns its Locks, out of the issuer's.
    async fn locks(&mut self, issuer: Option<&Key>) -> Result<Selection, Failure>;
    /// Confirms the summary; an error stops the job before anything is written.
    async fn confirm(&mut self, review: &Review) -> Result<Verdict, Failure>;
    /// Returns a PIN of this Key.
    async fn pin(&mut self, who: &Word<Who>, key: Option<&Key>) -> Result<Pin, Failure>;
    /// Whether the recovery code is to be taken.
    fn wants_recovery_code(&self) -> bool;
    /// Keeps the recovery code. It is handed out once, before the write puts it in force.
    fn keep_code(&mut self, code: Pin) -> Result<(), Failure>;
    /// Called when the job has ended or is left, with the state of the recovery code.
    fn job_ended(&mut self, code: CodeState);
    /// Whether the same question is to be asked again after this refusal.
    fn may_retry(&mut self, failure: &Failure, wizard: &keywright_client::Wizard) -> bool;
    /// Reports a step that needs no answer.
    fn report(&mut self, situation: &Situation);
    /// Shows a remark.
    fn note(&mut self, text: &str);
}
