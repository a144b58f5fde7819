//! One thing done on one token, outside of a write.

use super::{Station, keys::Key};
use crate::{
    error::Error,
    hotplug::Device,
    token::{Cleared, Session, Token, TokenError, TransportError},
};

impl Station {
    /// Does one thing on one token, on threads of its own. What the token says of its PIN, and
    /// whether something on it stays authorized, is shown before `done` is called. `may` is asked
    /// when it is this job's turn: those before it may have spent tries.
    pub(super) fn on_token<R>(
        &mut self,
        name: &str,
        device: Device,
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
                let result = result.and_then(|result| station.note(&id, result));
                done(station, result);
            },
        );
    }

    fn note<R: WithCleared>(
        &mut self,
        device: &crate::hotplug::DeviceId,
        result: Result<R, TokenError>,
    ) -> Result<R, Error> {
        let Some((_, key)) = self.present_mut(device) else {
            return result.map_err(|_| Error::KeyAbsent("the Key".into()));
        };
        match result {
            Ok(done) => {
                key.note_cleared(done.cleared());
                Ok(done)
            }
            Err(error) => {
                key.note_refusal(&error);
                let (answer, token) = (token_error(key, error.clone()), key.token());
                self.note_refused(token, &error);
                Err(answer)
            }
        }
    }
}

/// What a token's error is, in words about this Key.
pub(super) fn token_error(key: &Key, error: TokenError) -> Error {
    let called = key.called();
    match error {
        TokenError::PinRefused { retries } => Error::PinInvalid { key: called, retries },
        TokenError::CodeRefused { retries } => Error::CodeInvalid { key: called, retries },
        TokenError::PinBlocked => Error::PinBlocked(called),
        TokenError::CodeBlocked => Error::CodeBlocked(called),
        TokenError::PinFormat => Error::InvalidArgument(error.to_string()),
        TokenError::Transport(TransportError::Busy { holder }) => {
            Error::KeyBusy { key: called, holder }
        }
        TokenError::Transport(TransportError::Gone) => Error::KeyAbsent(called),
        TokenError::NoPiv | TokenError::Unsupported(_) | TokenError::ForeignManagementKey => {
            Error::Unsupported(format!("{called}: {error}"))
        }
        source => Error::Token { key: called, source },
    }
}

/// A result that comes with what the token answered when it was cleared.
pub trait WithCleared {
    /// What it answered.
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
