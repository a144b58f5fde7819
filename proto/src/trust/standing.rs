//! Finds the standing of every issuing key: from the root down, then seniors that were deposed, then orphans. Every step is
//! linear in the number of certificates and revocations, because a thief may sign as many as are accepted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, btree_map::Entry},
};

use super::{Facts, Position, Revocation, Standing};
use crate::{profile::MAX_CAS, tree::Hash};

/// The position of every known issuing key. `is_due` says whether the delay of a revocation is over.
pub(super) fn of(facts: &Facts, is_due: &impl Fn(&Revocation) -> bool) -> BTreeMap<Hash, Position> {
    let mut issued = BTreeMap::<Hash, Vec<Hash>>::new();
    for (issuer, ca) in facts.issued() {
        issued.entry(issuer).or_default().push(ca);
    }
    let mut family = Family { revocations: revocations(facts), issued, positions: BTreeMap::new() };
    let mut level = BTreeSet::from([facts.root]);
    for depth in 0..MAX_CAS as u8 {
        family.place_level(&level, depth);
        level = family.certified_by_standing(&level);
    }
    family.depose(is_due);
    family.place_orphans();
    family.positions
}

struct Family<'a> {
    /// The revocations of each issuing key.
    revocations: BTreeMap<Hash, Vec<&'a Revocation>>,
    /// The CAs that each issuing key has certified.
    issued: BTreeMap<Hash, Vec<Hash>>,
    positions: BTreeMap<Hash, Position>,
}

/// The revocations of each issuing key: those that name it, and those of an access key that it has certified as its own.
fn revocations(facts: &Facts) -> BTreeMap<Hash, Vec<&Revocation>> {
    let mut of_access = BTreeMap::<Hash, Vec<Hash>>::new();
    for (access, issuing) in &facts.access {
        of_access.entry(*access).or_default().push(*issuing);
    }
    let mut revocations = BTreeMap::<Hash, Vec<&Revocation>>::new();
    for revocation in facts.revocations.keys() {
        let own = of_access.get(&revocation.subject).into_iter().flatten().copied();
        let named = revocation.issuer.map(|issuer| issuer.issuing_key);
        for issuing in own.chain(named).collect::<BTreeSet<_>>() {
            revocations.entry(issuing).or_default().push(revocation);
        }
    }
    revocations
}

impl Family<'_> {
    fn stands(&self, ca: &Hash) -> bool {
        self.positions.get(ca).is_some_and(|position| position.standing == Standing::Stands)
    }

    fn certified_by_standing(&self, level: &BTreeSet<Hash>) -> BTreeSet<Hash> {
        let standing = level.iter().filter(|ca| self.stands(ca));
        let next = standing.filter_map(|ca| self.issued.get(ca)).flatten().copied();
        next.filter(|ca| !self.positions.contains_key(ca)).collect()
    }

    /// Places the keys of one depth: first those that a key of smaller depth has revoked, then the others.
    fn place_level(&mut self, level: &BTreeSet<Hash>, depth: u8) {
        let from_above = level.iter().filter(|ca| {
            let mut signers = self.on(ca).map(|revocation| &revocation.signer);
            signers.any(|signer| self.stands(signer))
        });
        let from_above: BTreeSet<Hash> = from_above.copied().collect();
        let rest: BTreeSet<Hash> = level.difference(&from_above).copied().collect();
        let unrevoked = self.unrevoked_among(&rest);
        for ca in level {
            let standing =
                if unrevoked.contains(ca) { Standing::Stands } else { Standing::Revoked };
            self.set(ca, Position { standing, depth: Some(depth), bound: None });
        }
        for ca in level.difference(&unrevoked) {
            let bound = self.bound(self.on(ca));
            self.set(ca, Position { standing: Standing::Revoked, depth: Some(depth), bound });
        }
    }

    /// Which of these keys of one depth are not revoked by each other. A key that nobody revokes stands; whom it revokes
    /// does not; what one who does not stand has signed is void. What cannot be decided so does not stand: keys that
    /// revoke each other in a circle, or themselves, and those that they revoke.
    fn unrevoked_among(&self, equals: &BTreeSet<Hash>) -> BTreeSet<Hash> {
        let mut revoked_by = BTreeMap::<Hash, BTreeSet<Hash>>::new();
        let mut accusers = BTreeMap::<Hash, usize>::new();
        for ca in equals {
            let signers: BTreeSet<Hash> = self.on(ca).map(|by| by.signer).collect();
            for signer in signers.intersection(equals) {
                revoked_by.entry(*signer).or_default().insert(*ca);
                *accusers.entry(*ca).or_default() += 1;
            }
        }
        let mut ahead: Vec<Hash> =
            equals.iter().filter(|ca| !accusers.contains_key(*ca)).copied().collect();
        let (mut unrevoked, mut revoked) = (BTreeSet::new(), BTreeSet::new());
        while let Some(standing) = ahead.pop() {
            unrevoked.insert(standing);
            for fallen in revoked_by.get(&standing).into_iter().flatten() {
                if !revoked.insert(*fallen) {
                    continue;
                }
                for accused in revoked_by.get(fallen).into_iter().flatten() {
                    let Some(left) = accusers.get_mut(accused) else { continue };
                    *left -= 1;
                    if *left == 0 && !revoked.contains(accused) {
                        ahead.push(*accused);
                    }
                }
            }
        }
        unrevoked
    }

    /// Deposes seniors whose revocation is due, looking at the deepest first.
    fn depose(&mut self, is_due: &impl Fn(&Revocation) -> bool) {
        let standing = self.positions.iter().filter(|(_, p)| p.standing == Standing::Stands);
        let mut upwards: Vec<(Option<u8>, Hash)> =
            standing.map(|(ca, position)| (position.depth, *ca)).collect();
        upwards.sort_unstable_by(|one, other| other.cmp(one));
        for (depth, ca) in upwards {
            let is_junior = |signer: &Hash| {
                self.stands(signer) && self.positions.get(signer).is_some_and(|p| p.depth > depth)
            };
            let due: Vec<_> =
                self.on(&ca).filter(|by| is_junior(&by.signer) && is_due(by)).collect();
            if due.is_empty() {
                continue;
            }
            let bound = self.bound(due.into_iter());
            self.set(&ca, Position { standing: Standing::Deposed, depth, bound });
        }
    }

    /// Places the keys to which no chain of standing keys leads: revoked where a revocation in effect names them, otherwise
    /// orphaned until they are certified again. The denials of an orphan stay as long as those of its issuers.
    fn place_orphans(&mut self) {
        let orphans: BTreeSet<Hash> = self.issued.values().flatten().copied().collect();
        let orphans: Vec<Hash> =
            orphans.into_iter().filter(|ca| !self.positions.contains_key(ca)).collect();
        let in_effect = |ca: &Hash| {
            let mut signers = self.on(ca).filter_map(|by| self.positions.get(&by.signer));
            signers.any(|signer| signer.standing <= Standing::Deposed)
        };
        let (revoked, orphans): (Vec<_>, Vec<_>) = orphans.into_iter().partition(in_effect);
        for ca in revoked {
            let bound = self.bound(self.on(&ca));
            self.set(&ca, Position { standing: Standing::Revoked, depth: None, bound });
        }
        let orphan = |bound| Position { standing: Standing::Orphaned, depth: None, bound };
        // From the greatest bound to the smallest, none being the greatest, so that each orphan is looked at once.
        let out = self.positions.iter().filter(|(_, p)| p.standing == Standing::Revoked);
        let mut ahead: BinaryHeap<(u64, Hash)> =
            out.map(|(ca, position)| (position.bound.unwrap_or(u64::MAX), *ca)).collect();
        while let Some((bound, issuer)) = ahead.pop() {
            for ca in self.issued.get(&issuer).into_iter().flatten() {
                if let Entry::Vacant(entry) = self.positions.entry(*ca) {
                    entry.insert(orphan((bound < u64::MAX).then_some(bound)));
                    ahead.push((bound, *ca));
                }
            }
        }
        for ca in orphans {
            self.positions.entry(ca).or_insert(orphan(None));
        }
    }

    fn on(&self, ca: &Hash) -> impl Iterator<Item = &Revocation> {
        self.revocations.get(ca).into_iter().flatten().copied()
    }

    /// Up to which version the denials of a revoked key stay in effect: of these revocations of it, those by standing or
    /// deposed signers of the smallest depth decide, so the Master's before a Backup's; of these the greatest version. None
    /// where none names one: then denials stay until a standing key says otherwise.
    fn bound<'a>(&self, on: impl Iterator<Item = &'a Revocation>) -> Option<u64> {
        let bounds = on.filter_map(|by| {
            let signer = self.positions.get(&by.signer)?;
            let counts = signer.standing <= Standing::Deposed;
            counts.then_some((signer.depth, Reverse(by.issuer?.denials_until)))
        });
        bounds.min().map(|(_, Reverse(bound))| bound)
    }

    fn set(&mut self, ca: &Hash, position: Position) {
        self.positions.insert(*ca, position);
    }
}
