//! The queue from the station to the bus. The bus shows, signals and answers in the order of the queue.

use keywright_proto::Id;
use tokio::sync::mpsc;

use crate::{
    queries::CompletedRightRow,
    view::{Activity, DecisionView, KeyView, Label, SerializationView},
};

/// What the bus has to do next.
pub enum Output {
    /// A Key is new or has changed: all of its properties.
    Key(Label, Box<KeyView>),
    /// A Key is no longer shown.
    KeyGone(Label),
    /// A serialization is new or has changed: all of its properties.
    Serialization(u64, Box<SerializationView>),
    /// A serialization is no longer shown.
    SerializationGone(u64),
    /// The Decisions property.
    Decisions(Vec<DecisionView>),
    /// The rights of a Key that changed because Locks have confirmed something.
    Confirmed(Id, Vec<CompletedRightRow>),
    /// What the station is doing.
    Activity(Activity),
    /// Everything that was known at the start is in the queue before this.
    Ready,
    /// Answers a call, after the signals of everything before it in the queue.
    Reply(Box<dyn FnOnce() + Send>),
}

/// Puts outputs into the queue. Each part of the station has its own; the order is that of their calls.
#[derive(Clone)]
pub struct Outbox(mpsc::UnboundedSender<Output>);

impl Outbox {
    /// A new queue: the end that sends and the end that receives.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Output>) {
        let (sender, outputs) = mpsc::unbounded_channel();
        (Self(sender), outputs)
    }

    /// Adds an output to the end of the queue.
    pub fn send(&self, output: Output) {
        // It fails only while the daemon stops.
        let _ = self.0.send(output);
    }
}
