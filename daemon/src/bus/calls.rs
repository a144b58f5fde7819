//! When somebody last called, and whether every call has been answered: for the end when nobody needs the daemon.

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

/// Many more turns than a call takes.
const TURNS: u32 = 100;

/// Notes the time of every call that comes in: methods, and properties that are read.
#[derive(Debug, Clone)]
pub struct Calls {
    last: Arc<Mutex<Instant>>,
}

impl Calls {
    /// Listens from now on.
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

    /// When the last call came in; before the first, when listening began.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every call that came in before has been begun, and every answer that was ready is on its way. Only
    /// right on a runtime of one thread, where each turn lets every task run that can.
    pub async fn dispatched() {
        // A call passes a queue and a task of its own; an answer the queue of the station's outputs.
        for _ in 0..TURNS {
            yield_now().await;
        }
    }
}
