//! A family made with software keys, as tokens and a station would make it.
#![allow(dead_code, missing_docs)]

use coset::{CoseSign1, TaggedCborSerializable};
use der::{Any, Decode, Encode, Tagged, asn1::BitString};
use keywright_proto::{
    Certificate, Crl, Effect, Grant, Leaf, PublicKey, RevokedIssuer, Role, Statement, Target, Tree,
    Unsigned, crl,
    profile::{self, Validity},
};
use p256::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};
use sha2::{Digest, Sha256};
use x509_cert::ext::Extension;

/// 2026-01-01 and 2060-01-01: the end needs GeneralizedTime.
pub const VALIDITY: Validity = Validity { not_before: 1_767_225_600, not_after: 2_840_140_800 };
/// A time in between.
pub const NOW: u64 = 1_790_000_000;

/// A private key; its signatures are deterministic (RFC 6979).
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).unwrap())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_sec1_point(self.0.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
    }

    pub fn sign(&self, unsigned: Unsigned) -> Vec<u8> {
        assert_eq!(*unsigned.signer(), self.public());
        let signature = self.sign_digest(&unsigned.digest());
        unsigned.assemble(&signature).unwrap()
    }

    pub fn sign_digest(&self, digest: &[u8; 32]) -> Vec<u8> {
        let signature: Signature = self.0.sign_prehash(digest).unwrap();
        signature.to_der().as_bytes().to_vec()
    }
}

/// A CA with its issuing key and its chain, itself first.
#[derive(Clone)]
pub struct Ca {
    pub key: Key,
    pub chain: Vec<Certificate>,
}

impl Ca {
    pub fn master(key: Key) -> Self {
        let der = key.sign(profile::master_ca(&key.public(), &[1], VALIDITY).unwrap());
        Self { key, chain: vec![Certificate::parse(&der).unwrap()] }
    }

    pub fn backup(&self, key: Key, serial: u8) -> Self {
        let unsigned =
            profile::backup_ca(&key.public(), self.certificate(), &[serial], VALIDITY).unwrap();
        let certificate = Certificate::parse(&self.key.sign(unsigned)).unwrap();
        Self { key, chain: [&[certificate][..], &self.chain].concat() }
    }

    /// Depth 1 is the Master; each further CA is a Backup made by the one before.
    pub fn at_depth(depth: u8) -> Self {
        (1..depth).fold(Self::master(Key::new(1)), |ca, n| ca.backup(Key::new(1 + n), 0x80 + n))
    }

    pub fn certificate(&self) -> &Certificate {
        &self.chain[0]
    }

    pub fn root(&self) -> &[u8] {
        self.chain.last().unwrap().der()
    }

    /// An end entity's chain, leaf first.
    pub fn issue(&self, key: &Key, role: Role, serial: &[u8]) -> Vec<Certificate> {
        let unsigned =
            profile::end_entity(&key.public(), role, self.certificate(), serial, VALIDITY).unwrap();
        let certificate = Certificate::parse(&self.key.sign(unsigned)).unwrap();
        [&[certificate][..], &self.chain].concat()
    }

    pub fn crl(&self, number: u64, revoked: &[crl::Revoked]) -> Crl {
        let unsigned =
            crl::crl(self.certificate(), number, NOW - 10, VALIDITY.not_after, revoked).unwrap();
        Crl::parse(&self.key.sign(unsigned)).unwrap()
    }

    /// The revocation of a Key, with its issuing key where it is a Master's or Backup's.
    pub fn revocation(&self, subject: &Key, revokes: Option<RevokedIssuer>) -> Grant {
        let all = leaf(Target::All, Effect::Deny);
        let tree = Tree::new([all]).unwrap().head();
        let subject = subject.public();
        let statement = Statement { subject: &subject, version: None, tree, revokes };
        Grant {
            statement: self.key.sign(statement.unsigned(&self.chain).unwrap()),
            leaf: all,
            index: 0,
            path: vec![],
            access_chain: vec![],
        }
    }

    pub fn statement(&self, subject: &Key, version: Option<u64>, tree: &Tree) -> Vec<u8> {
        let subject = subject.public();
        let statement = Statement { subject: &subject, version, tree: tree.head(), revokes: None };
        self.key.sign(statement.unsigned(&self.chain).unwrap())
    }

    /// A grant on the leaf at `index`.
    pub fn grant(
        &self,
        subject: &Key,
        version: Option<u64>,
        leaves: &[Leaf],
        index: u64,
        access_chain: &[Certificate],
    ) -> Grant {
        let tree = Tree::new(leaves.iter().copied()).unwrap();
        Grant {
            statement: self.statement(subject, version, &tree),
            leaf: leaves[index as usize],
            index,
            path: tree.path(index).unwrap(),
            access_chain: ders(access_chain),
        }
    }
}

pub fn ders(chain: &[Certificate]) -> Vec<Vec<u8>> {
    chain.iter().map(|certificate| certificate.der().to_vec()).collect()
}

/// A leaf with a fixed seed.
pub fn leaf(target: Target, effect: Effect) -> Leaf {
    Leaf::new(&[9; 32], target, effect)
}

/// A certificate or CRL with changed elements of its signed part, signed again by `key`, as a dishonest CA could make
/// it.
pub fn signed_anew(der: &[u8], key: &Key, change: impl Fn(&mut Vec<Any>)) -> Vec<u8> {
    let [tbs, algorithm, _] = <[Any; 3]>::try_from(Vec::<Any>::from_der(der).unwrap()).unwrap();
    let mut elements = Vec::<Any>::from_der(&tbs.to_der().unwrap()).unwrap();
    change(&mut elements);
    let tbs = elements.to_der().unwrap();
    let signature = key.sign_digest(&Sha256::digest(&tbs).into());
    let signature = Any::encode_from(&BitString::from_bytes(&signature).unwrap()).unwrap();
    vec![Any::from_der(&tbs).unwrap(), algorithm, signature].to_der().unwrap()
}

/// Like [`signed_anew`], with these bytes replaced by others of equal length.
pub fn replaced(der: &[u8], key: &Key, from: &[u8], to: &[u8]) -> Vec<u8> {
    signed_anew(der, key, |elements| {
        let mut tbs = elements.to_der().unwrap();
        let found = tbs.windows(from.len()).filter(|bytes| *bytes == from).count();
        assert_eq!(found, 1, "{from:02x?}");
        let at = tbs.windows(from.len()).position(|bytes| bytes == from).unwrap();
        tbs[at..at + to.len()].copy_from_slice(to);
        *elements = Vec::from_der(&tbs).unwrap();
    })
}

/// Like [`signed_anew`], with changed extensions, which are the last element.
pub fn extended(der: &[u8], key: &Key, change: impl Fn(&mut Vec<Extension>)) -> Vec<u8> {
    signed_anew(der, key, |elements| {
        let last = elements.pop().unwrap();
        let mut extensions = Vec::from_der(last.value()).unwrap();
        change(&mut extensions);
        elements.push(Any::new(last.tag(), extensions.to_der().unwrap()).unwrap());
    })
}

/// A COSE_Sign1, changed and signed again by `key`.
pub fn cose_signed_anew(bytes: &[u8], key: &Key, change: impl Fn(&mut CoseSign1)) -> Vec<u8> {
    let mut message = CoseSign1::from_tagged_slice(bytes).unwrap();
    message.protected.original_data = None;
    change(&mut message);
    let der = key.sign_digest(&Sha256::digest(message.tbs_data(b"")).into());
    message.signature = Signature::from_der(&der).unwrap().to_bytes().to_vec();
    message.to_tagged_vec().unwrap()
}
