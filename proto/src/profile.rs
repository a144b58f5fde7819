//! Makes certificates of the profile in `docs/formats.md`. The caller gives serial numbers and times.

use std::{str::FromStr, time::Duration};

use der::{
    DateTime, Decode,
    asn1::{Ia5String, ObjectIdentifier, OctetString},
    oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH},
};
use p256::ecdsa::{VerifyingKey, signature::Keypair};
use x509_cert::{
    TbsCertificate,
    builder::{self, Builder, CertificateBuilder, profile::BuilderProfile},
    ext::{
        Extension, ToExtension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{
        self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned,
        SubjectPublicKeyInfoRef,
    },
    time::Time,
};

use crate::{
    Certificate, PublicKey, Role, Unsigned, Uri, certificate::positive, unsigned::ECDSA_WITH_SHA256,
};

/// The most CA certificates in a chain. The pathLenConstraint enforces it: each is smaller than its issuer's.
pub const MAX_CAS: usize = 4;
/// The pathLenConstraint of a Master: what may follow below it.
const MASTER_PATH_LEN: u8 = MAX_CAS as u8 - 1;
/// The longest serial number that is given, in bytes. RFC 5280, 4.1.2.2 allows 20.
pub const MAX_SERIAL: usize = 16;

/// The first and the last second in which a certificate is valid, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last second.
    pub not_after: u64,
}

/// Why a certificate is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The issuer's certificate is no CA certificate.
    #[error("the issuer's certificate is not a CA certificate; only a Master or Backup issues")]
    NotACa,
    /// Below this issuer there is no room for another CA.
    #[error(
        "a chain has at most {MAX_CAS} CA certificates; let a Key nearer to the Master make this one"
    )]
    ChainTooLong,
    /// Empty, zero, or more than [`MAX_SERIAL`] bytes.
    #[error("a serial number has 1 to {MAX_SERIAL} bytes and is not zero")]
    Serial,
    /// The end is before the start, or a time is after the year 9999.
    #[error("the validity ends before it starts, or is out of the range of X.509")]
    Validity,
    /// Could not be encoded.
    #[error("the certificate could not be encoded")]
    Encoding,
}

/// The self-signed CA certificate of a new Master, for the key in its slot 9C.
///
/// # Errors
/// A bad serial number or validity.
pub fn master_ca(
    key: &PublicKey,
    serial: &[u8],
    validity: Validity,
) -> Result<Unsigned, ProfileError> {
    let uri = Uri::Ca { family: key.id() };
    let subject = subject(&uri, key)?;
    make(key, uri, Some(MASTER_PATH_LEN), (subject.clone(), subject, key), serial, validity)
}

/// The CA certificate of a Backup, for the key in its slot 9C, to be signed by its issuer's 9C.
///
/// # Errors
/// [`ProfileError::ChainTooLong`] where the issuer is the last CA that a chain may have; an issuer
/// that is no CA; a bad serial number or validity.
pub fn backup_ca(
    key: &PublicKey,
    issuer: &Certificate,
    serial: &[u8],
    validity: Validity,
) -> Result<Unsigned, ProfileError> {
    let path_len = issuer.path_len().ok_or(ProfileError::NotACa)?;
    let path_len = path_len.checked_sub(1).ok_or(ProfileError::ChainTooLong)?;
    let uri = Uri::Ca { family: issuer.family() };
    make(key, uri, Some(path_len), issued_by(subject(&uri, key)?, issuer)?, serial, validity)
}

/// A self-signed certificate of a Backup's CA, with the same name and key: servers trust it as the family's root once the
/// Master was revoked. Locks keep the root that they pinned.
///
/// # Errors
/// A certificate that is no CA's; a bad serial number or validity.
pub fn own_root(
    ca: &Certificate,
    serial: &[u8],
    validity: Validity,
) -> Result<Unsigned, ProfileError> {
    let path_len = ca.path_len().ok_or(ProfileError::NotACa)?;
    let (key, uri) = (ca.public_key(), Uri::Ca { family: ca.family() });
    let subject = subject(&uri, key)?;
    make(key, uri, Some(path_len), (subject.clone(), subject, key), serial, validity)
}

/// The certificate of an access key (slot 9A of a token, or a Soft Key's), or of a Lock.
/// The issuer of a Master's or Backup's is its own CA certificate.
///
/// # Errors
/// An issuer that is no CA; a bad serial number or validity.
pub fn end_entity(
    key: &PublicKey,
    role: Role,
    issuer: &Certificate,
    serial: &[u8],
    validity: Validity,
) -> Result<Unsigned, ProfileError> {
    if !issuer.is_ca() {
        return Err(ProfileError::NotACa);
    }
    let id = key.id();
    let uri = Uri::EndEntity { family: issuer.family(), role, id };
    let subject = subject(&uri, key)?;
    make(key, uri, None, issued_by(subject, issuer)?, serial, validity)
}

/// What the key of a CA or an end entity may be used for.
pub(crate) fn key_usage(uri: &Uri) -> KeyUsage {
    KeyUsage(match uri {
        Uri::Ca { .. } => KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        Uri::EndEntity { .. } => KeyUsages::DigitalSignature.into(),
    })
}

/// The extended key usages of an end entity.
pub(crate) fn extended_key_usage(role: Role) -> Vec<ObjectIdentifier> {
    match role {
        Role::Lock => vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH],
        Role::Master | Role::Backup | Role::Sub | Role::Soft => vec![ID_KP_CLIENT_AUTH],
    }
}

/// A time as RFC 5280, 4.1.2.5 wants it: UTCTime until 2049, GeneralizedTime from 2050.
pub(crate) fn x509_time(unix: u64) -> der::Result<Time> {
    DateTime::from_unix_duration(Duration::from_secs(unix)).map(Time::from)
}

/// The subject of a certificate with this URI. Unique for each CA, as the issuer's name is what chains are built by; and
/// brokers know a Lock by it.
pub(crate) fn subject(uri: &Uri, key: &PublicKey) -> Result<Name, ProfileError> {
    let what = match uri {
        Uri::Ca { .. } => "CA",
        Uri::EndEntity { role, .. } => role.as_str(),
    };
    let name = Name::from_str(&format!("CN=Keywright {what} {}", key.id()));
    name.map_err(|_| ProfileError::Encoding)
}

/// The subject's name, the issuer's name and the issuer's key.
type Parties<'a> = (Name, Name, &'a PublicKey);

fn issued_by(subject: Name, issuer: &Certificate) -> Result<Parties<'_>, ProfileError> {
    let name = Name::from_der(issuer.subject_der()).map_err(|_| ProfileError::Encoding)?;
    Ok((subject, name, issuer.public_key()))
}

fn make(
    key: &PublicKey,
    uri: Uri,
    path_len: Option<u8>,
    (subject, issuer, signer): Parties<'_>,
    serial: &[u8],
    validity: Validity,
) -> Result<Unsigned, ProfileError> {
    if serial.len() > MAX_SERIAL {
        return Err(ProfileError::Serial);
    }
    let serial = SerialNumber::new(serial).map_err(|_| ProfileError::Serial)?;
    positive(&serial).ok_or(ProfileError::Serial)?;
    if validity.not_after < validity.not_before {
        return Err(ProfileError::Validity);
    }
    let time = |unix| x509_time(unix).map_err(|_| ProfileError::Validity);
    let validity =
        x509_cert::time::Validity::new(time(validity.not_before)?, time(validity.not_after)?);
    let spki =
        SubjectPublicKeyInfoOwned::from_der(key.spki_der()).map_err(|_| ProfileError::Encoding)?;
    let extensions = extensions(key, uri, path_len, signer).map_err(|_| ProfileError::Encoding)?;
    let contents = Contents { subject, issuer, extensions };
    let tbs = CertificateBuilder::new(contents, serial, validity, spki)
        .and_then(|mut builder| builder.finalize(&TokenKey(*signer.verifying_key())))
        .map_err(|_| ProfileError::Encoding)?;
    Ok(Unsigned::x509(signer.clone(), tbs))
}

fn extensions(
    key: &PublicKey,
    uri: Uri,
    path_len: Option<u8>,
    signer: &PublicKey,
) -> der::Result<Vec<Extension>> {
    let constraints = BasicConstraints { ca: path_len.is_some(), path_len_constraint: path_len };
    let name = GeneralName::UniformResourceIdentifier(Ia5String::new(&uri.to_string())?);
    let mut extensions = vec![
        (true, &constraints).to_extension(&Name::default(), &[])?,
        (true, &key_usage(&uri)).to_extension(&Name::default(), &[])?,
        (false, &SubjectKeyIdentifier(OctetString::new(key.key_identifier())?))
            .to_extension(&Name::default(), &[])?,
        (false, &authority(signer)?).to_extension(&Name::default(), &[])?,
        (false, &SubjectAltName(vec![name])).to_extension(&Name::default(), &[])?,
    ];
    if let Uri::EndEntity { role, .. } = uri {
        let usage = ExtendedKeyUsage(extended_key_usage(role));
        extensions.push((false, &usage).to_extension(&Name::default(), &[])?);
    }
    Ok(extensions)
}

/// The AKI of what this key signs.
pub(crate) fn authority(signer: &PublicKey) -> der::Result<AuthorityKeyIdentifier> {
    Ok(AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(signer.key_identifier())?),
        ..Default::default()
    })
}

/// Stands for a private key on a token: the builder asks it only for names.
struct TokenKey(VerifyingKey);

impl Keypair for TokenKey {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        self.0
    }
}

impl DynSignatureAlgorithmIdentifier for TokenKey {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(ECDSA_WITH_SHA256)
    }
}

/// What the builder is to put in, as it is.
struct Contents {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Contents {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}
