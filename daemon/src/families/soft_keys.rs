//! IssueSoftKey: a Sub Key whose private key is kept in software. The key was generated where it is used; only its
//! certification request comes here.

use keywright_base::clock;
use keywright_proto::{PublicKey, Role, profile};

use super::{
    AuditEvent, Families, Issuing, LockNames, Plan, Prepared, Present, new_label,
    to_sign::{Purpose, ToSign},
    unsupported,
};
use crate::{
    error::Error,
    registry::{
        Batch,
        records::{self, Membership},
    },
};

/// Its Model property, which shows everywhere that it is software.
pub(super) const MODEL: &str = "Soft Key";
/// A Soft Key has no token, and so no container.
const NO_CONTAINER: u32 = 0;

impl Families {
    /// Prepares the certificate of a Soft Key and its statement.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`, `LimitExceeded`; `Unverified`: the family's root is not pinned here.
    pub fn prepare_soft_key(
        &self,
        issuing: &Issuing,
        key: PublicKey,
        name: String,
        locks: &LockNames,
        present: &Present<'_>,
    ) -> Result<Prepared, Error> {
        let (id, family) = (key.id(), issuing.family);
        if let Some(known) = self.registry.key(id)? {
            return Err(Error::InvalidArgument(format!(
                "the key in the request is that of Key \"{}\" already; change its rights, or make a new key",
                known.name
            )));
        }
        let entries = self.entries(family, locks, present)?;
        let (serial, validity) = self.new_certificate()?;
        let certificate = profile::end_entity(&key, Role::Soft, issuing.own()?, &serial, validity);
        let certificate = certificate.map_err(unsupported)?;
        let statements = self.moment().statements(&self.registry, id, family)?;
        let new = self.new_statement(id, family, &statements, Some(entries))?;
        let statement = self.unsigned_statement(issuing, &new, &key)?;
        let mut plan = Plan::new(Purpose::IssueSoftKey(id), issuing);
        let (locks, _) = new.effects();
        let kind = Role::Soft;
        let made = AuditEvent::KeyMade { family, key: id, kind, locks, serialization: None };
        plan.event = Some(made);
        plan.objects.push((ToSign::SoftKey { key, name }, certificate));
        plan.objects.push((ToSign::Statement(Box::new(new)), statement));
        plan.prepared()
    }

    /// Puts a Soft Key with its certificate.
    pub(super) fn put_soft_key(
        &self,
        batch: &mut Batch,
        issuing: &Issuing,
        key: &PublicKey,
        name: String,
        certificate: Vec<u8>,
    ) -> Result<(), Error> {
        let (id, family) = (key.id(), issuing.family);
        let record = records::Key {
            access_key: key.spki_der().to_vec(),
            label: new_label()?,
            name,
            family,
            guid: None,
            serial: String::new(),
            model: MODEL.into(),
            last_seen: clock::unix_seconds(),
            puk_tried: false,
        };
        batch.put_key(id, record);
        let issuer = issuing.own()?.public_key().spki_der();
        let membership = Membership::new(Role::Soft, certificate, issuer, NO_CONTAINER);
        batch.put_membership(id, family, membership);
        Ok(())
    }
}
