//! The rest of an import: Locks that were removed, roots of CAs, and certificates that were made anew elsewhere.

use keywright_proto::{Certificate, Id, Role, SignedObjects};

use super::{Station, exchange::id_of};
use crate::{
    clock,
    error::Error,
    owed::Of,
    registry::{
        Batch,
        records::{Lock, LockRemoval, Membership},
    },
};

impl Station {
    /// Removals of Locks, and the roots that CAs signed for themselves. Answers how many are new.
    pub(super) fn take_removed(
        &self,
        batch: &mut Batch,
        family: Id,
        papers: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut new = 0;
        for (key_hash, signer, cose) in papers.removals() {
            let lock = id_of(&key_hash);
            let known = self.registry.removals_of_lock(family, lock)?;
            let by = |known: &LockRemoval| {
                keywright_proto::claimed_removal(&known.cose).map(|(_, signer)| signer)
            };
            if known.iter().any(|known| by(known) == Some(signer)) {
                continue;
            }
            let (cose, first_seen) = (cose.to_vec(), clock::unix_seconds());
            batch.put_lock_removal(family, LockRemoval { lock, key_hash, cose, first_seen });
            new += 1;
        }
        let known = self.registry.roots(family)?;
        for root in papers.own_roots() {
            let ca = root.public_key().id();
            let mine = known.iter().find(|(of, _)| *of == ca).map(|(_, der)| der.as_slice());
            // Of several one is kept, the same at every station.
            if mine.is_none_or(|mine| root.der() < mine) {
                batch.put_root(family, ca, root.der().to_vec());
                new += usize::from(mine.is_none());
            }
        }
        Ok(new)
    }

    /// Certificates that take the place of those by CAs which do not stand any more. Answers how many do.
    pub(super) fn take_renewed(&self, family: Id, papers: &SignedObjects) -> Result<usize, Error> {
        let owed = self.owed(family)?;
        let mut batch = Batch::new();
        let mut new = 0;
        for void in owed.certificates.iter().filter(|void| !void.is_ca) {
            for certificate in papers.certificates() {
                let id = certificate.public_key().id();
                let Some(issuer) = self.standing_issuer(family, certificate, papers)? else {
                    continue;
                };
                match void.of {
                    Of::Lock(lock) if lock == id && certificate.role() == Some(Role::Lock) => {
                        let Some(known) = self.registry.lock(lock)? else { continue };
                        let certificate = certificate.der().to_vec();
                        batch.put_lock(lock, Lock { certificate, issuer, ..known });
                    }
                    Of::Key(key) if key == id && certificate.role() != Some(Role::Lock) => {
                        let memberships = self.registry.memberships(key)?;
                        let own = memberships.into_iter().find(|(of, _)| *of == family);
                        let Some((_, own)) = own else { continue };
                        let certificate = certificate.der().to_vec();
                        batch.put_membership(
                            key,
                            family,
                            Membership { certificate, issuer, ..own },
                        );
                    }
                    _ => continue,
                }
                new += 1;
                break;
            }
        }
        self.registry.commit(batch)?;
        Ok(new)
    }

    /// The CA that issued a certificate, if it stands and has not revoked it.
    fn standing_issuer(
        &self,
        family: Id,
        certificate: &Certificate,
        papers: &SignedObjects,
    ) -> Result<Option<Id>, Error> {
        let chain = papers.chain(certificate).unwrap_or_default();
        let Some(issuer) = chain.get(1).map(|issuer| issuer.public_key().id()) else {
            return Ok(None);
        };
        let known = self.registry.issuer(issuer)?;
        let crl = known.and_then(|known| keywright_proto::Crl::parse(&known.crl).ok());
        let listed = crl.is_some_and(|crl| {
            crl.revoked().iter().any(|entry| entry.serial == certificate.serial())
        });
        Ok((!listed && self.stands(family, issuer)?).then_some(issuer))
    }
}
