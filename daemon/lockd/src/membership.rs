//! The family of a Lock: its certificate chain, whose root is pinned when the Lock is claimed.

use std::path::Path;

use keywright_proto::{
    Certificate, Judgement, PublicKey, Role, Standing,
    family::SignedObjects,
    pem::{self, Label},
    verify_chain,
};

use crate::{
    error::Error,
    files::{self, Readers},
};

/// The chain's file: this Lock's certificate first, the root last.
pub const CHAIN: &str = "chain.pem";

/// A Lock's certificate chain in its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    chain: Vec<Certificate>,
    root: Certificate,
}

impl Membership {
    /// Parses and verifies a chain, as `AddLock` returns it. The root is trusted only because the person who brings
    /// the file vouches for it; the Lock's certificate has to lead to it.
    pub fn read(text: &str, identity: &PublicKey) -> Result<Self, Error> {
        let wrong = |what: &dyn std::fmt::Display| Error::NotOurChain(what.to_string());
        let ders = pem::from_pem(Label::Certificate, text).map_err(|error| wrong(&error))?;
        let chain = ders.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong(&error))?;
        let root = chain.last().cloned().ok_or_else(|| wrong(&"there is none"))?;
        verify_chain(&chain, root.der(), None).map_err(|error| wrong(&error))?;
        let own = chain.first().filter(|own| own.role() == Some(Role::Lock));
        if own.is_none_or(|own| own.public_key() != identity) {
            return Err(wrong(&"the first certificate is not of this Lock's key"));
        }
        Ok(Self { chain, root })
    }

    /// Reads the chain of this state directory; `None` if the Lock is unclaimed.
    pub fn load(state: &Path, identity: &PublicKey) -> Result<Option<Self>, Error> {
        let path = state.join(CHAIN);
        let text = files::read_if_exists(&path, pem::MAX_PEM).map_err(Error::file(&path))?;
        let Some(text) = text else { return Ok(None) };
        let text = String::from_utf8(text).unwrap_or_default();
        Self::read(&text, identity).map(Some).map_err(|error| Error::Damaged {
            path,
            what: error.to_string(),
            next: "restore it from a backup, or replace it by the file that `keywrightctl lock add` wrote",
        })
    }

    /// Claims the Lock for the family of this chain, for good. A later chain to the same root replaces it.
    ///
    /// # Errors
    /// [`Error::OtherFamily`] if another root is pinned already: it is never replaced.
    pub fn claim(state: &Path, identity: &PublicKey, text: &str) -> Result<Self, Error> {
        let new = Self::read(text, identity)?;
        let known = match Self::load(state, identity)? {
            None if new.save_first(state)? => return Ok(new),
            // Another process has claimed the Lock meanwhile.
            None => Self::load(state, identity)?,
            known => known,
        };
        match known {
            Some(old) if old.root.der() != new.root.der() => {
                return Err(Error::OtherFamily(old.root.family().to_string()));
            }
            Some(old) if old == new => return Ok(old),
            _ => {}
        }
        new.save(state)?;
        Ok(new)
    }

    /// Saves the chain in the state directory, replacing the old one.
    ///
    /// # Errors
    /// The operating system refuses; the old chain stays.
    pub fn save(&self, state: &Path) -> Result<(), Error> {
        let path = state.join(CHAIN);
        let text = self.text()?;
        files::replace(&path, text.as_bytes(), Readers::Everybody).map_err(Error::file(&path))
    }

    /// Saves the chain unless there is one already; returns whether it did.
    fn save_first(&self, state: &Path) -> Result<bool, Error> {
        let path = state.join(CHAIN);
        let text = self.text()?;
        files::create(&path, text.as_bytes(), Readers::Everybody).map_err(Error::file(&path))
    }

    /// The chain as PEM.
    pub fn text(&self) -> Result<String, Error> {
        pem::to_pem(Label::Certificate, self.chain.iter().map(Certificate::der))
            .map_err(|error| Error::NotOurChain(error.to_string()))
    }

    /// Whether every CA of the chain may certify. What a revoked CA certified is void, and so is everything below it.
    pub fn is_effective(&self, judgement: &Judgement) -> bool {
        let may_certify = |ca: &Certificate| {
            let standing = judgement.standing(&ca.public_key().hash());
            // Certificates signed by a deposed CA remain valid.
            matches!(standing, Some(Standing::Stands | Standing::Deposed))
        };
        self.chain.iter().filter(|certificate| certificate.is_ca()).all(may_certify)
    }

    /// Whether this chain is newer than another one: by the Lock's certificate, then by the CA certificates above it.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.age().gt(other.age())
    }

    /// What chains are ordered by: start of validity, then serial number, from the Lock's certificate upwards.
    fn age(&self) -> impl Iterator<Item = (u64, usize, &[u8])> {
        // Serial numbers have no leading zeros, so the longer one is greater.
        self.chain.iter().map(|one| (one.not_before(), one.serial().len(), one.serial()))
    }

    /// This Lock's certificate with its chain, as a file for `keywrightctl family import`.
    pub fn signed_objects(&self) -> Result<Vec<u8>, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::System(error.to_string());
        let mut objects = SignedObjects::new(self.root.clone()).map_err(|error| wrong(&error))?;
        for certificate in self.chain.iter().rev() {
            objects.add_certificate(certificate.clone()).map_err(|error| wrong(&error))?;
        }
        objects.encode().map_err(|error| wrong(&error))
    }

    /// This Lock's certificate first, the root last.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The pinned root.
    pub const fn root(&self) -> &Certificate {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use keywright_proto::profile;

    use super::*;
    use crate::family::{Ca, Key, VALIDITY};

    /// For example, a person at the machine and a message over the link.
    #[test]
    fn one_of_two_concurrent_claims_wins() {
        let lock = Key::new(60).public();
        let chains = [1, 2].map(|number| {
            let ca = Ca::master(Key::new(number));
            let own = profile::end_entity(&lock, Role::Lock, ca.certificate(), &[7], VALIDITY);
            let own = ca.key.sign(own.unwrap());
            let ders = [&own[..], ca.root()];
            pem::to_pem(Label::Certificate, ders).unwrap()
        });
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let at_once = Barrier::new(2);
            let claim = |chain: &str| {
                at_once.wait();
                Membership::claim(dir.path(), &lock, chain)
            };
            let claimed = thread::scope(|scope| {
                let claims = [&chains[0], &chains[1]].map(|chain| scope.spawn(|| claim(chain)));
                claims.map(|claim| claim.join().unwrap())
            });
            let kept = Membership::load(dir.path(), &lock).unwrap().unwrap();
            match &claimed {
                [Ok(first), Err(Error::OtherFamily(_))] => assert_eq!(*first, kept),
                [Err(Error::OtherFamily(_)), Ok(second)] => assert_eq!(*second, kept),
                _ => panic!("both have it, or none"),
            }
        }
    }
}
