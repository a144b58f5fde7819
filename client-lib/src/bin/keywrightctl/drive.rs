//! One way through a serialization, whoever answers.

use keywright_client::{ErrorName, Outcome, Serialization, Situation, Wizard, model::Who};

use crate::{
    answers::{Answers, Selection},
    failure::Failure,
};

/// Answers every step, from the one given on, until the job has ended; the job as it ended, if
/// that was well.
pub async fn drive<A: Answers>(
    wizard: &mut Wizard,
    mut situation: Situation,
    answers: &mut A,
) -> Result<Serialization, Failure> {
    loop {
        match &situation {
            Situation::Finished { outcome, .. } => {
                answers.tell(&situation);
                if let Some(outcome) = outcome {
                    answers.note(&outcome.text);
                }
                take_recovery_code(wizard, answers).await?;
                wizard.finish().await?;
                return Ok(wizard.serialization().clone());
            }
            Situation::Cancelled { outcome } => {
                return Err(ended(outcome.as_ref(), ErrorName::Cancelled, "it was cancelled"));
            }
            Situation::Failed { outcome } => {
                return Err(ended(outcome.as_ref(), ErrorName::TokenFailed, "it failed"));
            }
            Situation::Unknown(step) => {
                let text = format!("this program is too old for the step {step:?}; update it");
                return Err(Failure::named(ErrorName::Unsupported, text));
            }
            Situation::Writing { .. } | Situation::AwaitingKey { .. } => answers.tell(&situation),
            _ => {
                while let Err(failure) = answer(&situation, wizard, answers).await {
                    if !answers.again(&failure, wizard) {
                        return Err(failure);
                    }
                }
            }
        }
        situation = wizard.next_step().await?;
    }
}

/// One answer to one question; the daemon's next step tells what it led to.
async fn answer<A: Answers>(
    situation: &Situation,
    wizard: &Wizard,
    answers: &mut A,
) -> Result<(), Failure> {
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
            answers.confirm(&review).await?;
            wizard.save(review.revision).await?;
        }
        Situation::Pins { needed } => {
            // One at a time: after the candidate's PIN the daemon may ask for a new one.
            if let Some(who) = needed.first() {
                let key = if *who == Who::Issuer { wizard.issuer() } else { wizard.candidate() };
                let pin = answers.pin(who, key).await?;
                wizard.provide_pin(who, &pin).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

async fn take_recovery_code<A: Answers>(wizard: &Wizard, answers: &mut A) -> Result<(), Failure> {
    if !answers.keeps_recovery_code() {
        return Ok(());
    }
    match wizard.take_recovery_code().await {
        Ok(code) => answers.keep(code).await,
        Err(error) => {
            // The Key is made all the same: its PUK was not a factory one, or was taken before.
            answers.note(&format!("no recovery code: {error}"));
            Ok(())
        }
    }
}

fn ended(outcome: Option<&Outcome>, otherwise: ErrorName, text: &str) -> Failure {
    match outcome {
        Some(outcome) => {
            Failure::Refused { name: Some(outcome.name.clone()), text: outcome.text.clone() }
        }
        None => Failure::named(otherwise, format!("{text}; plug the Key in again to start anew")),
    }
}
