//! Locks that were removed, and the roots of CAs that outlived their Master.

use std::collections::btree_map::Entry;

use super::{SignedObjectError, SignedObjects};
use crate::{
    Certificate, Judgement, PublicKey, chain::verify_own_root, removal::verify_removal, tree::Hash,
};

impl SignedObjects {
    /// The removals of Locks: the Lock's key hash, the signer's, and the tagged COSE_Sign1.
    pub fn removals(&self) -> impl Iterator<Item = (Hash, Hash, &[u8])> {
        self.removals.iter().map(|((lock, signer), bytes)| (*lock, *signer, bytes.as_slice()))
    }

    /// The root certificates that CAs here signed for themselves.
    pub fn own_roots(&self) -> impl Iterator<Item = &Certificate> {
        self.own_roots.values()
    }

    /// Whether a Lock is removed: somebody whose word counts has said so.
    pub fn is_removed(&self, judgement: &Judgement, lock: &Hash) -> bool {
        let mut said = self.removals.keys().filter(|(removed, _)| removed == lock);
        said.any(|(_, signer)| judgement.may_remove(signer))
    }

    /// Takes the removal of a Lock in. Answers whether it is new.
    ///
    /// # Errors
    /// One that is not of this family.
    pub fn add_removal(&mut self, bytes: Vec<u8>) -> Result<bool, SignedObjectError> {
        let removal = verify_removal(&bytes, self.root.der())?;
        for ca in removal.chain.iter().rev() {
            self.add_certificate(ca.clone())?;
        }
        let signer = removal.chain.first().map(Certificate::public_key).map(PublicKey::hash);
        Ok(self.keep_removal((removal.lock, signer.unwrap_or_default()), bytes))
    }

    pub(super) fn keep_removal(&mut self, said: (Hash, Hash), bytes: Vec<u8>) -> bool {
        match self.removals.entry(said) {
            Entry::Vacant(entry) => {
                entry.insert(bytes);
                true
            }
            // A signature has many forms, and so has a chain. One is kept, the same at every station.
            Entry::Occupied(mut known) => {
                if bytes < *known.get() {
                    known.insert(bytes);
                }
                false
            }
        }
    }

    /// Takes a root certificate in that a CA here, not the root itself, signed for itself. Answers whether it is the
    /// first of this CA.
    ///
    /// # Errors
    /// One of no CA here, or that the CA did not sign.
    pub fn add_own_root(&mut self, root: Certificate) -> Result<bool, SignedObjectError> {
        let chains = self.issuers.get(&root.public_key().key_identifier());
        let mut cas = chains.into_iter().flatten().filter_map(|chain| chain.first());
        let ca = cas.find(|ca| **ca != self.root).ok_or(SignedObjectError::NoIssuer)?;
        verify_own_root(&root, ca)?;
        Ok(self.keep_own_root(root))
    }

    pub(super) fn keep_own_root(&mut self, root: Certificate) -> bool {
        match self.own_roots.entry(root.public_key().key_identifier()) {
            Entry::Vacant(entry) => {
                entry.insert(root);
                true
            }
            Entry::Occupied(mut known) => {
                if root.der() < known.get().der() {
                    known.insert(root);
                }
                false
            }
        }
    }
}
