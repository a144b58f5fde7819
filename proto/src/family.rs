//! The signed objects of a family, which stations exchange and merge.
//!
//! [`SignedObjects`] hold only objects that verify up to the family's pinned root with the help of the others: the issuer of
//! every certificate is there, and the Lock of every confirmation. Two sets merge by union, so the order does not matter:
//! every CA certificate of an issuing key is kept, and every access certificate of a Key. Which signers are trusted is decided afterwards, over the union: [`SignedObjects::facts`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
};

use crate::{
    Certificate, Confirmation, Effect, Facts, Judgement, PublicKey, Role, Target, Tree,
    VerifiedStatement,
    chain::{ChainError, verify_chain, verify_next},
    confirmation::ConfirmationError,
    crl::CrlError,
    removal::RemovalError,
    rights::{VersionedEffect, newest},
    statement::{StatementError, verify_statement},
    tree::Hash,
};

mod authorities;
mod crls;
pub(crate) mod file;
mod removed;
mod within;

pub use authorities::{Authorities, Routes};
use crls::Crls;
pub use file::{FileError, MAX_FAMILY_FILE, MAX_FILE_LEAVES, MAX_REVOCATIONS_FILE};

/// The verified signed objects of one family. All of them are public.
#[derive(Debug, Clone)]
pub struct SignedObjects {
    root: Certificate,
    /// By DER, without the root.
    certificates: BTreeMap<Vec<u8>, Certificate>,
    authorities: Authorities,
    /// The access keys of Masters and Backups.
    masters: BTreeSet<Hash>,
    /// The Locks' keys.
    locks: BTreeMap<Hash, PublicKey>,
    crls: Crls,
    /// By digest.
    statements: BTreeMap<Hash, SignedStatement>,
    /// By content: Lock, statement, allow, newest version.
    confirmations: BTreeMap<(Hash, Hash, bool, u64), Vec<u8>>,
    /// Removals of Locks, by content: Lock, signer.
    removals: BTreeMap<(Hash, Hash), Vec<u8>>,
    /// The root certificates that CAs signed for themselves, by the key identifier of the CA.
    own_roots: BTreeMap<[u8; 20], Certificate>,
}

/// A statement with all of its leaves. Locks get single leaves, as grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// The tagged COSE_Sign1.
    pub cose: Vec<u8>,
    /// What it says.
    pub statement: VerifiedStatement,
    /// What the salts of its leaves are derived from.
    pub seed: [u8; 32],
    /// Its leaves, in the tree's order.
    pub leaves: Vec<(Target, Effect)>,
}

/// Why an object is not added to a family's [`SignedObjects`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedObjectError {
    /// The certificate is of another family, or the certificate of its issuer is missing.
    #[error("no CA that is known in this family has issued the certificate")]
    NoIssuer,
    /// The certificate's chain does not verify.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The statement does not verify.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The leaves are not the statement's, or say what it must not say.
    #[error("the leaves are not those of the statement, or not what such a statement may say")]
    Leaves,
    /// The CRL does not verify.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// The confirmation does not verify.
    #[error(transparent)]
    Confirmation(#[from] ConfirmationError),
    /// The removal of a Lock does not verify.
    #[error(transparent)]
    Removal(#[from] RemovalError),
}

impl SignedObjects {
    /// The empty set of a family whose pinned root certificate this is.
    ///
    /// # Errors
    /// A certificate that is no root.
    pub fn new(root: Certificate) -> Result<Self, ChainError> {
        verify_chain(std::slice::from_ref(&root), root.der(), None)?;
        Ok(Self {
            authorities: Authorities::new(root.clone()),
            root,
            certificates: BTreeMap::new(),
            masters: BTreeSet::new(),
            locks: BTreeMap::new(),
            crls: Crls::new(),
            statements: BTreeMap::new(),
            confirmations: BTreeMap::new(),
            removals: BTreeMap::new(),
            own_roots: BTreeMap::new(),
        })
    }

    /// The pinned root.
    pub const fn root(&self) -> &Certificate {
        &self.root
    }

    /// The certificates of CAs, Keys and Locks, without the root.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.values()
    }

    /// The statements.
    pub fn statements(&self) -> impl Iterator<Item = &SignedStatement> {
        self.statements.values()
    }

    /// The confirmations: the Lock's key hash, what it says, and the tagged COSE_Sign1.
    pub fn confirmations(&self) -> impl Iterator<Item = (Hash, Confirmation, &[u8])> {
        self.confirmations.iter().map(|((lock, statement, allow, newest), bytes)| {
            let effect = if *allow { Effect::Allow } else { Effect::Deny };
            let said = Confirmation { statement: *statement, effect, newest_version: *newest };
            (*lock, said, bytes.as_slice())
        })
    }

    /// The CA certificates, the root among them.
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// A chain of a certificate that is here, itself first and the root last: of several, the one by the CAs that may issue
    /// most.
    pub fn chain(&self, certificate: &Certificate) -> Option<Vec<Certificate>> {
        if *certificate == self.root {
            return Some(vec![certificate.clone()]);
        }
        self.certificates.get(certificate.der())?;
        Some([&[certificate.clone()][..], &self.authorities.above(certificate)?].concat())
    }

    /// Adds certificates in any order. Returns how many were left out, because they do not verify with the help of these
    /// and of what is here.
    pub fn add_certificates(&mut self, all: impl IntoIterator<Item = Certificate>) -> usize {
        let mut all: Vec<_> = all.into_iter().collect();
        // Issuers first: they have the larger pathLenConstraint; an end entity has none.
        all.sort_by_key(|certificate| Reverse(certificate.path_len()));
        all.into_iter().filter(|c| self.add_certificate(c.clone()).is_err()).count()
    }

    /// Adds a certificate whose issuer is here. Returns whether it is new; the root never is.
    ///
    /// # Errors
    /// Its issuer is not here, or it breaks a rule of chains.
    pub fn add_certificate(&mut self, certificate: Certificate) -> Result<bool, SignedObjectError> {
        if certificate == self.root || self.certificates.contains_key(certificate.der()) {
            return Ok(false);
        }
        let Some(above) = self.authorities.above(&certificate) else {
            return Err(self.why_not_issued(&certificate));
        };
        verify_next(&certificate, &above)?;
        self.keep_certificate(certificate);
        Ok(true)
    }

    /// Why no CA here can have issued a certificate.
    fn why_not_issued(&self, certificate: &Certificate) -> SignedObjectError {
        let ca = self.authorities.named_by(certificate).next();
        let chain = ca.and_then(|ca| self.chain(ca)).unwrap_or_default();
        match verify_next(certificate, &chain) {
            Ok(()) | Err(ChainError::Empty) => SignedObjectError::NoIssuer,
            Err(error) => error.into(),
        }
    }

    fn keep_certificate(&mut self, certificate: Certificate) {
        let key = certificate.public_key();
        match certificate.role() {
            None => self.authorities.insert(certificate.clone()),
            Some(Role::Lock) => drop(self.locks.insert(key.hash(), key.clone())),
            Some(role) if role.is_issuer() => drop(self.masters.insert(key.hash())),
            Some(_) => {}
        }
        self.certificates.insert(certificate.der().to_vec(), certificate);
    }

    /// Adds a statement, with its leaves in the order of the tree. Returns whether it is new.
    ///
    /// # Errors
    /// It is of another family, the leaves are not its own, or it says what no Lock accepts.
    pub fn add_statement(
        &mut self,
        cose: Vec<u8>,
        seed: [u8; 32],
        leaves: Vec<(Target, Effect)>,
    ) -> Result<bool, SignedObjectError> {
        let statement = verify_statement(&cose, self.root.der())?;
        let tree = Tree::of_statement(&seed, leaves.iter().copied());
        let everywhere = [(Target::All, Effect::Deny)];
        if tree.map_err(|_| SignedObjectError::Leaves)?.head() != statement.tree
            || (statement.version.is_none() && leaves != everywhere)
            || (leaves.contains(&(Target::All, Effect::Allow))
                && !self.masters.contains(&statement.subject.hash()))
        {
            return Err(SignedObjectError::Leaves);
        }
        for ca in statement.chain.iter().rev() {
            self.add_certificate(ca.clone())?;
        }
        Ok(self.keep_statement(SignedStatement { cose, statement, seed, leaves }))
    }

    fn keep_statement(&mut self, signed: SignedStatement) -> bool {
        match self.statements.entry(signed.statement.digest) {
            Entry::Vacant(entry) => {
                entry.insert(signed);
                true
            }
            // ECDSA signatures of one text differ: every station keeps the smallest.
            Entry::Occupied(mut known) if signed.cose < known.get().cose => {
                known.insert(signed);
                false
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Adds a Lock's confirmation. Returns whether it is new.
    ///
    /// # Errors
    /// No Lock here has signed it.
    pub fn add_confirmation(&mut self, bytes: Vec<u8>) -> Result<bool, SignedObjectError> {
        let claimed = Confirmation::claimed_lock(&bytes)?;
        let lock = self.locks.get(&claimed).ok_or(ConfirmationError::OtherLock)?;
        let said = Confirmation::verify(&bytes, lock)?;
        let allow = said.effect == Effect::Allow;
        Ok(self.keep_confirmation((claimed, said.statement, allow, said.newest_version), bytes))
    }

    fn keep_confirmation(&mut self, said: (Hash, Hash, bool, u64), bytes: Vec<u8>) -> bool {
        match self.confirmations.entry(said) {
            Entry::Vacant(entry) => {
                entry.insert(bytes);
                true
            }
            Entry::Occupied(mut known) => {
                if bytes < *known.get() {
                    known.insert(bytes);
                }
                false
            }
        }
    }

    /// Adds all objects of another set, which has verified them. Returns how many are new: 0 where the root is another.
    pub fn merge(&mut self, others: Self) -> usize {
        if self.root != others.root {
            return 0;
        }
        let mut new = 0;
        for certificate in others.certificates.into_values() {
            if !self.certificates.contains_key(certificate.der()) {
                self.keep_certificate(certificate);
                new += 1;
            }
        }
        new += self.keep_crls(others.crls.into_values().flat_map(BTreeMap::into_values));
        for signed in others.statements.into_values() {
            new += usize::from(self.keep_statement(signed));
        }
        for (said, bytes) in others.confirmations {
            new += usize::from(self.keep_confirmation(said, bytes));
        }
        for (said, bytes) in others.removals {
            new += usize::from(self.keep_removal(said, bytes));
        }
        for root in others.own_roots.into_values() {
            new += usize::from(self.keep_own_root(root));
        }
        new
    }

    /// The facts by which signers are judged. `first_seen` returns when the statement with this digest was first seen
    /// here, in Unix seconds.
    pub fn facts(&self, first_seen: impl Fn(&Hash) -> u64) -> Facts {
        let mut facts = Facts::new(self.root.public_key());
        let routes = self.authorities.routes();
        // Certificates of Locks and Sub Keys say nothing about issuing keys.
        let issuers = self.certificates.values().filter(|c| c.role().is_none_or(Role::is_issuer));
        for chain in issuers.flat_map(|certificate| routes.of(certificate)) {
            facts.learn_chain(&chain);
        }
        for (digest, signed) in &self.statements {
            facts.learn_statement(&signed.statement, first_seen(digest));
        }
        facts
    }

    /// What is in effect for a Key at a Lock. Both are key hashes.
    pub fn effect(
        &self,
        judgement: &Judgement,
        key: &Hash,
        lock: &Hash,
    ) -> Option<VersionedEffect> {
        let of_key = self.statements.values().filter(|s| s.statement.subject.hash() == *key);
        newest(of_key.flat_map(|signed| {
            let here = |(target, _): &&(Target, Effect)| match target {
                Target::All => true,
                Target::Lock(hash) => hash == lock,
            };
            let signer = signed.statement.signer().map(PublicKey::hash);
            signed.leaves.iter().filter(here).filter_map(move |(_, effect)| {
                let said = VersionedEffect { version: signed.statement.version, effect: *effect };
                judgement.weigh(&signer?, key, said)
            })
        }))
    }
}

/// Compares the objects; how their chains were found does not matter.
impl PartialEq for SignedObjects {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
            && self.certificates == other.certificates
            && self.crl_ders() == other.crl_ders()
            && self.statements == other.statements
            && self.confirmations == other.confirmations
            && self.removals == other.removals
            && self.own_roots == other.own_roots
    }
}
