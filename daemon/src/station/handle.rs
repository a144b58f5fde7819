//! Sends calls to the station: each is a closure that runs on the station's thread. Its answer is delivered after the
//! signals of everything it changed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::Station;
use crate::{error::Error, families::Asker, outbox::Output};

/// Work for the station's thread.
pub type Message = Box<dyn FnOnce(&mut Station) + Send>;

/// Sends messages to the station.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::UnboundedSender<Message>,
    /// How many calls are waiting: for an answer of the station, for polkit or for the disk.
    pending: Arc<watch::Sender<usize>>,
}

/// Counts one waiting call until it is dropped.
pub struct Pending(Arc<watch::Sender<usize>>);

/// Who asked, and where to send the answer, either at once or after a token has answered.
pub struct Reply<T> {
    sender: oneshot::Sender<Result<T, Error>>,
    by: Asker,
}

impl<T: Send + 'static> Reply<T> {
    /// The user who asked, for the audit log.
    pub fn by(&self) -> Asker {
        self.by
    }

    /// Queues the answer after the signals sent so far.
    pub fn answer(self, station: &mut Station, result: Result<T, Error>) {
        station.replies.push(Output::Reply(Box::new(move || {
            // The receiver is gone if the caller has left the bus.
            let _ = self.sender.send(result);
        })));
    }
}

impl Handle {
    /// A handle to the station that reads this mailbox.
    pub fn new(mailbox: mpsc::UnboundedSender<Message>) -> Self {
        Self { mailbox, pending: Arc::new(watch::Sender::new(0)) }
    }

    /// Counts a call that is about to wait.
    pub fn pending(&self) -> Pending {
        self.pending.send_modify(|count| *count += 1);
        Pending(Arc::clone(&self.pending))
    }

    /// The number of waiting calls.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.pending.subscribe()
    }

    /// Returns when no call is waiting.
    pub async fn answered(&self) {
        // `self` holds the sender, so this cannot fail.
        let _ = self.waiting().wait_for(|count| *count == 0).await;
    }

    /// Sends a message that needs no answer.
    pub fn tell(&self, message: impl FnOnce(&mut Station) + Send + 'static) {
        // The send fails only if the station has ended.
        let _ = self.mailbox.send(Box::new(message));
    }

    /// Asks the station on the daemon's own behalf, and waits for the answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_by(Asker::default(), question).await
    }

    /// Asks the station on behalf of a user, and waits for the answer.
    pub async fn ask_for<T: Send + 'static>(
        &self,
        uid: u32,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_by(Asker(Some(uid)), question).await
    }

    async fn ask_by<T: Send + 'static>(
        &self,
        by: Asker,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        let _pending = self.pending();
        let (sender, answer) = oneshot::channel();
        self.tell(move |station| question(station, Reply { sender, by }));
        answer.await.unwrap_or(Err(Error::Stopping))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
