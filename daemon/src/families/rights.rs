//! ChangeRights: one statement for each Key, and one signature for any number of Locks.

use keywright_proto::{Id, statement::claimed};
use keywright_rules::decision::Reason;

use super::{
    AuditEvent, Families, Issuing, LockNames, Plan, Prepared, Present, access_key,
    revocations::is_stolen,
    statements::{NewStatement, in_force},
    to_sign::{Purpose, ToSign},
    too_many,
};
use crate::{
    error::Error,
    registry::records::{LockEntry, Membership},
};

impl Families {
    /// Prepares a statement that adds Locks to a Key's rights and removes others. Nothing has to be signed if the
    /// rights are so already.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`, `Revoked`, `LimitExceeded`; `Unverified`: the family's root is not pinned here.
    pub fn prepare_rights(
        &self,
        issuing: &Issuing,
        key: Id,
        add: &LockNames,
        remove: &LockNames,
        present: &Present<'_>,
    ) -> Result<Prepared, Error> {
        let family = issuing.family;
        let own = self.member(key, family)?;
        let new = self.changed_rights(family, key, &own, add, remove, present)?;
        let mut plan = Plan::new(Purpose::ChangeRights(key), issuing);
        if let Some(new) = new {
            let unsigned = self.unsigned_statement(issuing, &new, &access_key(&own)?)?;
            let (allowed, denied) = new.effects();
            plan.event = Some(AuditEvent::RightsChanged { family, key, allowed, denied });
            plan.objects.push((ToSign::Statement(Box::new(new)), unsigned));
        }
        plan.prepared()
    }

    fn changed_rights(
        &self,
        family: Id,
        key: Id,
        own: &Membership,
        add: &LockNames,
        remove: &LockNames,
        present: &Present<'_>,
    ) -> Result<Option<NewStatement>, Error> {
        if own.role.is_issuer() {
            return Err(Error::InvalidArgument(
                "a Master or Backup Key may access every Lock of its family; revoke it to end that"
                    .into(),
            ));
        }
        if add.is_empty() && remove.is_empty() {
            return Err(Error::InvalidArgument("name at least one Lock to add or remove".into()));
        }
        let asked = |names: &LockNames| match names.is_empty() {
            true => Ok(Vec::new()),
            false => self.entries(family, names, present),
        };
        let (add, remove) = (asked(add)?, asked(remove)?);
        let is_added = |lock: Id| add.binary_search_by_key(&lock, |entry| entry.lock).is_ok();
        if let Some(both) = remove.iter().find(|entry| is_added(entry.lock)) {
            return Err(Error::InvalidArgument(format!(
                "Lock {} is both added and removed",
                both.lock
            )));
        }
        let statements = self.moment().statements(&self.registry, key, family)?;
        if statements.is_revoked() {
            return Err(Error::Pair(Reason::Revoked));
        }
        let mut entries = in_force(&statements, self.takes_up_void(family)?);
        self.forget_removed(family, &mut entries)?;
        let before = entries.clone();
        let all_effective = entries.keys().all(|lock| statements.in_effect_at(*lock).is_some());
        for (locks, allow) in [(add, true), (remove, false)] {
            for entry in locks {
                // A right that the Key does not have needs no entry to deny it.
                if allow || entries.contains_key(&entry.lock) {
                    entries.insert(entry.lock, LockEntry { allow, ..entry });
                }
            }
        }
        if entries == before && all_effective {
            return Ok(None);
        }
        too_many(entries.len())?;
        let listed = Some(entries.into_values().collect());
        self.new_statement(key, family, &statements, listed).map(Some)
    }

    /// Whether statements of the family's revoked issuers may be re-issued: not if an issuer was stolen, or was revoked
    /// without a reason known here.
    fn takes_up_void(&self, family: Id) -> Result<bool, Error> {
        for revocation in self.registry.revocations(family)? {
            let of_issuer = claimed(&revocation.cose).is_some_and(|claim| claim.revokes.is_some());
            if of_issuer && (revocation.reason.is_empty() || is_stolen(&revocation.reason)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
