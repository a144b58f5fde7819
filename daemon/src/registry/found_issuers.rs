//! When and how this station first met each issuing key of a family.

use keywright_base::clock;
use keywright_proto::Id;
use serde::{Deserialize, Serialize};

use super::{
    Batch, Registry, changes::Changes, error::RegistryError, layout::Table, records::UnixTime,
    view::View,
};

/// How this station met an issuing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A job here made it.
    Job,
    /// Its Key, or one below it, was plugged in here.
    Key,
    /// A file that somebody imported.
    Import,
    /// Another station, or a Lock's own certificate, over the link.
    Link,
    /// A Lock believes it and says so.
    Lock,
}

/// The first meeting with an issuing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundIssuer {
    /// When.
    pub since: UnixTime,
    /// How.
    pub origin: Origin,
}

impl Origin {
    /// Its word on the bus and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Key => "key",
            Self::Import => "import",
            Self::Link => "link",
            Self::Lock => "lock",
        }
    }
}

impl Registry {
    /// How this station met an issuing key; none if that was before it noted it.
    pub fn found_issuer(&self, family: Id, ca: Id) -> Result<Option<FoundIssuer>, RegistryError> {
        self.view()?.record(&Table::FoundIssuers.of_two(family, ca))
    }
}

impl Batch {
    /// Notes how this station met an issuing key, unless that is noted. [`Batch::put_issuer`] notes [`Origin::Key`] for a
    /// new one.
    pub fn put_found_issuer(&mut self, family: Id, ca: Id, origin: Origin) -> &mut Self {
        self.write(move |view, changes| note(view, changes, family, ca, origin))
    }
}

pub(super) fn note(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    ca: Id,
    origin: Origin,
) -> Result<(), RegistryError> {
    let place = Table::FoundIssuers.of_two(family, ca);
    if changes.get(view, &place)?.is_some() {
        return Ok(());
    }
    changes.put(place, &FoundIssuer { since: clock::unix_seconds(), origin })
}
