//! Lets an unclaimed Lock take its first certificate from the link, if the configuration names the family: the root
//! has to have that key. Nothing else that the broker says is trusted.

use std::path::{Path, PathBuf};

use keywright_link::{Connection, LinkEvent, Refusals, Settings};
use keywright_proto::{
    Id, PublicKey,
    link::{Topic, lock_subscriptions},
};

use crate::{
    config::Config,
    error::{Error, Refusal},
    link,
    membership::Membership,
};

/// The certificate that is waited for.
struct Joining {
    state: PathBuf,
    identity: PublicKey,
    family: Id,
}

/// Connects to the broker if the configuration has a family, a link and a certificate for it, and waits until the
/// connection is dropped. A certificate that arrives is saved in the state directory.
pub fn start(
    config: &Config,
    state: &Path,
    identity: &PublicKey,
) -> Result<Option<Connection>, Error> {
    let Some(family) = config.family else { return Ok(None) };
    let Some(config) = &config.link else { return Ok(None) };
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
        return Ok(None);
    };
    // The presence message makes a station that knows this Lock publish its certificate at once.
    let settings = Settings {
        subscriptions: vec![lock_subscriptions(identity.id())[1].clone()],
        ..link::settings(config, identity.id(), certificate, key)?
    };
    let joining = Joining { state: state.to_owned(), identity: identity.clone(), family };
    let refusals = Refusals::default();
    let on_event = move |event| {
        let LinkEvent::Message { topic, payload, .. } = event else { return };
        match joining.handle_message(&topic, &payload) {
            Ok(()) => {}
            // The broker keeps the message and delivers it again at the next connection.
            Err(Refusal::NotSaved(error)) => tracing::error!("{error}"),
            Err(refusal) => {
                refusals.note(&refusal);
            }
        }
    };
    let connection = Connection::start(settings, on_event);
    let connection = connection.map_err(|error| Error::System(error.to_string()))?;
    tracing::info!(lock = %identity.id(), %family, "waiting for this Lock's certificate on the link");
    Ok(Some(connection))
}

/// Warns if the configuration names another family than the one of this Lock.
pub fn warn_if_other_family(config: &Config, membership: &Membership) {
    let own = membership.root().family();
    if let Some(family) = config.family.filter(|family| *family != own) {
        tracing::warn!(%family, "this Lock belongs to family {own} and stays with it; the family in its configuration is ignored");
    }
}

impl Joining {
    fn handle_message(&self, topic: &str, text: &[u8]) -> Result<(), Refusal> {
        let no = |why: &dyn std::fmt::Display| Refusal::Chain(why.to_string());
        if Topic::parse(topic) != Some(Topic::Chain { lock: self.identity.id() }) {
            return Err(no(&"not the topic of this Lock's certificate"));
        }
        let text = std::str::from_utf8(text).map_err(|error| no(&error))?;
        let unreadable = |error| Refusal::NotSaved(Box::new(error));
        // Whether it is newer than the saved one is judged by the running service, which knows all revocations.
        if Membership::load(&self.state, &self.identity).map_err(unreadable)?.is_some() {
            return Ok(());
        }
        let new = match Membership::read(text, &self.identity) {
            Err(Error::NotOurChain(why)) => return Err(no(&why)),
            read => read.map_err(|error| no(&error))?,
        };
        if new.root().public_key().id() != self.family {
            return Err(no(&"its root is not that of the family in the configuration"));
        }
        Membership::claim(&self.state, &self.identity, text).map(drop).map_err(
            |error| match error {
                Error::File { .. } => Refusal::NotSaved(Box::new(error)),
                // A person has claimed the Lock meanwhile, for another family.
                error => no(&error),
            },
        )
    }
}
