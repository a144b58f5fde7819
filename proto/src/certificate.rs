//! Reads certificates and checks them against the profile in `docs/formats.md`.

use der::{Decode, Encode, oid::AssociatedOid};
use x509_cert::{
    TbsCertificate,
    certificate::Version,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
        SubjectKeyIdentifier, name::GeneralName,
    },
    serial_number::SerialNumber,
};

use crate::{
    Id, PublicKey, Role, Uri,
    profile::{extended_key_usage, key_usage, subject},
    public_key::BadSignature,
    unsigned::{ECDSA_WITH_SHA256, SignedDer},
};

/// The longest certificate that is read, in bytes. Tokens hold 3,000.
pub const MAX_CERTIFICATE: usize = 4096;

/// A certificate that fits the profile. [`crate::verify_chain`] verifies its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    public_key: PublicKey,
    uri: Uri,
    path_len: Option<u8>,
    serial: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    not_before: u64,
    not_after: u64,
    authority_key_identifier: [u8; 20],
}

/// Why a certificate does not fit the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No DER certificate signed with ecdsa-with-SHA256, or too long.
    #[error("not a DER X.509 certificate signed with ECDSA and SHA-256, of at most 4096 bytes")]
    NotACertificate,
    /// Another version than 3, or another inner signature algorithm.
    #[error("the certificate is not version 3 with the same signature algorithm inside and out")]
    Version,
    /// Its key is not a P-256 key.
    #[error("the certificate's key is not a P-256 key")]
    Key,
    /// The serial number is not positive or has more than 20 bytes.
    #[error("the certificate's serial number is not a positive number of at most 20 bytes")]
    Serial,
    /// The subject is not what key and URI make it, or the issuer is empty.
    #[error(
        "the certificate's subject is not the name that its key and its URI give it, or it has no issuer"
    )]
    Name,
    /// An extension of the profile is missing, doubled, not as critical as it has to be, or
    /// malformed.
    #[error("the certificate's extension {0} is missing, doubled or not as the profile has it")]
    Extension(&'static str),
    /// A critical extension outside the profile.
    #[error("the certificate has a critical extension that the profile does not know")]
    UnknownCritical,
    /// The one name in subjectAltName is no URI of ours.
    #[error("the certificate's subjectAltName is not exactly one Keywright URI")]
    Uri,
    /// The URI and the rest disagree: CA or not, or an id that is not the key's.
    #[error("the certificate's URI does not fit its key or its use")]
    Mismatch,
}

/// What the certificate in slot 9A claims about its token. Only a signature by its key proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The family.
    pub family: Id,
    /// The role in it.
    pub role: Role,
    /// The id of the certified key.
    pub id: Id,
}

impl Claim {
    /// Reads the certificate of an access key; none where it does not fit the profile, or is a Lock's.
    pub fn read(certificate_der: &[u8]) -> Option<Self> {
        match Certificate::parse(certificate_der).ok()?.uri {
            Uri::EndEntity { role: Role::Lock, .. } | Uri::Ca { .. } => None,
            Uri::EndEntity { family, role, id } => Some(Self { family, role, id }),
        }
    }
}

impl Certificate {
    /// Reads a DER certificate and checks it against the profile. No signature is verified.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let signed =
            SignedDer::parse(der, MAX_CERTIFICATE).ok_or(CertificateError::NotACertificate)?;
        let tbs =
            TbsCertificate::from_der(&signed.tbs).map_err(|_| CertificateError::NotACertificate)?;
        if tbs.version() != Version::V3 || *tbs.signature() != ECDSA_WITH_SHA256 {
            return Err(CertificateError::Version);
        }
        let spki = tbs.subject_public_key_info().to_der().map_err(|_| CertificateError::Key)?;
        let public_key = PublicKey::from_spki_der(&spki).map_err(|_| CertificateError::Key)?;
        let uri = the_uri(&tbs)?;
        let path_len = check_use(&tbs, &uri)?;
        if matches!(uri, Uri::EndEntity { id, .. } if id != public_key.id()) {
            return Err(CertificateError::Mismatch);
        }
        let expected = subject(&uri, &public_key).map_err(|_| CertificateError::Name)?;
        if *tbs.subject() != expected || tbs.issuer().is_empty() {
            return Err(CertificateError::Name);
        }
        let ski: SubjectKeyIdentifier = extension(&tbs, false, "subjectKeyIdentifier")?;
        if ski.0.as_bytes() != public_key.key_identifier() {
            return Err(CertificateError::Extension("subjectKeyIdentifier"));
        }
        Ok(Self {
            der: der.to_vec(),
            public_key,
            uri,
            path_len,
            serial: positive(tbs.serial_number()).ok_or(CertificateError::Serial)?,
            subject: tbs.subject().to_der().map_err(|_| CertificateError::Name)?,
            issuer: tbs.issuer().to_der().map_err(|_| CertificateError::Name)?,
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            authority_key_identifier: authority(&tbs)?,
        })
    }

    /// The whole certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certified key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Its URI: family, role and id.
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The family in its URI.
    pub const fn family(&self) -> Id {
        self.uri.family()
    }

    /// The role in its URI; none on a CA certificate.
    pub const fn role(&self) -> Option<Role> {
        match self.uri {
            Uri::Ca { .. } => None,
            Uri::EndEntity { role, .. } => Some(role),
        }
    }

    /// Whether it is a CA certificate.
    pub const fn is_ca(&self) -> bool {
        matches!(self.uri, Uri::Ca { .. })
    }

    /// How many CA certificates may follow below it; none on an end entity.
    pub const fn path_len(&self) -> Option<u8> {
        self.path_len
    }

    /// The serial number: big-endian, without leading zeros.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The subject's Name, DER.
    pub fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// The issuer's Name, DER.
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }

    /// The start of its validity, in Unix seconds.
    pub const fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The end of its validity, in Unix seconds, included.
    pub const fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The issuer's key identifier. Its own is [`PublicKey::key_identifier`].
    pub const fn authority_key_identifier(&self) -> &[u8; 20] {
        &self.authority_key_identifier
    }

    /// Verifies the signature under a key.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_signature(&self, issuer: &PublicKey) -> Result<(), BadSignature> {
        SignedDer::parse(&self.der, MAX_CERTIFICATE).ok_or(BadSignature)?.verify(issuer)
    }
}

/// A serial number without leading zeros; none for zero, negative and overlong ones.
pub(crate) fn positive(serial: &SerialNumber) -> Option<Vec<u8>> {
    let bytes = serial.as_bytes();
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
    let negative = bytes.first().is_none_or(|b| b & 0x80 != 0);
    (!negative && !digits.is_empty() && bytes.len() <= 20).then_some(digits)
}

/// The one extension of a kind, with the criticality that the profile gives it.
fn extension<'a, T>(
    tbs: &'a TbsCertificate,
    critical: bool,
    name: &'static str,
) -> Result<T, CertificateError>
where
    T: Decode<'a> + AssociatedOid,
{
    match tbs.get_extension::<T>() {
        Ok(Some((found, value))) if found == critical => Ok(value),
        _ => Err(CertificateError::Extension(name)),
    }
}

fn the_uri(tbs: &TbsCertificate) -> Result<Uri, CertificateError> {
    let names: SubjectAltName = extension(tbs, false, "subjectAltName")?;
    match names.0.as_slice() {
        [GeneralName::UniformResourceIdentifier(uri)] => {
            uri.as_str().parse().map_err(|_| CertificateError::Uri)
        }
        _ => Err(CertificateError::Uri),
    }
}

fn authority(tbs: &TbsCertificate) -> Result<[u8; 20], CertificateError> {
    let name = "authorityKeyIdentifier";
    let aki: AuthorityKeyIdentifier = extension(tbs, false, name)?;
    let identifier = aki.key_identifier.ok_or(CertificateError::Extension(name))?;
    identifier.as_bytes().try_into().map_err(|_| CertificateError::Extension(name))
}

/// Checks that the certificate's uses are those of its URI, and that nothing unknown is critical.
/// Answers the pathLenConstraint of a CA.
fn check_use(tbs: &TbsCertificate, uri: &Uri) -> Result<Option<u8>, CertificateError> {
    let constraints: BasicConstraints = extension(tbs, true, "basicConstraints")?;
    let usage: KeyUsage = extension(tbs, true, "keyUsage")?;
    if usage != key_usage(uri) {
        return Err(CertificateError::Extension("keyUsage"));
    }
    let known = [BasicConstraints::OID, KeyUsage::OID];
    let extensions = tbs.extensions().map_or(&[][..], Vec::as_slice);
    if extensions.iter().any(|e| e.critical && !known.contains(&e.extn_id)) {
        return Err(CertificateError::UnknownCritical);
    }
    match (uri, constraints.ca, constraints.path_len_constraint) {
        (Uri::Ca { .. }, true, Some(path_len)) => {
            // An EKU on a CA would constrain what is below it.
            match tbs.get_extension::<ExtendedKeyUsage>() {
                Ok(None) => Ok(Some(path_len)),
                _ => Err(CertificateError::Extension("extKeyUsage")),
            }
        }
        (Uri::EndEntity { role, .. }, false, None) => {
            let usage: ExtendedKeyUsage = extension(tbs, false, "extKeyUsage")?;
            if usage.0 == extended_key_usage(*role) {
                Ok(None)
            } else {
                Err(CertificateError::Extension("extKeyUsage"))
            }
        }
        (Uri::Ca { .. }, true, None) => Err(CertificateError::Extension("basicConstraints")),
        _ => Err(CertificateError::Mismatch),
    }
}
