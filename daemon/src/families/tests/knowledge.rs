//! What a station knows of a family does not depend on what it heard first, and belongs to one family.

mod damage;

use keywright_proto::{
    RevokedIssuer, Standing, VerifiedStatement, statement::claimed, tree::Hash, verify_grant,
};

use super::*;
use crate::queries::{self, Grants, Page};

/// The seed of statements of another implementation, as [`leaf`] has it.
const SEED: [u8; 32] = [9; 32];

fn lock_hash(number: u8) -> Hash {
    Key::new(number).public().hash()
}

fn everywhere(effect: Effect) -> Vec<(Target, Effect)> {
    vec![(Target::All, effect)]
}

fn at(number: u8, effect: Effect) -> (Target, Effect) {
    (Target::Lock(lock_hash(number)), effect)
}

/// A statement of another implementation, with its leaves in this order.
fn say(by: &Ca, about: u8, version: Option<u64>, leaves: &[(Target, Effect)]) -> Vec<u8> {
    let tree = Tree::new(leaves.iter().map(|(to, effect)| leaf(*to, *effect))).unwrap();
    by.statement(&Key::new(about), version, &tree)
}

/// The revocation of a Key by a CA, with its leaf.
fn revoke(by: &Ca, about: u8, issuing_key: Option<&Ca>) -> (Vec<u8>, Vec<(Target, Effect)>) {
    let revokes = issuing_key.map(|ca| {
        let issuing_key = ca.key.public().hash();
        RevokedIssuer { issuing_key, denials_until: u64::from(u32::MAX) }
    });
    (by.revocation(&Key::new(about), revokes).statement, everywhere(Effect::Deny))
}

impl Bench {
    /// A file of the family with these certificates and nothing else.
    fn file(&self, certificates: &[&Certificate]) -> SignedObjects {
        let mut objects = SignedObjects::new(self.master.certificate().clone()).unwrap();
        let left_out = objects.add_certificates(certificates.iter().copied().cloned());
        assert_eq!(left_out, 0);
        objects
    }

    fn access(&self, by: &Ca, key: u8, role: Role, serial: u8) -> Certificate {
        by.issue(&Key::new(key), role, &[serial]).remove(0)
    }

    fn standing(&self, ca: &Ca) -> Option<Standing> {
        let judgement = self.families.judgement(self.family()).unwrap().unwrap();
        judgement.standing(&ca.key.public().hash())
    }

    fn own(&self, key: u8) -> Membership {
        self.families.membership(id(key), self.family()).unwrap().unwrap()
    }

    fn export(&self) -> SignedObjects {
        let file = queries::export(self.families.registry(), self.family()).unwrap();
        let (objects, left_out) = SignedObjects::decode(&file, self.master.root()).unwrap();
        assert_eq!(left_out, 0);
        objects
    }

    /// What the Lock takes of the grant that is made for it.
    fn granted(&self, key: u8, lock: u8) -> (VerifiedStatement, Effect) {
        let moment = self.families.moment();
        let grant = queries::grant(self.families.registry(), id(key), id(lock), moment).unwrap();
        let verified = verify_grant(&grant, self.master.root(), &lock_hash(lock)).unwrap();
        (verified.statement, verified.effect)
    }
}

/// A Backup is certified by a second issuer too: both certificates are kept, exchanged and judged, and the chain that
/// stands is shown.
#[test]
fn every_ca_certificate_of_an_issuing_key_is_kept() {
    let three = Bench::empty().master.backup(Key::new(3), 3);
    let two = Bench::empty().backup;
    let (four, again) = (two.backup(Key::new(4), 4), three.backup(Key::new(4), 5));
    let through_two = [two.certificate(), four.certificate()];
    let through_three = [three.certificate(), again.certificate()];
    for order in [[through_two, through_three], [through_three, through_two]] {
        let mut bench = Bench::start();
        for certificates in &order {
            bench.import(&bench.file(certificates));
        }
        let exported = bench.export();
        for ca in order.concat() {
            assert!(exported.certificates().any(|known| known == ca), "{:?}", ca.serial());
        }
        assert_eq!(bench.standing(&four), Some(Standing::Stands));
        bench.keep(plan(bench.prepare_revocation(BACKUP, "stolen").unwrap()));
        assert_eq!(bench.standing(&two), Some(Standing::Revoked));
        assert_eq!(bench.standing(&four), Some(Standing::Stands), "the other issuer stands");
        let shown = bench.families.registry().issuer(four.key.public().id()).unwrap().unwrap();
        let shown = Certificate::parse(&shown.chain[1]).unwrap();
        assert_eq!(shown.public_key(), three.certificate().public_key());
    }
}

/// The same certificates, in files that come in any order: every station exports the same file, and decides the same.
#[test]
fn certificates_are_a_set_in_any_order_and_with_duplicates() {
    let master = Ca::master(Key::new(1));
    let (two, three) = (master.backup(Key::new(2), 2), master.backup(Key::new(3), 3));
    let (two_by_three, four) = (three.backup(Key::new(2), 4), two.backup(Key::new(4), 6));
    let four_by_three = three.backup(Key::new(4), 7);
    let access = |by: &Ca, key, role, serial| by.issue(&Key::new(key), role, &[serial]);
    let chains = [
        two_by_three.chain.clone(),
        four.chain.clone(),
        four_by_three.chain.clone(),
        access(&two, 12, Role::Backup, 20),
        access(&three, 12, Role::Sub, 21),
        access(&four, 31, Role::Sub, 24),
        access(&four_by_three, 31, Role::Backup, 25),
        access(&four, 14, Role::Backup, 26),
    ];
    let mut found = Vec::new();
    for rotation in 0..chains.len() {
        let mut bench = Bench::start();
        let mut order: Vec<_> = chains.iter().collect();
        order.rotate_left(rotation);
        if rotation % 2 == 1 {
            order.reverse();
        }
        for chain in order.iter().chain(&order[..3]) {
            let chain: Vec<_> = chain.iter().filter(|ca| *ca != master.certificate()).collect();
            bench.import(&bench.file(&chain));
        }
        let state = |bench: &Bench| {
            let shown = |ca: u8| bench.families.registry().issuer(id(ca)).unwrap().unwrap().chain;
            let own = |key| {
                let Membership { role, issuing_key, revoked, .. } = bench.own(key);
                (role, issuing_key, revoked)
            };
            let file = bench.export().encode().unwrap();
            (file, [2, 3, 4].map(shown), [12, 14, 31].map(own))
        };
        let before = state(&bench);
        bench.keep(plan(bench.prepare_revocation(14, "stolen").unwrap()));
        let [_, _, four_shown] = state(&bench).1;
        found.push((before, four_shown, bench.own(31).role));
    }
    assert!(found.iter().all(|other| *other == found[0]));
}

/// A thief's CA certifies the Backup's own access key as that of a Sub Key, and a new station hears of that first.
#[test]
fn revocation_names_the_issuing_key_that_any_certificate_shows() {
    for thief_first in [true, false] {
        let mut bench = Bench::start();
        // The Backup 5 has the access key 15.
        let backup = bench.master.backup(Key::new(5), 50);
        let thief = backup.backup(Key::new(6), 60);
        let lie = bench.access(&thief, 15, Role::Sub, 61);
        let truth = bench.access(&backup, 15, Role::Backup, 51);
        let cas = [backup.certificate(), thief.certificate()];
        let mut files = vec![bench.file(&[cas[0], cas[1], &lie]), bench.file(&[cas[0], &truth])];
        if !thief_first {
            files.reverse();
        }
        for file in &files {
            bench.import(file);
        }
        assert_eq!(bench.own(15).role, Role::Backup, "the highest role counts");
        assert_eq!(
            bench
                .export()
                .certificates()
                .filter(|c| c.public_key() == &Key::new(15).public())
                .count(),
            2
        );
        bench.keep(plan(bench.prepare_revocation(15, "stolen").unwrap()));
        let revocation = bench.families.registry().revocations(bench.family()).unwrap().remove(0);
        let named = claimed(&revocation.cose).unwrap().revokes.map(|revoked| revoked.issuing_key);
        assert_eq!(named, Some(backup.key.public().hash()));
        assert_eq!(bench.standing(&backup), Some(Standing::Revoked));
        assert_ne!(bench.standing(&thief), Some(Standing::Stands));
        assert!(bench.own(15).revoked);
    }
}

/// A thief's CA certifies a Sub Key as a Backup: once the thief is revoked it is a Sub Key again.
#[test]
fn role_that_a_revoked_issuer_gave_is_taken_back() {
    let mut bench = Bench::start();
    let thief = bench.backup.backup(Key::new(6), 60);
    let lie = bench.access(&thief, SUB, Role::Backup, 61);
    bench.import(&bench.file(&[bench.backup.certificate(), thief.certificate(), &lie]));
    assert_eq!(bench.own(SUB).role, Role::Backup);
    bench.keep(plan(bench.prepare_revocation(BACKUP, "stolen").unwrap()));
    assert_eq!(bench.own(SUB).role, Role::Sub);
    bench.add_lock(100);
    bench.keep(plan(bench.prepare_rights(&[100], &[]).unwrap()));
    assert_eq!(bench.effect(100), Some(Effect::Allow));
}

/// The Sub Key and the Backup are Sub Keys of another family too, which revokes both.
#[test]
fn revocation_in_one_family_changes_nothing_in_another() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let (home, other) = (bench.family(), Ca::master(Key::new(7)));
    let guests = other.certificate().family();
    let root = other.certificate().der().to_vec();
    let mut batch = Batch::new();
    batch.put_family(guests, Family { root, pinned: NOW, locks: 0 });
    bench.families.registry.commit(batch).unwrap();
    let mut objects = SignedObjects::new(other.certificate().clone()).unwrap();
    for key in [SUB, BACKUP] {
        let guest = other.issue(&Key::new(key), Role::Sub, &[key]).remove(0);
        objects.add_certificate(guest).unwrap();
    }
    let import = |bench: &mut Bench, objects: &SignedObjects| {
        let mut changes = Changes::default();
        bench.families.import(guests, objects, &nobody, BY, &mut changes).unwrap();
    };
    import(&mut bench, &objects);
    let guest = bench.families.membership(id(BACKUP), guests).unwrap().unwrap();
    assert_eq!((guest.role, guest.issuing_key), (Role::Sub, None));
    assert_eq!(
        bench.own(BACKUP).issuing_key.as_deref(),
        Some(bench.backup.key.public().spki_der())
    );
    for key in [SUB, BACKUP] {
        let (cose, leaves) = revoke(&other, key, None);
        objects.add_statement(cose, SEED, leaves).unwrap();
    }
    import(&mut bench, &objects);
    for key in [SUB, BACKUP] {
        assert!(bench.families.membership(id(key), guests).unwrap().unwrap().revoked);
        assert!(!bench.own(key).revoked);
        let label = bench.families.registry().key(id(key)).unwrap().unwrap().label;
        let facts = bench.families.facts(&label, Some(id(key)), None).unwrap();
        assert!(!facts.known.revoked, "its shown family did not revoke it");
        assert_eq!(facts.revoked_in, [guests]);
    }
    assert_eq!(bench.standing(&bench.backup), Some(Standing::Stands));
    bench.keep(plan(bench.prepare_rights(&[100], &[]).unwrap()));
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    // The other way round: shown as revoked, and not so in the other family.
    bench.keep(plan(bench.prepare_revocation(SUB, "lost").unwrap()));
    let label = bench.families.registry().key(id(SUB)).unwrap().unwrap().label;
    let facts = bench.families.facts(&label, Some(id(SUB)), None).unwrap();
    assert!(facts.known.revoked);
    assert_eq!(facts.revoked_in.len(), 2);
    assert!(facts.revoked_in.contains(&home));
}

/// Another implementation puts leaves in any order, suspends a Key everywhere, mixes both, and contradicts itself.
#[test]
fn statements_of_another_implementation_are_shown_exported_and_granted() {
    let mut bench = Bench::start();
    let locks: Vec<u8> = (100..107).collect();
    locks.iter().for_each(|number| drop(bench.add_lock(*number)));
    let mut descending: Vec<_> = locks.iter().map(|n| (id(*n), *n)).collect();
    descending.sort_unstable_by(|one, other| other.cmp(one));
    let effect = |number: u8| Effect::of(number.is_multiple_of(2));
    let unsorted: Vec<_> = descending.iter().map(|(_, n)| at(*n, effect(*n))).collect();
    let mixed = vec![at(103, Effect::Allow), (Target::All, Effect::Deny), at(100, Effect::Allow)];
    let twice = vec![
        at(101, Effect::Allow),
        at(102, Effect::Allow),
        at(101, Effect::Deny),
        at(102, Effect::Allow),
    ];
    let mut objects = bench.objects();
    let other = bench.access(&bench.master, 32, Role::Sub, 32);
    objects.add_certificate(other).unwrap();
    for (key, version, leaves) in [
        (SUB, 5, &unsorted),
        (32, 4, &twice),
        (BACKUP, 6, &everywhere(Effect::Deny)),
        (MASTER, 7, &mixed),
    ] {
        let cose = say(&bench.master, key, Some(version), leaves);
        objects.add_statement(cose, SEED, leaves.clone()).unwrap();
    }
    bench.import(&objects);
    let registry = bench.families.registry();
    let rows = |key: u8| {
        let page = Page { after: None, limit: 100 };
        let rows = queries::rights(registry, id(key), page, bench.families.moment()).unwrap().0;
        rows.into_iter().map(|row| row.2).collect::<Vec<_>>()
    };
    let pending = rows(SUB).iter().filter(|state| *state == "pending").count();
    assert_eq!((pending, rows(SUB).len()), (4, 7));
    assert_eq!(rows(32).iter().filter(|state| *state == "pending").count(), 1);
    assert_eq!(bench.granted(32, 101).1, Effect::Deny);
    assert_eq!(bench.granted(32, 102).1, Effect::Allow);
    assert_eq!(rows(BACKUP), ["removing"; 7]);
    assert_eq!(rows(MASTER), ["removing"; 7]);
    let exported = bench.export();
    let statements = |objects: &SignedObjects| objects.statements().cloned().collect::<Vec<_>>();
    assert_eq!(statements(&exported), statements(&objects));
    let grants = Grants::of(registry, id(SUB), bench.family(), bench.families.moment());
    let grants = grants.unwrap().unwrap();
    for number in locks {
        assert_eq!(bench.granted(SUB, number).1, effect(number));
        let together = grants.at(id(number)).unwrap();
        let verified = verify_grant(&together, bench.master.root(), &lock_hash(number)).unwrap();
        assert_eq!(verified.effect, effect(number));
        for (key, version) in [(BACKUP, 6), (MASTER, 7)] {
            let (statement, effect) = bench.granted(key, number);
            assert_eq!((statement.version, effect), (Some(version), Effect::Deny));
        }
    }
    let again = Bench::start();
    let mut again = again;
    again.import(&exported);
    assert_eq!(statements(&again.export()), statements(&objects));
}

/// A Backup denies a right and then allows it again. Once the Backup is revoked, what it allowed is void, and what it
/// denied before is not: an older right by the Master stays denied, at Locks and here.
#[test]
fn denial_below_a_later_allow_is_in_force_once_its_signer_falls() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut bench = Bench::start();
        bench.add_lock(100);
        let backup = bench.backup.clone();
        let said = [
            (&bench.master.clone(), 1, Effect::Allow),
            (&backup, 2, Effect::Deny),
            (&backup, 3, Effect::Allow),
        ];
        for place in order {
            let (by, version, effect) = said[place];
            let leaves = [at(100, effect)];
            let mut objects = bench.objects();
            let cose = say(by, SUB, Some(version), &leaves);
            objects.add_statement(cose, SEED, leaves.to_vec()).unwrap();
            bench.import(&objects);
        }
        assert_eq!(bench.effect(100), Some(Effect::Allow));
        assert_eq!(bench.export().statements().count(), 3, "all are needed");
        bench.keep(plan(bench.prepare_revocation(BACKUP, "stolen").unwrap()));
        assert_eq!(bench.effect(100), Some(Effect::Deny), "{order:?}");
        assert_eq!(bench.granted(SUB, 100).0.version, Some(2));
    }
}

/// A right that was given back after a removal is read as quickly as any other: the older denial decides nothing yet.
#[test]
fn newest_statement_alone_decides_while_its_signer_stands() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    bench.add_lock(101);
    for (add, remove) in [(&[100, 101][..], &[][..]), (&[], &[100]), (&[100], &[])] {
        bench.keep(plan(bench.prepare_rights(add, remove).unwrap()));
    }
    let (registry, family, moment) =
        (bench.families.registry(), bench.family(), bench.families.moment());
    assert_eq!(registry.older_statements(id(SUB), family).unwrap().len(), 1);
    assert!(moment.competing_statements(registry, id(SUB), family).unwrap().is_none());
    assert!(Grants::of(registry, id(SUB), family, moment).unwrap().is_some());
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    // A statement that lists less decides nothing about the other Locks.
    let leaves = [at(101, Effect::Deny)];
    let mut objects = bench.objects();
    let cose = say(&bench.master, SUB, Some(u64::from(u32::MAX) << 10), &leaves);
    objects.add_statement(cose, SEED, leaves.to_vec()).unwrap();
    bench.import(&objects);
    let registry = bench.families.registry();
    assert!(moment.competing_statements(registry, id(SUB), family).unwrap().is_some());
    assert_eq!(bench.effect(100), Some(Effect::Allow));
}
