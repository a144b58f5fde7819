//! When the last call came in, and whether all calls have been dispatched: idle exit asks both.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures_core::Stream;
use tokio::{
    task::{spawn, yield_now},
    time::Instant,
};
use zbus::{Connection, MessageStream, message::Type};

/// Scheduler turns; many more than a call needs.
const TURNS: u32 = 100;

/// Records when the last call came in: a method call, or the reading of a property.
#[derive(Debug, Clone)]
pub struct Calls {
    last: Arc<Mutex<Instant>>,
}

impl Calls {
    /// Starts to listen.
    pub fn listen(connection: &Connection) -> Self {
        let last = Arc::new(Mutex::new(Instant::now()));
        let mut messages = MessageStream::from(connection);
        let noted = Arc::clone(&last);
        spawn(async move {
            while let Some(message) =
                poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await
            {
                if message.is_ok_and(|message| message.message_type() == Type::MethodCall) {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                }
            }
        });
        Self { last }
    }

    /// When the last call came in; if none has, when listening began.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every call that came in before has been dispatched, and every reply that was ready has been sent. Works
    /// only on a single-threaded runtime, where each yield runs all tasks that are ready.
    pub async fn dispatched() {
        // A call passes one queue and one task; a reply passes the queue of the station's outputs.
        for _ in 0..TURNS {
            yield_now().await;
        }
    }
}
