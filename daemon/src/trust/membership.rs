//! What several access certificates say of one Key's membership: its role, its issuing key, and the certificate to show.
//!
//! A thief who holds a Backup can certify any access key, in any role. So a certificate counts while its issuer stands,
//! and whatever a certificate shows of an issuing key is kept for the revocation of the Key.

use std::cmp::Reverse;

use keywright_proto::{Certificate, Judgement, PublicKey, Role, family::Authorities};

use crate::registry::records::Membership;

/// An access certificate with its issuer.
struct Access<'a> {
    der: &'a [u8],
    role: Role,
    issuer: PublicKey,
    stands: bool,
    /// How far the issuer is from the root.
    depth: u8,
    /// Whether it gives its role now: its issuer stands and has not revoked it.
    counts: bool,
}

/// Updates a membership to all access certificates (DER) of its Key in the family. The certificate that it has stays where
/// others are no better. `is_listed` says whether its issuer's CRL lists a certificate.
pub fn updated(
    membership: &Membership,
    certificates: &[Vec<u8>],
    authorities: &Authorities,
    judgement: Option<&Judgement>,
    is_listed: impl Fn(&Certificate, &PublicKey) -> bool,
) -> Membership {
    let all = certificates.iter();
    let all = all.filter_map(|der| access(der, authorities, judgement, &is_listed));
    let all: Vec<_> = all.collect();
    let best = all.iter().max_by_key(|access| {
        let is_shown = access.der == membership.certificate;
        (access.counts, access.role, is_shown, Reverse((access.depth, access.der)))
    });
    let issuers = all.iter().filter(|access| access.role.is_issuer());
    let issuing = issuers.min_by_key(|access| (!access.stands, access.depth, access.issuer.hash()));
    let Some(best) = best else { return membership.clone() };
    Membership {
        role: best.role,
        certificate: best.der.to_vec(),
        issuer: best.issuer.id(),
        issuing_key: issuing.map(|access| access.issuer.spki_der().to_vec()),
        container: membership.container,
        revoked: membership.revoked,
    }
}

fn access<'a>(
    der: &'a [u8],
    authorities: &Authorities,
    judgement: Option<&Judgement>,
    is_listed: impl Fn(&Certificate, &PublicKey) -> bool,
) -> Option<Access<'a>> {
    let certificate = Certificate::parse(der).ok()?;
    let above = authorities.above(&certificate)?;
    let issuer = above.first()?.public_key().clone();
    let stands = super::stands(judgement, &issuer.hash());
    let depth = judgement.and_then(|judgement| judgement.depth(&issuer.hash()));
    Some(Access {
        der,
        role: certificate.role()?,
        stands,
        depth: depth.unwrap_or(u8::MAX),
        counts: stands && !is_listed(&certificate, &issuer),
        issuer,
    })
}
