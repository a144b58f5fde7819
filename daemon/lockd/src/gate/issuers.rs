//! The family's issuing keys: who they are, who is believed, and their certificates, for TLS servers and for stations.

use std::collections::BTreeSet;

use keywright_proto::{
    Certificate, Id, Standing,
    pem::{self, Label, MAX_PEM},
    tree::Hash,
    trust::Issuer,
};

use super::Gate;

/// An issuing key of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIssuer {
    /// SHA-256 of the issuing key.
    pub key: Hash,
    /// Whether it is believed.
    pub standing: Standing,
    /// How many certificates it is from the root; `None` where no chain of keys that stand leads to it.
    pub depth: Option<u8>,
    /// Who certified it, and whose it is.
    pub issuer: Issuer,
}

impl Gate {
    pub(super) fn learn_authorities(&mut self, chain: &[Certificate]) {
        let age = |ca: &Certificate| (ca.not_before(), ca.serial().len(), ca.serial().to_vec());
        for pair in chain.windows(2) {
            let [ca, issuer] = pair else { continue };
            if ca.is_ca() {
                let names = (issuer.public_key().hash(), ca.public_key().hash());
                let newest = self.authorities.entry(names).or_insert_with(|| ca.clone());
                if age(ca) > age(newest) {
                    *newest = ca.clone();
                }
            }
        }
    }

    /// Every issuing key that is known, those nearest to the root first. A stolen Backup can make issuing keys that belong to
    /// no Key, and this shows them.
    pub fn issuers(&self) -> Vec<KnownIssuer> {
        let known = self.facts.issuers().into_iter().filter_map(|(key, issuer)| {
            let (standing, depth) = (self.judgement.standing(&key)?, self.judgement.depth(&key));
            Some(KnownIssuer { key, standing, depth, issuer })
        });
        let mut issuers: Vec<_> = known.collect();
        issuers.sort_by_key(|issuer| (issuer.depth.is_none(), issuer.depth, issuer.key));
        issuers
    }

    /// The issuing keys that are believed.
    pub(super) fn believed_keys(&self) -> BTreeSet<Hash> {
        let believed = self.issuers().into_iter().filter(|one| one.standing == Standing::Stands);
        believed.map(|issuer| issuer.key).collect()
    }

    /// Logs the issuing keys that are believed since now: nobody may have made them knowingly.
    pub(super) fn report_new_issuers(&mut self) {
        let Some(before) = self.believed.take() else { return };
        let now = self.believed_keys();
        let issuers = self.facts.issuers();
        for key in now.difference(&before) {
            let by = issuers.get(key).into_iter().flat_map(|issuer| &issuer.certified_by);
            let by: Vec<_> = by.map(|key| Id::of_hash(key).to_string()).collect();
            tracing::warn!(
                issuer = %Id::of_hash(key),
                by = by.join(", "),
                "a new issuing key is believed; if nobody made it, revoke it and who certified it"
            );
        }
        self.believed = Some(now);
    }

    /// The family's CA certificates that hold, as PEM, the root first.
    pub fn authorities(&self) -> String {
        let ders =
            std::iter::once(self.membership.root()).chain(self.certifying()).map(Certificate::der);
        pem::to_pem(Label::Certificate, ders).unwrap_or_default()
    }

    /// The same without the root, for stations: those nearest to the root first, as many as fit [`MAX_PEM`].
    pub fn believed_issuers(&self) -> String {
        let distance = |ca: &&Certificate| self.judgement.depth(&ca.public_key().hash());
        let mut nearest: Vec<_> = self.certifying().collect();
        nearest.sort_by_key(distance);
        let mut text = String::new();
        for ca in nearest {
            let more = pem::to_pem(Label::Certificate, [ca.der()]).unwrap_or_default();
            if text.len() + more.len() > MAX_PEM {
                break;
            }
            text += &more;
        }
        text
    }

    /// The certificates of the CAs whose certificates hold: those that stand or were deposed.
    fn certifying(&self) -> impl Iterator<Item = &Certificate> {
        let holds = |ca: &Hash| {
            matches!(self.judgement.standing(ca), Some(Standing::Stands | Standing::Deposed))
        };
        let holding = self.authorities.iter().filter(move |((by, ca), _)| holds(by) && holds(ca));
        holding.map(|(_, certificate)| certificate)
    }
}
