//! Chains of certificates: of an issuing Key that is plugged in, and of any Key, as text.

use keywright_proto::{
    Certificate, Id,
    pem::{self, Label as Pem},
    verify_chain,
};

use super::{Reply, Station, view::Label};
use crate::error::Error;

impl Station {
    /// The CA certificates from this one to the root, and whether that root has yet to be pinned.
    pub(super) fn chain_of(
        &self,
        own: &Certificate,
        family: Id,
    ) -> Result<(Vec<Certificate>, bool), Error> {
        let pinned = self.registry.family(family)?.map(|family| family.root);
        let known = self.registry.issuer(own.public_key().id())?.map(|issuer| issuer.chain);
        let ders = match (known, &pinned) {
            (Some(chain), _) => chain,
            (None, Some(root)) if *root == own.der() => vec![root.clone()],
            (None, Some(root)) => vec![own.der().to_vec(), root.clone()],
            (None, None) => vec![own.der().to_vec()],
        };
        let chain = ders
            .iter()
            .map(|der| Certificate::parse(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::Unverified(family))?;
        // A Backup of an unknown family cannot show where its chain ends: its Master has to come first.
        let root = pinned.as_deref().unwrap_or_else(|| own.der());
        match verify_chain(&chain, root, None) {
            Ok(proven) if proven == family && chain[0].public_key() == own.public_key() => {
                Ok((chain, pinned.is_none()))
            }
            _ => Err(Error::Unverified(family)),
        }
    }

    /// GetCertificateChain.
    pub fn certificate_chain(&mut self, label: Label, family: Option<Id>, reply: Reply<String>) {
        let result = self.chain_text(&label, family);
        reply.answer(self, result);
    }

    fn chain_text(&self, label: &Label, family: Option<Id>) -> Result<String, Error> {
        let key = self.key(label)?;
        let none = || Error::NotFound("certificate of this Key in that family".into());
        let own = key.memberships.first().map(|(family, _)| *family);
        let family = family.or(own).ok_or_else(none)?;
        let known = match key.id {
            Some(id) => self.registry.memberships(id)?,
            None => Vec::new(),
        };
        if let Some((_, membership)) = known.into_iter().find(|(of, _)| *of == family) {
            let issuer = self.registry.issuer(membership.issuer)?.ok_or_else(none)?;
            let mut chain = vec![membership.certificate];
            chain.extend(issuer.chain);
            return chain_pem(&chain);
        }
        // Not known here: what the token itself holds.
        match (&key.claims.access, key.claims.family) {
            (Some(access), Some((claimed, _))) if claimed == family => {
                let mut chain = vec![access.der().to_vec()];
                chain.extend(key.claims.issuing.iter().map(|ca| ca.der().to_vec()));
                chain_pem(&chain)
            }
            _ => Err(none()),
        }
    }
}

pub(super) fn chain_pem(chain: &[Vec<u8>]) -> Result<String, Error> {
    pem::to_pem(Pem::Certificate, chain)
        .map_err(|_| Error::LimitExceeded("the certificates are too large for PEM".into()))
}
