//! Decides which issuing keys (slot 9C) of a family are trusted, and which statements are in effect.
//!
//! Stations and Locks decide alike: each gathers [`Facts`] and asks [`Facts::judge`] for a [`Judgement`]. The
//! result depends on the facts, on when this station or Lock first saw each revocation of a senior, and on the
//! present time; never on the order in which messages arrived. `docs/formats.md` ("Signers that were revoked") has the rules
//! on one page, for other implementers. In short:
//!
//! - An issuing key **stands** while a CA certificate signed by a key that stands leads to it from the root, and no
//!   revocation in effect names it. Its **depth** is the number of certificates between it and the root.
//! - Keys are judged from the root down. A revocation by a key of smaller depth acts at once. Among keys of equal depth a
//!   key that nobody revokes stands, whom it revokes does not, and what the fallen have signed is void; what cannot be
//!   decided so (circles) does not stand.
//! - The revocation of a **senior**, a key of smaller depth, acts [`REVOKE_DELAY`] after it was first seen here, unless the
//!   senior **objects** by revoking the revoker, whenever that arrives: otherwise a thief who holds a Backup and keeps
//!   messages back could remove the Master for good. The senior is then **deposed**: what it allowed is void, but the keys
//!   that it certified stay certified and those that it revoked stay revoked.
//! - What a key that does not stand has signed allows nothing. Its denials stay, up to the version that its revocation
//!   names ([`crate::statement::RevokedIssuer::denials_until`]): a later one counts as one of that version, and so does a
//!   revocation. So a broker that delivers the revocation of a signer and keeps the re-issued statements back undoes no
//!   denial, and a thief cannot deny what is granted later.

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
/// How many CA keys count below one first-level CA. Of more, those with the smallest hashes do, whatever came first: a thief
/// who makes CAs without end can only displace those below the CA that was stolen.
pub const MAX_CAS_BELOW: usize = 256;
/// [`REVOKE_DELAY_DAYS`] in seconds.
pub const REVOKE_DELAY: u64 = REVOKE_DELAY_DAYS as u64 * 86_400;

/// The verified certificates and revocations of a family on which a [`Judgement`] is based. Keys are named by the
/// SHA-256 of their SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    root: Hash,
    /// The first-level CA of the chain ([`first_level`]), issuer and CA, for each CA certificate but the root's.
    issued: BTreeSet<(Hash, Hash, Hash)>,
    /// The CAs below each first-level CA: at most [`MAX_CAS_BELOW`].
    below: BTreeMap<Hash, BTreeSet<Hash>>,
    /// Access key (9A) and issuing key (9C) of Masters and Backups.
    access: BTreeSet<(Hash, Hash)>,
    /// When each revocation was first seen here, in Unix seconds.
    revocations: BTreeMap<Revocation, u64>,
}

/// A verified revocation: its signer, and the keys that it revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revocation {
    /// The issuing key that signed it.
    pub signer: Hash,
    /// The access key that is revoked.
    pub subject: Hash,
    /// The issuing key that is revoked with it.
    pub issuer: Option<RevokedIssuer>,
}

/// Whether an issuing key is trusted, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Trusted: what it signs is in effect.
    Stands,
    /// Revoked by keys of greater depth, and the delay is over.
    Deposed,
    /// All of its issuers were revoked. What it signed is void until it gets a new CA certificate, and in effect again
    /// afterwards.
    Orphaned,
    /// Revoked.
    Revoked,
}

/// Which issuing keys stand at one moment; made by [`Facts::judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    positions: BTreeMap<Hash, Position>,
    /// The issuing keys of each access key of a Master or Backup.
    owners: BTreeMap<Hash, Vec<Hash>>,
    /// Revocations (signer and access key) whose delay is over.
    due: BTreeSet<(Hash, Hash)>,
    next_change: Option<u64>,
}

/// Standing and depth of one issuing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    standing: Standing,
    /// Certificates from the root; none where no chain of keys that stand leads to it.
    depth: Option<u8>,
    /// If it does not stand: up to which version its denials stay in effect; without end where none.
    bound: Option<u64>,
}

/// The first-level CA of a verified chain: the one that the root has certified. A chain without one is the root's own. Whatever
/// is bounded so that a thief cannot use all room up is counted for each first-level CA, because only the root makes those.
pub fn first_level(chain: &[Certificate]) -> Hash {
    let mut from_root = chain.iter().rev().filter(|certificate| certificate.is_ca());
    let root = from_root.next();
    from_root.next().or(root).map(|ca| ca.public_key().hash()).unwrap_or_default()
}

/// What is known of one issuing key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuer {
    /// The issuing keys that have certified it. The root has none.
    pub certified_by: BTreeSet<Hash>,
    /// The access keys that it has certified as those of its own Key. Where there is none, nobody knows whose it is.
    pub access_keys: BTreeSet<Hash>,
}

impl Facts {
    /// The facts of a family of which only the pinned root is known.
    pub fn new(root: &PublicKey) -> Self {
        Self {
            root: root.hash(),
            issued: BTreeSet::new(),
            below: BTreeMap::new(),
            access: BTreeSet::new(),
            revocations: BTreeMap::new(),
        }
    }

    /// Adds the certificates of a chain that [`crate::verify_chain`] has verified up to the pinned root: of a
    /// statement, a Key or a Lock. Add every chain that is known: a Master's access key is protected by the delay only
    /// where its access certificate was added. Returns whether anything is new.
    pub fn learn_chain(&mut self, chain: &[Certificate]) -> bool {
        let group = first_level(chain);
        let mut new = false;
        for pair in chain.windows(2).rev() {
            let [subject, issuer] = pair else { continue };
            let (subject_key, issuer_key) =
                (subject.public_key().hash(), issuer.public_key().hash());
            if subject.is_ca() {
                new |= subject_key != self.root && self.learn_ca(group, issuer_key, subject_key);
            } else if subject.role().is_some_and(Role::is_issuer) {
                new |= self.access.insert((subject_key, issuer_key));
            }
        }
        new
    }

    fn learn_ca(&mut self, group: Hash, issuer: Hash, ca: Hash) -> bool {
        let below = self.below.entry(group).or_default();
        if ca != group {
            below.insert(ca);
        }
        if below.len() > MAX_CAS_BELOW
            && let Some(displaced) = below.pop_last()
        {
            self.issued.retain(|(of, by, ca)| *of != group || ![*by, *ca].contains(&displaced));
        }
        let counts = |key: &Hash| *key == group || below.contains(key);
        (counts(&issuer) || issuer == self.root)
            && counts(&ca)
            && self.issued.insert((group, issuer, ca))
    }

    /// Issuer and CA of each CA certificate.
    fn issued(&self) -> BTreeSet<(Hash, Hash)> {
        self.issued.iter().map(|(_, issuer, ca)| (*issuer, *ca)).collect()
    }

    /// Every issuing key of the family that counts, whether it stands or not.
    pub fn issuers(&self) -> BTreeMap<Hash, Issuer> {
        let mut issuers = BTreeMap::from([(self.root, Issuer::default())]);
        for (issuer, ca) in self.issued() {
            issuers.entry(ca).or_default().certified_by.insert(issuer);
        }
        for (access, issuing) in &self.access {
            if let Some(issuer) = issuers.get_mut(issuing) {
                issuer.access_keys.insert(*access);
            }
        }
        issuers
    }

    /// Adds a statement's chain and, where it is a revocation, the revocation. The caller has verified that a statement
    /// without version has one leaf, which denies `*`. `first_seen` is in Unix seconds; of several the earliest is
    /// kept. Returns whether anything is new.
    pub fn learn_statement(&mut self, statement: &VerifiedStatement, first_seen: u64) -> bool {
        let new = self.learn_chain(&statement.chain);
        let (None, Some(signer)) = (statement.version, statement.signer()) else { return new };
        let (signer, subject) = (signer.hash(), statement.subject.hash());
        self.learn_revocation(Revocation { signer, subject, issuer: statement.revokes }, first_seen)
            || new
    }

    /// Adds a revocation that was verified before; otherwise like [`Facts::learn_statement`].
    pub fn learn_revocation(&mut self, revocation: Revocation, first_seen: u64) -> bool {
        let new = !self.revocations.contains_key(&revocation);
        let seen = self.revocations.entry(revocation).or_insert(first_seen);
        *seen = first_seen.min(*seen);
        new
    }

    /// The revocations, each with the time at which it was first seen, which the caller has to store.
    pub fn revocations(&self) -> impl Iterator<Item = (&Revocation, u64)> {
        self.revocations.iter().map(|(revocation, seen)| (revocation, *seen))
    }

    /// Decides which keys stand. `delay` is in seconds ([`REVOKE_DELAY`]), `now` in Unix seconds.
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
        // The revocation of a Sub Key acts at once.
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
    /// The standing of an issuing key; none where the key is unknown.
    pub fn standing(&self, issuing_key: &Hash) -> Option<Standing> {
        self.positions.get(issuing_key).map(|position| position.standing)
    }

    /// Whether a removal of a Lock that this issuing key signed is in effect. Removals by a deposed key stay in effect,
    /// and so do those by an unknown key, because nothing speaks against it.
    pub fn may_remove(&self, issuing_key: &Hash) -> bool {
        let standing = self.standing(issuing_key);
        standing.is_none_or(|standing| matches!(standing, Standing::Stands | Standing::Deposed))
    }

    /// How many certificates an issuing key is from the root; none where no chain of keys that stand leads to it.
    pub fn depth(&self, issuing_key: &Hash) -> Option<u8> {
        self.positions.get(issuing_key)?.depth
    }

    /// When the next delay ends, in Unix seconds: judge again then.
    pub const fn next_change(&self) -> Option<u64> {
        self.next_change
    }

    /// What remains of a statement's effect on one Lock, given the standing of its signer: all of `said`, a denial of a
    /// bounded version, or nothing. `signer` is the issuing key, `subject` the access key that the statement is about.
    /// [`crate::rights::newest`] decides among the results of all statements.
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
            // An issuer that stands is not denied by a key that does not.
            _ if said.effect == Effect::Allow
                || self.owners(subject).any(|owner| owner.standing == Standing::Stands) =>
            {
                None
            }
            (_, version) => {
                let version = match (version, position.bound) {
                    (version, None) => version,
                    (version, Some(bound)) => Some(version.map_or(bound, |it| it.min(bound))),
                };
                Some(VersionedEffect { version, effect: Effect::Deny })
            }
        }
    }

    fn owners(&self, access_key: &Hash) -> impl Iterator<Item = &Position> {
        self.owners.get(access_key).into_iter().flatten().filter_map(|ca| self.positions.get(ca))
    }

    /// Whether an access key belongs to an issuer of smaller depth.
    fn is_senior(&self, access_key: &Hash, than: &Position) -> bool {
        self.owners(access_key)
            .filter(|owner| matches!(owner.standing, Standing::Stands | Standing::Deposed))
            .any(|owner| owner.depth.is_some() && owner.depth < than.depth)
    }
}
