//! Who answers the wizard's questions: the command line, or a person.

use keywright_client::{Kind, Pin, Situation, Word, model::Key, model::Review, model::Who};

use crate::failure::Failure;

/// Which Locks a Sub Key gets.
#[derive(Debug)]
pub enum Selection {
    /// Every Lock that the family has now.
    All,
    /// These, by id.
    Listed(Vec<String>),
}

/// Whether a recovery code unblocks the PIN of the Key that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeState {
    /// It does.
    Yes,
    /// The token keeps the PUK that it had.
    No,
    /// It will, once the job goes on to its end.
    Later,
    /// The job broke off just there.
    Unknown,
}

/// What is to become of what was reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Write,
    /// The questions are to be asked once more.
    Change,
}

/// The answers to the wizard's questions, in the order of its steps.
pub trait Answers {
    /// What to make.
    async fn kind(&mut self, kinds: &[Kind]) -> Result<Kind, Failure>;
    /// What to call it.
    async fn name(&mut self) -> Result<String, Failure>;
    /// Which Locks it may access, of the issuer's.
    async fn locks(&mut self, issuer: Option<&Key>) -> Result<Selection, Failure>;
    /// Whether this is what is meant; an error stops before anything is written.
    async fn confirm(&mut self, review: &Review) -> Result<Verdict, Failure>;
    /// The PIN of this Key.
    async fn pin(&mut self, who: &Word<Who>, key: Option<&Key>) -> Result<Pin, Failure>;
    /// Whether somebody keeps the recovery code.
    fn wants_recovery_code(&self) -> bool;
    /// Keeps it, at once: it is handed out only now, and comes into force with the write's end.
    fn keep_code(&mut self, code: Pin) -> Result<(), Failure>;
    /// The job is over, or left as it is: what has become of the code.
    fn job_ended(&mut self, code: CodeState);
    /// Whether, after this refusal, the same question can be asked once more.
    fn may_retry(&mut self, failure: &Failure, wizard: &keywright_client::Wizard) -> bool;
    /// Tells of a situation that needs no answer.
    fn report(&mut self, situation: &Situation);
    /// Tells something in words.
    fn note(&mut self, text: &str);
}
