//! Which statements on a Key are kept. Rights are counted of each Lock: a newer statement takes the place of an older one
//! by the same signer only where it names every Lock that the older one names.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use keywright_proto::{Id, statement::claimed, tree::Hash};

use crate::registry::{
    StatementWithEntries,
    records::{LockEntry, Scope, Statement},
};

/// What decides between two statements of one signer on one Lock: the newer one, of equal ones that which denies; last
/// their bytes, so that every station keeps the same.
type Rank<'a> = (Option<u64>, bool, Reverse<&'a [u8]>);

/// Of statements with a version on one Key in one family those that say something which no other one by their signer says
/// anew; the newest first. Whatever the order and the parts in which they come, the end is the same. What cannot be read
/// is none.
pub fn without_superseded(mut all: Vec<StatementWithEntries>) -> Vec<StatementWithEntries> {
    let signers: Vec<Option<Hash>> = all.iter().map(|(said, _)| signer(said)).collect();
    let mut best = HashMap::<(Hash, Id), (Rank<'_>, usize)>::new();
    let mut everywhere = BTreeMap::<Hash, (Rank<'_>, usize)>::new();
    for (at, ((statement, entries), signer)) in all.iter().zip(&signers).enumerate() {
        let Some(signer) = *signer else { continue };
        if statement.scope == Scope::All {
            let rank = rank(statement, false);
            let known = everywhere.entry(signer).or_insert((rank, at));
            *known = (*known).max((rank, at));
        }
        for LockEntry { lock, allow, .. } in entries {
            let rank = rank(statement, !allow);
            let known = best.entry((signer, *lock)).or_insert((rank, at));
            *known = (*known).max((rank, at));
        }
    }
    let outdone = |signer: &Hash, rank: Rank<'_>| {
        everywhere.get(signer).is_some_and(|(everywhere, _)| *everywhere > rank)
    };
    let listed = best.iter().filter(|((signer, _), (rank, _))| !outdone(signer, *rank));
    let mut stays = vec![false; all.len()];
    for at in listed.map(|(_, (_, at))| at).chain(everywhere.values().map(|(_, at)| at)) {
        if let Some(stays) = stays.get_mut(*at) {
            *stays = true;
        }
    }
    let mut stays = stays.into_iter();
    all.retain(|_| stays.next().unwrap_or_default());
    all.sort_by(|(one, _), (other, _)| rank(other, false).cmp(&rank(one, false)));
    all
}

fn rank(statement: &Statement, denies: bool) -> Rank<'_> {
    (statement.version, denies, Reverse(&statement.cose))
}

fn signer(statement: &Statement) -> Option<Hash> {
    claimed(&statement.cose).map(|claimed| claimed.signer)
}
