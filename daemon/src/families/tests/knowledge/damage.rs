//! Records that rot: no revocation is lost, and nothing is decided without what cannot be read.

use super::*;
use crate::{keys::Keys, outbox::Outbox};

/// A damaged record of one Key keeps no revocation of another from coming in and going out.
#[test]
fn damaged_statement_keeps_no_revocation_out() {
    for table in [0x20, 0x22, 0x40] {
        let damaged = || {
            let mut bench = Bench::start();
            bench.add_lock(100);
            bench.keep(plan(bench.prepare_rights(&[100], &[]).unwrap()));
            bench.families.registry().damage(&[&[table], &id(SUB).as_bytes()[..]].concat());
            bench
        };
        for reason in ["stolen", "lost"] {
            let mut bench = damaged();
            bench.keep(plan(bench.prepare_revocation(BACKUP, reason).unwrap()));
            assert!(bench.own(BACKUP).revoked, "{reason}");
        }
        let mut bench = damaged();
        let mut objects = bench.objects();
        let leaves = [at(100, Effect::Deny)];
        for (cose, leaves) in [
            revoke(&bench.master, BACKUP, Some(&bench.backup)),
            (say(&bench.master, SUB, Some(u64::from(u32::MAX) << 10), &leaves), leaves.to_vec()),
        ] {
            objects.add_statement(cose, SEED, leaves).unwrap();
        }
        bench.import(&objects);
        assert_eq!(bench.standing(&bench.backup.clone()), Some(Standing::Revoked));
        assert!(bench.own(BACKUP).revoked);
        let exported = bench.export();
        let revocation = exported.statements().find(|signed| signed.statement.version.is_none());
        assert_eq!(revocation.unwrap().statement.subject.id(), id(BACKUP));
    }
}

/// What a new plug would need to know of a Key cannot be read: it is not taken for a blank one.
#[test]
fn key_of_which_nothing_can_be_read_is_shown_as_unusable() {
    let bench = Bench::start();
    let registry = bench.families.registry();
    let record = registry.key(id(BACKUP)).unwrap().unwrap();
    registry.damage(&[&[0x22], &id(BACKUP).as_bytes()[..]].concat());
    let (outbox, _outputs) = Outbox::new();
    let mut keys = Keys::new(outbox, true);
    keys.recall(id(BACKUP), &record, &bench.families);
    assert_eq!(keys.get(&record.label).unwrap().view().state, "unusable");
}

/// The record of a revoked Backup is damaged, then its membership.
#[test]
fn damaged_record_of_a_revoked_backup_brings_nothing_back() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let mut objects = bench.objects();
    let leaves = everywhere(Effect::Allow);
    let cose = say(&bench.master, BACKUP, Some(1), &leaves);
    objects.add_statement(cose, SEED, leaves).unwrap();
    bench.import(&objects);
    bench.keep(plan(bench.prepare_revocation(BACKUP, "stolen").unwrap()));
    let registry = bench.families.registry().clone();
    let backup = bench.backup.clone();
    // The record of the Key: everything that depends on the revocation goes on.
    registry.damage(&[&[0x20], &id(BACKUP).as_bytes()[..]].concat());
    assert!(registry.key(id(BACKUP)).is_err());
    assert_eq!(bench.standing(&backup), Some(Standing::Revoked));
    let own = backup.certificate();
    let claims = Claims {
        family: Some((bench.family(), Role::Backup)),
        issuing: Some(own.clone()),
        ..Claims::default()
    };
    let issuer = Issuer { claims, ..Issuer::default() };
    assert!(matches!(bench.families.issuing(&issuer), Err(Error::Pair(_))));
    assert_eq!(registry.member_ids_page(bench.family(), None, 9).unwrap().items.len(), 3);
    let (told, effect) = bench.granted(BACKUP, 100);
    assert_eq!((told.version, effect), (None, Effect::Deny), "Locks hear of it");
    let exported = bench.export();
    let revocation = exported.statements().find(|signed| signed.statement.version.is_none());
    let revocation = revocation.map(|signed| signed.statement.subject.id());
    assert_eq!(revocation, Some(id(BACKUP)), "others hear of it");
    bench.keep(plan(bench.prepare_revocation(SUB, "lost").unwrap()));
    bench.keep(plan(bench.prepare_lock(101)));
    let mut changes = Changes::default();
    bench.families.settle_revocations(bench.family(), BY, &mut changes).unwrap();
    assert!(bench.own(BACKUP).revoked && bench.own(SUB).revoked);
    assert!(bench.families.facts("k", Some(id(BACKUP)), None).is_err());
    // What the judgement needs is damaged: nothing is decided without it.
    for place in [
        [&[0x22], &id(BACKUP).as_bytes()[..]].concat(),
        [&[0x45], &bench.family().as_bytes()[..]].concat(),
    ] {
        let damaged = Bench::start_again(&bench);
        damaged.families.registry().damage(&place);
        assert!(damaged.families.judgement(damaged.family()).is_err(), "{place:02x?}");
        assert!(damaged.families.issuing(&issuer).is_err());
        assert!(damaged.families.stands(damaged.family(), own.public_key().id()).is_err());
    }
}

impl Bench {
    /// Another station that imports what this one exports.
    fn start_again(other: &Self) -> Self {
        let mut bench = Self::start();
        bench.import(&other.export());
        bench
    }
}
