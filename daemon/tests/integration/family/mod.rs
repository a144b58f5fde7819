//! A family of software keys, and stations that import its signed objects, without tokens and without a bus.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../../proto/tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::leaf;
pub use common::{Ca, Key, NOW};
use keywright_proto::{
    Certificate, Confirmation, Effect, Id, RevokedIssuer, Role, SignedObjects, Target, Tree,
    rights::VersionedEffect,
};
use keywrightd::{
    config::Config,
    error::Error,
    outbox::Output,
    queries::{self, Page},
    registry::{
        Batch, Registry,
        records::{Family, Issuer},
    },
    station::{Handle, Reply, Station},
    trust::Moment,
};
use tokio::sync::mpsc::UnboundedReceiver;

const SEED: [u8; 32] = [9; 32];
/// Sub Keys, and Locks.
pub const SUBS: [u8; 2] = [31, 32];
pub const LOCKS: std::ops::Range<u8> = 100..104;
/// The Master's access key.
pub const MASTERS_KEY: u8 = 11;
pub const EVERYWHERE: ToState = ToState::Everywhere;
/// The moment of every trust decision. No delay is over, so the times at which stations saw a statement do not matter.
pub const MOMENT: Moment = Moment { now: 0, delay: u64::MAX };

/// The effects of a statement at Locks, which are named by number.
pub type Words = Vec<(u8, Effect)>;

/// A statement to be signed by a CA.
#[derive(Debug, Clone)]
pub enum ToState {
    /// The rights of a Sub Key: its number, the version, and the effects at Locks.
    Rights(u8, u64, Words),
    /// The Master may access every Lock.
    Everywhere,
    /// A denial at every Lock: the Key, the version.
    Suspend(u8, u64),
    /// A Sub Key is revoked.
    RevokeSub(u8),
    /// Another CA is revoked; its denials stay in effect up to this version.
    RevokeCa(usize, u64),
}

/// A Master (1), Backups 2 and 3 by it, 4 by 2.
pub static CAS: LazyLock<Vec<Ca>> = LazyLock::new(|| {
    let master = Ca::master(Key::new(1));
    let (two, three) = (master.backup(Key::new(2), 2), master.backup(Key::new(3), 3));
    let four = two.backup(Key::new(4), 4);
    vec![master, two, three, four]
});

pub fn root() -> &'static Certificate {
    CAS[0].certificate()
}

pub fn lock(number: u8) -> [u8; 32] {
    Key::new(number).public().hash()
}

/// The certificates of the whole family, without statements.
pub fn nothing_stated() -> SignedObjects {
    let mut objects = SignedObjects::new(root().clone()).unwrap();
    let mut add = |certificate: &Certificate| drop(objects.add_certificate(certificate.clone()));
    for (ca, number) in CAS.iter().zip(11..) {
        let role = if number == 11 { Role::Master } else { Role::Backup };
        add(ca.certificate());
        add(&ca.issue(&Key::new(number), role, &[number])[0]);
    }
    for (number, role) in
        SUBS.map(|n| (n, Role::Sub)).into_iter().chain(LOCKS.map(|n| (n, Role::Lock)))
    {
        add(&CAS[0].issue(&Key::new(number), role, &[number])[0]);
    }
    objects
}

/// Signs a statement and adds it to the objects; returns its digest, which confirmations name.
pub fn add_statement(objects: &mut SignedObjects, by: usize, saying: &ToState) -> [u8; 32] {
    let everywhere = vec![(Target::All, Effect::Deny)];
    let (cose, leaves) = match saying {
        ToState::Rights(about, version, words) => {
            let said = |(number, effect): &(u8, Effect)| (Target::Lock(lock(*number)), *effect);
            let leaves: Vec<_> = words.iter().map(said).collect();
            let tree = Tree::new(leaves.iter().map(|(to, effect)| leaf(*to, *effect))).unwrap();
            (CAS[by].statement(&Key::new(*about), Some(*version), &tree), leaves)
        }
        ToState::Everywhere => {
            let tree = Tree::new([leaf(Target::All, Effect::Allow)]).unwrap();
            let cose = CAS[by].statement(&Key::new(MASTERS_KEY), Some(1), &tree);
            (cose, vec![(Target::All, Effect::Allow)])
        }
        ToState::Suspend(about, version) => {
            let tree = Tree::new([leaf(Target::All, Effect::Deny)]).unwrap();
            (CAS[by].statement(&Key::new(*about), Some(*version), &tree), everywhere)
        }
        ToState::RevokeSub(about) => {
            (CAS[by].revocation(&Key::new(*about), None).statement, everywhere)
        }
        ToState::RevokeCa(which, denials_until) => {
            let issuing_key = CAS[*which].key.public().hash();
            let revokes = RevokedIssuer { issuing_key, denials_until: *denials_until };
            let access = Key::new(*which as u8 + 11);
            (CAS[by].revocation(&access, Some(revokes)).statement, everywhere)
        }
    };
    let digest = keywright_proto::statement::digest(&cose).unwrap();
    objects.add_statement(cose, SEED, leaves).unwrap();
    digest
}

/// A Lock's confirmation of a statement.
pub fn confirm(number: u8, statement: [u8; 32], effect: Effect, newest_version: u64) -> Vec<u8> {
    let said = Confirmation { statement, effect, newest_version };
    let key = Key::new(number);
    key.sign(said.unsigned(&key.public()).unwrap())
}

/// A station that has pinned the family and knows nothing else.
pub struct Bench {
    pub registry: Registry,
    station: Handle,
    outputs: UnboundedReceiver<Output>,
    _state: tempfile::TempDir,
}

impl Bench {
    pub fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::open(&state.path().join("registry")).unwrap();
        let (family, root) = (root().family(), root().der().to_vec());
        let chain = vec![root.clone()];
        let mut batch = Batch::new();
        batch.put_family(family, Family { root, pinned: NOW, locks: 0 });
        let issuer = Issuer { family, chain, crl: Vec::new(), to_revoke: Vec::new() };
        batch.put_issuer(family, issuer);
        registry.commit(batch).unwrap();
        let (station, outputs) = Station::start(registry.clone(), Config::default()).unwrap();
        Self { registry, station, outputs, _state: state }
    }

    /// Imports signed objects; returns how many were new.
    pub fn import(&mut self, objects: SignedObjects) -> u32 {
        self.try_import(objects).unwrap()
    }

    pub fn try_import(&mut self, objects: SignedObjects) -> Result<u32, Error> {
        let family = root().family();
        self.ask(move |station, reply| station.import_family(family, objects, reply))
    }

    /// Applies a Lock's confirmation.
    pub fn confirm(&mut self, confirmation: Vec<u8>) {
        self.ask(move |station, reply| station.apply_confirmation(confirmation, reply)).unwrap();
    }

    fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (station, outputs) = (&self.station, &mut self.outputs);
        runtime.block_on(async {
            let mut answer = std::pin::pin!(station.ask(question));
            loop {
                tokio::select! {
                    answer = &mut answer => return answer,
                    // Replies are sent with the station's outputs.
                    Some(output) = outputs.recv() => {
                        if let Output::Reply(reply) = output {
                            reply();
                        }
                    }
                }
            }
        })
    }

    /// The rights of a Key as they are listed: number of the Lock, and state.
    pub fn rights(&self, key: u8) -> Vec<(u8, String)> {
        let page = Page { after: None, limit: 100 };
        let key = Key::new(key).public().id();
        let rows = queries::rights(&self.registry, key, page, MOMENT).unwrap().0;
        let number = |id: &str| {
            LOCKS.into_iter().find(|n| Id::of_hash(&lock(*n)).to_string() == id).unwrap()
        };
        let mut rows: Vec<_> = rows.into_iter().map(|row| (number(&row.0), row.2)).collect();
        rows.sort_unstable();
        rows
    }

    pub fn objects(&self) -> SignedObjects {
        let file = queries::export(&self.registry, root().family()).unwrap();
        let (objects, left_out) = SignedObjects::decode(&file, root().der()).unwrap();
        assert_eq!(left_out, 0);
        objects
    }

    pub fn said(&self, key: u8, number: u8) -> Option<VersionedEffect> {
        let key = Key::new(key).public().id();
        let words = MOMENT.statements(&self.registry, key, root().family()).unwrap();
        words.in_effect_at(Id::of_hash(&lock(number))).map(|(said, _)| said)
    }
}
