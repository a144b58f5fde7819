//! How the bus asks the station: each call is a closure that runs on the station's thread, and its
//! answer comes back after everything that it changed has been signalled.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::Station;
use crate::{error::Error, families::Asker, outbox::Output};

/// Something for the station to do, on its own thread.
pub type Message = Box<dyn FnOnce(&mut Station) + Send>;

/// Asks the station.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::UnboundedSender<Message>,
    /// How many calls wait for something: an answer from here, polkit, the disk.
    pending: Arc<watch::Sender<usize>>,
}

/// One call that waits; it does no longer when this is dropped.
pub struct Pending(Arc<watch::Sender<usize>>);

/// Who asked, and where the answer goes, now or when a token has been asked.
pub struct Reply<T> {
    sender: oneshot::Sender<Result<T, Error>>,
    by: Asker,
}

impl<T: Send + 'static> Reply<T> {
    /// Who asked: events of the log name this user.
    pub fn by(&self) -> Asker {
        self.by
    }

    /// Answers, once everything put out before has been signalled.
    pub fn answer(self, station: &mut Station, result: Result<T, Error>) {
        station.replies.push(Output::Reply(Box::new(move || {
            // A caller that has left the bus does not wait for its answer.
            let _ = self.sender.send(result);
        })));
    }
}

impl Handle {
    /// A handle on the station behind this mailbox.
    pub fn new(mailbox: mpsc::UnboundedSender<Message>) -> Self {
        Self { mailbox, pending: Arc::new(watch::Sender::new(0)) }
    }

    /// Counts a call that is about to wait for something.
    pub fn pending(&self) -> Pending {
        self.pending.send_modify(|count| *count += 1);
        Pending(Arc::clone(&self.pending))
    }

    /// How many calls wait for something.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.pending.subscribe()
    }

    /// Returns when no call waits for anything.
    pub async fn answered(&self) {
        // The sender is in `self`.
        let _ = self.waiting().wait_for(|count| *count == 0).await;
    }

    /// Lets the station do something; nobody waits for it.
    pub fn tell(&self, message: impl FnOnce(&mut Station) + Send + 'static) {
        // A station that has ended has nothing left to be told.
        let _ = self.mailbox.send(Box::new(message));
    }

    /// Asks the station in nobody's name, and waits for its answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_by(Asker::default(), question).await
    }

    /// The same in the name of a user.
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
