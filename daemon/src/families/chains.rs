//! Chains of CA certificates: of plugged-in issuing Keys, for Keys that are made, and of any Key as PEM.

use keywright_proto::{
    Certificate, Id, Role,
    pem::{self, Label as Pem},
    verify_chain,
};
use keywright_rules::presence::Claims;

use super::Families;
use crate::error::Error;

impl Families {
    /// The chain of CA certificates from this one to the root, and whether the root is not pinned yet.
    ///
    /// # Errors
    /// `Unverified`: they do not lead to the family's root.
    pub fn chain_of(
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
        let chain = parsed(&ders, family)?;
        // A Backup of an unknown family cannot prove its root: the family's Master has to come first.
        let root = pinned.as_deref().unwrap_or_else(|| own.der());
        match verify_chain(&chain, root, None) {
            Ok(proven) if proven == family && chain[0].public_key() == own.public_key() => {
                Ok((chain, pinned.is_none()))
            }
            _ => Err(Error::Unverified(family)),
        }
    }

    /// The chain under which a job makes a Key: that of the issuer with this issuing key, which errors name `called`.
    /// `own` is the issuer's CA certificate, if it is plugged in.
    ///
    /// # Errors
    /// `Orphaned`: it does not stand. `Unverified`: the family's root is not pinned here, or its chain does not lead there.
    pub fn issuer_chain(
        &self,
        family: Id,
        ca: Id,
        own: Option<&Certificate>,
        called: &str,
    ) -> Result<Vec<Certificate>, Error> {
        if !self.stands(family, ca)? {
            return Err(Error::Orphaned(called.into()));
        }
        if let Some(issuer) = self.registry.issuer(ca)? {
            return parsed(&issuer.chain, family);
        }
        match self.chain_of(own.ok_or(Error::Unverified(family))?, family)? {
            (chain, false) => Ok(chain),
            (_, true) => Err(Error::Unverified(family)),
        }
    }

    /// The access certificate that a Key has in a family, if its issuer is standing. `chain` is that of the issuer that
    /// would sign another one.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn access_certificate(
        &self,
        key: Id,
        family: Id,
        claims: &Claims,
        chain: &[Certificate],
    ) -> Result<Option<Certificate>, Error> {
        if let Some(membership) = self.membership(key, family)? {
            // If its issuer was revoked, the certificate has to be re-issued.
            let stands = self.stands(family, membership.issuer)?;
            return Ok(Certificate::parse(&membership.certificate).ok().filter(|_| stands));
        }
        // The Key was made at another station: its own certificate is valid if this issuer signed it.
        let Some(access) = &claims.access else { return Ok(None) };
        let root = chain.last().map(Certificate::der).unwrap_or_default();
        let proven = verify_chain(&[&[access.clone()][..], chain].concat(), root, None);
        Ok((proven == Ok(family)).then(|| access.clone()))
    }

    /// The access certificate of a Key with its chain, PEM: in this family, or in the Key's first one.
    ///
    /// # Errors
    /// `NotFound`: neither the registry nor the token has one of that family.
    pub fn certificate_chain(
        &self,
        memberships: &[(Id, Role)],
        id: Option<Id>,
        claims: &Claims,
        family: Option<Id>,
    ) -> Result<String, Error> {
        let none = || Error::NotFound("certificate of this Key in that family".into());
        let first = memberships.first().map(|(family, _)| *family);
        let family = family.or(first).ok_or_else(none)?;
        let known = match id {
            Some(id) => self.membership(id, family)?,
            None => None,
        };
        if let Some(membership) = known {
            let issuer = self.registry.issuer(membership.issuer)?.ok_or_else(none)?;
            return chain_pem(std::iter::once(membership.certificate).chain(issuer.chain));
        }
        // Not in the registry: use the certificate on the token.
        match (&claims.access, claims.family) {
            (Some(access), Some((claimed, _))) if claimed == family => {
                chain_pem([access].into_iter().chain(&claims.issuing).map(Certificate::der))
            }
            _ => Err(none()),
        }
    }
}

fn parsed(chain: &[Vec<u8>], family: Id) -> Result<Vec<Certificate>, Error> {
    let chain: Result<Vec<_>, _> = chain.iter().map(|der| Certificate::parse(der)).collect();
    chain.map_err(|_| Error::Unverified(family))
}

/// Encodes certificates as PEM.
pub(super) fn chain_pem<T: AsRef<[u8]>>(
    chain: impl IntoIterator<Item = T>,
) -> Result<String, Error> {
    pem::to_pem(Pem::Certificate, chain)
        .map_err(|_| Error::LimitExceeded("the certificates are too large for PEM".into()))
}
