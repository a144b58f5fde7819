//! Sample records, made different by a number.

use keywright_proto::{Id, Kind, Role};

use crate::registry::records::*;

pub fn id(number: u32) -> Id {
    Id::of_spki(&number.to_be_bytes())
}

pub fn family() -> Family {
    Family { root: vec![0x30; 600], pinned: 1_700_000_000, locks: 0 }
}

pub fn issuer(family: Id) -> Issuer {
    Issuer { family, chain: vec![vec![1; 600]; 2], crl: vec![2; 300], to_revoke: vec![vec![3; 16]] }
}

pub fn key(number: u32, family: Id) -> Key {
    Key {
        access_key: number.to_be_bytes().to_vec(),
        label: format!("k{number}"),
        name: format!("Key {number}"),
        family,
        guid: Some([7; 16]),
        serial: number.to_string(),
        model: "Virtual Key".into(),
        last_seen: 1_700_000_000 + u64::from(number),
        puk_tried: false,
    }
}

pub fn membership(issuer: Id) -> Membership {
    Membership {
        role: Role::Sub,
        certificate: vec![4; 700],
        issuer,
        container: 0x5f_c105,
        issuing_key: None,
        revoked: false,
    }
}

pub fn lock(number: u32, family: Id) -> Lock {
    Lock {
        identity_key: number.to_be_bytes().to_vec(),
        name: format!("Lock {number}"),
        family,
        certificate: vec![5; 700],
        issuer: family,
        online: false,
        last_seen: 1_700_000_000,
    }
}

pub fn entries(numbers: std::ops::Range<u32>) -> Vec<LockEntry> {
    let mut entries: Vec<_> = numbers
        .map(|number| LockEntry { lock: id(number), key_hash: [number as u8; 32], allow: true })
        .collect();
    entries.sort();
    entries
}

pub fn statement(locks: u32) -> Statement {
    Statement {
        version: Some(1_700_000_000_000),
        cose: vec![6; 400],
        salt_seed: [8; 32],
        everywhere: None,
        listed: locks,
        allowed: locks,
        issued: 1_700_000_000,
        order: Vec::new(),
    }
}

pub fn intent(number: u64) -> Intent {
    Intent {
        number,
        kind: Kind::Sub,
        name: format!("Job {number}"),
        started: 1_700_000_000,
        family: Some(id(0)),
        issuer: None,
        candidate: IntentCandidate {
            label: "k9".into(),
            access_key: None,
            guid_before: None,
            guid: Some([9; 16]),
            usb_serial: None,
            port: "1-1".into(),
            model: "Virtual Key".into(),
            serial: "9".into(),
        },
        scope: Scope::Listed(300),
        made: IntentMade::default(),
    }
}

pub fn leftover() -> Leftover {
    Leftover { access_key: Some(vec![1; 91]), issuing_key: None, puk_tried: true }
}

/// A statement with a valid signature, from the test vectors.
pub fn real_statement() -> Statement {
    let text = include_str!("../../../../docs/test-vectors/grant-deny.hex");
    let grant = keywright_proto::Grant::decode(&hex::decode(text.trim()).unwrap()).unwrap();
    Statement { version: Some(2), cose: grant.statement, allowed: 0, ..statement(2) }
}

pub fn real_digest() -> [u8; 32] {
    keywright_proto::statement::digest(&real_statement().cose).unwrap()
}

pub fn denied(numbers: std::ops::Range<u32>) -> Vec<LockEntry> {
    entries(numbers).into_iter().map(|entry| LockEntry { allow: false, ..entry }).collect()
}

/// The removal of a Lock with a valid signature, from the test vectors.
pub fn removal(number: u32) -> LockRemoval {
    let text = include_str!("../../../../docs/test-vectors/lock-removal.hex");
    LockRemoval {
        lock: id(number),
        key_hash: [9; 32],
        cose: hex::decode(text.trim()).unwrap(),
        first_seen: 1_700_000_000,
    }
}

pub fn revocation() -> Revocation {
    let text = include_str!("../../../../docs/test-vectors/grant-revocation.hex");
    let grant = keywright_proto::Grant::decode(&hex::decode(text.trim()).unwrap()).unwrap();
    Revocation {
        key: id(1),
        cose: grant.statement,
        salt_seed: [9; 32],
        first_seen: 1_700_000_000,
        reason: "lost".into(),
    }
}
