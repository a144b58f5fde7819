//! How the bus asks the station: each call is a closure that runs on the station's thread, and its
//! answer comes back after everything that it changed has been signalled.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::{Station, view::Output};
use crate::error::Error;

/// Something for the station to do, on its own thread.
pub type Message = Box<dyn FnOnce(&mut Station) + Send>;

/// Who asks, as the bus vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The unique bus name.
    pub name: String,
    /// The user.
    pub uid: u32,
}

/// Asks the station.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::UnboundedSender<Message>,
    /// How many calls wait for something: an answer from here, polkit, the disk.
    pending: Arc<watch::Sender<usize>>,
}

/// One call that waits; it does no longer when this is dropped.
pub struct Pending(Arc<watch::Sender<usize>>);

/// Where the answer of a call goes, now or when a token has been asked.
pub struct Reply<T>(oneshot::Sender<Result<T, Error>>);

impl<T: Send + 'static> Reply<T> {
    /// Answers, once everything put out before has been signalled.
    pub fn answer(self, station: &mut Station, result: Result<T, Error>) {
        station.put(Output::Reply(Box::new(move || {
            // A caller that has left the bus does not wait for its answer.
            let _ = self.0.send(result);
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

    /// Asks the station and waits for its answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        let _pending = self.pending();
        let (sender, answer) = oneshot::channel();
        self.tell(move |station| question(station, Reply(sender)));
        answer.await.unwrap_or(Err(Error::Stopping))
    }
}

impl Handle {
    /// The same in the name of a user: what is logged of it names him.
    pub async fn ask_for<T: Send + 'static>(
        &self,
        uid: u32,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(move |station, reply| {
            station.asked_by = Some(uid);
            question(station, reply);
        })
        .await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
