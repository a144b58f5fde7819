//! Certificate revocation lists (RFC 5280, section 5): every CA of a family has one.

use der::{Decode, Encode};
use x509_cert::{
    Version,
    crl::{RevokedCert, TbsCertList},
    ext::{
        Extension, ToExtension,
        pkix::{AuthorityKeyIdentifier, CrlNumber},
    },
    name::Name,
    serial_number::SerialNumber,
};

use crate::{
    Certificate, Unsigned,
    certificate::positive,
    profile::{authority, x509_time},
    unsigned::{ECDSA_WITH_SHA256, SignedDer},
};

/// The longest CRL that is read, in bytes.
pub const MAX_CRL: usize = 1 << 20;

/// A certificate that its CA has revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number: big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// When, in Unix seconds.
    pub since: u64,
}

/// A CRL that was read. [`Crl::verify`] checks who signed it.
#[derive(Debug, Clone)]
pub struct Crl {
    signed_der: Vec<u8>,
    issuer: Vec<u8>,
    authority_key_identifier: Vec<u8>,
    number: u64,
    this_update: u64,
    next_update: u64,
    revoked: Vec<Revoked>,
}

/// Why a CRL is not made, not read, or does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// The certificate given for its issuer is no CA certificate.
    #[error("only a CA has a CRL, and this certificate is none")]
    NotACa,
    /// A serial number is zero or too long.
    #[error("a revoked serial number is not a positive number of at most 20 bytes")]
    Serial,
    /// nextUpdate is before thisUpdate, or a time is after the year 9999.
    #[error("the CRL's times are in the wrong order or out of range")]
    Time,
    /// Could not be encoded.
    #[error("the CRL could not be encoded")]
    Encoding,
    /// No CRL as the profile has it.
    #[error(
        "not a DER CRL of version 2 with a cRLNumber, an authority key identifier and nextUpdate"
    )]
    NotACrl,
    /// Not issued by that CA.
    #[error("the CRL was not signed by this CA")]
    NotByThisCa,
}

/// The next CRL of a CA. `number` has to be above every earlier one's; times are Unix seconds.
///
/// # Errors
/// Says which argument is wrong.
pub fn crl(
    ca: &Certificate,
    number: u64,
    this_update: u64,
    next_update: u64,
    revoked: &[Revoked],
) -> Result<Unsigned, CrlError> {
    if !ca.is_ca() {
        return Err(CrlError::NotACa);
    }
    if next_update < this_update {
        return Err(CrlError::Time);
    }
    let time = |unix| x509_time(unix).map_err(|_| CrlError::Time);
    let entries = revoked
        .iter()
        .map(|entry| {
            let serial = SerialNumber::new(&entry.serial).map_err(|_| CrlError::Serial)?;
            positive(&serial).ok_or(CrlError::Serial)?;
            Ok(RevokedCert {
                serial_number: serial,
                revocation_date: time(entry.since)?,
                crl_entry_extensions: None,
            })
        })
        .collect::<Result<Vec<_>, CrlError>>()?;
    let tbs = TbsCertList {
        version: Version::V2,
        signature: ECDSA_WITH_SHA256,
        issuer: Name::from_der(ca.subject_der()).map_err(|_| CrlError::Encoding)?,
        this_update: time(this_update)?,
        next_update: Some(time(next_update)?),
        // RFC 5280, 5.1.2.6: absent where nothing is revoked.
        revoked_certificates: (!entries.is_empty()).then_some(entries),
        crl_extensions: Some(extensions(ca, number).map_err(|_| CrlError::Encoding)?),
    };
    let tbs = tbs.to_der().map_err(|_| CrlError::Encoding)?;
    Ok(Unsigned::x509(ca.public_key().clone(), tbs))
}

/// The AKI is the CA's own SKI. `x509_cert`'s builder takes the CA's AKI, with which OpenSSL does
/// not find the CRL of a CA that is no root.
fn extensions(ca: &Certificate, number: u64) -> der::Result<Vec<Extension>> {
    Ok(vec![
        (false, &authority(ca.public_key())?).to_extension(&Name::default(), &[])?,
        (false, &CrlNumber::try_from(number)?).to_extension(&Name::default(), &[])?,
    ])
}

impl Crl {
    /// Reads a DER CRL of at most [`MAX_CRL`] bytes.
    ///
    /// # Errors
    /// [`CrlError::NotACrl`], [`CrlError::Serial`].
    pub fn parse(der: &[u8]) -> Result<Self, CrlError> {
        let signed = SignedDer::parse(der, MAX_CRL).ok_or(CrlError::NotACrl)?;
        let tbs = TbsCertList::<x509_cert::certificate::Rfc5280>::from_der(&signed.tbs)
            .map_err(|_| CrlError::NotACrl)?;
        if tbs.version != Version::V2 || tbs.signature != ECDSA_WITH_SHA256 {
            return Err(CrlError::NotACrl);
        }
        let (number, authority_key_identifier) =
            read_extensions(tbs.crl_extensions.as_deref().unwrap_or_default())
                .ok_or(CrlError::NotACrl)?;
        let revoked = tbs
            .revoked_certificates
            .unwrap_or_default()
            .iter()
            .map(|entry| {
                // A reason could mean the opposite (removeFromCRL); ours have none.
                if entry.crl_entry_extensions.is_some() {
                    return Err(CrlError::NotACrl);
                }
                let serial = positive(&entry.serial_number).ok_or(CrlError::Serial)?;
                Ok(Revoked { serial, since: entry.revocation_date.to_unix_duration().as_secs() })
            })
            .collect::<Result<_, CrlError>>()?;
        let next_update = tbs.next_update.ok_or(CrlError::NotACrl)?;
        Ok(Self {
            signed_der: der.to_vec(),
            issuer: tbs.issuer.to_der().map_err(|_| CrlError::NotACrl)?,
            authority_key_identifier,
            number,
            this_update: tbs.this_update.to_unix_duration().as_secs(),
            next_update: next_update.to_unix_duration().as_secs(),
            revoked,
        })
    }

    /// Verifies that this CA has signed it.
    ///
    /// # Errors
    /// [`CrlError::NotACa`], [`CrlError::NotByThisCa`].
    pub fn verify(&self, ca: &Certificate) -> Result<(), CrlError> {
        if !ca.is_ca() {
            return Err(CrlError::NotACa);
        }
        let named = self.is_named(ca);
        let signed = SignedDer::parse(&self.signed_der, MAX_CRL)
            .is_some_and(|signed| signed.verify(ca.public_key()).is_ok());
        if named && signed { Ok(()) } else { Err(CrlError::NotByThisCa) }
    }

    /// Whether it names this CA as its issuer.
    pub fn is_named(&self, ca: &Certificate) -> bool {
        self.issuer == ca.subject_der()
            && self.authority_key_identifier == ca.public_key().key_identifier()
    }

    /// The CA that it names as its issuer: key identifier and name, DER.
    pub(crate) fn issuer(&self) -> (&[u8], &[u8]) {
        (&self.authority_key_identifier, &self.issuer)
    }

    /// Orders CRLs with the same entries by age; two different ones are never equal.
    pub(crate) fn rank(&self) -> (u64, u64, &[u8]) {
        (self.number, self.this_update, &self.signed_der)
    }

    /// The serial numbers that it revokes.
    pub(crate) fn serials(&self) -> impl Iterator<Item = &[u8]> {
        self.revoked.iter().map(|revoked| revoked.serial.as_slice())
    }

    /// The whole CRL, DER.
    pub fn der(&self) -> &[u8] {
        &self.signed_der
    }

    /// The cRLNumber.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When it was signed, in Unix seconds.
    pub const fn this_update(&self) -> u64 {
        self.this_update
    }

    /// When the next CRL is due, in Unix seconds.
    pub const fn next_update(&self) -> u64 {
        self.next_update
    }

    /// What it revokes.
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }
}

/// The number and the key identifier; exactly these two extensions, none critical.
fn read_extensions(extensions: &[Extension]) -> Option<(u64, Vec<u8>)> {
    use der::oid::AssociatedOid;
    let [aki, number] = extensions else { return None };
    if aki.extn_id != AuthorityKeyIdentifier::OID
        || number.extn_id != CrlNumber::OID
        || aki.critical
        || number.critical
    {
        return None;
    }
    let aki = AuthorityKeyIdentifier::from_der(aki.extn_value.as_bytes()).ok()?;
    let number = u64::from_der(number.extn_value.as_bytes()).ok()?;
    Some((number, aki.key_identifier?.as_bytes().to_vec()))
}
