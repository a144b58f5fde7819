//! ApplyConfirmation: what a Lock signed about a Key, carried here by hand or over the link. Only it
//! moves a right from `pending` to `active`, or ends `removing`.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use keywright_proto::{Confirmation, Effect, Id, PublicKey, rights::VersionedEffect};

use super::{Reply, Station, log::Confirmed, view::Output};
use crate::{
    clock,
    error::Error,
    judging::{
        Words,
        heard::{self, heard, outdoes},
    },
    queries,
    registry::{
        Batch,
        records::{self, Lock, SignedConfirmation, StatementRef},
    },
};

/// How many rights one signal tells of.
const MOST_TOLD: usize = 1_000;

/// Locks whose word may have changed a right, by Key and family.
pub(super) type Changed = BTreeMap<(Id, Id), Vec<Id>>;

/// What is said of Keys in a family, while many confirmations are looked at.
pub(super) type Judged = BTreeMap<(Id, Id), Option<Words>>;

impl Station {
    /// ApplyConfirmation.
    pub fn apply_confirmation(&mut self, bytes: Vec<u8>, reply: Reply<()>) {
        let result = self.keep_confirmations(vec![bytes]).and_then(|refused| {
            let refused = refused.into_iter().next();
            refused.map_or(Ok(()), Err)
        });
        reply.answer(self, result);
    }

    /// The same for many at once, in as few commits as can be. Answers why some are not believed.
    pub fn apply_confirmations(&mut self, all: Vec<Vec<u8>>, reply: Reply<Vec<Error>>) {
        let result = self.keep_confirmations(all);
        reply.answer(self, result);
    }

    fn keep_confirmations(&mut self, all: Vec<Vec<u8>>) -> Result<Vec<Error>, Error> {
        let (mut batch, mut rights) = (Batch::new(), BTreeSet::new());
        let mut judged = Judged::new();
        let (mut confirmed, mut changed) = (Confirmed::new(), Changed::new());
        let (mut keys, mut refused) = (BTreeSet::new(), Vec::new());
        for bytes in all {
            match self.read_confirmation(&bytes) {
                Ok((lock, known, stated, said)) => {
                    if !rights.insert((stated.key, lock)) {
                        // Which of two is newer is seen against what is committed.
                        self.log_confirmed(&mut batch, std::mem::take(&mut confirmed));
                        self.registry.commit(std::mem::take(&mut batch))?;
                        rights = BTreeSet::from([(stated.key, lock)]);
                    }
                    let allow = said.effect == Effect::Allow;
                    let words = self.judged(&mut judged, &stated)?;
                    let stays = allow && self.is_admitted(words, stated.key, lock)?;
                    if self.put_confirmed(&mut batch, words, lock, &stated, said, bytes)? {
                        confirmed.entry((stated.key, allow)).or_default().push(lock);
                        if !stays {
                            changed.entry((stated.key, stated.family)).or_default().push(lock);
                        }
                    }
                    batch.put_lock(lock, Lock { last_seen: clock::unix_seconds(), ..known });
                    keys.insert(stated.key);
                }
                // That is not about what it says.
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => refused.push(error),
            }
        }
        if !keys.is_empty() {
            self.log_confirmed(&mut batch, confirmed);
            self.registry.commit(batch)?;
        }
        for key in keys {
            self.refresh_id(key);
        }
        self.tell_confirmed(&changed);
        Ok(refused)
    }

    /// What is said of the Key that a statement is about; none where it need not be compared.
    pub(super) fn judged<'a>(
        &self,
        judged: &'a mut Judged,
        stated: &StatementRef,
    ) -> Result<Option<&'a Words>, Error> {
        let words = match judged.entry((stated.key, stated.family)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(self.moment().compare(&self.registry, stated.key, stated.family)?)
            }
        };
        Ok(words.as_ref())
    }

    /// Whether the Lock has confirmed already that it admits this Key: once more is no change.
    pub(super) fn is_admitted(
        &self,
        words: Option<&Words>,
        key: Id,
        lock: Id,
    ) -> Result<bool, Error> {
        let heard = heard(&self.registry, words, key, lock)?;
        Ok(heard.is_some_and(|(said, _)| said.effect == Effect::Allow))
    }

    /// Tells of each right that has just been confirmed.
    pub(super) fn tell_confirmed(&mut self, changed: &Changed) {
        for ((key, family), locks) in changed {
            for locks in locks.chunks(MOST_TOLD) {
                match queries::settled(&self.registry, *key, *family, locks, self.moment()) {
                    Ok(rights) if rights.is_empty() => {}
                    Ok(rights) => self.put(Output::Confirmed(*key, rights)),
                    Err(error) => {
                        tracing::error!(%key, %error, "nobody is told what was confirmed")
                    }
                }
            }
        }
    }

    /// Verifies one, and finds what it is about.
    fn read_confirmation(
        &self,
        bytes: &[u8],
    ) -> Result<(Id, Lock, StatementRef, Confirmation), Error> {
        let claimed = Confirmation::claimed_lock(bytes)
            .map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let lock = Id::of_hash(&claimed);
        let known =
            self.registry.lock(lock)?.ok_or_else(|| Error::NotFound(format!("Lock {lock}")))?;
        let said = PublicKey::from_spki_der(&known.identity_key)
            .map_err(|error| error.to_string())
            .and_then(|key| Confirmation::verify(bytes, &key).map_err(|error| error.to_string()))
            .map_err(|why| {
                Error::Forged(format!("{why}; ask Lock \"{}\" for it once more", known.name))
            })?;
        let stated = self
            .registry
            .statement_by_digest(&said.statement)?
            .filter(|s| s.family == known.family);
        let stated = stated.ok_or_else(|| {
            Error::NotFound(
                "statement here that it confirms; import what the station that made it exports"
                    .into(),
            )
        })?;
        Ok((lock, known, stated, said))
    }

    /// Puts what a Lock confirmed, unless something newer is known: an old confirmation may come
    /// again. Answers whether it is new.
    pub(super) fn put_confirmed(
        &self,
        batch: &mut Batch,
        words: Option<&Words>,
        lock: Id,
        stated: &StatementRef,
        said: Confirmation,
        cose: Vec<u8>,
    ) -> Result<bool, Error> {
        let key = stated.key;
        let new = VersionedEffect { version: stated.version, effect: said.effect };
        let old = self.registry.confirmation(key, lock)?.map(heard::said);
        let old = match old {
            Some(old) => {
                Some((heard(&self.registry, words, key, lock)?.map(|(said, _)| said), old))
            }
            None => None,
        };
        let counts = words.map_or(Some(new), |words| words.heard(new, Some(&said.statement)));
        let word = self.registry.signed_confirmation(key, lock)?;
        let reported = word.as_ref().map_or(0, |word| word.newest_version).max(said.newest_version);
        let is_new = old.is_none_or(|old| outdoes((counts, new), old));
        if is_new {
            let allow = said.effect == Effect::Allow;
            let (version, time) = (stated.version, clock::unix_seconds());
            batch.put_confirmation(key, lock, records::Confirmation { version, allow, time });
            batch.put_signed_confirmation(
                key,
                lock,
                SignedConfirmation { cose, newest_version: reported },
            );
        } else if let Some(word) = word {
            batch.put_signed_confirmation(
                key,
                lock,
                SignedConfirmation { newest_version: reported, ..word },
            );
        }
        Ok(is_new)
    }
}
