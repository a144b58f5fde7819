//! The CRL entries that are pending while a CRL is signed.

use keywright_proto::crl::{Crl, Revoked};
use keywrightd::{pending_signatures::replace_crl, registry::records::Issuer};

use crate::family::CAS;

fn crl(number: u64, serials: &[u8]) -> Vec<u8> {
    let revoked: Vec<_> =
        serials.iter().map(|serial| Revoked { serial: vec![*serial], since: number }).collect();
    CAS[0].crl(number, &revoked).der().to_vec()
}

/// While a CRL is signed, a rolled-back job adds an entry and another call commits its CRL; the CRL has neither.
#[test]
fn entries_added_while_a_crl_is_signed_wait_for_the_next() {
    let mut issuer = Issuer {
        family: CAS[0].certificate().public_key().id(),
        chain: Vec::new(),
        crl: crl(1, &[1]),
        to_revoke: vec![vec![2]],
    };
    let planned = crl(2, &[1, 2]);
    issuer.to_revoke.push(vec![3]);
    replace_crl(&mut issuer, crl(2, &[1, 4]));
    assert_eq!(issuer.to_revoke, [[2], [3]]);
    replace_crl(&mut issuer, planned.clone());
    assert_eq!(issuer.to_revoke, [[3], [4]]);
    assert_eq!(issuer.crl, planned);
    replace_crl(&mut issuer, crl(3, &[1, 2, 3, 4]));
    assert!(issuer.to_revoke.is_empty());
    assert_eq!(Crl::parse(&issuer.crl).unwrap().revoked().len(), 4);
}
