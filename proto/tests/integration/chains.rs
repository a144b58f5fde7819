//! Certificate chains, verified by this crate, by OpenSSL and by rustls-webpki.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::common::{Ca, Key, NOW, VALIDITY, extended, replaced, signed_anew};
use der::{Decode, Encode};
use keywright_proto::{
    Certificate, Claim, Crl, Role, Uri,
    certificate::CertificateError::{self, Extension},
    chain::ChainError,
    crl::{self, CrlError, Revoked},
    pem::{Label, to_pem},
    profile::{self, ProfileError, Validity},
    unsigned::AssembleError,
    verify_chain,
};
use proptest::prelude::*;
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, anchor_from_trusted_cert,
};
use x509_cert::{
    crl::RevokedCert,
    ext::{ToExtension, pkix::CrlReason},
    name::Name,
};

const KEY_ROLES: [Role; 4] = [Role::Master, Role::Backup, Role::Sub, Role::Soft];

/// The CAs of a chain, the one nearest to the leaf first.
fn cas(depth: u8) -> Vec<Ca> {
    (1..=depth).rev().map(Ca::at_depth).collect()
}

#[test]
fn certificates_read_back_as_made() {
    let master = Ca::at_depth(1);
    let root = master.certificate();
    let family = master.key.public().id();
    assert_eq!(root.uri(), &Uri::Ca { family });
    assert_eq!((root.is_ca(), root.path_len(), root.role()), (true, Some(3), None));
    assert_eq!((root.serial(), root.subject_der()), (&[1][..], root.issuer_der()));
    assert_eq!((root.not_before(), root.not_after()), (VALIDITY.not_before, VALIDITY.not_after));
    assert_eq!(Claim::read(root.der()), None);
    for role in KEY_ROLES {
        let key = Key::new(9);
        let leaf = master.issue(&key, role, &[0xff; 16]).remove(0);
        let id = key.public().id();
        assert_eq!(leaf.uri(), &Uri::EndEntity { family, role, id });
        assert_eq!((leaf.is_ca(), leaf.path_len(), leaf.role()), (false, None, Some(role)));
        assert_eq!((leaf.serial(), leaf.public_key()), (&[0xff; 16][..], &key.public()));
        assert_eq!(Claim::read(leaf.der()), Some(Claim { family, role, id }));
    }
    let lock = master.issue(&Key::new(8), Role::Lock, &[3]).remove(0);
    assert_eq!((lock.role(), Claim::read(lock.der())), (Some(Role::Lock), None));
}

#[test]
fn a_chain_has_four_cas_at_most() {
    for depth in 1..=4 {
        let ca = Ca::at_depth(depth);
        assert_eq!(ca.certificate().path_len(), Some(4 - depth));
        assert_eq!(
            verify_chain(&ca.chain, ca.root(), None),
            Ok(Ca::at_depth(1).certificate().family())
        );
    }
    let last = Ca::at_depth(4);
    let refused = profile::backup_ca(&Key::new(9).public(), last.certificate(), &[1], VALIDITY);
    assert_eq!(refused.unwrap_err(), ProfileError::ChainTooLong);
}

#[test]
fn bad_arguments_make_no_certificate() {
    let master = Ca::at_depth(1);
    let key = Key::new(9).public();
    let root = master.certificate();
    for serial in [&[][..], &[0], &[0, 0], &[1; 17]] {
        let made = profile::end_entity(&key, Role::Sub, root, serial, VALIDITY);
        assert_eq!(made.unwrap_err(), ProfileError::Serial, "{serial:?}");
    }
    for (not_before, not_after) in [(2, 1), (0, 253_402_300_800), (0, u64::MAX)] {
        let made = profile::master_ca(&key, &[1], Validity { not_before, not_after });
        assert_eq!(made.unwrap_err(), ProfileError::Validity);
    }
    let leaf = &master.issue(&Key::new(9), Role::Sub, &[2])[0];
    let made = profile::end_entity(&key, Role::Sub, leaf, &[1], VALIDITY);
    assert_eq!(made.unwrap_err(), ProfileError::NotACa);
    let made = profile::backup_ca(&key, leaf, &[1], VALIDITY);
    assert_eq!(made.unwrap_err(), ProfileError::NotACa);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any serial number and times read back as given, or are refused.
    #[test]
    fn serial_numbers_and_times_are_kept(
        serial in proptest::collection::vec(any::<u8>(), 0..20),
        not_before in 0..260_000_000_000u64,
        length in 0..10_000_000_000u64,
    ) {
        let key = Key::new(1);
        let validity = Validity { not_before, not_after: not_before + length };
        match profile::master_ca(&key.public(), &serial, validity) {
            Ok(unsigned) => {
                let certificate = Certificate::parse(&key.sign(unsigned)).unwrap();
                let zeros = serial.iter().take_while(|byte| **byte == 0).count();
                prop_assert_eq!(certificate.serial(), &serial[zeros..]);
                prop_assert_eq!(certificate.not_before(), validity.not_before);
                prop_assert_eq!(certificate.not_after(), validity.not_after);
            }
            Err(ProfileError::Serial) => {
                prop_assert!(serial.len() > 16 || serial.iter().all(|byte| *byte == 0));
            }
            Err(error) => {
                prop_assert_eq!(error, ProfileError::Validity);
                prop_assert!(validity.not_after > 253_402_300_799);
            }
        }
    }
}

#[test]
fn only_the_issuer_can_sign() {
    let master = Ca::at_depth(1);
    let thief = Key::new(66);
    let make = || {
        let key = Key::new(9).public();
        profile::end_entity(&key, Role::Sub, master.certificate(), &[2], VALIDITY).unwrap()
    };
    let bad = |signature: &[u8]| {
        matches!(make().assemble(signature), Err(AssembleError::BadSignature(_)))
    };
    assert!(bad(&thief.sign_digest(&make().digest())));
    assert!(bad(&master.key.sign_digest(&[0; 32])));
    assert!(bad(&[]));
    assert!(!bad(&master.key.sign_digest(&make().digest())));
}

#[test]
fn a_wrong_chain_is_refused_with_its_reason() {
    let ca = Ca::at_depth(3);
    let good = ca.issue(&Key::new(9), Role::Sub, &[5]);
    let root = ca.root();
    let verify = |chain: &[Certificate]| verify_chain(chain, root, None).unwrap_err();
    assert!(verify_chain(&good, root, Some(NOW)).is_ok());

    assert_eq!(verify(&[]), ChainError::Empty);
    assert_eq!(verify(&good[..3]), ChainError::NotPinned);
    let other_root = Ca::master(Key::new(77));
    assert_eq!(verify_chain(&good, other_root.root(), None), Err(ChainError::NotPinned));
    let mut missing = good.clone();
    missing.remove(1);
    assert_eq!(verify(&missing), ChainError::WrongIssuer(0));
    let mut other_ca = good.clone();
    other_ca[1] = Ca::at_depth(1).backup(Key::new(50), 9).certificate().clone();
    assert_eq!(verify(&other_ca), ChainError::WrongIssuer(0));
    let mut flipped = good.clone();
    let mut der = good[0].der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    flipped[0] = Certificate::parse(&der).unwrap();
    assert_eq!(verify(&flipped), ChainError::BadSignature(0));
    let again = good.last().unwrap();
    assert_eq!(verify(&vec![again.clone(); 2]), ChainError::PathLen(0));
    assert_eq!(verify(&vec![again.clone(); 5]), ChainError::TooLong);
    let below_leaf = [&good[..1], &good].concat();
    assert_eq!(verify(&below_leaf), ChainError::NotACa(1));
    let family = Ca::master(Key::new(77));
    let mixed = [family.issue(&Key::new(9), Role::Sub, &[1])[..1].to_vec(), ca.chain.clone()];
    assert_eq!(verify(&mixed.concat()), ChainError::OtherFamily(0));
    for at in [VALIDITY.not_before - 1, VALIDITY.not_after + 1] {
        assert_eq!(verify_chain(&good, root, Some(at)), Err(ChainError::Expired(0)));
    }
    // A CA that is no root does not become one by being pinned.
    let backup = &ca.chain[..1];
    assert_eq!(verify_chain(backup, backup[0].der(), None), Err(ChainError::NotARoot));
    let leaf = &good[..1];
    assert_eq!(verify_chain(leaf, leaf[0].der(), None), Err(ChainError::NotARoot));
}

#[test]
fn certificate_outside_the_profile_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("other.der");
    let make = |arguments: &[&str]| {
        let out = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x"])
            .args(["-outform", "DER", "-out"])
            .arg(&path)
            .args(arguments)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::read(&path).unwrap()
    };
    let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let rsa = make(&["-newkey", "rsa:2048"]);
    assert_eq!(Certificate::parse(&rsa), Err(CertificateError::NotACertificate));
    let plain = make(&p256);
    assert_eq!(Certificate::parse(&plain), Err(CertificateError::Extension("subjectAltName")));
    let family = "ab".repeat(16);
    let san = |san: &str| make(&[&p256[..], &["-addext", san]].concat());
    let other_uri = san("subjectAltName=URI:https://example.org");
    assert_eq!(Certificate::parse(&other_uri), Err(CertificateError::Uri));
    let two = san(&format!("subjectAltName=URI:spiffe://{family},URI:spiffe://{family}"));
    assert_eq!(Certificate::parse(&two), Err(CertificateError::Uri));
    // A CA's URI without its keyUsage is refused.
    let ours = san(&format!("subjectAltName=URI:spiffe://{family}"));
    assert_eq!(Certificate::parse(&ours), Err(CertificateError::Extension("keyUsage")));
    assert_eq!(Claim::read(&ours), None);
}

/// What a dishonest CA could sign.
#[test]
fn signed_certificate_outside_the_profile_is_refused() {
    let ca = Ca::at_depth(2);
    let key = Key::new(9);
    let chain = ca.issue(&key, Role::Sub, &[0x55]);
    let root = chain.last().unwrap().der();
    let ski = key.public().key_identifier();
    let aki = ca.key.public().key_identifier();
    let changed = |bytes: [u8; 20]| bytes.map(|byte| byte ^ 1);
    let id = key.public().id().to_string();
    let uri = |role: &str, id: &str| format!("/{role}/{id}").into_bytes();
    for (what, from, to, error) in [
        ("version 2", vec![2, 1, 2], vec![2, 1, 1], CertificateError::Version),
        ("a negative serial", vec![2, 1, 0x55], vec![2, 1, 0x85], CertificateError::Serial),
        ("the serial 0", vec![2, 1, 0x55], vec![2, 1, 0], CertificateError::Serial),
        ("SHA-384", vec![0x3d, 4, 3, 2], vec![0x3d, 4, 3, 3], CertificateError::Version),
        ("another role", uri("sub", &id), uri("bus", &id), CertificateError::Uri),
        ("another id", uri("sub", &id), uri("sub", &"0".repeat(32)), CertificateError::Mismatch),
        ("another use", vec![3, 2, 7, 0x80], vec![3, 2, 6, 0x40], Extension("keyUsage")),
        ("a server", vec![5, 7, 3, 2], vec![5, 7, 3, 1], Extension("extKeyUsage")),
        ("another SKI", ski.to_vec(), changed(ski).to_vec(), Extension("subjectKeyIdentifier")),
        (
            "no SKI",
            vec![0x55, 0x1d, 0x0e],
            vec![0x55, 0x1d, 0x7e],
            Extension("subjectKeyIdentifier"),
        ),
        (
            "no AKI",
            vec![0x55, 0x1d, 0x23],
            vec![0x55, 0x1d, 0x7e],
            Extension("authorityKeyIdentifier"),
        ),
    ] {
        let der = replaced(chain[0].der(), &ca.key, &from, &to);
        assert_eq!(Certificate::parse(&der), Err(error), "{what}");
    }
    let verify = |position: usize, from: &[u8], to: &[u8], key: &Key| {
        let mut chain = chain.clone();
        let der = replaced(chain[position].der(), key, from, to);
        chain[position] = Certificate::parse(&der).unwrap();
        verify_chain(&chain, root, None)
    };
    let family = chain[0].family().to_string().into_bytes();
    let unchanged = verify(0, &family, &family, &ca.key);
    assert!(unchanged.is_ok());
    let other = verify(0, &family, &[b'0'; 32], &ca.key);
    assert_eq!(other, Err(ChainError::OtherFamily(0)));
    let other_aki = verify(0, &aki, &changed(aki), &ca.key);
    assert_eq!(other_aki, Err(ChainError::WrongIssuer(0)));
    let master = Key::new(1);
    // basicConstraints with pathLenConstraint 2, as the Master may give, and more.
    let path_len = |to| verify(1, &[1, 1, 0xff, 2, 1, 2], &[1, 1, 0xff, 2, 1, to], &master);
    assert!(path_len(1).is_ok());
    assert_eq!(path_len(3), Err(ChainError::PathLen(1)));
    let name = Ca::at_depth(1).key.public().id().to_string();
    let issuer = format!("CA {name}").into_bytes();
    let other_name = verify(1, &issuer, format!("CB {name}").as_bytes(), &master);
    assert_eq!(other_name, Err(ChainError::WrongIssuer(1)));
    let uri = |family: &str| format!("spiffe://{family}").into_bytes();
    let no_root = replaced(root, &master, &uri(&name), &uri(&"0".repeat(32)));
    let no_root = Certificate::parse(&no_root).unwrap();
    let pinned = verify_chain(std::slice::from_ref(&no_root), no_root.der(), None);
    assert_eq!(pinned, Err(ChainError::NotARoot));
}

#[test]
fn extensions_are_those_of_the_profile() {
    let ca = Ca::at_depth(2);
    let leaf = ca.issue(&Key::new(9), Role::Sub, &[0x55]).remove(0);
    let names = [
        "basicConstraints",
        "keyUsage",
        "subjectKeyIdentifier",
        "authorityKeyIdentifier",
        "subjectAltName",
        "extKeyUsage",
    ];
    for (certificate, names) in [(&leaf, &names[..]), (ca.certificate(), &names[..5])] {
        let parse = |change: &dyn Fn(&mut Vec<x509_cert::ext::Extension>)| {
            Certificate::parse(&extended(certificate.der(), &ca.key, change)).map(drop)
        };
        assert_eq!(parse(&|_| ()), Ok(()));
        for (at, name) in names.iter().enumerate() {
            let error = Err(Extension(name));
            assert_eq!(parse(&|list| drop(list.remove(at))), error);
            assert_eq!(parse(&|list| list.push(list[at].clone())), error);
            assert!(parse(&|list| list[at].critical ^= true).is_err(), "{name}");
        }
        let more = |oid: &str, critical| {
            parse(&|list| {
                let extn_id = oid.parse().unwrap();
                list.push(x509_cert::ext::Extension { extn_id, critical, ..list[0].clone() });
            })
        };
        assert_eq!(more("1.2.3.4", true), Err(CertificateError::UnknownCritical));
        assert_eq!(more("1.2.3.4", false), Ok(()));
        // extKeyUsage: there already, or not for a CA.
        assert_eq!(more("2.5.29.37", false), Err(Extension("extKeyUsage")));
    }
    // A name that a broker would take for a Lock's; and none at all. Issuer and subject come after version, serial number and
    // algorithm.
    let sub = ca.issue(&Key::new(30), Role::Sub, &[9]);
    let as_lock = replaced(sub[0].der(), &ca.key, b"Keywright sub ", b"Keywright lock");
    assert_eq!(Certificate::parse(&as_lock), Err(CertificateError::Name));
    for name in [3, 5] {
        let der = signed_anew(leaf.der(), &ca.key, |elements| {
            elements[name] = der::Any::new(der::Tag::Sequence, []).unwrap();
        });
        assert_eq!(Certificate::parse(&der), Err(CertificateError::Name));
    }
}

#[test]
fn crls_read_back_as_made() {
    let ca = Ca::at_depth(2);
    let revoked = [
        Revoked { serial: vec![0x85], since: NOW - 5 },
        Revoked { serial: vec![7; 16], since: NOW - 4 },
    ];
    for entries in [&revoked[..], &[]] {
        let crl = ca.crl(3, entries);
        assert_eq!((crl.number(), crl.revoked()), (3, entries));
        assert_eq!((crl.this_update(), crl.next_update()), (NOW - 10, VALIDITY.not_after));
        assert_eq!(crl.verify(ca.certificate()), Ok(()));
        assert_eq!(crl.verify(&ca.chain[1]), Err(CrlError::NotByThisCa));
        let leaf = &ca.issue(&Key::new(9), Role::Sub, &[4])[0];
        assert_eq!(crl.verify(leaf), Err(CrlError::NotACa));
    }
    let leaf = &ca.issue(&Key::new(9), Role::Sub, &[4])[0];
    assert_eq!(crl::crl(leaf, 1, 0, 1, &[]).unwrap_err(), CrlError::NotACa);
    let make = |this, next, serial: &[u8]| {
        let entry = Revoked { serial: serial.to_vec(), since: 0 };
        crl::crl(ca.certificate(), 1, this, next, &[entry]).unwrap_err()
    };
    assert_eq!(make(2, 1, &[1]), CrlError::Time);
    assert_eq!(make(0, 1, &[0]), CrlError::Serial);
    assert_eq!(make(0, 1, &[1; 21]), CrlError::Serial);
    assert_eq!(Crl::parse(ca.root()).unwrap_err(), CrlError::NotACrl);
}

#[test]
fn crl_verifies_under_its_ca_only() {
    let ca = Ca::at_depth(2);
    let entry = Revoked { serial: vec![0x55], since: NOW };
    let good = ca.crl(3, &[entry]);
    let verify = |der: &[u8]| Crl::parse(der).and_then(|crl| crl.verify(ca.certificate()));
    assert_eq!(verify(good.der()), Ok(()));
    let not_by_this_ca = Err(CrlError::NotByThisCa);
    let id = ca.key.public().id().to_string();
    let named = |prefix: &str| format!("{prefix} {id}").into_bytes();
    let renamed = replaced(good.der(), &ca.key, &named("CA"), &named("CB"));
    assert_eq!(verify(&renamed), not_by_this_ca);
    let aki = ca.key.public().key_identifier();
    let other_aki = replaced(good.der(), &ca.key, &aki, &[0; 20]);
    assert_eq!(verify(&other_aki), not_by_this_ca);
    assert_eq!(verify(&replaced(good.der(), &Key::new(66), &aki, &aki)), not_by_this_ca);

    let not_a_crl = Err(CrlError::NotACrl);
    for (at, critical) in [(0, false), (1, false), (0, true), (1, true)] {
        let der = extended(good.der(), &ca.key, |list| {
            if critical { list[at].critical = true } else { drop(list.remove(at)) }
        });
        assert_eq!(verify(&der), not_a_crl);
    }
    let with_reason = signed_anew(good.der(), &ca.key, |elements| {
        let mut entries = Vec::<RevokedCert>::from_der(&elements[5].to_der().unwrap()).unwrap();
        let reason = (false, &CrlReason::RemoveFromCRL).to_extension(&Name::default(), &[]);
        entries[0].crl_entry_extensions = Some(vec![reason.unwrap()]);
        elements[5] = der::Any::from_der(&entries.to_der().unwrap()).unwrap();
    });
    assert_eq!(verify(&with_reason), not_a_crl);
    let no_next_update = signed_anew(good.der(), &ca.key, |elements| drop(elements.remove(4)));
    assert_eq!(verify(&no_next_update), not_a_crl);
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs `openssl verify`; returns whether it accepts the chain, and its output.
fn openssl_verify(chain: &[Certificate], crls: &[Crl], purpose: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let pem = |chain: &[Certificate]| {
        to_pem(Label::Certificate, chain.iter().map(Certificate::der)).unwrap()
    };
    let (root, below) = chain.split_last().unwrap();
    let root = write(folder.path(), "root.pem", &pem(std::slice::from_ref(root)));
    let leaf = write(folder.path(), "leaf.pem", &pem(&chain[..1]));
    let crls = to_pem(Label::Crl, crls.iter().map(Crl::der)).unwrap();
    let crls = write(folder.path(), "crls.pem", &crls);
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-crl_check_all", "-purpose", purpose]);
    command.args(["-attime", &NOW.to_string(), "-CAfile"]).arg(root).arg("-CRLfile").arg(crls);
    if below.len() > 1 {
        command.arg("-untrusted").arg(write(folder.path(), "middle.pem", &pem(&below[1..])));
    }
    let out = command.arg(leaf).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn webpki_verify(
    chain: &[Certificate],
    crls: &[Crl],
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let (root, below) = chain.split_last().unwrap();
    let root = root.der().into();
    let anchor = anchor_from_trusted_cert(&root)?;
    let leaf = below[0].der().into();
    let middle: Vec<_> = below[1..].iter().map(|certificate| certificate.der().into()).collect();
    let crls: Vec<CertRevocationList<'_>> = crls
        .iter()
        .map(|crl| OwnedCertRevocationList::from_der(crl.der()).unwrap().into())
        .collect();
    let crls: Vec<_> = crls.iter().collect();
    let revocation =
        RevocationOptionsBuilder::new(&crls).unwrap().with_depth(RevocationCheckDepth::Chain);
    EndEntityCert::try_from(&leaf)?
        .verify_for_usage(
            &[webpki::ring::ECDSA_P256_SHA256],
            &[anchor],
            &middle,
            rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
            usage,
            Some(revocation.build()),
            None,
        )
        .map(drop)
}

#[test]
fn openssl_and_webpki_accept_every_chain_with_its_crls() {
    for depth in 1..=4 {
        let cas = cas(depth);
        let crls: Vec<_> = cas.iter().map(|ca| ca.crl(1, &[])).collect();
        for role in KEY_ROLES.into_iter().chain([Role::Lock]) {
            let chain = cas[0].issue(&Key::new(9), role, &[0xfe; 16]);
            let ours = match role {
                Role::Master if depth > 1 => Err(ChainError::Role),
                Role::Backup if depth == 1 => Err(ChainError::Role),
                _ => Ok(cas[0].certificate().family()),
            };
            assert_eq!(verify_chain(&chain, cas[0].root(), Some(NOW)), ours, "{depth} {role}");
            let (accepted, said) = openssl_verify(&chain, &crls, "sslclient");
            assert!(accepted, "depth {depth}, {role}: {said}");
            assert_eq!(webpki_verify(&chain, &crls, KeyUsage::client_auth()), Ok(()));
            let server = openssl_verify(&chain, &crls, "sslserver").0;
            assert_eq!(server, role == Role::Lock, "depth {depth}, {role}");
            let server = webpki_verify(&chain, &crls, KeyUsage::server_auth()).is_ok();
            assert_eq!(server, role == Role::Lock, "depth {depth}, {role}");
        }
    }
}

#[test]
fn openssl_and_webpki_find_what_a_crl_revokes() {
    let cas = cas(3);
    let chain = cas[0].issue(&Key::new(9), Role::Sub, &[0xfe; 16]);
    for revoked in 0..3 {
        let crls: Vec<_> = (0..3)
            .map(|at| {
                let serial = chain[at].serial().to_vec();
                let entry = Revoked { serial, since: NOW - 20 };
                cas[at].crl(2, if at == revoked { std::slice::from_ref(&entry) } else { &[] })
            })
            .collect();
        let (accepted, said) = openssl_verify(&chain, &crls, "sslclient");
        assert!(!accepted && said.contains("certificate revoked"), "{revoked}: {said}");
        let webpki = webpki_verify(&chain, &crls, KeyUsage::client_auth());
        assert_eq!(webpki, Err(webpki::Error::CertRevoked));
    }
    // A missing CRL is noticed, so the checks above did use CRLs.
    let (accepted, said) = openssl_verify(&chain, &[cas[0].crl(1, &[])], "sslclient");
    assert!(!accepted && said.contains("unable to get certificate CRL"), "{said}");
}
