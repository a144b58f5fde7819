//! When somebody last called, and whether every call has been answered: for the end when nobody needs the daemon.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures_core::Stream;
use tokio::{task::spawn, time::Instant};
use zbus::{Connection, MessageStream, fdo::PeerProxy, message::Type};

/// Notes the time of every call that comes in: methods, and properties that are read.
#[derive(Debug, Clone)]
pub struct Calls {
    connection: Connection,
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
        Self { connection: connection.clone(), last }
    }

    /// When the last call came in; before the first, when listening began.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every call that came in before has been begun: they are begun in their order, and so is a call to
    /// ourselves, behind them.
    pub async fn begun(&self) -> zbus::Result<()> {
        let Some(myself) = self.connection.unique_name() else { return Ok(()) };
        let peer = PeerProxy::builder(&self.connection).destination(myself.clone()).path("/");
        peer.build().await?.ping().await?;
        Ok(())
    }
}
