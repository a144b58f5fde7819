//! The CRLs of a family's CAs. Of each CA those are kept that list an entry which no better one lists, so no known entry is
//! ever lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use super::{
    SignedObjectError, SignedObjects,
    authorities::{CaName, crl_issuer, name_of},
};
use crate::{Certificate, Crl, crl::CrlError};

/// CRLs by CA and DER.
pub(super) type Crls = BTreeMap<CaName, BTreeMap<Vec<u8>, Crl>>;

impl SignedObjects {
    /// Adds a CRL, unless others of its CA list all of its entries: a CRL that lacks a known entry never replaces one that
    /// has it. Returns whether it is new.
    ///
    /// # Errors
    /// No CA here has signed it.
    pub fn add_crl(&mut self, crl: Crl) -> Result<bool, SignedObjectError> {
        self.verify_crl(&crl)?;
        Ok(self.keep_crls([crl]) > 0)
    }

    pub(super) fn verify_crl(&self, crl: &Crl) -> Result<(), SignedObjectError> {
        // All certificates of one CA have one key.
        let ca = self.authorities.named(&crl_issuer(crl)).next();
        Ok(crl.verify(ca.ok_or(CrlError::NotByThisCa)?)?)
    }

    /// Keeps CRLs that were verified. Returns how many are new. The time is linear in the entries of the CAs that they are
    /// by, so many of one CA are kept together.
    pub(super) fn keep_crls(&mut self, new: impl IntoIterator<Item = Crl>) -> usize {
        let mut by_ca = BTreeMap::<CaName, Vec<Crl>>::new();
        for crl in new {
            by_ca.entry(crl_issuer(&crl)).or_default().push(crl);
        }
        let mut count = 0;
        for (ca, new) in by_ca {
            let known = self.crls.remove(&ca).unwrap_or_default();
            let before: BTreeSet<Vec<u8>> = known.keys().cloned().collect();
            let kept = best(known.into_values().chain(new).collect());
            count += kept.keys().filter(|der| !before.contains(*der)).count();
            self.crls.insert(ca, kept);
        }
        count
    }

    /// The CRL of a CA to publish: the one with most entries, and of these the newest. With it, the serial numbers that it
    /// lacks and another CRL of this CA has: they belong into the CA's next CRL.
    pub fn crl(&self, ca: &Certificate) -> Option<(&Crl, BTreeSet<Vec<u8>>)> {
        let of_ca = self.crls.get(&name_of(ca))?;
        let best = of_ca.values().max_by_key(|crl| rank(crl))?;
        let known = of_ca.values().flat_map(Crl::serials).collect::<BTreeSet<_>>();
        let lacking = known.difference(&best.serials().collect()).map(|s| s.to_vec()).collect();
        Some((best, lacking))
    }

    /// Like [`SignedObjects::merge`], for the CRLs alone.
    pub fn merge_crls(&mut self, others: &Self) -> usize {
        if self.root != others.root {
            return 0;
        }
        self.keep_crls(others.crls.values().flat_map(BTreeMap::values).cloned())
    }

    /// The CRLs, DER, sorted.
    pub(super) fn crl_ders(&self) -> BTreeSet<&Vec<u8>> {
        self.crls.values().flat_map(BTreeMap::keys).collect()
    }
}

/// Orders the CRLs of one CA: more entries, then newer.
fn rank(crl: &Crl) -> (usize, (u64, u64, &[u8])) {
    (crl.revoked().len(), crl.rank())
}

/// Those CRLs of one CA that list an entry which none of a higher rank lists, and the one of the highest rank. Whoever
/// merges keeps the same ones in any order, because what is above a CRL never shrinks.
fn best(mut all: Vec<Crl>) -> BTreeMap<Vec<u8>, Crl> {
    all.sort_by(|one, other| Reverse(rank(one)).cmp(&Reverse(rank(other))));
    let mut listed = HashSet::<Vec<u8>>::new();
    let mut kept = BTreeMap::new();
    for crl in all {
        let new: Vec<Vec<u8>> =
            crl.serials().filter(|s| !listed.contains(*s)).map(<[u8]>::to_vec).collect();
        if kept.is_empty() || !new.is_empty() {
            listed.extend(new);
            kept.insert(crl.der().to_vec(), crl);
        }
    }
    kept
}
