//! The CA certificates of a family, and the chains that they form.
//!
//! An issuing key may have any number of certificates: by several issuers, and with several path lengths. All are kept, so
//! what is known does not depend on the order in which they arrive.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use crate::{Certificate, Crl, PublicKey, Role, tree::Hash};

/// What certificates and CRLs name their CA by: its key identifier, and its name in DER.
pub(super) type CaName = (Vec<u8>, Vec<u8>);
/// The order of one CA's certificates: the one that may issue most is first.
type Rank = (Reverse<Option<u8>>, Vec<u8>);

/// The CA certificates of a family, all verified up to its root.
#[derive(Debug, Clone)]
pub struct Authorities {
    root: Certificate,
    /// The root is among them.
    of_name: BTreeMap<CaName, BTreeMap<Rank, Certificate>>,
}

/// How certificates of a family lead to its root; made by [`Authorities::routes`].
pub struct Routes<'a> {
    authorities: &'a Authorities,
    /// For each CA and each first-level CA above it: the chain of the certificate that may issue most.
    best: BTreeMap<&'a CaName, BTreeMap<Hash, Vec<&'a Certificate>>>,
}

impl Authorities {
    /// The CAs of a family of which only the pinned root is known.
    pub fn new(root: Certificate) -> Self {
        let mut new = Self { root: root.clone(), of_name: BTreeMap::new() };
        new.insert(root);
        new
    }

    /// Adds a CA certificate that was verified up to the root by others of this family; no other certificate is added.
    pub fn insert(&mut self, ca: Certificate) {
        if ca.is_ca() {
            let of_name = self.of_name.entry(name_of(&ca)).or_default();
            of_name.insert((Reverse(ca.path_len()), ca.der().to_vec()), ca);
        }
    }

    /// The pinned root.
    pub const fn root(&self) -> &Certificate {
        &self.root
    }

    /// All CA certificates, the root among them.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.of_name.values().flat_map(BTreeMap::values)
    }

    /// The certificates of the CA that a certificate names as its issuer, whether it may have issued that one or not.
    pub(super) fn named_by<'s>(
        &'s self,
        certificate: &Certificate,
    ) -> impl Iterator<Item = &'s Certificate> + use<'s> {
        self.named(&issuer_name(certificate))
    }

    /// The certificates of the CA with this name.
    pub(super) fn named<'s>(
        &'s self,
        ca: &CaName,
    ) -> impl Iterator<Item = &'s Certificate> + use<'s> {
        self.of_name.get(ca).into_iter().flat_map(BTreeMap::values)
    }

    /// The CA certificates by which a certificate's issuer may have issued it, the one that may issue most first.
    fn issuers_of<'s>(
        &'s self,
        certificate: &Certificate,
    ) -> impl Iterator<Item = &'s Certificate> + use<'s> {
        let (role, path_len) = (certificate.role(), certificate.path_len());
        self.named_by(certificate)
            .filter(move |ca| path_len < ca.path_len() && may_have_issued(role, **ca == self.root))
    }

    /// The chain of a certificate's issuer, the issuer first and the root last; none if it is not here.
    pub fn above(&self, certificate: &Certificate) -> Option<Vec<Certificate>> {
        self.above_through(certificate, |_| true)
    }

    /// Like [`Self::above`], by CAs that are `preferred` where there are any.
    fn above_through(
        &self,
        certificate: &Certificate,
        preferred: impl Fn(&Certificate) -> bool,
    ) -> Option<Vec<Certificate>> {
        let mut chain: Vec<Certificate> = Vec::new();
        while chain.last() != Some(&self.root) {
            let mut issuers = self.issuers_of(chain.last().unwrap_or(certificate)).peekable();
            let any = issuers.peek().copied();
            // Each has a greater path length than the one before, so this ends.
            chain.push(issuers.find(|ca| preferred(ca)).or(any)?.clone());
        }
        Some(chain)
    }

    /// The chain of CA certificates of an issuing key, its own first and the root last: by CAs that are `preferred` where
    /// there are any, then the shortest. None if the key is not here.
    pub fn chain_of(
        &self,
        issuing_key: &PublicKey,
        preferred: impl Fn(&Certificate) -> bool,
    ) -> Option<Vec<Certificate>> {
        if issuing_key == self.root.public_key() {
            return Some(vec![self.root.clone()]);
        }
        let key_identifier = issuing_key.key_identifier().to_vec();
        let names = self.of_name.range((key_identifier.clone(), Vec::new())..);
        let names = names.take_while(|((of, _), _)| *of == key_identifier);
        let chains = names.flat_map(|(_, certificates)| certificates).filter_map(|(rank, own)| {
            let above = self.above_through(own, &preferred)?;
            let others = above.iter().filter(|ca| !preferred(ca)).count();
            Some(((others, above.len(), rank), [&[own.clone()][..], &above].concat()))
        });
        chains.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, chain)| chain)
    }

    /// Finds how every certificate leads to the root. The time is linear in the number of certificates, whatever they are.
    pub fn routes(&self) -> Routes<'_> {
        let mut routes = Routes { authorities: self, best: BTreeMap::new() };
        let all = self.of_name.iter();
        let mut all: Vec<_> =
            all.flat_map(|(name, of)| of.iter().map(move |(rank, ca)| (rank, name, ca))).collect();
        // Issuers first: they have the greater path length.
        all.sort_unstable_by_key(|(rank, ..)| *rank);
        for (_, name, ca) in all {
            for (first_level, chain) in routes.leading_from(ca) {
                if let Entry::Vacant(new) = routes.best.entry(name).or_default().entry(first_level)
                {
                    new.insert(chain);
                }
            }
        }
        routes
    }
}

impl<'a> Routes<'a> {
    /// The chains of a certificate that was verified, itself first and the root last: one for each first-level CA that it
    /// is below.
    pub fn of(&self, certificate: &Certificate) -> Vec<Vec<Certificate>> {
        let chains = self.leading_from(certificate).into_iter();
        chains.map(|(_, chain)| chain.into_iter().cloned().collect()).collect()
    }

    fn leading_from<'c>(&self, certificate: &'c Certificate) -> Vec<(Hash, Vec<&'c Certificate>)>
    where
        'a: 'c,
    {
        let root = &self.authorities.root;
        if certificate == root {
            return vec![(root.public_key().hash(), vec![certificate])];
        }
        let above = self.best.get(&issuer_name(certificate)).into_iter().flatten();
        let above = above.filter(|(_, above)| {
            let is_root = above.len() == 1;
            above.first().is_some_and(|ca| certificate.path_len() < ca.path_len())
                && may_have_issued(certificate.role(), is_root)
        });
        let chains = above.map(|(first_level, above)| {
            let own = || certificate.public_key().hash();
            let first_level = if above.len() == 1 { own() } else { *first_level };
            (first_level, [&[certificate][..], above].concat())
        });
        chains.collect()
    }
}

/// A Master's access certificate is issued by the root, a Backup's by another CA.
fn may_have_issued(role: Option<Role>, is_root: bool) -> bool {
    match role {
        Some(Role::Master) => is_root,
        Some(Role::Backup) => !is_root,
        _ => true,
    }
}

/// The name of a CA, from its certificate.
pub(super) fn name_of(ca: &Certificate) -> CaName {
    (ca.public_key().key_identifier().to_vec(), ca.subject_der().to_vec())
}

fn issuer_name(certificate: &Certificate) -> CaName {
    (certificate.authority_key_identifier().to_vec(), certificate.issuer_der().to_vec())
}

/// The name of the CA that a CRL claims to be by.
pub(super) fn crl_issuer(crl: &Crl) -> CaName {
    let (key_identifier, name) = crl.issuer();
    (key_identifier.to_vec(), name.to_vec())
}
