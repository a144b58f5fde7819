//! A Key, as far as this Lock knows it.

use std::collections::BTreeSet;

use keywright_proto::{
    Certificate, PublicKey, Role, VerifiedGrant, grant::GrantError, rights::VersionedEffect,
    statement::StatementError, tree::Hash,
};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{
    record::{MAX_CHAINS, Record},
    rules::KeptStatement,
};

/// A Key, as far as this Lock knows it.
#[derive(Debug, Clone)]
pub struct Key {
    pub(crate) subject: PublicKey,
    pub(crate) statements: Vec<KeptStatement>,
    /// Statements (their digests) that no confirmation went out for.
    pub(crate) unconfirmed: BTreeSet<Hash>,
    certificates: Vec<Fingerprints>,
    role: Option<Role>,
}

/// How TLS servers know a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprints {
    /// SHA-1 of the DER certificate: all that nginx knows.
    pub sha1: [u8; 20],
    /// SHA-256 of it.
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

    /// Takes its certificates from the chains, the newest first.
    pub(crate) fn set_chains(&mut self, chains: &[Vec<Certificate>]) {
        let access: Vec<_> = chains.iter().filter_map(|chain| chain.first()).collect();
        self.role = access.first().and_then(|access| access.role());
        self.certificates = access.iter().map(|access| fingerprints(access.der())).collect();
    }

    /// Its access key.
    pub const fn subject(&self) -> &PublicKey {
        &self.subject
    }

    /// Its certificates.
    pub fn certificates(&self) -> &[Fingerprints] {
        &self.certificates
    }

    /// What its newest certificate says that it is; none where there is no certificate.
    pub const fn role(&self) -> Option<Role> {
        self.role
    }
}

fn fingerprints(der: &[u8]) -> Fingerprints {
    Fingerprints { sha1: Sha1::digest(der).into(), sha256: Sha256::digest(der).into() }
}

/// What a grant says.
pub(crate) fn kept_statement(grant: &VerifiedGrant) -> Result<KeptStatement, GrantError> {
    let signer = grant.statement.signer().ok_or(StatementError::NotACa)?.hash();
    let content = VersionedEffect { version: grant.statement.version, effect: grant.effect };
    Ok(KeptStatement { signer, content, digest: grant.statement.digest })
}

/// Keeps an access certificate, the newest first; says whether there is anything new.
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
