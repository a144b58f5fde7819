//! Drives a serialization to its end, with answers from an [`Answers`].

use keywright_client::{
    ErrorName, Outcome, Serialization, Situation, Wizard,
    model::{Step, Who},
};

use crate::{
    answers::{Answers, CodeState, Selection, Verdict},
    failure::Failure,
};

/// Answers every step, beginning with `first`, until the job has ended. Returns the finished job. However the job
/// ends, [`Answers::job_ended`] learns whether the recovery code is in force.
pub async fn drive<A: Answers>(
    wizard: &mut Wizard,
    first: Situation,
    answers: &mut A,
) -> Result<Serialization, Failure> {
    let result = run_steps(wizard, first, answers).await;
    let job = wizard.serialization();
    answers.job_ended(code_state(job));
    if !job.is_live() {
        // Removes the ended object. If another client drives it or has removed it, this call fails, and that is right.
        let _ = wizard.finish().await;
    }
    result.map(|()| wizard.serialization().clone())
}

async fn run_steps<A: Answers>(
    wizard: &mut Wizard,
    mut situation: Situation,
    answers: &mut A,
) -> Result<(), Failure> {
    let mut code_taken = false;
    let mut going_back = false;
    loop {
        // Goes back to the first question, step by step.
        if going_back && matches!(situation, Situation::Locks | Situation::Name) {
            wizard.back().await?;
            situation = wizard.next_step().await?;
            continue;
        }
        going_back = false;
        match &situation {
            Situation::Finished { outcome, .. } => {
                if !code_taken {
                    // It was written before this program attached.
                    take_recovery_code(wizard, answers).await?;
                }
                answers.report(&situation);
                if let Some(outcome) = outcome {
                    answers.note(&outcome.text);
                }
                return Ok(());
            }
            Situation::Cancelled { outcome } => {
                return Err(end_failure(
                    outcome.as_ref(),
                    ErrorName::Cancelled,
                    "the job was cancelled",
                ));
            }
            Situation::Failed { outcome } => {
                return Err(end_failure(
                    outcome.as_ref(),
                    ErrorName::TokenFailed,
                    "the job failed",
                ));
            }
            Situation::Unknown(step) => {
                let text = format!("this program does not know the step {step:?}; update it");
                return Err(Failure::named(ErrorName::Unsupported, text));
            }
            Situation::Writing { .. } => {
                // Taken before the PUK is replaced, which happens last: the code survives a daemon that
                // dies afterwards. Not taken at `pins`: a client that stops there leaves it to the next one.
                if !std::mem::replace(&mut code_taken, true) {
                    take_recovery_code(wizard, answers).await?;
                }
                answers.report(&situation);
            }
            Situation::AwaitingKey { .. } => {
                code_taken = false;
                answers.report(&situation);
            }
            _ => loop {
                match answer(&situation, wizard, answers).await {
                    Ok(verdict) => {
                        going_back = verdict == Verdict::Change;
                        break;
                    }
                    Err(failure) if answers.may_retry(&failure, wizard) => {}
                    Err(failure) => return Err(failure),
                }
            },
        }
        situation = wizard.next_step().await?;
    }
}

/// Answers one step; the daemon announces the next one. [`Verdict::Change`] means that it went one step back and the
/// caller has to go back to the first question.
async fn answer<A: Answers>(
    situation: &Situation,
    wizard: &Wizard,
    answers: &mut A,
) -> Result<Verdict, Failure> {
    match situation {
        Situation::Kind { kinds } => wizard.set_kind(answers.kind(kinds).await?).await?,
        Situation::Name => wizard.set_name(&answers.name().await?).await?,
        Situation::Locks => match answers.locks(wizard.issuer()).await? {
            Selection::All => wizard.select_all_locks().await?,
            Selection::Listed(ids) => {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                wizard.select_locks(&ids).await?;
            }
        },
        Situation::Review => {
            let review = wizard.review().await?;
            let verdict = answers.confirm(&review).await?;
            match verdict {
                Verdict::Write => wizard.save(review.revision).await?,
                Verdict::Change => wizard.back().await?,
            }
            return Ok(verdict);
        }
        Situation::Pins { needed } => {
            // One PIN at a time: after the candidate's PIN the daemon may ask for a new one.
            if let Some(who) = needed.first() {
                let key = if *who == Who::Issuer { wizard.issuer() } else { wizard.candidate() };
                let pin = answers.pin(who, key).await?;
                wizard.provide_pin(who, &pin).await?;
            }
        }
        _ => {}
    }
    Ok(Verdict::Write)
}

/// Takes the recovery code, if there is one. There is none if a person has set the PUK: that one stays.
async fn take_recovery_code<A: Answers>(wizard: &Wizard, answers: &mut A) -> Result<(), Failure> {
    if !answers.wants_recovery_code() {
        return Ok(());
    }
    match wizard.take_recovery_code().await {
        Ok(code) => answers.keep_code(code),
        Err(error) => {
            let is_none = error.daemon().is_some_and(|e| e.error == Some(ErrorName::NotFound));
            if !is_none {
                answers.note(&format!("the recovery code could not be read: {error}"));
            }
            Ok(())
        }
    }
}

/// Derives the state of the recovery code from the outcome detail `puk`.
fn code_state(job: &Serialization) -> CodeState {
    match (job.outcome_details.get("puk").map(String::as_str), job.step.known()) {
        (Some("left"), _) => CodeState::No,
        (Some(_), _) => CodeState::Unknown,
        (None, Some(Step::Finished)) => CodeState::Yes,
        // Without this detail the PUK was not touched.
        (None, Some(Step::Failed | Step::Cancelled)) => CodeState::No,
        (None, _) => CodeState::Later,
    }
}

fn end_failure(outcome: Option<&Outcome>, otherwise: ErrorName, text: &str) -> Failure {
    match outcome {
        // The outcome is a remark without an error name.
        Some(outcome) if outcome.name.is_empty() => Failure::named(otherwise, &outcome.text),
        Some(outcome) => {
            Failure::Refused { name: Some(outcome.name.clone()), text: outcome.text.clone() }
        }
        None => Failure::named(otherwise, format!("{text}; plug the Key in again to start over")),
    }
}
