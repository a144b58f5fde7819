//! What a Lock knows about one Key.

use std::collections::BTreeSet;

use keywright_proto::{
    Certificate, PublicKey, Role, VerifiedGrant, grant::GrantError, rights::VersionedEffect,
    statement::StatementError, tree::Hash, trust::first_level,
};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{
    record::{MAX_CHAINS, Record},
    rules::KeptStatement,
};

/// What a Lock knows about one Key.
#[derive(Debug, Clone)]
pub struct Key {
    pub(crate) subject: PublicKey,
    pub(crate) statements: Vec<KeptStatement>,
    /// Digests of the statements that were not confirmed yet.
    pub(crate) unconfirmed: BTreeSet<Hash>,
    certificates: Vec<Fingerprints>,
    role: Option<Role>,
}

/// How TLS servers identify a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprints {
    /// SHA-1 of the DER certificate, the only one that nginx offers.
    pub sha1: [u8; 20],
    /// SHA-256 of the DER certificate.
    pub sha256: Hash,
}

impl Key {
    pub(crate) fn new(subject: PublicKey) -> Self {
        Self {
            subject,
            statements: Vec::new(),
            unconfirmed: BTreeSet::new(),
            certificates: Vec::new(),
            role: None,
        }
    }

    /// Replaces the certificates by those of these chains, the newest first.
    pub(crate) fn set_chains(&mut self, chains: &[Vec<Certificate>]) {
        let access: Vec<_> = chains.iter().filter_map(|chain| chain.first()).collect();
        self.role = access.first().and_then(|access| access.role());
        self.certificates = access.iter().map(|access| fingerprints(access.der())).collect();
    }

    /// The Key's access key.
    pub const fn subject(&self) -> &PublicKey {
        &self.subject
    }

    /// Fingerprints of the Key's certificates.
    pub fn certificates(&self) -> &[Fingerprints] {
        &self.certificates
    }

    /// The role in its newest certificate; `None` without a certificate.
    pub const fn role(&self) -> Option<Role> {
        self.role
    }
}

fn fingerprints(der: &[u8]) -> Fingerprints {
    Fingerprints { sha1: Sha1::digest(der).into(), sha256: Sha256::digest(der).into() }
}

/// The statement of a grant, in the form in which it is kept.
pub(crate) fn kept_statement(grant: &VerifiedGrant) -> Result<KeptStatement, GrantError> {
    let signer = grant.statement.signer().ok_or(StatementError::NotACa)?.hash();
    let content = VersionedEffect { version: grant.statement.version, effect: grant.effect };
    Ok(KeptStatement {
        signer,
        content,
        digest: grant.statement.digest,
        group: first_level(&grant.statement.chain),
        distance: grant.statement.chain.len(),
        names: grant.statement.revokes.map(|revoked| revoked.issuing_key),
        due: false,
    })
}

/// Adds an access certificate to the record, the newest first; returns whether that changed the record.
pub(crate) fn add_chain(record: &mut Record, chain: &[Certificate]) -> bool {
    let ders: Vec<_> = chain.iter().map(|certificate| certificate.der().to_vec()).collect();
    if ders.is_empty() || record.chains.iter().any(|kept| kept.first() == ders.first()) {
        return false;
    }
    let age = |chain: &Vec<Vec<u8>>| {
        let access = chain.first().and_then(|der| Certificate::parse(der).ok());
        std::cmp::Reverse(access.map(|access| access.not_before()))
    };
    let before = record.chains.clone();
    record.chains.push(ders);
    record.chains.sort_by_key(age);
    record.chains.truncate(MAX_CHAINS);
    record.chains != before
}
