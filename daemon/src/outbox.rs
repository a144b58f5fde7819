//! The queue from the station to the bus: what has to be shown, signalled and answered, strictly in this order.

use keywright_proto::Id;
use tokio::sync::mpsc;

use crate::{
    queries::CompletedRightRow,
    view::{Activity, DecisionView, KeyView, Label, SerializationView},
};

/// What the bus has to do next, strictly in this order.
pub enum Output {
    /// A Key came up, or changed: the whole of it.
    Key(Label, Box<KeyView>),
    /// A Key is no longer shown.
    KeyGone(Label),
    /// A serialization came up, or changed: the whole of it.
    Serialization(u64, Box<SerializationView>),
    /// A serialization is no longer shown.
    SerializationGone(u64),
    /// The Decisions property.
    Decisions(Vec<DecisionView>),
    /// What Locks have confirmed of a Key, where it changes a right.
    Confirmed(Id, Vec<CompletedRightRow>),
    /// What the station does now.
    Activity(Activity),
    /// Everything known at the start has been put out.
    Ready,
    /// Answers a call; what comes before it has been signalled by then.
    Reply(Box<dyn FnOnce() + Send>),
}

/// Puts outputs into the queue. Each part of the station has one of its own, and what they put in comes out in the order
/// of the calls.
#[derive(Clone)]
pub struct Outbox(mpsc::UnboundedSender<Output>);

impl Outbox {
    /// A queue, and its other end.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Output>) {
        let (sender, outputs) = mpsc::unbounded_channel();
        (Self(sender), outputs)
    }

    /// Puts one in.
    pub fn send(&self, output: Output) {
        // Nobody receives any more only while the daemon stops.
        let _ = self.0.send(output);
    }
}
