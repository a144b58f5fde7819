//! The gate: everything that a Lock knows about Keys. It takes grants and decides which Keys are admitted.

mod chain;
mod confirmations;
mod issuers;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use keywright_proto::{
    Certificate, Effect, Facts, Judgement, PublicKey, Standing, VerifiedGrant, grant::GrantError,
    statement::PARK_AHEAD_MS, tree::Hash, verify_chain, verify_grant,
};

use crate::{
    clock::Now,
    error::{Error, Refusal},
    identity::Identity,
    key::{Key, add_chain, kept_statement},
    membership::Membership,
    record::{Entry, MAX_ENTRIES, Record, UNKNOWN_TIME},
    rules::{self, KeptStatement, Placement},
    store::{self, Store, damaged},
};

/// Limits of a gate.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many Keys it keeps that signers below one first-level CA let in; Keys that are only denied have twice as much
    /// room. A thief fills only the room of the Backup that was stolen.
    pub max_keys: usize,
    /// Seconds before the revocation of a Master, or of another senior Key, takes effect.
    pub revoke_delay: u64,
}

/// Everything that a Lock knows about Keys.
pub struct Gate {
    identity: Identity,
    membership: Membership,
    limits: Limits,
    store: Store,
    /// Second copies of the revocations.
    revocations: Store,
    keys: BTreeMap<Hash, Key>,
    /// Keys whose record cannot be read. They are not admitted, and grants for them are refused.
    damaged: BTreeSet<Hash>,
    facts: Facts,
    judgement: Judgement,
    /// The newest certificate of each CA by each of its issuers.
    authorities: BTreeMap<(Hash, Hash), Certificate>,
    /// The issuing keys that are believed; none before all records are read.
    believed: Option<BTreeSet<Hash>>,
    uptime: u64,
    /// The newest version that was ever due here.
    floor: u64,
}

/// The result of a grant that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// SHA-256 of the Key's access key.
    pub key: Hash,
    /// The statement's digest.
    pub digest: Hash,
    /// Whether the statement was known already.
    pub known: bool,
    /// Whether the statement is parked: its version is in the future.
    pub parked: bool,
}

impl Gate {
    /// Reads and verifies all records. A damaged record is logged, and its Key is not admitted.
    pub fn open(
        state: &Path,
        identity: Identity,
        membership: Membership,
        limits: Limits,
        now: Now,
    ) -> Result<Self, Error> {
        let mut facts = Facts::new(membership.root().public_key());
        facts.learn_chain(membership.chain());
        let store = Store::open(state, store::DIRECTORY)?;
        let revocations = Store::open(state, store::REVOCATIONS)?;
        let hashes: BTreeSet<Hash> = store.keys()?.into_iter().chain(revocations.keys()?).collect();
        let seen = last_seen(&store, &hashes).max(last_seen(&revocations, &hashes));
        let now = Now { uptime: seen.max(now.uptime), ..now };
        let judgement = facts.judge(limits.revoke_delay, now.uptime / 1_000);
        let mut gate = Self {
            identity,
            membership,
            limits,
            store,
            revocations,
            keys: BTreeMap::new(),
            damaged: BTreeSet::new(),
            facts,
            judgement,
            authorities: BTreeMap::new(),
            believed: None,
            uptime: now.uptime,
            floor: 0,
        };
        for hash in hashes {
            if let Err(error) = gate.load(hash, now) {
                tracing::error!("{error}");
                gate.damaged.insert(hash);
            }
        }
        let chain = gate.membership.chain().to_vec();
        gate.learn_authorities(&chain);
        gate.judge(now);
        gate.believed = Some(gate.believed_keys());
        gate.reconfirm_revoked();
        Ok(gate)
    }

    /// A delay may have ended while the service was down, so Keys that a revocation concerns are confirmed again.
    fn reconfirm_revoked(&mut self) {
        for key in self.keys.values_mut() {
            let concerned = key.statements.iter().any(|statement| {
                let standing = self.judgement.standing(&statement.signer);
                statement.content.version.is_none() || standing != Some(Standing::Stands)
            });
            if concerned {
                key.unconfirmed.extend(key.statements.iter().map(|statement| statement.digest));
            }
        }
    }

    fn load(&mut self, hash: Hash, now: Now) -> Result<(), Error> {
        // They count where the record itself is damaged or gone, too.
        let copies = self.load_copies(hash, now);
        let mut record = self.store.read(&hash)?;
        let known =
            |record: &Record, copy: &Entry| record.entries.iter().any(|e| e.grant == copy.grant);
        let missing: Vec<_> = copies.iter().filter(|copy| !known(&record, copy)).cloned().collect();
        let restored = !missing.is_empty();
        // A record with more entries than that could not be read again.
        let room = MAX_ENTRIES.saturating_sub(record.entries.len());
        record.entries.extend(missing.into_iter().take(room));
        let bad = |what: String| damaged(self.store.path(&hash), what);
        let mut key: Option<Key> = None;
        let mut verified = Vec::new();
        for entry in &record.entries {
            let grant = self.verify(&entry.grant).map_err(|error| bad(error.to_string()))?;
            if grant.statement.subject.hash() != hash {
                return Err(bad("it is about another Key".into()));
            }
            let statement = kept_statement(&grant).map_err(|error| bad(error.to_string()))?;
            let key = key.get_or_insert_with(|| Key::new(grant.statement.subject.clone()));
            key.statements.push(KeptStatement { due: entry.due, ..statement });
            if !entry.confirmed {
                key.unconfirmed.insert(statement.digest);
            }
            verified.push((grant, entry.first_seen));
        }
        let mut key = key.ok_or_else(|| bad("it is empty".into()))?;
        let chains = record.chains.iter().map(|chain| self.parse_access(chain, key.subject()));
        let chains = chains.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        key.set_chains(&chains);
        for (grant, first_seen) in &verified {
            let first_seen = if *first_seen == UNKNOWN_TIME { now.uptime } else { *first_seen };
            self.facts.learn_statement(&grant.statement, first_seen / 1_000);
            self.learn_authorities(&grant.statement.chain);
        }
        for chain in &chains {
            self.facts.learn_chain(chain);
            self.learn_authorities(chain);
        }
        if restored {
            // The record has to have what is kept in memory, in the same order.
            self.store.write(&hash, &record)?;
        }
        self.floor = self.floor.max(newest_due(&key));
        let revoked = key.statements.iter().filter(|kept| kept.content.version.is_none()).count();
        if revoked > copies.len()
            && let Err(error) = self.write_copies(&hash, &key, &record)
        {
            tracing::warn!("{error}; this revocation is kept only once for now");
        }
        self.keys.insert(hash, key);
        // The time of the first sight is unknown: count from now, and save that, so that the delay does not start
        // again at each start.
        let mut unknown =
            record.entries.iter_mut().filter(|e| e.first_seen == UNKNOWN_TIME).peekable();
        if unknown.peek().is_some() {
            unknown.for_each(|entry| entry.first_seen = now.uptime);
            if let Err(error) = self.store.write(&hash, &record) {
                tracing::warn!("{error}; the delay of a revocation may end later because of this");
            }
        }
        Ok(())
    }

    /// Learns the second copies of a Key's revocations and returns those that verify.
    fn load_copies(&mut self, hash: Hash, now: Now) -> Vec<Entry> {
        let copies = self.revocations.read(&hash).unwrap_or_else(|error| {
            tracing::error!("{error}");
            Record::default()
        });
        let mut verified = Vec::new();
        for copy in copies.entries {
            match self.verify(&copy.grant) {
                Ok(grant) if grant.statement.subject.hash() == hash => {
                    self.facts
                        .learn_statement(&grant.statement, copy.first_seen.min(now.uptime) / 1_000);
                    verified.push(copy);
                }
                _ => tracing::error!(
                    "{}",
                    damaged(self.revocations.path(&hash), "a revocation does not verify".into())
                ),
            }
        }
        verified
    }

    /// Writes the second copies of a Key's revocations.
    fn write_copies(&self, hash: &Hash, key: &Key, record: &Record) -> Result<(), Error> {
        let is_revocation = |kept: &KeptStatement| kept.content.version.is_none();
        let pairs = key.statements.iter().zip(&record.entries);
        let entries = pairs.filter(|(kept, _)| is_revocation(kept)).map(|(_, entry)| entry.clone());
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return self.revocations.delete(hash);
        }
        self.revocations.write(hash, &Record { entries, chains: Vec::new() })
    }

    fn parse_access(
        &self,
        ders: &[Vec<u8>],
        subject: &PublicKey,
    ) -> Result<Vec<Certificate>, String> {
        let chain = ders.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| error.to_string())?;
        verify_chain(&chain, self.root_der(), None).map_err(|error| error.to_string())?;
        match chain.first() {
            Some(access) if access.public_key() == subject => Ok(chain),
            _ => Err("it contains a certificate of another Key".into()),
        }
    }

    fn root_der(&self) -> &[u8] {
        self.membership.root().der()
    }

    fn verify(&self, grant: &[u8]) -> Result<VerifiedGrant, GrantError> {
        verify_grant(grant, self.root_der(), &self.identity.public().hash())
    }

    /// Judges again after some time has passed.
    pub fn judge(&mut self, now: Now) {
        let is_over = self.judgement.next_change().is_some_and(|at| at <= now.uptime / 1_000);
        let before = is_over.then(|| self.admitted_hashes(now.unix));
        self.judgement = self.facts.judge(self.limits.revoke_delay, now.uptime / 1_000);
        let is_known = |ca: &Hash| self.judgement.standing(ca).is_some();
        self.authorities.retain(|(issuer, ca), _| is_known(issuer) && is_known(ca));
        self.report_new_issuers();
        self.mark_due(now.unix);
        // No station asks at the end of a delay, so each Key whose effect changed is confirmed again.
        if let Some(before) = before {
            let after = self.admitted_hashes(now.unix);
            let clock = self.clock(now.unix);
            for hash in before.symmetric_difference(&after) {
                let Some(key) = self.keys.get_mut(hash) else { continue };
                let due = key.statements.iter().filter(|statement| !statement.is_parked(clock));
                key.unconfirmed.extend(due.map(|statement| statement.digest));
            }
        }
    }

    /// Notes which statements are due now: they stay so when the clock is set back.
    fn mark_due(&mut self, now: u64) {
        let clock = self.clock(now);
        for (hash, key) in &mut self.keys {
            let due = |kept: &KeptStatement| !kept.due && !kept.is_parked(clock);
            if !key.statements.iter().any(due) {
                continue;
            }
            for kept in key.statements.iter_mut().filter(|kept| due(kept)) {
                kept.due = true;
            }
            self.floor = self.floor.max(newest_due(key));
            let written = self.store.read(hash).and_then(|mut record| {
                for (entry, kept) in record.entries.iter_mut().zip(&key.statements) {
                    entry.due = kept.due;
                }
                self.store.write(hash, &record)
            });
            if let Err(error) = written {
                tracing::warn!(
                    "{error}; after a restart with a wrong clock this statement may wait again"
                );
            }
        }
    }

    fn admitted_hashes(&self, now: u64) -> BTreeSet<Hash> {
        self.admitted(now).map(|key| key.subject().hash()).collect()
    }

    /// Whether a revocation waits for the end of its delay.
    pub fn is_delayed(&self) -> bool {
        self.judgement.next_change().is_some()
    }

    /// Takes a grant: verifies it, compares it with the known statements, and saves it. The caller updates the
    /// outputs.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing has changed, on the disk or in memory.
    pub fn take(&mut self, bytes: &[u8], now: Now) -> Result<Accepted, Refusal> {
        let grant = self.verify(bytes)?;
        let hash = grant.statement.subject.hash();
        let mut new = kept_statement(&grant)?;
        if self.damaged.contains(&hash) {
            return self.take_for_damaged(&grant, &new, bytes, now);
        }
        self.refuse_revoked(&new)?;
        let clock = self.clock(now.unix);
        let parked = new.is_parked(clock);
        new.due = !parked;
        let statements = self.keys.get(&hash).map_or(&[][..], |key| &key.statements);
        let displaced = match rules::place(statements, &new, clock) {
            Placement::Older(known) => return Err(Refusal::Older { known }),
            Placement::Known(at) => {
                self.keep_certificate(&hash, &grant)?;
                let digest = digest_at(&self.keys, &hash, at).unwrap_or(new.digest);
                return Ok(Accepted { key: hash, digest, known: true, parked });
            }
            Placement::Kept(displaced) => displaced,
        };
        self.make_room(&hash, &new, &grant, now)?;
        let mut record = self.store.read(&hash).map_err(not_saved)?;
        let mut key = match self.keys.get(&hash) {
            Some(key) => key.clone(),
            None => Key::new(grant.statement.subject.clone()),
        };
        let is_revocation = |kept: &KeptStatement| kept.content.version.is_none();
        let mut copies_change = is_revocation(&new);
        for at in displaced.iter().rev() {
            let gone = key.statements.remove(*at);
            copies_change |= is_revocation(&gone);
            key.unconfirmed.remove(&gone.digest);
            record.entries.remove(*at);
        }
        if record.entries.len() >= MAX_ENTRIES {
            let at = rules::evictable(&key.statements, &new, &hash, &self.judged_with(&grant, now));
            let at = at.ok_or(Refusal::TooManySigners)?;
            let gone = key.statements.remove(at);
            copies_change |= is_revocation(&gone);
            key.unconfirmed.remove(&gone.digest);
            record.entries.remove(at);
        }
        key.statements.push(new);
        key.unconfirmed.insert(new.digest);
        let first_seen = now.uptime;
        let due = new.due;
        record.entries.push(Entry { grant: bytes.to_vec(), first_seen, confirmed: false, due });
        add_chain(&mut record, &grant.access_chain);
        let chains = self.parse_chains(&record, key.subject())?;
        key.set_chains(&chains);
        if copies_change {
            self.write_copies(&hash, &key, &record).map_err(not_saved)?;
        }
        self.store.write(&hash, &record).map_err(not_saved)?;
        // From here on it is saved, even at a power cut.
        self.floor = self.floor.max(newest_due(&key));
        self.keys.insert(hash, key);
        self.learn(&grant, now);
        Ok(Accepted { key: hash, digest: new.digest, known: false, parked })
    }

    /// A Key whose record is damaged is not admitted, and its revocation may still revoke an issuing key.
    fn take_for_damaged(
        &mut self,
        grant: &VerifiedGrant,
        new: &KeptStatement,
        bytes: &[u8],
        now: Now,
    ) -> Result<Accepted, Refusal> {
        let hash = grant.statement.subject.hash();
        let mut copies = self.revocations.read(&hash).unwrap_or_default();
        if new.content.version.is_some() || copies.entries.len() >= MAX_ENTRIES {
            return Err(Refusal::DamagedKey(self.store.path(&hash)));
        }
        let known = copies.entries.iter().any(|copy| copy.grant == bytes);
        if !known {
            let (grant, first_seen) = (bytes.to_vec(), now.uptime);
            copies.entries.push(Entry { grant, first_seen, confirmed: false, due: true });
            self.revocations.write(&hash, &copies).map_err(not_saved)?;
        }
        self.learn(grant, now);
        Ok(Accepted { key: hash, digest: new.digest, known, parked: false })
    }

    fn learn(&mut self, grant: &VerifiedGrant, now: Now) {
        let new = self.facts.learn_statement(&grant.statement, now.uptime / 1_000);
        let chain = self.facts.learn_chain(&grant.access_chain);
        self.learn_authorities(&grant.statement.chain);
        self.learn_authorities(&grant.access_chain);
        if new || chain {
            self.judge(now);
        }
    }

    /// The judgement with this grant included: its signer may be unknown yet, and it may revoke somebody.
    fn judged_with(&self, grant: &VerifiedGrant, now: Now) -> Judgement {
        let mut facts = self.facts.clone();
        facts.learn_statement(&grant.statement, now.uptime / 1_000);
        facts.judge(self.limits.revoke_delay, now.uptime / 1_000)
    }

    /// A revoked signer can add no allow. Its denials are kept.
    fn refuse_revoked(&self, new: &KeptStatement) -> Result<(), Refusal> {
        match self.judgement.standing(&new.signer) {
            Some(Standing::Revoked) if new.content.effect == Effect::Allow => {
                Err(Refusal::RevokedSigner)
            }
            _ => Ok(()),
        }
    }

    /// Adds the certificate of a known grant, if the certificate is new.
    fn keep_certificate(&mut self, hash: &Hash, grant: &VerifiedGrant) -> Result<(), Refusal> {
        let mut record = self.store.read(hash).map_err(not_saved)?;
        if !add_chain(&mut record, &grant.access_chain) {
            return Ok(());
        }
        let chains = self.parse_chains(&record, &grant.statement.subject)?;
        self.store.write(hash, &record).map_err(not_saved)?;
        if let Some(key) = self.keys.get_mut(hash) {
            key.set_chains(&chains);
        }
        self.facts.learn_chain(&grant.access_chain);
        self.learn_authorities(&grant.access_chain);
        Ok(())
    }

    fn parse_chains(
        &self,
        record: &Record,
        subject: &PublicKey,
    ) -> Result<Vec<Vec<Certificate>>, Refusal> {
        let chains = record.chains.iter().map(|chain| self.parse_access(chain, subject));
        let path = self.store.path(&subject.hash());
        chains.collect::<Result<_, _>>().map_err(|_| Refusal::DamagedKey(path))
    }

    fn clock(&self, now: u64) -> rules::Clock {
        rules::Clock { wall: self.wall_clock(now), floor: self.floor }
    }

    /// The wall clock, if it is set: a time before the family's beginning means that it is not.
    fn wall_clock(&self, now: u64) -> Option<u64> {
        (now / 1_000 >= self.membership.root().not_before()).then_some(now)
    }

    /// The least uptime of this Lock: that of the latest record.
    pub const fn uptime(&self) -> u64 {
        self.uptime
    }

    /// Whether this Lock has no grant yet.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The Keys that are admitted.
    pub fn admitted(&self, now: u64) -> impl Iterator<Item = &Key> {
        self.keys.values().filter(move |key| self.effect(key, now) == Effect::Allow)
    }

    fn effect(&self, key: &Key, now: u64) -> Effect {
        rules::effect(&key.statements, &key.subject, &self.judgement, self.clock(now))
    }

    /// When a Key's effect changes without an event, in Unix milliseconds.
    pub fn next_change(&self, now: Now) -> Option<u64> {
        let clock = self.clock(now.unix);
        let parked = self.keys.values().flat_map(|key| &key.statements);
        let parked = parked.filter(|statement| statement.is_parked(clock));
        let due = parked.filter_map(|statement| statement.content.version);
        let due = due.map(|version| version.saturating_sub(PARK_AHEAD_MS));
        let judged = self.judgement.next_change().map(|at| {
            let left = at.saturating_mul(1_000).saturating_sub(now.uptime);
            now.unix.saturating_add(left)
        });
        due.chain(judged).min()
    }

    /// This Lock's identity key.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// This Lock's certificate chain.
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }
}

/// The latest time at which a grant arrived. Unreadable records are reported when they are loaded.
fn last_seen(store: &Store, hashes: &BTreeSet<Hash>) -> u64 {
    let records = hashes.iter().filter_map(|hash| store.read(hash).ok());
    let seen = records.flat_map(|record| record.entries).map(|entry| entry.first_seen);
    seen.filter(|seen| *seen != UNKNOWN_TIME).max().unwrap_or_default()
}

/// The newest version about a Key that was ever due.
fn newest_due(key: &Key) -> u64 {
    let due = key.statements.iter().filter(|kept| kept.due);
    due.filter_map(|kept| kept.content.version).max().unwrap_or_default()
}

fn digest_at(keys: &BTreeMap<Hash, Key>, hash: &Hash, at: usize) -> Option<Hash> {
    Some(keys.get(hash)?.statements.get(at)?.digest)
}

fn not_saved(error: Error) -> Refusal {
    Refusal::NotSaved(Box::new(error))
}
