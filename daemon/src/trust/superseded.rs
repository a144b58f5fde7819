//! Drops statements on a Key that newer ones supersede. Rights are decided Lock by Lock, so a statement is superseded only
//! when newer ones by the same signer cover every Lock that it names.
//!
//! Of each signer the newest statement is needed at each Lock, and, if that allows, the newest denial too: once the signer
//! falls, what it allowed is void and what it denied is not. Locks keep the same.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use keywright_proto::{Id, statement::claimed, tree::Hash};

use crate::registry::{StatementWithEntries, records::Statement};

/// Decides between two statements of one signer on one Lock: the newer version, then the one that denies, then their
/// bytes, so that every station keeps the same statement.
type Rank<'a> = (Option<u64>, bool, Reverse<&'a [u8]>);

/// The statements of one signer that are needed at one Lock, or that it made on all Locks.
#[derive(Default)]
struct Needed<'a> {
    newest: Option<(Rank<'a>, usize)>,
    denial: Option<(Rank<'a>, usize)>,
}

impl<'a> Needed<'a> {
    fn note(&mut self, statement: &'a Statement, allow: bool, at: usize) {
        let said = Some((rank(statement, !allow), at));
        self.newest = self.newest.max(said);
        if !allow {
            self.denial = self.denial.max(said);
        }
    }

    /// The positions of the statements that are needed beside those on all Locks.
    fn beside(&self, everywhere: &Needed<'_>) -> impl Iterator<Item = usize> {
        let newest = self.newest.filter(|(rank, _)| is_above(rank, &everywhere.newest));
        let denial = self.denial.filter(|(rank, _)| is_above(rank, &everywhere.denial));
        newest.into_iter().chain(denial).map(|(_, at)| at)
    }
}

/// Returns those statements on one Key in one family that are still needed at some Lock, the newest first. `all` have a
/// version; one that cannot be read is dropped. The result does not depend on the order or the batches in which statements
/// arrive.
pub fn without_superseded(mut all: Vec<StatementWithEntries>) -> Vec<StatementWithEntries> {
    let signers: Vec<Option<Hash>> = all.iter().map(|(said, _)| signer(said)).collect();
    let mut listed = HashMap::<(Hash, Id), Needed<'_>>::new();
    let mut everywhere = BTreeMap::<Hash, Needed<'_>>::new();
    for (at, ((statement, entries), signer)) in all.iter().zip(&signers).enumerate() {
        let Some(signer) = *signer else { continue };
        if let Some(allow) = statement.everywhere {
            everywhere.entry(signer).or_default().note(statement, allow, at);
        }
        for entry in entries {
            listed.entry((signer, entry.lock)).or_default().note(statement, entry.allow, at);
        }
    }
    let nothing = Needed::default();
    let beside = listed.iter().flat_map(|((signer, _), needed)| {
        needed.beside(everywhere.get(signer).unwrap_or(&nothing))
    });
    let mut stays = vec![false; all.len()];
    for at in beside.chain(everywhere.values().flat_map(|needed| needed.beside(&nothing))) {
        if let Some(stays) = stays.get_mut(at) {
            *stays = true;
        }
    }
    let mut stays = stays.into_iter();
    all.retain(|_| stays.next().unwrap_or_default());
    all.sort_by(|(one, _), (other, _)| rank(other, false).cmp(&rank(one, false)));
    all
}

fn is_above(rank: &Rank<'_>, other: &Option<(Rank<'_>, usize)>) -> bool {
    other.as_ref().is_none_or(|(other, _)| rank > other)
}

fn rank(statement: &Statement, denies: bool) -> Rank<'_> {
    (statement.version, denies, Reverse(&statement.cose))
}

fn signer(statement: &Statement) -> Option<Hash> {
    claimed(&statement.cose).map(|claimed| claimed.signer)
}
