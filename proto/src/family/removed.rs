//! Removals of Locks, and self-signed roots of Backups that outlived their Master.

use std::collections::btree_map::Entry;

use super::{SignedObjectError, SignedObjects, authorities::name_of};
use crate::{
    Certificate, Judgement, PublicKey, chain::verify_own_root, removal::verify_removal, tree::Hash,
};

impl SignedObjects {
    /// The removals of Locks: the Lock's key hash, the signer's, and the tagged COSE_Sign1.
    pub fn removals(&self) -> impl Iterator<Item = (Hash, Hash, &[u8])> {
        self.removals.iter().map(|((lock, signer), bytes)| (*lock, *signer, bytes.as_slice()))
    }

    /// The self-signed root certificates of Backups.
    pub fn own_roots(&self) -> impl Iterator<Item = &Certificate> {
        self.own_roots.values()
    }

    /// Whether a removal of this Lock is in effect.
    pub fn is_removed(&self, judgement: &Judgement, lock: &Hash) -> bool {
        let mut said = self.removals.keys().filter(|(removed, _)| removed == lock);
        said.any(|(_, signer)| judgement.may_remove(signer))
    }

    /// Adds the removal of a Lock. Returns whether it is new.
    ///
    /// # Errors
    /// It does not verify up to the root of this family.
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
            // Signatures and chains of one removal differ: every station keeps the smallest.
            Entry::Occupied(mut known) => {
                if bytes < *known.get() {
                    known.insert(bytes);
                }
                false
            }
        }
    }

    /// Adds the self-signed root certificate of a CA here other than the root. Returns whether it is the first of this CA.
    ///
    /// # Errors
    /// The CA is not here, or did not sign it.
    pub fn add_own_root(&mut self, root: Certificate) -> Result<bool, SignedObjectError> {
        let ca = self.authorities.named(&name_of(&root)).find(|ca| **ca != self.root);
        verify_own_root(&root, ca.ok_or(SignedObjectError::NoIssuer)?)?;
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
