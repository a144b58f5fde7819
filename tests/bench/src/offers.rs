//! Waits for offers and steps from signals alone: while a time is measured, the daemon gets no other calls.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use keywright_bus_tests::api::MANAGER_PATH;
use tokio::time::timeout;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

const SERIALIZATION: &str = "org.keywright1.Serialization";

type Properties = HashMap<String, OwnedVariant>;

/// The stream of signals about serializations.
pub struct Offers(MessageStream);

impl Offers {
    /// Subscribes.
    pub async fn listen(connection: &Connection) -> Self {
        let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal);
        let rule = rule.path_namespace(MANAGER_PATH).build().unwrap();
        Self(MessageStream::for_match_rule(rule, connection, None).await.unwrap())
    }

    /// Waits for a new serialization; returns its path and time, or None after `limit`.
    pub async fn next_offer(&mut self, limit: Duration) -> Option<(OwnedObjectPath, Instant)> {
        let offer = async {
            loop {
                let (signal, now) = self.next().await;
                if let Some(path) = added(&signal) {
                    return (path, now);
                }
            }
        };
        timeout(limit, offer).await.ok()
    }

    /// Waits until a serialization enters this step; returns the time.
    pub async fn until_step(&mut self, job: &OwnedObjectPath, step: &str) -> Instant {
        loop {
            let (signal, now) = self.next().await;
            if changed_step(&signal, job).is_some_and(|entered| entered == step) {
                return now;
            }
        }
    }

    async fn next(&mut self) -> (Message, Instant) {
        let signal = self.0.next().await.expect("the bus runs").expect("a whole message");
        (signal, Instant::now())
    }
}

/// Reads the serialization's path from an InterfacesAdded signal.
fn added(signal: &Message) -> Option<OwnedObjectPath> {
    if signal.header().member()?.as_str() != "InterfacesAdded" {
        return None;
    }
    let (path, interfaces): (OwnedObjectPath, HashMap<String, Properties>) =
        signal.body().deserialize().ok()?;
    interfaces.contains_key(SERIALIZATION).then_some(path)
}

/// Reads the property Step from a PropertiesChanged signal of this serialization.
fn changed_step(signal: &Message, job: &OwnedObjectPath) -> Option<String> {
    let header = signal.header();
    if header.member()?.as_str() != "PropertiesChanged" || *header.path()? != **job {
        return None;
    }
    let (_, mut changed, _): (String, Properties, Vec<String>) =
        signal.body().deserialize().ok()?;
    String::try_from(changed.remove("Step")?).ok()
}
