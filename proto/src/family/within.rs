//! Fits a family's signed objects into a size. Nobody can crowd out what others signed: the objects of each first-level CA,
//! which the root certified, and those of the root itself share the size, and only what exceeds a share is left out.
//! Revocations come first.
//!
//! The choice is a function of the set of objects, so that stations with the same objects make the same file.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    MAX_FAMILY_FILE, MAX_FILE_LEAVES, SignedObjects, SignedStatement,
    authorities::{crl_issuer, name_of},
};
use crate::{
    Certificate, Crl, Effect, Role, Target, chain::ChainError, removal::claimed_chain, tree::Hash,
    trust::first_level,
};

/// Bytes of a file beside its root and its objects.
const FRAME: usize = 128;
/// The longest head of a CBOR item, in bytes.
const HEAD: usize = 9;
/// What a leaf counts, in bytes: so what fits by bytes has at most [`MAX_FILE_LEAVES`].
const LEAF: usize = MAX_FAMILY_FILE / MAX_FILE_LEAVES;

/// What is kept first within a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Certificates of revoked issuers: who issues by which key, and by whom it was certified.
    RevokedIssuer,
    /// Revocations of issuing keys.
    IssuerRevocation,
    Revocation,
    Removal,
    Ca,
    Certificate,
    Crl,
    OwnRoot,
    /// Statements that deny something.
    Denial,
    Statement,
}

impl Rank {
    /// Whether it is part of [`SignedObjects::revocations`].
    fn is_urgent(self) -> bool {
        self <= Self::Removal
    }
}

#[derive(Clone, Copy)]
enum Object<'a> {
    Certificate,
    Crl(&'a Crl),
    Statement(&'a SignedStatement),
    Removal((Hash, Hash), &'a [u8]),
    OwnRoot(&'a Certificate),
}

struct Item<'a> {
    rank: Rank,
    object: Object<'a>,
    /// The certificates that it needs, root last; a certificate is the first of its own.
    chain: Cow<'a, [Certificate]>,
}

/// The objects of one first-level CA, sorted.
type Group<'a> = Vec<Item<'a>>;

impl SignedObjects {
    /// The revocations, the removals of Locks, and the certificates of the issuers that are revoked: what other stations
    /// need first.
    ///
    /// # Errors
    /// The root is none.
    pub fn revocations(&self) -> Result<Self, ChainError> {
        let groups = self.groups();
        self.only(groups.values().flatten().filter(|item| item.rank.is_urgent()))
    }

    /// Whether there are revocations or removals of Locks.
    pub fn has_revocations(&self) -> bool {
        let mut statements = self.statements.values();
        !self.removals.is_empty() || statements.any(|signed| signed.statement.version.is_none())
    }

    /// Those objects that fit into a file of `limit` bytes, without confirmations.
    pub(super) fn within(&self, limit: usize) -> Result<Self, ChainError> {
        let groups = self.groups();
        let room = limit.saturating_sub(FRAME + HEAD + self.root.der().len());
        let share = share(groups.values().map(|group| take(group, usize::MAX, |_| ())), room);
        let mut kept = Vec::new();
        for group in groups.values() {
            take(group, share, |item| kept.push(item));
        }
        self.only(kept)
    }

    /// Those of other objects that a file of `limit` bytes with the union would have, and confirmations: so whoever signs
    /// without end fills a share here, and not a disk. Everything if all of it fits. What a later file displaces in its share
    /// is not removed here: with n times as many objects as fit, about 1 + ln n times as many are kept.
    ///
    /// # Errors
    /// The root is none.
    pub fn fitting(mut self, others: &Self, limit: usize) -> Result<Self, ChainError> {
        self.merge(others.clone());
        self.confirmations.clear();
        if self.encode_within(limit).is_ok() {
            return Ok(others.clone());
        }
        let kept = self.within(limit)?;
        let groups = others.groups();
        let mut fitting = others.only(groups.values().flatten().filter(|item| kept.has(item)))?;
        let of_kept_lock = |(lock, ..): &(Hash, Hash, bool, u64)| kept.locks.contains_key(lock);
        let confirmations = others.confirmations.iter().filter(|(said, _)| of_kept_lock(said));
        fitting.confirmations = confirmations.map(|(said, by)| (*said, by.clone())).collect();
        Ok(fitting)
    }

    fn has(&self, item: &Item<'_>) -> bool {
        match item.object {
            Object::Certificate => item
                .chain
                .first()
                .is_some_and(|certificate| self.certificates.contains_key(certificate.der())),
            Object::Crl(crl) => {
                self.crls.get(&crl_issuer(crl)).is_some_and(|of_ca| of_ca.contains_key(crl.der()))
            }
            Object::Statement(signed) => self.statements.contains_key(&signed.statement.digest),
            Object::Removal(said, _) => self.removals.contains_key(&said),
            Object::OwnRoot(root) => {
                self.own_roots.contains_key(&root.public_key().key_identifier())
            }
        }
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> usize {
        self.certificates.len()
            + self.crls.values().map(BTreeMap::len).sum::<usize>()
            + self.statements.len()
            + self.confirmations.len()
            + self.removals.len()
            + self.own_roots.len()
    }

    fn groups(&self) -> BTreeMap<Hash, Group<'_>> {
        let revocations =
            self.statements.values().filter(|signed| signed.statement.version.is_none());
        let revoked: BTreeSet<Hash> = revocations
            .flat_map(|signed| {
                let issuer = signed.statement.revokes.map(|revokes| revokes.issuing_key);
                [Some(signed.statement.subject.hash()), issuer]
            })
            .flatten()
            .collect();
        let certificates = self.certificates.values().filter_map(|certificate| {
            let issues = certificate.is_ca() || certificate.role().is_some_and(Role::is_issuer);
            let rank = match certificate.is_ca() {
                _ if issues && revoked.contains(&certificate.public_key().hash()) => {
                    Rank::RevokedIssuer
                }
                true => Rank::Ca,
                false => Rank::Certificate,
            };
            let chain = self.chain(certificate)?;
            Some(Item { rank, object: Object::Certificate, chain: chain.into() })
        });
        let crls = self.crls.values().flat_map(BTreeMap::values).filter_map(|crl| {
            let chain = self.chain(self.authorities.named(&crl_issuer(crl)).next()?)?;
            Some(Item { rank: Rank::Crl, object: Object::Crl(crl), chain: chain.into() })
        });
        let statements = self.statements.values().map(|signed| {
            let denies = signed.leaves.iter().any(|(_, effect)| *effect == Effect::Deny);
            let rank = match (signed.statement.version, signed.statement.revokes) {
                (None, Some(_)) => Rank::IssuerRevocation,
                (None, None) => Rank::Revocation,
                _ if denies => Rank::Denial,
                _ => Rank::Statement,
            };
            let chain = signed.statement.chain.as_slice().into();
            Item { rank, object: Object::Statement(signed), chain }
        });
        let removals = self.removals.iter().filter_map(|(said, bytes)| {
            let (object, chain) = (Object::Removal(*said, bytes), claimed_chain(bytes)?.into());
            Some(Item { rank: Rank::Removal, object, chain })
        });
        let own_roots = self.own_roots.values().filter_map(|root| {
            let chain = self.chain(self.authorities.named(&name_of(root)).next()?)?;
            Some(Item { rank: Rank::OwnRoot, object: Object::OwnRoot(root), chain: chain.into() })
        });
        let mut groups = BTreeMap::<Hash, Group<'_>>::new();
        for item in certificates.chain(crls).chain(statements).chain(removals).chain(own_roots) {
            groups.entry(first_level(&item.chain)).or_default().push(item);
        }
        // A stable sort: those of one rank stay in the order of their maps.
        groups.values_mut().for_each(|group| group.sort_by_key(|item| item.rank));
        groups
    }

    /// These objects of the set, with the certificates that they need.
    fn only<'a>(&self, items: impl IntoIterator<Item = &'a Item<'a>>) -> Result<Self, ChainError> {
        let mut kept = Self::new(self.root.clone())?;
        for Item { object, chain, .. } in items {
            for certificate in chain.iter().rev() {
                let known = kept.certificates.contains_key(certificate.der());
                if !known && *certificate != self.root {
                    kept.keep_certificate(certificate.clone());
                }
            }
            match object {
                Object::Certificate => false,
                Object::Crl(crl) => kept.keep_crls([(*crl).clone()]) > 0,
                Object::Statement(signed) => kept.keep_statement((*signed).clone()),
                Object::Removal(said, bytes) => kept.keep_removal(*said, bytes.to_vec()),
                Object::OwnRoot(root) => kept.keep_own_root((*root).clone()),
            };
        }
        Ok(kept)
    }
}

/// Takes those items of a group that fit into `room` bytes, in their order. Returns how many bytes they need at most.
fn take<'a>(group: &'a Group<'a>, room: usize, mut keep: impl FnMut(&'a Item<'a>)) -> usize {
    let (mut certificates, mut locks) = (BTreeSet::new(), BTreeSet::new());
    let mut used = 0usize;
    for item in group {
        let above = item.chain.len().saturating_sub(1);
        let new_certificates: Vec<&[u8]> = item
            .chain
            .iter()
            .take(above)
            .map(Certificate::der)
            .filter(|der| !certificates.contains(der))
            .collect();
        let new_locks: Vec<Hash> =
            item.object.locks().filter(|lock| !locks.contains(lock)).collect();
        let bytes = item.object.bytes()
            + new_certificates.iter().map(|der| der.len() + HEAD).sum::<usize>()
            + new_locks.len() * (size_of::<Hash>() + HEAD);
        if used + bytes > room {
            continue;
        }
        used += bytes;
        certificates.extend(new_certificates);
        locks.extend(new_locks);
        keep(item);
    }
    used
}

/// The largest share with which all needs fit into `room`, where nobody gets more than is needed.
fn share(needs: impl Iterator<Item = usize>, mut room: usize) -> usize {
    let mut needs: Vec<usize> = needs.collect();
    needs.sort_unstable();
    let count = needs.len();
    for (place, need) in needs.into_iter().enumerate() {
        let share = room / (count - place);
        if need > share {
            return share;
        }
        room -= need;
    }
    usize::MAX
}

impl<'a> Object<'a> {
    /// How many bytes it takes at most, without certificates and without the Locks that it names.
    fn bytes(&self) -> usize {
        match self {
            Self::Certificate => 0,
            Self::Crl(crl) => crl.der().len() + HEAD,
            Self::Statement(signed) => {
                signed.cose.len() + signed.seed.len() + 4 * HEAD + signed.leaves.len() * LEAF
            }
            Self::Removal(_, bytes) => bytes.len() + HEAD,
            Self::OwnRoot(root) => root.der().len() + HEAD,
        }
    }

    fn locks(&self) -> impl Iterator<Item = Hash> + 'a {
        let signed = match self {
            Self::Statement(signed) => Some(*signed),
            _ => None,
        };
        let leaves = signed.into_iter().flat_map(|signed| &signed.leaves);
        leaves.filter_map(|(target, _)| match target {
            Target::Lock(lock) => Some(*lock),
            Target::All => None,
        })
    }
}
