//! What a thief cannot get at a Lock: with a stolen Backup and its PIN, with the clock in hand, or with a failing disk.

use std::fs;

use keywright_lockd::{
    clock::Now,
    error::Refusal,
    gate::{Gate, Limits},
};
use keywright_proto::{
    Effect::{self, Allow, Deny},
    RevokedIssuer, Role, Target,
};

use crate::common::{self, Ca, Key, Lock, leaf, revocation_of_issuer};

const LIMITS: Limits = Limits { max_keys: 4, revoke_delay: 7 * 86_400 };
const DAY: u64 = 86_400_000;
/// A correct clock, in milliseconds since 1970.
const NOW: Now = Now { unix: common::NOW * 1_000, uptime: 0 };

fn admits(gate: &Gate, key: &Key, now: Now) -> bool {
    gate.effect_on(&key.public().hash(), now.unix) == Effect::Allow
}

fn revokes(ca: &Ca) -> RevokedIssuer {
    RevokedIssuer { issuing_key: ca.key.public().hash(), denials_until: 100 }
}

#[test]
fn clock_set_back_readmits_nobody() {
    let (ca, sub, other) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::of(&ca);
    let mut gate = lock.gate(LIMITS, NOW);
    let version = NOW.unix;
    gate.take(&lock.grant(&ca, &sub, version - DAY, Allow), NOW).unwrap();
    gate.take(&lock.grant(&ca, &sub, version, Deny), NOW).unwrap();
    let back = Now { unix: NOW.unix - 30 * DAY, ..NOW };
    gate.judge(back);
    assert!(!admits(&gate, &sub, back));
    // Nor after a restart; and a denial signed meanwhile is no further ahead than what was due.
    drop(gate);
    let mut gate = lock.gate(LIMITS, back);
    assert!(!admits(&gate, &sub, back));
    gate.take(&lock.grant(&ca, &other, version - 1, Allow), back).unwrap();
    assert!(admits(&gate, &other, back));
    // What was parked and became due stays so, too.
    gate.take(&lock.grant(&ca, &other, version + 10 * DAY, Deny), NOW).unwrap();
    let later = Now { unix: NOW.unix + 20 * DAY, ..NOW };
    gate.judge(later);
    assert!(!admits(&gate, &other, later));
    drop(gate);
    let gate = lock.gate(LIMITS, back);
    assert!(!admits(&gate, &other, back));
}

/// A Backup was revoked, and one sector of the disk goes: the one with the revocation.
#[test]
fn damaged_record_of_a_revoked_backup_keeps_its_ca_out() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let (stolen, sub) = (Key::new(40), Key::new(30));
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    let record = lock.state().join("keys").join(hex::encode(stolen.public().hash()) + ".cbor");
    gate.take(&lock.grant(&thief, &sub, 1, Allow), NOW).unwrap();
    gate.take(&revocation_of_issuer(&master, &stolen, revokes(&thief)), NOW).unwrap();
    assert!(!admits(&gate, &sub, NOW));
    for damage in [&b"nothing"[..], b""] {
        drop(gate);
        fs::write(&record, damage).unwrap();
        gate = lock.gate(LIMITS, NOW);
        assert!(!admits(&gate, &sub, NOW) && !admits(&gate, &stolen, NOW));
        assert!(matches!(
            gate.take(&lock.grant(&thief, &sub, 2, Allow), NOW),
            Err(Refusal::RevokedSigner)
        ));
    }
    // The message says to remove the file.
    drop(gate);
    fs::remove_file(&record).unwrap();
    let gate = lock.gate(LIMITS, NOW);
    assert!(!admits(&gate, &sub, NOW) && !admits(&gate, &stolen, NOW));
}

#[test]
fn revocation_of_a_damaged_key_is_taken() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let (stolen, sub) = (Key::new(40), Key::new(30));
    let lock = Lock::of(&master);
    let record = lock.state().join("keys").join(hex::encode(stolen.public().hash()) + ".cbor");
    let mut gate = lock.gate(LIMITS, NOW);
    gate.take(&lock.grant(&thief, &sub, 1, Allow), NOW).unwrap();
    drop(gate);
    fs::write(&record, "nothing").unwrap();
    let mut gate = lock.gate(LIMITS, NOW);
    assert!(admits(&gate, &sub, NOW));
    let revocation = revocation_of_issuer(&master, &stolen, revokes(&thief));
    assert!(!gate.take(&revocation, NOW).unwrap().known);
    assert!(!admits(&gate, &sub, NOW));
    assert!(gate.take(&revocation, NOW).unwrap().known);
    drop(gate);
    assert!(!admits(&lock.gate(LIMITS, NOW), &sub, NOW));
}

/// The thief signs about as many Keys as the Lock takes, before and after the Backup was revoked.
#[test]
fn stolen_backup_fills_only_its_own_room() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let honest = master.backup(Key::new(9), 0x90);
    let (stolen, first, second) = (Key::new(40), Key::new(30), Key::new(31));
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    let below = thief.backup(Key::new(8), 0x91);
    let mut refused = 0;
    for (number, signer) in (100..130).zip([&thief, &below].into_iter().cycle()) {
        for effect in [Allow, Deny] {
            let grant = lock.grant(signer, &Key::new(number), 5, effect);
            refused += usize::from(gate.take(&grant, NOW).is_err());
        }
        let grant = signer.revocation(&Key::new(number), None).encode();
        refused += usize::from(gate.take(&grant, NOW).is_err());
    }
    assert!(refused > 30, "the room of the stolen Backup is full: {refused}");
    gate.take(&lock.grant(&master, &first, 5, Allow), NOW).unwrap();
    gate.take(&lock.grant(&honest, &second, 5, Allow), NOW).unwrap();
    gate.take(&revocation_of_issuer(&honest, &stolen, revokes(&thief)), NOW).unwrap();
    gate.take(&revocation_of_issuer(&master, &stolen, revokes(&thief)), NOW).unwrap();
    assert!(admits(&gate, &first, NOW) && admits(&gate, &second, NOW));
}

#[test]
fn what_carries_no_weight_makes_room() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let below = backup.backup(Key::new(8), 0x91);
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    for number in 100..104 {
        gate.take(&lock.grant(&below, &Key::new(number), 5, Allow), NOW).unwrap();
    }
    let full = gate.take(&lock.grant(&backup, &Key::new(30), 5, Allow), NOW);
    assert!(matches!(full, Err(Refusal::TooManyKeys(4))));
    gate.take(&revocation_of_issuer(&backup, &Key::new(41), revokes(&below)), NOW).unwrap();
    for number in 30..33 {
        gate.take(&lock.grant(&backup, &Key::new(number), 5, Allow), NOW).unwrap();
        assert!(admits(&gate, &Key::new(number), NOW));
    }
    drop(gate);
    assert!(admits(&lock.gate(LIMITS, NOW), &Key::new(32), NOW));
}

#[test]
fn cas_that_were_revoked_are_not_given_to_servers() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let honest = master.backup(Key::new(9), 0x90);
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    for number in 50..180 {
        let soft = thief.backup(Key::new(number), number);
        let _ = gate.take(&lock.grant(&soft, &Key::new(30), 5, Deny), NOW);
    }
    gate.take(&lock.grant(&honest, &Key::new(31), 5, Allow), NOW).unwrap();
    let certificates = |gate: &Gate| gate.authorities().matches("BEGIN CERTIFICATE").count();
    assert!(certificates(&gate) > 4);
    let mine = lock.grant(&honest, &Key::new(32), 5, Allow);
    gate.take(&mine, NOW).unwrap();
    gate.take(&revocation_of_issuer(&master, &Key::new(40), revokes(&thief)), NOW).unwrap();
    assert_eq!(certificates(&gate), 2, "the root and the Backup that stands");
}

/// A denial that a broker keeps back until its signer has allowed the Key again counts when the signer falls.
#[test]
fn denial_that_arrives_late_counts_when_its_signer_falls() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (sub, stolen) = (Key::new(30), Key::new(40));
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    for (ca, version, effect) in [(&master, 3, Allow), (&backup, 7, Allow), (&backup, 5, Deny)] {
        gate.take(&lock.grant(ca, &sub, version, effect), NOW).unwrap();
        assert!(admits(&gate, &sub, NOW), "{version}");
    }
    gate.take(&revocation_of_issuer(&master, &stolen, revokes(&backup)), NOW).unwrap();
    assert!(!admits(&gate, &sub, NOW));
    // Whatever the thief signs later neither lifts the denial nor outlasts the Master's next word.
    gate.take(&lock.grant(&backup, &sub, 1 << 52, Deny), NOW).unwrap();
    gate.take(&lock.grant(&master, &sub, 101, Allow), NOW).unwrap();
    assert!(admits(&gate, &sub, NOW));
    let everywhere = [leaf(Target::All, Allow)];
    let access = backup.issue(&stolen, Role::Backup, &[9]);
    let own = backup.grant(&stolen, Some(9), &everywhere, 0, &access).encode();
    assert!(matches!(gate.take(&own, NOW), Err(Refusal::RevokedSigner)));
}

/// A stolen Backup below another one: whatever it signs, the one above it can revoke it and every Key here, and gets room.
#[test]
fn revocation_by_a_backup_above_the_thief_finds_room() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (thief, stolen) = (backup.backup(Key::new(8), 0x91), Key::new(40));
    let (admitted, unknown) = (Key::new(30), Key::new(31));
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    gate.take(&lock.grant(&master, &admitted, 5, Allow), NOW).unwrap();
    let mut refused = 0;
    for number in 100..130 {
        let invented = RevokedIssuer { issuing_key: [number; 32], denials_until: 0 };
        let revocation = thief.revocation(&Key::new(number), Some(invented)).encode();
        refused += usize::from(gate.take(&revocation, NOW).is_err());
    }
    assert!(refused > 0, "its room is full");
    // By the Backup above, of a Key that is here, of one that is not, and of the thief.
    gate.take(&lock.grant(&backup, &admitted, 6, Deny), NOW).unwrap();
    assert!(!admits(&gate, &admitted, NOW));
    gate.take(&backup.revocation(&unknown, None).encode(), NOW).unwrap();
    gate.take(&revocation_of_issuer(&backup, &stolen, revokes(&thief)), NOW).unwrap();
    assert!(matches!(
        gate.take(&lock.grant(&thief, &unknown, 7, Allow), NOW),
        Err(Refusal::RevokedSigner)
    ));
    // What the thief had filled makes room for those that the Backup admits.
    gate.take(&lock.grant(&backup, &Key::new(32), 5, Allow), NOW).unwrap();
    drop(gate);
    let gate = lock.gate(LIMITS, NOW);
    assert!(admits(&gate, &Key::new(32), NOW) && !admits(&gate, &admitted, NOW));
}

/// What a removed record said besides is not mixed up with the revocation that is restored.
#[test]
fn restored_revocation_is_in_the_record_again() {
    let (master, other) = (Ca::at_depth(1), Ca::at_depth(2));
    let (stolen, lock) = (Key::new(40), Lock::of(&Ca::at_depth(1)));
    let record = lock.state().join("keys").join(hex::encode(stolen.public().hash()) + ".cbor");
    let mut gate = lock.gate(LIMITS, NOW);
    let revocation = revocation_of_issuer(&master, &stolen, revokes(&other));
    gate.take(&revocation, NOW).unwrap();
    drop(gate);
    fs::remove_file(&record).unwrap();
    let mut gate = lock.gate(LIMITS, NOW);
    assert!(gate.take(&revocation, NOW).unwrap().known);
    gate.take(&master.revocation(&stolen, None).encode(), NOW).unwrap();
    for directory in ["keys", "revocations"] {
        let path = lock.state().join(directory).join(record.file_name().unwrap());
        let kept = keywright_lockd::record::Record::decode(&fs::read(path).unwrap()).unwrap();
        assert!(kept.entries.iter().any(|entry| entry.grant == revocation), "{directory}");
        assert_eq!(kept.entries.len(), 2, "{directory}");
    }
}

/// The thief's CAs revoke a Key as often as its record takes; what the Master says later takes the place of some of that.
#[test]
fn full_record_stays_readable_after_restarts() {
    let (master, thief) = (Ca::at_depth(1), Ca::at_depth(2));
    let (sub, stolen) = (Key::new(30), Key::new(40));
    let lock = Lock::of(&master);
    let mut gate = lock.gate(LIMITS, NOW);
    for number in 50..65 {
        let soft = thief.backup(Key::new(number), number);
        for named in 0..3 {
            let issuer = RevokedIssuer { issuing_key: [named; 32], denials_until: 1 };
            let _ = gate.take(&soft.revocation(&sub, Some(issuer)).encode(), NOW);
        }
    }
    gate.take(&revocation_of_issuer(&master, &stolen, revokes(&thief)), NOW).unwrap();
    gate.take(&lock.grant(&master, &sub, 101, Allow), NOW).unwrap();
    for _ in 0..3 {
        assert!(admits(&gate, &sub, NOW));
        drop(gate);
        gate = lock.gate(LIMITS, NOW);
    }
}
