//! Tests of families with signatures made by software keys: no token, no thread, no bus.

#[path = "../../../proto/tests/common/mod.rs"]
mod common;
#[path = "issuer_tests.rs"]
mod issuers;
mod knowledge;

use common::{Ca, Key, NOW, leaf};
use keywright_proto::{
    Certificate, Crl, Effect, Id, PublicKey, Role, SignedObjects, Target, Tree, csr, verify_chain,
};

use super::*;
use crate::registry::{
    Batch,
    records::{Family, Lock},
};

const BY: Asker = Asker(Some(7));
/// Access keys of the Master, a Backup and a Sub Key.
const MASTER: u8 = 11;
const BACKUP: u8 = 12;
const SUB: u8 = 31;

/// A station that knows a family: its Master, a Backup by it and a Sub Key.
struct Bench {
    families: Families,
    master: Ca,
    backup: Ca,
    _state: tempfile::TempDir,
}

impl Bench {
    /// Makes a station that knows nothing and has pinned no root.
    fn empty() -> Self {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::open(&state.path().join("registry")).unwrap();
        let families = Families::new(registry, &Config::default());
        let master = Ca::master(Key::new(1));
        let backup = master.backup(Key::new(2), 2);
        Self { families, master, backup, _state: state }
    }

    fn start() -> Self {
        let mut bench = Self::empty();
        let root = bench.master.certificate().der().to_vec();
        let mut batch = Batch::new();
        batch.put_family(bench.family(), Family { root, pinned: NOW, locks: 0 });
        bench.families.registry.commit(batch).unwrap();
        let objects = bench.objects();
        let changes = bench.import(&objects);
        assert_eq!(changes.new_keys.len(), 3);
        assert!(changes.families.contains(&bench.family()));
        bench
    }

    /// The certificates of all Keys.
    fn objects(&self) -> SignedObjects {
        let mut objects = SignedObjects::new(self.master.certificate().clone()).unwrap();
        for certificate in [
            self.backup.certificate(),
            &self.master.issue(&Key::new(MASTER), Role::Master, &[MASTER])[0],
            &self.backup.issue(&Key::new(BACKUP), Role::Backup, &[BACKUP])[0],
            &self.master.issue(&Key::new(SUB), Role::Sub, &[SUB])[0],
        ] {
            objects.add_certificate(certificate.clone()).unwrap();
        }
        objects
    }

    fn import(&mut self, objects: &SignedObjects) -> Changes {
        let mut changes = Changes::default();
        self.families.import(self.family(), objects, &nobody, BY, &mut changes).unwrap();
        changes
    }

    fn family(&self) -> Id {
        self.master.certificate().family()
    }

    /// The Master, plugged in.
    fn issuer(&self) -> Issuer {
        let access = self.master.issue(&Key::new(MASTER), Role::Master, &[MASTER]).remove(0);
        Issuer {
            label: "master".into(),
            id: Some(id(MASTER)),
            called: "Key \"Master\"".into(),
            claims: Claims {
                family: Some((self.family(), Role::Master)),
                access: Some(access),
                issuing: Some(self.master.certificate().clone()),
                ..Claims::default()
            },
            ..Issuer::default()
        }
    }

    fn issuing(&self) -> Issuing {
        self.families.issuing(&self.issuer()).unwrap()
    }

    /// Keeps what the Master signs of a plan: the first objects, or all.
    fn keep_first(&mut self, plan: Box<Plan>, count: usize) -> (Result<Kept, Error>, Changes) {
        let unsigned = plan.unsigned().into_iter().take(count);
        let signed = unsigned.map(|unsigned| self.master.key.sign(unsigned)).collect();
        let (issuer, mut changes) = (self.issuer(), Changes::default());
        let kept = self.families.keep(&issuer, plan, signed, &nobody, BY, &mut changes);
        (kept, changes)
    }

    fn keep(&mut self, plan: Box<Plan>) -> (Kept, Changes) {
        let (kept, changes) = self.keep_first(plan, usize::MAX);
        (kept.unwrap(), changes)
    }

    fn prepare_lock(&self, number: u8) -> Prepared {
        let (issuer, issuing) = (self.issuer(), self.issuing());
        let key = check_request("Gate", &request(number)).unwrap();
        self.families.prepare_lock(&issuer, &issuing, key, "Gate".into(), true).unwrap()
    }

    fn add_lock(&mut self, number: u8) -> (Kept, Changes) {
        self.keep(plan(self.prepare_lock(number)))
    }

    fn prepare_rights(&self, add: &[u8], remove: &[u8]) -> Result<Prepared, Error> {
        let names = |numbers: &[u8]| LockNames {
            ids: numbers.iter().map(|number| id(*number)).collect(),
            groups: Vec::new(),
        };
        self.families.prepare_rights(
            &self.issuing(),
            id(SUB),
            &names(add),
            &names(remove),
            &Present::default(),
        )
    }

    fn prepare_revocation(&self, key: u8, reason: &str) -> Result<Prepared, Error> {
        self.families.prepare_revocation(&self.issuer(), &self.issuing(), id(key), reason)
    }

    /// The effect for the Sub Key at a Lock. `None` if no statement is effective.
    fn effect(&self, lock: u8) -> Option<Effect> {
        let registry = self.families.registry();
        let statements =
            self.families.moment().statements(registry, id(SUB), self.family()).unwrap();
        statements.in_effect_at(id(lock)).map(|(newest, _)| newest.effect)
    }

    fn lock(&self, number: u8) -> Option<Lock> {
        self.families.registry().lock(id(number)).unwrap()
    }

    fn events(&self) -> Vec<String> {
        let events = self.families.registry().audit_tail(100).unwrap().into_iter();
        events.map(|event| event.event).collect()
    }

    fn listed(&self) -> Vec<Vec<u8>> {
        let ca = self.master.certificate().public_key().id();
        let crl = self.families.registry().issuer(ca).unwrap().unwrap().crl;
        let crl = Crl::parse(&crl).unwrap();
        crl.revoked().iter().map(|entry| entry.serial.clone()).collect()
    }
}

fn nobody(_: &PublicKey) -> Option<Label> {
    None
}

fn id(number: u8) -> Id {
    Key::new(number).public().id()
}

fn request(number: u8) -> String {
    let key = Key::new(number);
    csr::to_pem(&key.sign(csr::request(&key.public()).unwrap())).unwrap()
}

fn plan(prepared: Prepared) -> Box<Plan> {
    match prepared {
        Prepared::Sign(plan) => plan,
        Prepared::Nothing(kept) => panic!("nothing to sign: {kept:?}"),
    }
}

fn nothing(prepared: Prepared) -> Kept {
    match prepared {
        Prepared::Nothing(kept) => kept,
        Prepared::Sign(plan) => panic!("{} objects to sign", plan.objects.len()),
    }
}

#[test]
fn added_lock_is_certified_once() {
    let mut bench = Bench::start();
    let first = plan(bench.prepare_lock(100));
    assert!(first.all_or_nothing() && !first.proves());
    assert!(first.card().is_some() && first.card_adds_first());
    let second = plan(bench.prepare_lock(100));
    let (kept, changes) = bench.keep(first);
    let Kept::Certified { id: lock, chain } = &kept else { panic!("{kept:?}") };
    assert_eq!((*lock, chain.matches("BEGIN").count()), (id(100), 2));
    assert!(changes.families.contains(&bench.family()));
    let known = bench.lock(100).unwrap();
    assert_eq!(known.name, "Gate");
    let chain = [Certificate::parse(&known.certificate).unwrap(), bench.master.chain[0].clone()];
    assert_eq!(verify_chain(&chain, bench.master.root(), None), Ok(bench.family()));
    assert_eq!(nothing(bench.prepare_lock(100)), kept);
    assert_eq!(bench.keep(second).0, kept, "another call was quicker");
    let present = Present::default();
    assert_eq!(bench.families.lock_count(bench.family(), &present).unwrap(), 1);
    let added = bench.families.registry().audit_tail(1).unwrap().remove(0);
    assert_eq!((added.event.as_str(), added.field("uid")), ("lock-added", Some("7")));
}

#[test]
fn first_lock_pins_the_family_of_a_master_made_elsewhere() {
    let mut bench = Bench::empty();
    let first = plan(bench.prepare_lock(100));
    assert!(first.proves());
    bench.keep(first);
    let pinned = bench.families.registry().family(bench.family()).unwrap().unwrap();
    assert_eq!((pinned.root.as_slice(), pinned.locks), (bench.master.root(), 1));
    assert_eq!(bench.families.registry().key(id(MASTER)).unwrap().unwrap().label, "master");
    assert_eq!(bench.events(), ["family-pinned", "lock-added"]);
    assert!(!plan(bench.prepare_lock(101)).proves());
}

#[test]
fn nothing_but_a_lock_is_signed_for_a_family_that_is_not_pinned() {
    let bench = Bench::start();
    let issuing = Issuing { unpinned: true, ..bench.issuing() };
    let prepared = bench.families.prepare_revocation(&bench.issuer(), &issuing, id(SUB), "lost");
    assert!(matches!(prepared, Err(Error::Unverified(_))));
}

#[test]
fn rights_change_by_one_statement() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    bench.add_lock(101);
    let add = plan(bench.prepare_rights(&[100, 101], &[]).unwrap());
    assert_eq!(add.unsigned().len(), 1);
    assert!(add.card().is_none());
    let late = plan(bench.prepare_rights(&[100], &[]).unwrap());
    let (kept, changes) = bench.keep(add);
    assert_eq!((kept, changes.keys.contains(&id(SUB))), (Kept::Nothing, true));
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    assert_eq!(nothing(bench.prepare_rights(&[101], &[]).unwrap()), Kept::Nothing);
    assert!(matches!(bench.keep_first(late, 1).0, Err(Error::Stale(_))));
    bench.keep(plan(bench.prepare_rights(&[], &[101]).unwrap()));
    assert_eq!(bench.effect(101), Some(Effect::Deny));
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    let facts = bench.families.facts("nowhere", Some(id(SUB)), None).unwrap();
    assert!(facts.name.is_none(), "the label is another Key's");
}

#[test]
fn rights_are_not_kept_without_their_signature() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let add = plan(bench.prepare_rights(&[100], &[]).unwrap());
    let (kept, changes) = bench.keep_first(add, 0);
    assert!(matches!(kept, Err(Error::JobLost)) && changes.keys.is_empty());
    assert_eq!(bench.effect(100), None);
}

#[test]
fn revoked_key_is_in_the_crl_and_gets_no_rights() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let revocation = plan(bench.prepare_revocation(SUB, "stolen").unwrap());
    assert_eq!(revocation.unsigned().len(), 2, "itself and the CRL");
    assert!(!revocation.all_or_nothing());
    bench.keep(revocation);
    assert!(bench.families.membership(id(SUB), bench.family()).unwrap().unwrap().revoked);
    assert_eq!(bench.listed(), [vec![SUB]]);
    assert_eq!(nothing(bench.prepare_revocation(SUB, "stolen").unwrap()), Kept::Nothing);
    assert!(matches!(bench.prepare_rights(&[100], &[]), Err(Error::Pair(_))));
    assert!(matches!(
        bench.prepare_revocation(MASTER, "lost"),
        Err(Error::InvalidArgument(why)) if why.contains("does not revoke itself")
    ));
}

#[test]
fn rights_by_a_revoked_backup_are_signed_again_by_the_next_call() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let target = Target::Lock(Key::new(100).public().hash());
    let leaves = vec![(target, Effect::Allow)];
    let tree = Tree::new([leaf(target, Effect::Allow)]).unwrap();
    let mut objects = bench.objects();
    let statement = bench.backup.statement(&Key::new(SUB), Some(5), &tree);
    objects.add_statement(statement, [9; 32], leaves).unwrap();
    bench.import(&objects);
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    let revocation = plan(bench.prepare_revocation(BACKUP, "lost").unwrap());
    assert_eq!(revocation.unsigned().len(), 3, "itself, the CRL, and the statement");
    let (kept, changes) = bench.keep_first(revocation, 2);
    assert_eq!(kept.unwrap(), Kept::Nothing);
    assert!(changes.families.contains(&bench.family()));
    assert!(bench.families.membership(id(BACKUP), bench.family()).unwrap().unwrap().revoked);
    assert_eq!(bench.effect(100), None, "the statement waits");
    let again = plan(bench.prepare_revocation(BACKUP, "lost").unwrap());
    assert_eq!(again.unsigned().len(), 1);
    bench.keep(again);
    assert_eq!(bench.effect(100), Some(Effect::Allow));
    assert_eq!(bench.events().last().map(String::as_str), Some("signed-anew"));
    assert_eq!(nothing(bench.prepare_revocation(BACKUP, "lost").unwrap()), Kept::Nothing);
}

#[test]
fn removed_lock_is_gone_for_good() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let prepare = |bench: &Bench| {
        bench.families.prepare_removal(&bench.issuer(), &bench.issuing(), id(100)).unwrap()
    };
    let removal = plan(prepare(&bench));
    assert_eq!(removal.unsigned().len(), 2, "itself and the CRL");
    let card = removal.card().unwrap();
    assert_eq!(card.removed, Some(Key::new(100).public().hash()));
    assert!(!removal.card_adds_first());
    bench.keep(removal);
    assert!(bench.lock(100).is_none());
    assert_eq!(bench.listed().len(), 1);
    assert_eq!(nothing(prepare(&bench)), Kept::Nothing);
    let (issuer, issuing) = (bench.issuer(), bench.issuing());
    let key = Key::new(100).public();
    let again = bench.families.prepare_lock(&issuer, &issuing, key, "Gate".into(), false);
    assert!(matches!(again, Err(Error::InvalidArgument(why)) if why.contains("removed")));
}

#[test]
fn soft_key_gets_its_certificate_and_rights_together() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let issuing = bench.issuing();
    let locks = LockNames { ids: vec![id(100)], groups: Vec::new() };
    let present = Present::default();
    let prepare = |bench: &Bench| {
        let (key, name) = (Key::new(50).public(), "Server".to_owned());
        bench.families.prepare_soft_key(&issuing, key, name, &locks, &present)
    };
    let half = plan(prepare(&bench).unwrap());
    assert!(matches!(bench.keep_first(half, 1).0, Err(Error::JobLost)));
    let whole = plan(prepare(&bench).unwrap());
    let (kept, changes) = bench.keep(whole);
    assert!(matches!(kept, Kept::Certified { id: key, .. } if key == id(50)));
    assert_eq!(changes.new_keys, [id(50)]);
    let record = bench.families.registry().key(id(50)).unwrap().unwrap();
    let facts = bench.families.facts(&record.label, Some(id(50)), None).unwrap();
    assert_eq!((facts.name.as_deref(), facts.rights), (Some("Server"), (0, 1)));
    assert!(matches!(prepare(&bench), Err(Error::InvalidArgument(_))));
}

#[test]
fn key_that_is_no_issuer_or_was_revoked_signs_nothing() {
    let bench = Bench::start();
    let issuer = bench.issuer();
    let revoked = Issuer { is_revoked: true, ..issuer.clone() };
    let claims = Claims { issuing: None, ..issuer.claims.clone() };
    let sub = Issuer { claims, ..issuer };
    for (issuer, reason) in [(revoked, "Revoked"), (sub, "NotAnIssuer")] {
        let error = bench.families.issuing(&issuer).unwrap_err();
        assert_eq!(format!("{error:?}"), format!("Pair({reason})"));
    }
}

#[test]
fn names_and_groups_change_only_with_an_issuer_of_the_family_here() {
    let mut bench = Bench::start();
    bench.add_lock(100);
    let (family, mut changes) = (bench.family(), Changes::default());
    let gate = LockNames { ids: vec![id(100)], groups: Vec::new() };
    let (none, absent) = (LockNames::default(), Present::default());
    let here = Present { issuers: vec![family], claims: Vec::new() };
    let families = &bench.families;
    let set = |present| families.set_group(family, "Gates".into(), &gate, &none, present, BY);
    assert!(matches!(set(&absent), Err(Error::KeyAbsent(_))));
    assert_eq!(set(&here).unwrap(), 1);
    let all = LockNames { ids: Vec::new(), groups: vec!["Gates".into()] };
    assert_eq!(families.entries(family, &all, &absent).unwrap().len(), 1);
    families.rename_key(id(SUB), "Anna".into(), &here, BY, &mut changes).unwrap();
    assert!(changes.keys.contains(&id(SUB)));
    families.remove_group(family, "Gates".into(), &here, BY).unwrap();
    assert!(matches!(families.entries(family, &all, &absent), Err(Error::NotFound(_))));
}

#[test]
fn refusals_are_logged_once_an_hour() {
    let bench = Bench::empty();
    let mut refused = RefusedCalls::default();
    for _ in 0..3 {
        refused.refused_call(&bench.families, Some(7), "org.keywright1.manage");
        refused.refused_objects(&bench.families, Some(7), Brought::Import);
    }
    // After a restart the log continues.
    RefusedCalls::default().refused_call(&bench.families, Some(7), "org.keywright1.manage");
    assert_eq!(bench.events(), ["not-authorized", "not-verified"]);
}
