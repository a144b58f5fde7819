//! From format 4 to 5: role, issuing key and revocation belong to the membership of a Key in a family; every CA certificate
//! and every access certificate is kept; a statement may deny every Lock, and has its leaves in any order.

use std::collections::BTreeSet;

use keywright_proto::{Certificate, Id, Role};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Changes, RegistryError, View};
use crate::registry::codec;

/// Table of issuing keys: byte, issuing key → [`Issuer`].
pub(in crate::registry) const ISSUERS: u8 = 0x11;
/// Table that format 5 adds: byte, family, digest → a CA certificate.
pub(in crate::registry) const CA_CERTIFICATES: u8 = 0x12;
/// Table of Keys: byte, Key → [`OldKey`], from now on [`Key`].
pub(in crate::registry) const KEYS: u8 = 0x20;
/// Table of memberships: byte, Key, family → [`OldMembership`], from now on [`Membership`].
pub(in crate::registry) const MEMBERSHIPS: u8 = 0x22;
/// Tables of statements: byte, Key, family, and of those beside the newest the digest → [`OldStatement`], from now on
/// [`Statement`].
pub(in crate::registry) const STATEMENTS: u8 = 0x40;
/// See [`STATEMENTS`].
pub(in crate::registry) const OLDER_STATEMENTS: u8 = 0x43;
/// Table of revocations: byte, family, digest → [`Revocation`].
pub(in crate::registry) const REVOCATIONS: u8 = 0x45;

/// As formats 1 to 5 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Issuer {
    pub(in crate::registry) family: [u8; 16],
    pub(in crate::registry) chain: Vec<Vec<u8>>,
    pub(in crate::registry) crl: Vec<u8>,
    pub(in crate::registry) to_revoke: Vec<Vec<u8>>,
}

/// As formats 1 to 4 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct OldKey {
    pub(in crate::registry) access_key: Vec<u8>,
    pub(in crate::registry) label: String,
    pub(in crate::registry) name: String,
    pub(in crate::registry) family: [u8; 16],
    pub(in crate::registry) role: Role,
    pub(in crate::registry) issuing_key: Option<Vec<u8>>,
    pub(in crate::registry) guid: Option<[u8; 16]>,
    pub(in crate::registry) serial: String,
    pub(in crate::registry) model: String,
    pub(in crate::registry) last_seen: u64,
    pub(in crate::registry) revoked: bool,
    pub(in crate::registry) puk_tried: bool,
}

/// As format 5 has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Key {
    pub(in crate::registry) access_key: Vec<u8>,
    pub(in crate::registry) label: String,
    pub(in crate::registry) name: String,
    pub(in crate::registry) family: [u8; 16],
    pub(in crate::registry) guid: Option<[u8; 16]>,
    pub(in crate::registry) serial: String,
    pub(in crate::registry) model: String,
    pub(in crate::registry) last_seen: u64,
    pub(in crate::registry) puk_tried: bool,
}

/// As formats 1 to 4 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct OldMembership {
    pub(in crate::registry) role: Role,
    pub(in crate::registry) certificate: Vec<u8>,
    pub(in crate::registry) issuer: [u8; 16],
    pub(in crate::registry) container: u32,
}

/// As format 5 has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Membership {
    pub(in crate::registry) role: Role,
    pub(in crate::registry) certificate: Vec<u8>,
    pub(in crate::registry) issuer: [u8; 16],
    pub(in crate::registry) container: u32,
    pub(in crate::registry) issuing_key: Option<Vec<u8>>,
    pub(in crate::registry) revoked: bool,
}

/// As formats 1 to 4 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct OldStatement {
    pub(in crate::registry) version: Option<u64>,
    pub(in crate::registry) cose: Vec<u8>,
    pub(in crate::registry) salt_seed: [u8; 32],
    pub(in crate::registry) scope: Scope,
    pub(in crate::registry) allowed: u32,
    pub(in crate::registry) issued: u64,
}

/// As formats 1 to 4 have it in statements.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) enum Scope {
    All,
    Listed(u32),
}

/// As format 5 has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Statement {
    pub(in crate::registry) version: Option<u64>,
    pub(in crate::registry) cose: Vec<u8>,
    pub(in crate::registry) salt_seed: [u8; 32],
    pub(in crate::registry) everywhere: Option<bool>,
    pub(in crate::registry) listed: u32,
    pub(in crate::registry) allowed: u32,
    pub(in crate::registry) issued: u64,
    pub(in crate::registry) order: Vec<u8>,
}

/// As formats 2 to 5 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Revocation {
    pub(in crate::registry) key: [u8; 16],
    pub(in crate::registry) cose: Vec<u8>,
    pub(in crate::registry) salt_seed: [u8; 32],
    pub(in crate::registry) first_seen: u64,
    pub(in crate::registry) reason: String,
}

pub(super) fn migrate(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    for record in view.all(vec![ISSUERS]) {
        let Issuer { family, chain, .. } = codec::decode(&record?.1)?;
        for certificate in chain {
            let place = [&[CA_CERTIFICATES], &family[..], &Sha256::digest(&certificate)].concat();
            changes.put(place, &certificate)?;
        }
    }
    migrate_memberships(view, changes)?;
    for record in view.all(vec![KEYS]) {
        let (place, payload) = record?;
        let OldKey {
            access_key,
            label,
            name,
            family,
            guid,
            serial,
            model,
            last_seen,
            puk_tried,
            ..
        } = codec::decode(&payload)?;
        let new =
            Key { access_key, label, name, family, guid, serial, model, last_seen, puk_tried };
        changes.put(place.to_vec(), &new)?;
    }
    for table in [STATEMENTS, OLDER_STATEMENTS] {
        for record in view.all(vec![table]) {
            let (place, payload) = record?;
            let old: OldStatement = codec::decode(&payload)?;
            let (everywhere, listed) = match old.scope {
                Scope::All => (Some(old.version.is_some()), 0),
                Scope::Listed(listed) => (None, listed),
            };
            let OldStatement { version, cose, salt_seed, allowed, issued, .. } = old;
            let order = Vec::new();
            let new =
                Statement { version, cose, salt_seed, everywhere, listed, allowed, issued, order };
            changes.put(place.to_vec(), &new)?;
        }
    }
    Ok(())
}

/// Gives each membership what the record of its Key had once for all of them. The daemon judges revocations again when it
/// starts.
fn migrate_memberships(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    let mut named = BTreeSet::new();
    for record in view.all(vec![REVOCATIONS]) {
        let (place, payload) = record?;
        let Revocation { key, .. } = codec::decode(&payload)?;
        named.insert([&key, place.get(1..17).unwrap_or_default()].concat());
    }
    for record in view.all(vec![MEMBERSHIPS]) {
        let (place, payload) = record?;
        let ids = place.get(1..).unwrap_or_default();
        let key: Option<OldKey> =
            view.record(&[&[KEYS], ids.get(..16).unwrap_or_default()].concat())?;
        let OldMembership { role, certificate, issuer, container } = codec::decode(&payload)?;
        let issuing_key = match role.is_issuer() {
            true => issuing_key(view, key.as_ref(), issuer)?,
            false => None,
        };
        let revoked = key.is_some_and(|key| key.revoked) && named.contains(ids);
        let new = Membership { role, certificate, issuer, container, issuing_key, revoked };
        changes.put(place.to_vec(), &new)?;
    }
    Ok(())
}

/// The issuing key with this id: the Key's record had it for one family.
fn issuing_key(
    view: &View<'_>,
    key: Option<&OldKey>,
    id: [u8; 16],
) -> Result<Option<Vec<u8>>, RegistryError> {
    let is_this = |spki: &&Vec<u8>| *Id::of_spki(spki).as_bytes() == id;
    if let Some(own) = key.and_then(|key| key.issuing_key.as_ref()).filter(is_this) {
        return Ok(Some(own.clone()));
    }
    let issuer: Option<Issuer> = view.record(&[&[ISSUERS], &id[..]].concat())?;
    let own = issuer.and_then(|issuer| Certificate::parse(issuer.chain.first()?).ok());
    Ok(own.map(|own| own.public_key().spki_der().to_vec()))
}
