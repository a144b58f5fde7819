//! `docs/test-vectors`: what other implementations test against. Keys are fixed and signatures
//! deterministic (RFC 6979), so the files are generated again here and compared.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::common::{Ca, Key, leaf};
use keywright_proto::{
    Card, Certificate, Confirmation, Effect, Grant, Leaf, PublicKey, RevokedIssuer, Role, Target,
    Tree, card, crl::Revoked, removal, verify_chain, verify_grant, verify_removal,
    verify_statement,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/test-vectors")
}

/// The people in the vectors: a name and the byte that fills the private key.
const KEYS: [(&str, u8); 7] = [
    ("master-9c", 1),
    ("backup-9c", 2),
    ("master-9a", 11),
    ("backup-9a", 12),
    ("sub-9a", 13),
    ("lock", 21),
    ("other-lock", 22),
];

fn key(name: &str) -> Key {
    Key::new(KEYS.iter().find(|(known, _)| *known == name).unwrap().1)
}

fn describe_key(&(name, byte): &(&str, u8)) -> Value {
    let public = Key::new(byte).public();
    json!({
        "name": name,
        "private": hex::encode([byte; 32]),
        "spki": hex::encode(public.spki_der()),
        "sha256": hex::encode(public.hash()),
        "id": public.id().to_string(),
        "key_identifier": hex::encode(public.key_identifier()),
    })
}

fn describe_leaf(leaf: &Leaf) -> Value {
    let target = match leaf.target {
        Target::All => "*".to_owned(),
        Target::Lock(hash) => hex::encode(hash),
    };
    let encoded = leaf.encode();
    let hash = Sha256::new_with_prefix([0]).chain_update(&encoded).finalize();
    json!({
        "target": target,
        "allow": leaf.effect == Effect::Allow,
        "salt": hex::encode(leaf.salt),
        "cbor": hex::encode(encoded),
        "leaf_hash": hex::encode(hash),
    })
}

/// Every file, by name.
fn make() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let master = Ca::master(key("master-9c"));
    let backup = master.backup(key("backup-9c"), 2);
    let access = [
        ("master-9a", master.issue(&key("master-9a"), Role::Master, &[3])),
        ("backup-9a", backup.issue(&key("backup-9a"), Role::Backup, &[4])),
        ("sub-9a", master.issue(&key("sub-9a"), Role::Sub, &[5])),
        ("lock", backup.issue(&key("lock"), Role::Lock, &[0xff; 16])),
    ];
    files.insert("root.der".into(), master.root().to_vec());
    files.insert("backup-ca.der".into(), backup.certificate().der().to_vec());
    for (name, chain) in &access {
        files.insert(format!("{name}.der"), chain[0].der().to_vec());
    }
    let revoked = [Revoked { serial: vec![5], since: crate::common::NOW }];
    files.insert("root-crl.der".into(), master.crl(1, &[]).der().to_vec());
    files.insert("backup-crl.der".into(), backup.crl(2, &revoked).der().to_vec());

    let lock = |effect| leaf(Target::Lock(key("lock").public().hash()), effect);
    let other = leaf(Target::Lock(key("other-lock").public().hash()), Effect::Allow);
    let all = |effect| leaf(Target::All, effect);
    let some = [other, lock(Effect::Allow), all(Effect::Deny)];
    let (sub, nobody) = (key("sub-9a"), &[][..]);
    let everywhere = [all(Effect::Allow)];
    let no_chain = backup.grant(&key("backup-9a"), Some(1), &everywhere, 0, nobody);
    let by_other = Ca::master(Key::new(99)).grant(&sub, Some(1), &some, 1, nobody);

    let backup_key = RevokedIssuer {
        issuing_key: key("backup-9c").public().hash(),
        denials_until: 1_790_000_000_000,
    };
    let good = master.grant(&sub, Some(1), &some, 1, nobody);
    let mut bad_signature = good.clone();
    *bad_signature.statement.last_mut().unwrap() ^= 1;
    let mut cases = Vec::new();
    for (name, grant, refused) in [
        ("allow", master.grant(&sub, Some(1_790_000_000_000), &some, 1, nobody), None),
        ("allow-with-certificate", master.grant(&sub, Some(3), &some, 1, &access[2].1), None),
        ("deny", backup.grant(&sub, Some(2), &[lock(Effect::Deny)], 0, nobody), None),
        ("deny-everywhere", master.grant(&sub, Some(1), &some, 2, nobody), None),
        ("master", master.grant(&key("master-9a"), Some(1), &everywhere, 0, &access[0].1), None),
        ("backup", master.grant(&key("backup-9a"), Some(1), &everywhere, 0, &access[1].1), None),
        ("revocation", master.grant(&sub, None, &[all(Effect::Deny)], 0, nobody), None),
        ("revocation-of-a-backup", master.revocation(&key("backup-9a"), Some(backup_key)), None),
        ("other-lock", master.grant(&sub, Some(1), &some, 0, nobody), Some("another Lock's leaf")),
        (
            "sub-everywhere",
            master.grant(&sub, Some(1), &everywhere, 0, &access[2].1),
            Some("a Sub Key is never allowed everywhere"),
        ),
        ("no-access-chain", no_chain, Some("nothing shows that the subject is an issuer")),
        (
            "stolen-access-chain",
            master.grant(&sub, Some(1), &everywhere, 0, &access[1].1),
            Some("the access chain is another Key's"),
        ),
        (
            "stolen-certificate",
            master.grant(&sub, Some(1), &some, 1, &access[0].1),
            Some("the access certificate is another Key's"),
        ),
        (
            "allow-without-version",
            master.grant(&sub, None, &[lock(Effect::Allow)], 0, nobody),
            Some("without version it may only deny everywhere"),
        ),
        ("bad-signature", bad_signature, Some("the statement's signature is wrong")),
        ("other-encoding", good.clone(), Some("the index is not in its shortest form")),
        (
            "changed-leaf",
            Grant { leaf: lock(Effect::Deny), ..good },
            Some("the leaf is not in the tree"),
        ),
        ("other-family", by_other, Some("the chain does not end at the pinned root")),
    ] {
        let mut bytes = grant.encode();
        if name == "other-encoding" {
            // The index, before a path of two hashes.
            let at = bytes.windows(3).position(|bytes| bytes == [1, 0x82, 0x58]).unwrap();
            bytes.insert(at, 0x18);
        }
        let file = format!("grant-{name}.hex");
        let statement = verify_statement(&grant.statement, master.root()).ok();
        cases.push(json!({
            "file": file,
            "refused": refused,
            "version": statement.as_ref().and_then(|statement| statement.version),
            "revokes": statement.as_ref().and_then(|statement| statement.revokes).map(|issuer| json!({
                "issuing_key": hex::encode(issuer.issuing_key),
                "denials_until": issuer.denials_until,
            })),
            "digest": statement.map(|statement| hex::encode(statement.digest)),
            "index": grant.index,
            "leaf": describe_leaf(&grant.leaf),
        }));
        files.insert(file, hex_file(&bytes));
    }

    let tree = Tree::new(some).unwrap();
    let digest = verify_statement(&master.statement(&sub, Some(1), &tree), master.root());
    let said = Confirmation {
        statement: digest.unwrap().digest,
        effect: Effect::Allow,
        newest_version: 1,
    };
    let confirmation = key("lock").sign(said.unsigned(&key("lock").public()).unwrap());
    files.insert("confirmation.hex".into(), hex_file(&confirmation));

    let lock_hash = key("lock").public().hash();
    let removed = backup.key.sign(removal(&lock_hash, &backup.chain).unwrap());
    files.insert("lock-removal.hex".into(), hex_file(&removed));
    let everywhere = Tree::new(everywhere).unwrap();
    let said_of_backup = master.statement(&key("backup-9a"), Some(1), &everywhere);
    let card = Card::write(
        &backup.chain,
        Some((&said_of_backup, [9; 32])),
        [access[3].1[0].clone()],
        card::MAX_CARD,
    );
    files.insert("family-card.hex".into(), hex_file(&card.unwrap()));

    let about = json!({
        "about": "See docs/formats.md. The pinned root is root.der, the Lock is the key `lock`.",
        "keys": KEYS.iter().map(describe_key).collect::<Vec<_>>(),
        "seed": hex::encode([9; 32]),
        "tree": {
            "leaves": some.iter().map(describe_leaf).collect::<Vec<_>>(),
            "root": hex::encode(tree.head().root),
        },
        "grants": cases,
        "confirmation": {
            "file": "confirmation.hex",
            "statement": hex::encode(said.statement),
            "allow": true,
            "newest_version": 1,
        },
        "lock_removal": { "file": "lock-removal.hex", "lock": hex::encode(lock_hash) },
        "family_card": {
            "file": "family-card.hex",
            "access": "backup-9a.der",
            "issuing": "backup-ca.der",
            "locks": ["lock.der"],
        },
    });
    let text = serde_json::to_string_pretty(&about).unwrap() + "\n";
    files.insert("vectors.json".into(), text.into_bytes());
    files
}

fn hex_file(bytes: &[u8]) -> Vec<u8> {
    (hex::encode(bytes) + "\n").into_bytes()
}

/// Run by hand after a change of the formats: `cargo test -p keywright-proto --test vectors --
/// --ignored`.
#[test]
#[ignore = "writes docs/test-vectors"]
fn write() {
    fs::create_dir_all(folder()).unwrap();
    for (name, bytes) in make() {
        fs::write(folder().join(name), bytes).unwrap();
    }
}

#[test]
fn the_files_are_what_the_code_makes() {
    let made = make();
    for (name, bytes) in &made {
        let file = fs::read(folder().join(name)).unwrap_or_default();
        assert!(file == *bytes, "docs/test-vectors/{name} differs from what the code makes");
    }
    let count = fs::read_dir(folder()).unwrap().count();
    assert_eq!(count, made.len(), "a file in docs/test-vectors is not made by this test");
}

fn read(name: &str) -> Vec<u8> {
    let bytes = fs::read(folder().join(name)).unwrap();
    if name.ends_with(".hex") {
        hex::decode(String::from_utf8(bytes).unwrap().trim()).unwrap()
    } else {
        bytes
    }
}

/// As a Lock would: from the files alone.
#[test]
fn the_files_verify_as_they_say() {
    let about: Value = serde_json::from_slice(&read("vectors.json")).unwrap();
    let root = read("root.der");
    let of = |value: &Value, field: &str| hex::decode(value[field].as_str().unwrap()).unwrap();
    let lock = about["keys"].as_array().unwrap().iter().find(|key| key["name"] == "lock").unwrap();
    let lock_hash = of(lock, "sha256").try_into().unwrap();
    let grants = about["grants"].as_array().unwrap();
    assert!(grants.iter().any(|grant| grant["refused"].is_null()));
    for grant in grants {
        let name = grant["file"].as_str().unwrap();
        let verified = verify_grant(&read(name), &root, &lock_hash);
        assert_eq!(verified.is_ok(), grant["refused"].is_null(), "{name}: {verified:?}");
        if let Ok(verified) = verified {
            assert_eq!(verified.statement.version, grant["version"].as_u64(), "{name}");
            assert_eq!(verified.statement.digest[..], of(grant, "digest"), "{name}");
            let until = verified.statement.revokes.map(|issuer| issuer.denials_until);
            assert_eq!(until, grant["revokes"]["denials_until"].as_u64(), "{name}");
            assert_eq!(verified.effect == Effect::Allow, grant["leaf"]["allow"], "{name}");
        }
    }
    let said = &about["confirmation"];
    let lock = PublicKey::from_spki_der(&of(lock, "spki")).unwrap();
    let confirmation = Confirmation::verify(&read("confirmation.hex"), &lock).unwrap();
    assert_eq!(confirmation.statement[..], of(said, "statement"));

    let removed = verify_removal(&read("lock-removal.hex"), &root).unwrap();
    assert_eq!(removed.lock[..], of(&about["lock_removal"], "lock"));

    let certificate = |name: &str| Certificate::parse(&read(name)).unwrap();
    let (ca, backup) = (certificate("root.der"), certificate("backup-ca.der"));
    let read_card = Card::read(&read("family-card.hex"), &certificate("backup-9a.der"), &backup);
    let card = read_card.unwrap();
    assert_eq!(card.root(), &ca);
    assert_eq!(card.locks(), [certificate("lock.der")]);
    assert_eq!(card.objects().statements().count(), 1);

    for (leaf, below) in [
        ("master-9a.der", false),
        ("backup-9a.der", true),
        ("sub-9a.der", false),
        ("lock.der", true),
    ] {
        let mut chain = vec![certificate(leaf), ca.clone()];
        if below {
            chain.insert(1, backup.clone());
        }
        assert!(verify_chain(&chain, &root, Some(crate::common::NOW)).is_ok(), "{leaf}");
    }
}
