//! Who is believed: which issuing keys stand, and which statements count.
//!
//! Every judge (a Lock, a station) gathers [`Facts`] and asks for a [`Judgement`]. It depends on
//! the facts, on when this judge first saw the revocations of seniors, and on now; never on the
//! order in which anything arrived. The rules:
//!
//! - An issuing key **stands** while a CA certificate by one that stands leads to it from the root,
//!   and nobody has revoked it whose word counts. Its depth is the number of steps from the root.
//! - Judged from the Master down: a revocation by somebody nearer to the root acts at once. Among
//!   equals, one that stands puts the other out; those that revoke each other, or themselves, are
//!   all out.
//! - Revoking a **senior** (anybody nearer to the root) acts [`REVOKE_DELAY`] after this judge first
//!   saw it, for the issuing key and for the access key alike. The senior's **objection** is its own
//!   revocation of the revoker: it puts the revoker out, so that the revoker's word is void,
//!   whenever the objection arrives. Later than the delay it still counts: else whoever holds a
//!   stolen Backup and can keep messages back would unseat the Master for good.
//! - A senior that was put out so is **deposed**: what it allowed is void; whom it certified and
//!   whom it revoked stays so.
//! - What is signed by an issuing key that was **revoked**, or **orphaned** because its own issuers
//!   were, allows nothing. Its denials stay in force up to the version that the revocation names
//!   ([`crate::statement::RevokedIssuer::denials_until`]), a revocation as a denial of exactly that
//!   version, until somebody who stands says something newer. So whoever carries messages cannot
//!   undo a denial by delivering the revocation of its signer without what was signed anew, and a
//!   thief cannot deny anything that is granted later.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Certificate, Effect, PublicKey, Role, VerifiedStatement, rights::VersionedEffect,
    statement::RevokedIssuer, tree::Hash,
};

mod standing;
#[cfg(test)]
mod tests;

/// How many days the revocation of a senior waits for an objection, where `revoke_delay_days` says nothing else.
pub const REVOKE_DELAY_DAYS: u32 = 7;
/// The largest `revoke_delay_days`, of a station and of a Lock.
pub const MAX_REVOKE_DELAY_DAYS: u32 = 365;
/// [`REVOKE_DELAY_DAYS`] in seconds.
pub const REVOKE_DELAY: u64 = REVOKE_DELAY_DAYS as u64 * 86_400;

/// What a judge knows of a family's issuing keys, all of it verified. Keys are the SHA-256 of their
/// SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    root: Hash,
    /// Issuer and CA, for each CA certificate but the root's.
    issued: BTreeSet<(Hash, Hash)>,
    /// Access key (9A) and issuing key (9C) of Masters and Backups.
    access: BTreeSet<(Hash, Hash)>,
    /// When this judge first saw each revocation, in Unix seconds.
    revocations: BTreeMap<Revocation, u64>,
}

/// Who revokes whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revocation {
    /// The issuing key that signed it.
    pub signer: Hash,
    /// The access key that is revoked.
    pub subject: Hash,
    /// The issuing key that is revoked with it.
    pub issuer: Option<RevokedIssuer>,
}

/// How an issuing key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// What it signs counts.
    Stands,
    /// Revoked by those below it, and the delay is over.
    Deposed,
    /// Its own issuers were revoked: it needs a new CA certificate. What it signed is void until
    /// then, and counts again afterwards.
    Orphaned,
    /// Revoked.
    Revoked,
}

/// Who stands, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    positions: BTreeMap<Hash, Position>,
    /// The issuing keys of each access key of a Master or Backup.
    owners: BTreeMap<Hash, Vec<Hash>>,
    /// Revocations (signer and access key) whose delay is over.
    due: BTreeSet<(Hash, Hash)>,
    next_change: Option<u64>,
}

/// The place of an issuing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    standing: Standing,
    /// Steps from the root; none where no chain of standing ones leads to it.
    depth: Option<u8>,
    /// Its denials stay in force up to this version, once it does not stand.
    denials_until: u64,
}

impl Facts {
    /// What is known at first: the pinned root.
    pub fn new(root: &PublicKey) -> Self {
        Self {
            root: root.hash(),
            issued: BTreeSet::new(),
            access: BTreeSet::new(),
            revocations: BTreeMap::new(),
        }
    }

    /// Learns who certified whom from a chain that [`crate::verify_chain`] has verified up to the
    /// pinned root: of a statement, of a Key or of a Lock. The more of them, the better the
    /// judgement: a Master is protected as one only where its access certificate was seen. Answers
    /// whether anything is new.
    pub fn learn_chain(&mut self, chain: &[Certificate]) -> bool {
        let mut new = false;
        for pair in chain.windows(2) {
            let [subject, issuer] = pair else { continue };
            let (subject_key, issuer_key) =
                (subject.public_key().hash(), issuer.public_key().hash());
            if subject.is_ca() {
                new |= subject_key != self.root && self.issued.insert((issuer_key, subject_key));
            } else if subject.role().is_some_and(Role::is_issuer) {
                new |= self.access.insert((subject_key, issuer_key));
            }
        }
        new
    }

    /// Learns a statement's chain and, where it is a revocation, the revocation. That a statement
    /// without version has the leaf `*` that denies, alone, was verified by the caller.
    /// `first_seen` is when this judge first saw it, in Unix seconds; the earliest one told counts.
    /// Answers whether anything is new.
    pub fn learn_statement(&mut self, statement: &VerifiedStatement, first_seen: u64) -> bool {
        let new = self.learn_chain(&statement.chain);
        let (None, Some(signer)) = (statement.version, statement.signer()) else { return new };
        let (signer, subject) = (signer.hash(), statement.subject.hash());
        self.learn_revocation(Revocation { signer, subject, issuer: statement.revokes }, first_seen)
            || new
    }

    /// The same for a revocation that was verified before. Answers whether it is new.
    pub fn learn_revocation(&mut self, revocation: Revocation, first_seen: u64) -> bool {
        let new = !self.revocations.contains_key(&revocation);
        let seen = self.revocations.entry(revocation).or_insert(first_seen);
        *seen = first_seen.min(*seen);
        new
    }

    /// The revocations, and when each was first seen: for the judge to keep.
    pub fn revocations(&self) -> impl Iterator<Item = (&Revocation, u64)> {
        self.revocations.iter().map(|(revocation, seen)| (revocation, *seen))
    }

    /// Who stands. `delay` is in seconds ([`REVOKE_DELAY`]), `now` in Unix seconds.
    pub fn judge(&self, delay: u64, now: u64) -> Judgement {
        let acts = |seen: u64| seen.saturating_add(delay);
        let is_due = |revocation: &Revocation| {
            self.revocations.get(revocation).is_some_and(|seen| acts(*seen) <= now)
        };
        let positions = standing::of(self, &is_due);
        let mut owners = BTreeMap::<Hash, Vec<Hash>>::new();
        for (access, issuing) in &self.access {
            owners.entry(*access).or_default().push(*issuing);
        }
        let pairs = self.revocations.keys().filter(|revocation| is_due(revocation));
        // A Sub Key's acts at once.
        let delayed = self.revocations.iter().filter(|(revocation, _)| {
            revocation.issuer.is_some() || owners.contains_key(&revocation.subject)
        });
        let next_change = delayed.map(|(_, seen)| acts(*seen)).filter(|at| *at > now).min();
        Judgement {
            positions,
            due: pairs.map(|revocation| (revocation.signer, revocation.subject)).collect(),
            owners,
            next_change,
        }
    }
}

impl Judgement {
    /// How an issuing key stands; none where it is unknown.
    pub fn standing(&self, issuing_key: &Hash) -> Option<Standing> {
        self.positions.get(issuing_key).map(|position| position.standing)
    }

    /// Whether the word of an issuing key counts that a Lock is removed. What one that was put out by those below it
    /// had removed stays so; of one that is not known nothing else is known either.
    pub fn may_remove(&self, issuing_key: &Hash) -> bool {
        let standing = self.standing(issuing_key);
        standing.is_none_or(|standing| matches!(standing, Standing::Stands | Standing::Deposed))
    }

    /// How many steps an issuing key is from the root; none where nobody who stands leads to it.
    pub fn depth(&self, issuing_key: &Hash) -> Option<u8> {
        self.positions.get(issuing_key)?.depth
    }

    /// When the judgement on these facts may be another, in Unix seconds: the next end of a delay.
    pub const fn next_change(&self) -> Option<u64> {
        self.next_change
    }

    /// What a statement's word on one Lock counts for: `said` as it is, less, or nothing. `signer`
    /// is its issuing key, `subject` the access key it is about. Give all that is left to
    /// [`crate::rights::newest`].
    pub fn weigh(
        &self,
        signer: &Hash,
        subject: &Hash,
        said: VersionedEffect,
    ) -> Option<VersionedEffect> {
        let position = self.positions.get(signer)?;
        match (position.standing, said.version) {
            (Standing::Stands | Standing::Deposed, None) => {
                let waits =
                    self.is_senior(subject, position) && !self.due.contains(&(*signer, *subject));
                (!waits).then_some(said)
            }
            (Standing::Stands, Some(_)) => Some(said),
            (_, version) => {
                // Whoever still stands can speak for itself.
                let until = position.denials_until;
                let lingers = said.effect == Effect::Deny
                    && version.is_none_or(|version| version <= until)
                    && !self.owners(subject).any(|owner| owner.standing == Standing::Stands);
                let version = Some(version.unwrap_or(until));
                lingers.then_some(VersionedEffect { version, effect: Effect::Deny })
            }
        }
    }

    fn owners(&self, access_key: &Hash) -> impl Iterator<Item = &Position> {
        self.owners.get(access_key).into_iter().flatten().filter_map(|ca| self.positions.get(ca))
    }

    /// Whether an access key is that of an issuer nearer to the root.
    fn is_senior(&self, access_key: &Hash, than: &Position) -> bool {
        self.owners(access_key)
            .filter(|owner| matches!(owner.standing, Standing::Stands | Standing::Deposed))
            .any(|owner| owner.depth.is_some() && owner.depth < than.depth)
    }
}
