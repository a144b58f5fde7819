//! Token tasks: one or a few commands on one token, outside of a write.

use keywright_token::hotplug::{Device, DeviceId};
use keywright_token::{Cleared, Session, Token, TokenError};

use super::Station;
use crate::{error::Error, families::Asker, keys::refusal};

impl Station {
    /// Runs a task on one token, on threads of its own. The PIN tries and the authorization that the token reports are
    /// applied before `done` is called. `may` is checked when it is this task's turn, because earlier tasks may have
    /// used tries. A refused PIN is logged on behalf of `by`.
    pub(super) fn on_token<R>(
        &mut self,
        name: &str,
        device: Device,
        by: Asker,
        may: impl FnOnce(&Self) -> Result<(), Error> + Send + 'static,
        job: impl FnOnce(&mut Token) -> Result<R, TokenError> + Send + 'static,
        done: impl FnOnce(&mut Self, Result<R, Error>) + Send + 'static,
    ) where
        R: WithCleared + Send + 'static,
    {
        let (connector, thread) = (device.connector.clone(), format!("token-{}", device.port));
        let id = device.id.clone();
        self.work(
            format!("{name}-{}", device.port),
            vec![device.id.clone()],
            may,
            move || Session::open(&connector, &thread)?.run(job),
            move |station, result| {
                let result = result.and_then(|result| station.note(&id, result, by));
                done(station, result);
            },
        );
    }

    fn note<R: WithCleared>(
        &mut self,
        device: &DeviceId,
        result: Result<R, TokenError>,
        by: Asker,
    ) -> Result<R, Error> {
        let Some((_, key)) = self.keys.by_device(device) else {
            return result.map_err(|_| Error::KeyAbsent("the Key".into()));
        };
        match result {
            Ok(done) => {
                key.note_cleared(done.cleared());
                Ok(done)
            }
            Err(error) => {
                key.note_refusal(&error);
                let (answer, token) = (key.token_error(error.clone()), key.token());
                if let Some(event) = refusal(token, &error) {
                    self.families.note_event(&event, by);
                }
                Err(answer)
            }
        }
    }
}

/// A result with the token's answer when it was cleared.
pub trait WithCleared {
    /// The token's answer.
    fn cleared(&self) -> Cleared;
}

impl WithCleared for Cleared {
    fn cleared(&self) -> Cleared {
        *self
    }
}

impl<T> WithCleared for (Cleared, T) {
    fn cleared(&self) -> Cleared {
        self.0
    }
}
