//! Finds the standing of every issuing key: from the root down, then revocations of seniors, from the deepest key up.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Position, Revocation, Standing};
use crate::{profile::MAX_CAS, tree::Hash};

/// The revocations of each issuing key, each with the version up to which its denials stay in effect.
type Revokers<'a> = BTreeMap<Hash, Vec<(&'a Revocation, u64)>>;

/// The position of every known issuing key. `is_due` says whether the delay of a revocation is over.
pub(super) fn of(facts: &Facts, is_due: &impl Fn(&Revocation) -> bool) -> BTreeMap<Hash, Position> {
    let mut revokers = Revokers::new();
    for revocation in facts.revocations.keys() {
        if let Some(issuer) = revocation.issuer {
            let on = revokers.entry(issuer.issuing_key).or_default();
            on.push((revocation, issuer.denials_until));
        }
    }
    let mut below = BTreeMap::<Hash, Vec<Hash>>::new();
    for (issuer, ca) in &facts.issued {
        below.entry(*issuer).or_default().push(*ca);
    }
    let mut positions = BTreeMap::new();
    let mut level = BTreeSet::from([facts.root]);
    for depth in 0..MAX_CAS as u8 {
        place_level(&mut positions, &level, depth, &revokers);
        let standing = level.iter().filter(|ca| stands(&positions, ca));
        let next = standing.filter_map(|ca| below.get(ca)).flatten().copied();
        level = next.filter(|ca| !positions.contains_key(ca)).collect();
    }
    depose(&mut positions, &revokers, is_due);
    place_orphans(facts, &mut positions, &revokers);
    positions
}

fn stands(positions: &BTreeMap<Hash, Position>, ca: &Hash) -> bool {
    positions.get(ca).is_some_and(|position| position.standing == Standing::Stands)
}

/// Places all keys of one depth: revocations by keys of smaller depth first, then those among the keys of this depth.
fn place_level(
    positions: &mut BTreeMap<Hash, Position>,
    level: &BTreeSet<Hash>,
    depth: u8,
    revokers: &Revokers<'_>,
) {
    let from_above: Vec<_> = level
        .iter()
        .filter_map(|ca| Some((*ca, effective_revocation(positions, revokers.get(ca)?)?)))
        .collect();
    let rest = level.iter().filter(|ca| !from_above.iter().any(|(out, _)| out == *ca));
    let rest: BTreeSet<Hash> = rest.copied().collect();
    let out = out_among_equals(&rest, revokers);
    let position =
        |standing, denials_until| Position { standing, depth: Some(depth), denials_until };
    for (ca, until) in from_above {
        positions.insert(ca, position(Standing::Revoked, until));
    }
    for ca in &rest {
        let on = revokers.get(ca).into_iter().flatten();
        let until = on.filter(|(by, _)| rest.contains(&by.signer)).map(|(_, until)| *until).max();
        let standing = if out.contains(ca) { Standing::Revoked } else { Standing::Stands };
        positions.insert(*ca, position(standing, until.unwrap_or(0)));
    }
}

/// The version that the effective revocation of a key names, if there is one: signed by a key that stands or was only
/// deposed. Of several, those of the smallest depth decide, so the Master's before a Backup's; of these the greatest.
fn effective_revocation(
    positions: &BTreeMap<Hash, Position>,
    revokers: &[(&Revocation, u64)],
) -> Option<u64> {
    let standing = revokers.iter().filter_map(|(by, until)| {
        let position = positions.get(&by.signer)?;
        (position.standing <= Standing::Deposed).then_some((position.depth?, *until))
    });
    let standing: Vec<_> = standing.collect();
    let nearest = standing.iter().map(|(depth, _)| *depth).min()?;
    standing.iter().filter(|(depth, _)| *depth == nearest).map(|(_, until)| *until).max()
}

/// Which keys of one depth are revoked by each other: those that a key revokes which is not revoked itself, and all
/// keys of a circle of revocations.
fn out_among_equals(equals: &BTreeSet<Hash>, revokers: &Revokers<'_>) -> BTreeSet<Hash> {
    // A key that no other of this depth revokes is not revoked here.
    let on = |ca: &Hash| -> BTreeSet<Hash> {
        let all = revokers.get(ca).into_iter().flatten().map(|(by, _)| by.signer);
        all.filter(|signer| equals.contains(signer)).collect()
    };
    let mut undecided: BTreeMap<Hash, BTreeSet<Hash>> =
        equals.iter().map(|ca| (*ca, on(ca))).filter(|(_, by)| !by.is_empty()).collect();
    let mut out = BTreeSet::new();
    loop {
        let before = undecided.len();
        // A key whose revokers are all revoked stands.
        undecided.retain(|_, by| !by.iter().all(|signer| out.contains(signer)));
        // A key that a standing key revokes is revoked.
        let fallen: Vec<Hash> = undecided
            .iter()
            .filter(|(_, by)| by.iter().any(|s| !undecided.contains_key(s) && !out.contains(s)))
            .map(|(ca, _)| *ca)
            .collect();
        for ca in fallen {
            undecided.remove(&ca);
            out.insert(ca);
        }
        if undecided.is_empty() {
            return out;
        }
        if undecided.len() == before {
            // Each of the remaining keys is revoked by another of them: revoke the circles that no key outside revokes.
            let above: BTreeMap<Hash, BTreeSet<Hash>> =
                undecided.keys().map(|ca| (*ca, all_above(ca, &undecided))).collect();
            let circle = |ca: &Hash| {
                let mine = above.get(ca);
                mine.is_some_and(|mine| {
                    mine.contains(ca) && mine.iter().all(|other| above.get(other) == Some(mine))
                })
            };
            let circles: Vec<Hash> = undecided.keys().filter(|ca| circle(ca)).copied().collect();
            for ca in circles {
                undecided.remove(&ca);
                out.insert(ca);
            }
        }
    }
}

/// The undecided keys from which a chain of revocations leads to this one.
fn all_above(ca: &Hash, undecided: &BTreeMap<Hash, BTreeSet<Hash>>) -> BTreeSet<Hash> {
    let mut above = BTreeSet::new();
    let mut ahead = vec![*ca];
    while let Some(next) = ahead.pop() {
        for signer in undecided.get(&next).into_iter().flatten() {
            if undecided.contains_key(signer) && above.insert(*signer) {
                ahead.push(*signer);
            }
        }
    }
    above
}

/// Deposes seniors whose revocation is due, looking at the deepest first.
fn depose(
    positions: &mut BTreeMap<Hash, Position>,
    revokers: &Revokers<'_>,
    is_due: &impl Fn(&Revocation) -> bool,
) {
    let standing = positions.iter().filter(|(_, position)| position.standing == Standing::Stands);
    let mut upwards: Vec<(Option<u8>, Hash)> =
        standing.map(|(ca, position)| (position.depth, *ca)).collect();
    upwards.sort_unstable_by(|one, other| other.cmp(one));
    for (depth, ca) in upwards {
        let on = revokers.get(&ca).into_iter().flatten();
        let until = on
            .filter(|(by, _)| {
                let position = positions.get(&by.signer).filter(|s| s.standing == Standing::Stands);
                position.is_some_and(|position| position.depth > depth) && is_due(by)
            })
            .map(|(_, until)| *until)
            .max();
        if let (Some(denials_until), Some(position)) = (until, positions.get_mut(&ca)) {
            *position = Position { standing: Standing::Deposed, denials_until, ..*position };
        }
    }
}

/// Places keys to which no chain of standing keys leads: revoked where an effective revocation names them, otherwise
/// orphaned until they are certified again. Denials of an orphan stay as long as those of its issuers.
fn place_orphans(facts: &Facts, positions: &mut BTreeMap<Hash, Position>, revokers: &Revokers<'_>) {
    let orphans: BTreeSet<Hash> =
        facts.issued.iter().map(|(_, ca)| *ca).filter(|ca| !positions.contains_key(ca)).collect();
    let mut placed = BTreeMap::new();
    for ca in &orphans {
        let revoked = revokers.get(ca).and_then(|on| effective_revocation(positions, on));
        let standing = if revoked.is_some() { Standing::Revoked } else { Standing::Orphaned };
        placed.insert(*ca, Position { standing, depth: None, denials_until: revoked.unwrap_or(0) });
    }
    positions.extend(placed);
    // Every step copies an existing, larger value, so this ends.
    loop {
        let mut changed = false;
        for (issuer, ca) in &facts.issued {
            let above =
                positions.get(issuer).filter(|position| position.standing > Standing::Deposed);
            let above = above.map_or(0, |position| position.denials_until);
            if let Some(position) =
                positions.get_mut(ca).filter(|s| s.standing == Standing::Orphaned)
            {
                changed |= above > position.denials_until;
                position.denials_until = position.denials_until.max(above);
            }
        }
        if !changed {
            return;
        }
    }
}
