//! The families that this station knows: their Keys, Locks, rights and revocations.
//!
//! [`Families`] owns the registry and the settings that signatures depend on. It prepares what an issuing Key is to
//! sign ([`Plan`]), keeps what was signed, and returns in [`Changes`] what has to be published again. It does not know
//! tokens, threads or jobs: its callers pass what is plugged in ([`Issuer`], [`Present`]) and who asked ([`Asker`]).
//!
//! | file | what |
//! | --- | --- |
//! | `to_sign` | a plan, its signed objects, and how they are kept |
//! | `issuing` `chains` | who may sign for a family, and under which chain |
//! | `locks` `rights` `revocations` `removals` `soft_keys` | what AddLock, ChangeRights, RevokeKey, RemoveLock and IssueSoftKey prepare |
//! | `statements` `reissue` | a new statement on a Key; signing again what a revoked issuer had signed |
//! | `settle` | updates records to the current judgement: which Keys are revoked, which Locks removed, which certificates count |
//! | `delays` | the uptime from which the delay of a revocation counts |
//! | `confirmations` `import` | confirmations of Locks, objects of other stations |
//! | `cards` | what Keys carry of families that are not known here |
//! | `names` `groups` `selection` | labels of this station, groups of Locks, which Locks a caller names |
//! | `facts` | what the registry knows of one Key |
//! | `log` | events of the audit log, and refused calls |
//!
//! Every method may fail because the registry cannot be read or written. Nothing of a failed call is kept, unless its
//! documentation says so.

mod cards;
mod chains;
mod confirmations;
mod delays;
mod facts;
mod groups;
mod import;
mod issuing;
mod locks;
mod log;
mod names;
mod reissue;
mod removals;
mod revocations;
mod rights;
mod selection;
mod settle;
mod soft_keys;
mod statements;
#[cfg(test)]
mod tests;
mod to_sign;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use keywright_base::clock;
use keywright_proto::{Certificate, Id, PublicKey, check_name, profile::Validity, read_csr};
use keywright_rules::presence::Claims;

pub use facts::Facts;
pub use issuing::{Issuer, Issuing};
pub use log::{Brought, RefusedCalls};
pub use selection::{LockNames, too_many};
pub use to_sign::{Kept, Plan, Prepared};

use crate::{
    audit::AuditEvent,
    config::Config,
    error::Error,
    queries::CompletedRightRow,
    registry::{Registry, RegistryError, records::Membership},
    serialization::{random_serial, validity},
    trust::Moment,
};

/// The last part of a Key's object path.
pub type Label = String;

/// The container of a Key's first access certificate (SP 800-73-4 part 1, table 3).
const FIRST_CONTAINER: u32 = 0x005F_C105;

/// The families in this station's registry.
pub struct Families {
    registry: Registry,
    /// Validity of certificates, in years.
    certificate_years: u32,
    /// Validity of a CRL, in years.
    crl_years: u32,
    /// How long the revocation of a senior issuer is delayed, in seconds.
    revoke_delay: u64,
    reports: confirmations::Reports,
    /// When the next delayed revocation takes effect, by family, in seconds of uptime.
    judges_at: BTreeMap<Id, u64>,
}

/// Who asked for an operation: the number of a user, or `None` for the daemon itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asker(pub Option<u32>);

/// What has to be published again after a change in the registry. It is filled even if the call then fails, because
/// what was committed before is kept.
#[derive(Debug, Default)]
pub struct Changes {
    /// Keys that changed.
    pub keys: BTreeSet<Id>,
    /// Families whose Keys may all have changed.
    pub families: BTreeSet<Id>,
    /// Keys that are new in the registry or in a family.
    pub new_keys: Vec<Id>,
    /// Rights that a confirmation has changed, by Key.
    pub confirmed: Vec<(Id, Vec<CompletedRightRow>)>,
}

/// What is plugged in, as families need it.
#[derive(Debug, Default)]
pub struct Present<'a> {
    /// Families with a Master or Backup Key here.
    pub issuers: Vec<Id>,
    /// What each Key claims.
    pub claims: Vec<&'a Claims>,
}

impl Families {
    /// Takes over a registry.
    pub fn new(registry: Registry, config: &Config) -> Self {
        Self {
            registry,
            certificate_years: config.certificate_years,
            crl_years: config.crl_years,
            revoke_delay: config.revoke_delay(),
            reports: confirmations::Reports::default(),
            judges_at: BTreeMap::new(),
        }
    }

    /// The registry, for callers that only read it or commit a job.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The uptime and the delay of revocations, by which rights are judged.
    pub fn moment(&self) -> Moment {
        Moment::now(&self.registry, self.revoke_delay)
    }

    /// When the first waiting revocation acts, in seconds of uptime; none where none waits.
    pub fn judges_at(&self) -> Option<u64> {
        self.judges_at.values().min().copied()
    }

    /// The membership of a Key that is a member of a family.
    fn member(&self, key: Id, family: Id) -> Result<Membership, Error> {
        let missing = || Error::NotFound(format!("Key {key} in the issuer's family"));
        self.membership(key, family)?.ok_or_else(missing)
    }

    /// The membership of a Key in a family.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn membership(&self, key: Id, family: Id) -> Result<Option<Membership>, RegistryError> {
        self.registry.membership(key, family)
    }

    /// A serial number and a validity for a certificate that is made now.
    fn new_certificate(&self) -> Result<(Vec<u8>, Validity), Error> {
        let serial = random_serial().map_err(|_| no_random())?;
        Ok((serial, validity(clock::unix_seconds(), self.certificate_years)))
    }
}

/// Checks the name and the certification request (PKCS#10, PEM) of a Lock or a Soft Key. Returns the key of the request.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_request(name: &str, csr_pem: &str) -> Result<PublicKey, Error> {
    checked(name)?;
    read_csr(csr_pem).map_err(|error| Error::InvalidArgument(error.to_string()))
}

/// Checks a name that somebody gives.
///
/// # Errors
/// `InvalidArgument`: it is empty, too long, or no text on one line.
pub fn checked(name: &str) -> Result<(), Error> {
    check_name(name).map_err(|error| Error::InvalidArgument(error.to_string()))
}

/// A new unique label. It is random, so that no counter has to be stored.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_label() -> Result<Label, Error> {
    random::<8>().map(hex::encode)
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Error> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|_| no_random())?;
    Ok(bytes)
}

fn no_random() -> Error {
    Error::Unsupported("the system gives no random numbers".into())
}

/// Something that is to be signed cannot be built.
fn unsupported(error: impl Display) -> Error {
    Error::Unsupported(error.to_string())
}

/// A key that the registry has.
fn public_key(spki: &[u8]) -> Result<PublicKey, Error> {
    PublicKey::from_spki_der(spki).map_err(unsupported)
}

/// The access key (slot 9A) of a member.
fn access_key(own: &Membership) -> Result<PublicKey, Error> {
    Ok(Certificate::parse(&own.certificate).map_err(unsupported)?.public_key().clone())
}

/// The issuing key (slot 9C) of a Master or Backup Key.
fn issuing_key(own: &Membership) -> Result<Option<PublicKey>, Error> {
    own.issuing_key.as_deref().map(public_key).transpose()
}
