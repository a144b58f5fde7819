//! Tags and contents of the PIV data objects (SP 800-73-4 part 1, 4.3 and appendix A).

use keywright_proto::card::is_card;

use super::tlv;

const CERTIFICATE: u8 = 0x70;
const CERTIFICATE_INFO: u8 = 0x71;
const ERROR_DETECTION: u8 = 0xFE;
const FASC_N: u8 = 0x30;
const GUID: u8 = 0x34;
const EXPIRATION: u8 = 0x35;
const SIGNATURE: u8 = 0x3E;
/// The tag of the family's card in 5FC10D. PIV does not use it, so no program takes the card for a certificate.
const CARD: u8 = 0xC0;
/// The FASC-N that PIV tools write on cards without an issuing agency.
const NO_AGENCY: [u8; 25] = [
    0xD4, 0xE7, 0x39, 0xDA, 0x73, 0x9C, 0xED, 0x39, 0xCE, 0x73, 0x9D, 0x83, 0x68, 0x58, 0x21, 0x08,
    0x42, 0x10, 0x84, 0x21, 0xC8, 0x42, 0x10, 0xC3, 0xEB,
];
/// The expiration date of the CHUID (YYYYMMDD). Keywright never reads it.
const FAR_AWAY: &[u8; 8] = b"20991231";

/// A key slot that Keywright uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// 9A, PIV authentication: the access key.
    Access,
    /// 9C, digital signature: the issuing key.
    Issuing,
}

impl Slot {
    /// Returns the PIV key reference.
    pub(crate) fn reference(self) -> u8 {
        match self {
            Slot::Access => 0x9A,
            Slot::Issuing => 0x9C,
        }
    }
}

/// A data object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// Certificate of slot 9A.
    AccessCertificate,
    /// Certificate of slot 9C.
    IssuingCertificate,
    /// Certificate of slot 9D.
    KeyManagementCertificate,
    /// Certificate of slot 9E.
    CardAuthenticationCertificate,
    /// Certificate of a retired key management slot (82 to 95).
    Retired(Retired),
    /// Card holder unique identifier.
    Chuid,
    /// Printed information (PRINTED); readable only after the PIN.
    Printed,
    /// Key history: the number of retired certificates.
    KeyHistory,
    /// Yubico's note on how the management key is stored (`pivman` data).
    AdminData,
}

/// One of the 20 retired key management containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Retired(u8);

impl Retired {
    /// The first one, 5FC10D, which holds the family's card.
    pub const FAMILY_CARD: Retired = Retired(0);

    /// All 20, in the order of their tags 5FC10D to 5FC120.
    pub fn all() -> impl Iterator<Item = Retired> {
        (0..20).map(Retired)
    }
}

impl Container {
    /// Returns the tag for GET DATA and PUT DATA.
    pub(crate) fn tag(self) -> [u8; 3] {
        match self {
            Container::AccessCertificate => [0x5F, 0xC1, 0x05],
            Container::IssuingCertificate => [0x5F, 0xC1, 0x0A],
            Container::KeyManagementCertificate => [0x5F, 0xC1, 0x0B],
            Container::CardAuthenticationCertificate => [0x5F, 0xC1, 0x01],
            Container::Retired(Retired(n)) => [0x5F, 0xC1, 0x0D + n],
            Container::Chuid => [0x5F, 0xC1, 0x02],
            Container::Printed => [0x5F, 0xC1, 0x09],
            Container::KeyHistory => [0x5F, 0xC1, 0x0C],
            Container::AdminData => [0x5F, 0xFF, 0x00],
        }
    }

    /// Returns the tag as a number, as the registry stores it.
    pub fn number(self) -> u32 {
        let [a, b, c] = self.tag();
        u32::from_be_bytes([0, a, b, c])
    }

    /// Returns the certificate container with this number.
    pub fn of_number(number: u32) -> Option<Self> {
        [Self::AccessCertificate, Self::IssuingCertificate]
            .into_iter()
            .chain(Retired::all().map(Self::Retired))
            .find(|container| container.number() == number)
    }

    /// Returns its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Container::AccessCertificate => "access certificate (9A)",
            Container::IssuingCertificate => "issuing certificate (9C)",
            Container::KeyManagementCertificate => "key management certificate (9D)",
            Container::CardAuthenticationCertificate => "card authentication certificate (9E)",
            Container::Retired(_) => "retired certificate",
            Container::Chuid => "identifier (CHUID)",
            Container::Printed => "printed information",
            Container::KeyHistory => "key history",
            Container::AdminData => "admin data",
        }
    }
}

/// Encodes the contents of a certificate container (SP 800-73-4 part 1, table 10), uncompressed and without error detection
/// code.
pub fn encode_certificate(der: &[u8]) -> Vec<u8> {
    let mut contents = Vec::with_capacity(der.len() + 16);
    tlv::push(&mut contents, CERTIFICATE, der);
    tlv::push(&mut contents, CERTIFICATE_INFO, &[0]);
    tlv::push(&mut contents, ERROR_DETECTION, &[]);
    contents
}

/// Decodes the certificate in a container; `None` if the container is empty.
///
/// Other contents, such as a compressed certificate, are returned unchanged, so that the container counts as in use; they
/// do not parse as a Keywright certificate.
pub fn decode_certificate(contents: &[u8]) -> Option<Vec<u8>> {
    if contents.is_empty() {
        return None;
    }
    match (tlv::find(CERTIFICATE, contents), tlv::find(CERTIFICATE_INFO, contents)) {
        (Some([]), _) => None,
        (Some(der), None | Some([0])) => Some(der.to_vec()),
        _ => Some(contents.to_vec()),
    }
}

/// Encodes the contents of 5FC10D with the family's card.
pub fn encode_card(card: &[u8]) -> Vec<u8> {
    tlv::encode(CARD, card).to_vec()
}

/// Returns the family's card in 5FC10D, without checking it; `None` if the contents are something else.
pub fn decode_card(contents: &[u8]) -> Option<&[u8]> {
    tlv::only(CARD, contents).filter(|card| is_card(card))
}

/// Encodes a CHUID with this GUID (SP 800-73-4 part 1, table 9).
pub fn encode_chuid(guid: &[u8; 16]) -> Vec<u8> {
    let mut contents = Vec::with_capacity(64);
    tlv::push(&mut contents, FASC_N, &NO_AGENCY);
    tlv::push(&mut contents, GUID, guid);
    tlv::push(&mut contents, EXPIRATION, FAR_AWAY);
    tlv::push(&mut contents, SIGNATURE, &[]);
    tlv::push(&mut contents, ERROR_DETECTION, &[]);
    contents
}

/// Creates a random GUID. The caller saves it before it is written, because an interrupted job is resumed by it.
pub fn random_guid() -> Result<[u8; 16], getrandom::Error> {
    let mut guid = [0; 16];
    getrandom::fill(&mut guid)?;
    // Version 4, variant 1 (RFC 9562, 5.4).
    guid[6] = guid[6] & 0x0F | 0x40;
    guid[8] = guid[8] & 0x3F | 0x80;
    Ok(guid)
}

/// Decodes the GUID of a CHUID; `None` if there is none or it is all zeros.
pub fn decode_guid(contents: &[u8]) -> Option<[u8; 16]> {
    let guid: [u8; 16] = tlv::find(GUID, contents)?.try_into().ok()?;
    (guid != [0; 16]).then_some(guid)
}

/// Decodes the number of retired certificates in the key history; `None` if it has no number.
pub fn decode_key_history(contents: &[u8]) -> Option<u8> {
    let count = |tag| match tlv::find(tag, contents) {
        Some([count]) => Some(*count),
        _ => None,
    };
    count(0xC1)?.checked_add(count(0xC2)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn containers_have_their_standard_tags() {
        for (container, tag) in [
            (Container::AccessCertificate, "5fc105"),
            (Container::IssuingCertificate, "5fc10a"),
            (Container::KeyManagementCertificate, "5fc10b"),
            (Container::CardAuthenticationCertificate, "5fc101"),
            (Container::Chuid, "5fc102"),
            (Container::Printed, "5fc109"),
            (Container::KeyHistory, "5fc10c"),
            (Container::AdminData, "5fff00"),
            (Container::Retired(Retired::FAMILY_CARD), "5fc10d"),
            (Container::Retired(Retired::all().last().unwrap()), "5fc120"),
        ] {
            assert_eq!(hex::encode(container.tag()), tag);
        }
        assert_eq!(Retired::all().count(), 20);
    }

    #[test]
    fn certificates_are_decoded() {
        for (contents, expected) in [
            ("", None),
            ("7000710100fe00", None),
            ("7003303132710100fe00", Some("303132")),
            ("7003303132", Some("303132")),
            // A compressed certificate, and other data: in use.
            ("70031f8b08710101fe00", Some("70031f8b08710101fe00")),
            ("0102", Some("0102")),
        ] {
            let decoded = decode_certificate(&hex::decode(contents).unwrap());
            assert_eq!(decoded.map(hex::encode).as_deref(), expected, "{contents}");
        }
    }

    #[test]
    fn key_history_is_decoded() {
        for (contents, expected) in [
            ("c10100c20100fe00", Some(0)),
            ("c10102c20101f300fe00", Some(3)),
            ("c10100", None),
            ("c1020000c20100", None),
            ("", None),
        ] {
            assert_eq!(decode_key_history(&hex::decode(contents).unwrap()), expected, "{contents}");
        }
    }

    #[test]
    fn random_guids_are_version_4_and_differ() {
        let (a, b) = (random_guid().unwrap(), random_guid().unwrap());
        assert_ne!(a, b);
        assert_eq!((a[6] >> 4, a[8] >> 6), (4, 2));
    }

    #[test]
    fn chuid_without_a_usable_guid_names_nothing() {
        assert_eq!(decode_guid(&encode_chuid(&[0; 16])), None);
        assert_eq!(decode_guid(&[0x34, 2, 1, 2]), None);
        assert_eq!(decode_guid(&[]), None);
    }

    proptest! {
        #[test]
        fn encoded_values_decode(
            guid in any::<[u8; 16]>().prop_filter("not zero", |g| *g != [0; 16]),
            der in prop::collection::vec(any::<u8>(), 1..2000),
        ) {
            prop_assert_eq!(decode_guid(&encode_chuid(&guid)), Some(guid));
            prop_assert_eq!(decode_certificate(&encode_certificate(&der)), Some(der));
        }
    }
}
