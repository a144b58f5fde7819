//! Which grants a Lock accepts and which it refuses, as files and in its own process.

use std::fs;

use keywright_lockd::{config::Config, service::Service};
use keywright_proto::{
    Effect::{Allow, Deny},
    Id, Role, Target, Tree,
};

use crate::common::{
    self, Ca, Key, Lock, certify, done, leaf, pem_of, refused, revocation, run, take,
};

fn admits(service: &mut Service, lock: &Lock, key: &Key) -> bool {
    service.settle().unwrap();
    lock.list("keys.json").contains(&key.public().id().to_string())
}

#[test]
fn lock_is_claimed_once() {
    let (ours, theirs) = (Ca::at_depth(1), Ca::master(Key::new(77)));
    let lock = Lock::of(&ours);
    let before = lock.everything();
    let claim = |chain: &str| run(&lock.state(), &["claim", "-"], chain.as_bytes());
    for (chain, part) in [
        (pem_of(&certify(&theirs, &lock.key)), "belongs to family"),
        (pem_of(&certify(&ours, &Key::new(9).public())), "not of this Lock's key"),
        (pem_of(&ours.issue(&Key::new(9), Role::Sub, &[1])), "not of this Lock's key"),
        (pem_of(&lock.chain[..1]), "root"),
        ("garbage".into(), "PEM"),
        ("x".repeat(10_000_000), "PEM"),
        (String::new(), "there is none"),
    ] {
        let text = refused(claim(&chain));
        assert!(text.contains(part), "{text}");
        assert_eq!(lock.everything(), before);
    }
    // A new certificate by a Backup of the same family is accepted.
    done(claim(&pem_of(&certify(&Ca::at_depth(2), &lock.key))));
    let unclaimed = run(&lock.dir.path().join("new"), &["apply", "/dev/null"], b"");
    assert_eq!(unclaimed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unclaimed.stderr).contains("no family yet"));
}

#[test]
fn allow_and_deny_are_enforced_and_confirmed() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let output = done(lock.apply("bob.grant", &lock.grant(&ca, &sub, 5, Allow)));
    assert!(output.contains("is admitted"), "{output}");
    let id = sub.public().id().to_string();
    let confirmed = lock.confirmation("bob.grant");
    assert_eq!((confirmed.effect, confirmed.newest_version), (Allow, 5));
    for list in ["ssh_keys", "nginx.map", "keys.json"] {
        assert!(lock.list(list).contains(&id), "{list}");
    }
    let certificate = ca.issue(&sub, Role::Sub, &[5]).remove(0);
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(certificate.der()));
    assert_eq!(lock.list("fingerprints.sha256"), sha256 + "\n");
    assert_eq!(lock.list("ca.pem"), pem_of(&ca.chain));

    let output = done(lock.apply("no.grant", &lock.grant(&ca, &sub, 6, Deny)));
    assert!(output.contains("is not admitted"), "{output}");
    let confirmed = lock.confirmation("no.grant");
    assert_eq!((confirmed.effect, confirmed.newest_version), (Deny, 6));
    assert_eq!(lock.list("ssh_keys"), "");
    assert_eq!(lock.list("nginx.map"), "default \"\";\n");
}

#[test]
fn bad_grant_is_refused_and_changes_nothing() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let (by_sub, other) =
        (Ca { key: sub.clone(), chain: ca.chain.clone() }, Ca::master(Key::new(77)));
    let good = lock.grant(&ca, &sub, 9, Allow);
    done(lock.apply("good", &good));
    let before = lock.everything();
    let mine = lock.leaf(Allow);
    let elsewhere = leaf(Target::Lock([9; 32]), Allow);
    let mut wrong_proof = ca.grant(&sub, Some(10), &[mine, elsewhere], 0, &[]);
    wrong_proof.path = Tree::new([mine, mine]).unwrap().path(0).unwrap();
    let forged = {
        // A Sub Key has no CA certificate; it can only sign under its issuer's.
        let tree = Tree::new([mine]).unwrap();
        let mut grant = ca.grant(&sub, Some(10), &[mine], 0, &[]);
        let subject = sub.public();
        let statement = keywright_proto::Statement {
            subject: &subject,
            version: Some(11),
            tree: tree.head(),
            revokes: None,
        };
        let unsigned = statement.unsigned(&ca.chain).unwrap();
        let message = <coset::CoseSign1 as coset::TaggedCborSerializable>::from_tagged_slice(
            &grant.statement,
        );
        let mut message = message.unwrap();
        let signature = by_sub.key.sign_digest(&unsigned.digest());
        message.signature =
            p256::ecdsa::Signature::from_der(&signature).unwrap().to_bytes().to_vec();
        grant.statement = coset::TaggedCborSerializable::to_tagged_vec(message).unwrap();
        grant
    };
    for (name, grant, part) in [
        ("older", lock.grant(&ca, &sub, 8, Allow), "older than what this Lock knows (version 9)"),
        ("other-family", lock.grant(&other, &sub, 10, Allow), "pinned root"),
        ("other-lock", ca.grant(&sub, Some(10), &[elsewhere], 0, &[]).encode(), "another Lock"),
        ("sub-signer", forged.encode(), "signature is wrong"),
        ("wrong-proof", wrong_proof.encode(), "not in the statement's tree"),
        ("empty", vec![], "not a Keywright grant"),
        ("garbage", vec![0x85; 60_000], "not a Keywright grant"),
        ("too-long", vec![0x85; 65_537], "longer than 65536 bytes"),
    ] {
        let text = refused(lock.apply(name, &grant));
        assert!(text.contains(part), "{name}: {text}");
        assert_eq!(lock.everything(), before, "{name}");
    }
    let huge = lock.dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 30).unwrap();
    let text = refused(run(&lock.state(), &["apply", huge.to_str().unwrap()], b""));
    assert!(text.contains("longer than 65536 bytes"), "{text}");
    assert_eq!(lock.everything(), before);
    // A known statement is confirmed again: the first confirmation may have been lost.
    done(lock.apply("again", &good));
    assert_eq!(lock.confirmation("again"), lock.confirmation("good"));
    assert_eq!(lock.everything(), before);
}

#[test]
fn grant_with_any_flipped_bit_is_refused() {
    let (ca, sub) = (Ca::at_depth(2), Key::new(30));
    let lock = Lock::of(&ca);
    let mut service = lock.service();
    let grant = lock.grant(&ca, &sub, 5, Deny);
    let before = lock.everything();
    for byte in 0..grant.len() {
        let mut flipped = grant.clone();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(take(&mut service, &flipped).is_err(), "byte {byte}");
    }
    assert_eq!(lock.everything(), before);
    take(&mut service, &grant).unwrap();
}

#[test]
fn grant_of_a_revoked_backup_admits_nobody() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (sub, backup_key) = (Key::new(30), Key::new(31));
    let lock = Lock::of(&master);
    let mut service = lock.service();
    let everywhere = [leaf(Target::All, Allow)];
    let access = backup.issue(&backup_key, Role::Backup, &[9]);
    let grant = master.grant(&backup_key, Some(1), &everywhere, 0, &access).encode();
    take(&mut service, &grant).unwrap();
    take(&mut service, &lock.grant(&backup, &sub, 5, Allow)).unwrap();
    assert!(admits(&mut service, &lock, &sub) && admits(&mut service, &lock, &backup_key));
    let revokes = keywright_proto::RevokedIssuer {
        issuing_key: backup.key.public().hash(),
        denials_until: 100,
    };
    take(&mut service, &common::revocation_of_issuer(&master, &backup_key, revokes)).unwrap();
    assert!(!admits(&mut service, &lock, &sub) && !admits(&mut service, &lock, &backup_key));
    let before = lock.everything();
    let refusal = take(&mut service, &lock.grant(&backup, &sub, 6, Allow)).unwrap_err();
    assert!(refusal.starts_with("its signer was revoked"), "{refusal}");
    assert_eq!(lock.everything(), before);
    // An issuer that is not revoked may allow it again, also after a restart.
    take(&mut service, &lock.grant(&master, &sub, 7, Allow)).unwrap();
    assert!(admits(&mut service, &lock, &sub));
    drop(service);
    let mut service = lock.service();
    assert!(admits(&mut service, &lock, &sub) && !admits(&mut service, &lock, &backup_key));
    assert!(take(&mut service, &lock.grant(&backup, &sub, 8, Allow)).is_err());
}

#[test]
fn statement_from_the_future_is_parked() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let mut service = lock.service();
    let day = 86_400_000;
    let now = keywright_base::clock::unix_millis();
    take(&mut service, &lock.grant(&ca, &sub, now + 2 * day, Allow)).unwrap();
    assert!(!admits(&mut service, &lock, &sub));
    assert!(service.settle().unwrap().is_empty());
    let due = service.next_change().unwrap();
    assert_eq!(due, now + day);
    // The parked statement does not hold up one that is due.
    take(&mut service, &lock.grant(&ca, &sub, now, Allow)).unwrap();
    assert!(admits(&mut service, &lock, &sub));
}

#[test]
fn revocation_is_final_and_older_statements_are_refused() {
    let (ca, sub, other) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::of(&ca);
    let old = lock.grant(&ca, &other, 5, Allow);
    done(lock.apply("old", &old));
    done(lock.apply("deny", &lock.grant(&ca, &other, 6, Deny)));
    assert!(refused(lock.apply("old", &old)).contains("older"));
    done(lock.apply("allow", &lock.grant(&ca, &sub, 5, Allow)));
    done(lock.apply("revoked", &revocation(&ca, &sub).encode()));
    assert_eq!(lock.list("ssh_keys"), "");
    let output = done(lock.apply("allow", &lock.grant(&ca, &sub, 50, Allow)));
    assert!(output.contains("is not admitted"), "{output}");
    assert_eq!(lock.list("ssh_keys"), "");
}

#[test]
fn damaged_record_denies_its_key_and_is_reported() {
    let (ca, sub, other) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::of(&ca);
    done(lock.apply("a", &lock.grant(&ca, &sub, 5, Allow)));
    done(lock.apply("b", &lock.grant(&ca, &other, 5, Allow)));
    let path = lock.state().join("keys").join(format!("{}.cbor", hex::encode(sub.public().hash())));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refusal = refused(lock.apply("c", &lock.grant(&ca, &sub, 6, Allow)));
    assert!(refusal.contains(path.to_str().unwrap()), "{refusal}");
    let list = lock.list("ssh_keys");
    assert!(!list.contains(&sub.public().id().to_string()));
    assert!(list.contains(&other.public().id().to_string()));
    // The file is removed, as the message says.
    fs::remove_file(path).unwrap();
    done(lock.apply("c", &lock.grant(&ca, &sub, 6, Allow)));
}

#[test]
fn key_limit_leaves_room_for_denials() {
    let ca = Ca::at_depth(1);
    let lock = Lock::of(&ca);
    let mut service = lock.service_with(Config { max_keys: 2, ..Config::default() });
    for number in 30..32 {
        take(&mut service, &lock.grant(&ca, &Key::new(number), 5, Allow)).unwrap();
    }
    let refusal = take(&mut service, &lock.grant(&ca, &Key::new(32), 5, Allow)).unwrap_err();
    assert!(refusal.contains("max_keys"), "{refusal}");
    take(&mut service, &revocation(&ca, &Key::new(32)).encode()).unwrap();
    take(&mut service, &revocation(&ca, &Key::new(30)).encode()).unwrap();
    assert!(!admits(&mut service, &lock, &Key::new(30)));
    assert!(admits(&mut service, &lock, &Key::new(31)));
}

/// A thief with a stolen Backup certifies many CAs, and each signs statements about a Key.
#[test]
fn flood_by_a_stolen_backup_leaves_room_for_the_master() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let (sub, thiefs, other) = (Key::new(30), Key::new(31), Key::new(32));
    let lock = Lock::of(&master);
    let mut service = lock.service();
    let everywhere = [leaf(Target::All, Allow)];
    let access = thief.issue(&thiefs, Role::Backup, &[9]);
    let grant = master.grant(&thiefs, Some(1), &everywhere, 0, &access).encode();
    take(&mut service, &grant).unwrap();
    let own = Key::new(33);
    let access = master.issue(&own, Role::Master, &[8]);
    let grant = master.grant(&own, Some(1), &everywhere, 0, &access).encode();
    take(&mut service, &grant).unwrap();
    let cas: Vec<_> = (0..30).map(|n| thief.backup(Key::new(50 + n), 0x10 + n)).collect();
    for ca in &cas {
        for (key, effect) in [(&sub, Deny), (&other, Allow)] {
            let _ = take(&mut service, &lock.grant(ca, key, 5, effect));
        }
        let _ = take(&mut service, &revocation(ca, &thiefs).encode());
        let _ = take(&mut service, &revocation(ca, &own).encode());
    }
    assert!(admits(&mut service, &lock, &own), "the Master is not shut out for lack of room");
    // A newer allow by the Master admits the Key.
    take(&mut service, &lock.grant(&master, &sub, 6, Allow)).unwrap();
    assert!(admits(&mut service, &lock, &sub));
    assert!(admits(&mut service, &lock, &thiefs), "its own wait for the delay");
    let revokes = keywright_proto::RevokedIssuer {
        issuing_key: thief.key.public().hash(),
        denials_until: 50,
    };
    take(&mut service, &common::revocation_of_issuer(&master, &thiefs, revokes)).unwrap();
    assert!(!admits(&mut service, &lock, &thiefs));
    // Void statements make room, also for a Key about which the Master had signed nothing.
    take(&mut service, &lock.grant(&master, &other, 3, Allow)).unwrap();
    assert!(admits(&mut service, &lock, &other));
    drop(service);
    let mut service = lock.service();
    assert!(admits(&mut service, &lock, &other) && !admits(&mut service, &lock, &thiefs));
}

#[test]
fn later_certificate_is_added_and_kept() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let statement = ca.grant(&sub, Some(5), &[lock.leaf(Allow)], 0, &[]);
    done(lock.apply("without", &statement.encode()));
    assert_eq!(lock.list("nginx.map"), "default \"\";\n");
    let id = Id::of_spki(sub.public().spki_der()).to_string();
    assert!(lock.list("ssh_keys").contains(&id));
    let with = keywright_proto::Grant {
        access_chain: common::ders(&ca.issue(&sub, Role::Sub, &[5])),
        ..statement.clone()
    };
    done(lock.apply("with", &with.encode()));
    assert!(lock.list("nginx.map").contains(&id));
    done(lock.apply("without", &statement.encode()));
    assert!(lock.list("nginx.map").contains(&id));
    done(lock.apply("newer", &ca.grant(&sub, Some(6), &[lock.leaf(Allow)], 0, &[]).encode()));
    assert!(lock.list("nginx.map").contains(&id));
}
