//! Drops statements on a Key that newer ones supersede. Rights are decided Lock by Lock, so a statement is superseded only
//! when newer ones by the same signer cover every Lock that it names.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use keywright_proto::{Id, statement::claimed, tree::Hash};

use crate::registry::{
    StatementWithEntries,
    records::{LockEntry, Statement},
};

/// Decides between two statements of one signer on one Lock: the newer version, then the one that denies, then their
/// bytes, so that every station keeps the same statement.
type Rank<'a> = (Option<u64>, bool, Reverse<&'a [u8]>);

/// Returns those statements on one Key in one family that are still needed at some Lock, the newest first. `all` have a
/// version; one that cannot be read is dropped. The result does not depend on the order or the batches in which statements
/// arrive.
pub fn without_superseded(mut all: Vec<StatementWithEntries>) -> Vec<StatementWithEntries> {
    let signers: Vec<Option<Hash>> = all.iter().map(|(said, _)| signer(said)).collect();
    let mut best = HashMap::<(Hash, Id), (Rank<'_>, usize)>::new();
    let mut everywhere = BTreeMap::<Hash, (Rank<'_>, usize)>::new();
    for (at, ((statement, entries), signer)) in all.iter().zip(&signers).enumerate() {
        let Some(signer) = *signer else { continue };
        if let Some(allow) = statement.everywhere {
            let rank = rank(statement, !allow);
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
