//! The file format of what a Lock keeps about one Key: the signed grants, which are verified each time they are read.
//!
//! ```cddl
//! record = [3, [* [grant: bytes, first_seen: uint, confirmed: bool, due: bool]], [* [2*5 bytes]]]
//! ```
//! The structure is CBOR, followed by its SHA-256. `first_seen` is the Lock's uptime ([`crate::uptime`]) in
//! milliseconds when the grant arrived. The last part holds the Key's access certificates with their chains. The
//! checksum detects a failing disk; signatures detect forgeries. `due` says that the statement's version was once not ahead
//! of the clock; it stays so, whatever the clock says later. Version 2 lacked it. Version 1 had wall-clock time in
//! `first_seen`, which does not tell how long ago that was.

use keywright_proto::grant::MAX_GRANT;
use minicbor::{Decoder, Encoder};
use sha2::{Digest, Sha256};

/// The version of this format.
const VERSION: u8 = 3;
/// The last version without `due`.
const WITHOUT_DUE: u8 = 2;
const OLDEST_VERSION: u8 = 1;
/// `first_seen` of version 1, which is not an uptime.
pub const UNKNOWN_TIME: u64 = u64::MAX;
/// How many grants of one Key are kept: eight of each of four signers.
pub const MAX_ENTRIES: usize = 32;
/// How many access certificates of one Key are kept.
pub const MAX_CHAINS: usize = 3;
/// The longest record, in bytes.
pub const MAX_RECORD: usize = 2 * MAX_ENTRIES * MAX_GRANT;
const CHECKSUM: usize = 32;

/// A grant as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The encoded grant.
    pub grant: Vec<u8>,
    /// The Lock's uptime when the grant arrived, in milliseconds; [`UNKNOWN_TIME`] if not known.
    pub first_seen: u64,
    /// Whether a confirmation was delivered.
    pub confirmed: bool,
    /// Whether its version was once not ahead of the Lock's clock.
    pub due: bool,
}

/// What a Lock keeps about one Key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The grants.
    pub entries: Vec<Entry>,
    /// Access certificates, each with its chain, the newest first.
    pub chains: Vec<Vec<Vec<u8>>>,
}

impl Record {
    /// Encodes the record in the current version.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(VERSION)
    }

    fn encode_as(&self, version: u8) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail.
        let _ = self.write(&mut e, version);
        let mut bytes = e.into_writer();
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn write(
        &self,
        e: &mut Encoder<Vec<u8>>,
        version: u8,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(3)?.u8(version)?.array(self.entries.len() as u64)?;
        for entry in &self.entries {
            let parts = if version > WITHOUT_DUE { 4 } else { 3 };
            e.array(parts)?.bytes(&entry.grant)?.u64(entry.first_seen)?.bool(entry.confirmed)?;
            if version > WITHOUT_DUE {
                e.bool(entry.due)?;
            }
        }
        e.array(self.chains.len() as u64)?;
        for chain in &self.chains {
            e.array(chain.len() as u64)?;
            for certificate in chain {
                e.bytes(certificate)?;
            }
        }
        Ok(())
    }

    /// Decodes a record and checks its checksum; the grants are not verified here.
    ///
    /// # Errors
    /// Says what is wrong: the record is damaged, or of a newer version of this program.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let length = bytes.len().checked_sub(CHECKSUM).ok_or("too short")?;
        let (content, checksum) = bytes.split_at(length);
        if Sha256::digest(content)[..] != *checksum {
            return Err("the checksum differs");
        }
        let mut d = Decoder::new(content);
        let parts = d.array().map_err(|_| "no record")?;
        let version = d.u8().map_err(|_| "no record")?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err("of another version of keywright-lockd");
        }
        let record = if parts == Some(3) { Self::read(&mut d, version) } else { None };
        let mut record =
            record.filter(|record| record.encode_as(version) == bytes).ok_or("no record")?;
        if version == OLDEST_VERSION {
            record.entries.iter_mut().for_each(|entry| entry.first_seen = UNKNOWN_TIME);
        }
        Ok(record)
    }

    fn read(d: &mut Decoder<'_>, version: u8) -> Option<Self> {
        let mut record = Self::default();
        for _ in 0..length(d, MAX_ENTRIES)? {
            let _ = d.array().ok()??;
            let grant = d.bytes().ok()?.to_vec();
            let (first_seen, confirmed) = (d.u64().ok()?, d.bool().ok()?);
            let due = version > WITHOUT_DUE && d.bool().ok()?;
            record.entries.push(Entry { grant, first_seen, confirmed, due });
        }
        for _ in 0..length(d, MAX_CHAINS)? {
            let certificates = length(d, 5)?;
            let chain = (0..certificates).map(|_| Some(d.bytes().ok()?.to_vec()));
            record.chains.push(chain.collect::<Option<_>>()?);
        }
        Some(record)
    }
}

fn length(d: &mut Decoder<'_>, longest: usize) -> Option<usize> {
    usize::try_from(d.array().ok()??).ok().filter(|length| *length <= longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_round_trips_and_any_flipped_bit_is_rejected() {
        let record = Record {
            entries: vec![Entry {
                grant: vec![1, 2, 3],
                first_seen: 7,
                confirmed: true,
                due: true,
            }],
            chains: vec![vec![vec![4], vec![5]]],
        };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_err());
        }
    }

    /// Written once by version 1; later versions have to read it.
    #[test]
    fn record_of_version_1_is_readable() {
        let bytes = hex::decode(concat!(
            "8301818343010203",
            "07f5818241044105",
            "a5376aa2db7f57c66aa8c1a9defa46da",
            "c2ce44fe0807b472eb9c0844dbaba3f4"
        ));
        let record = Record::decode(&bytes.unwrap()).unwrap();
        assert_eq!(record.entries[0].grant, [1, 2, 3]);
        assert_eq!(record.entries[0].first_seen, UNKNOWN_TIME);
        assert_eq!(record.chains, [[[4], [5]]]);
    }

    /// Written once by version 2.
    #[test]
    fn record_of_version_2_is_readable() {
        let mut bytes = hex::decode("830281834301020307f5818241044105").unwrap();
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        let record = Record::decode(&bytes).unwrap();
        assert_eq!((record.entries[0].first_seen, record.entries[0].due), (7, false));
        assert_eq!(record.chains, [[[4], [5]]]);
    }
}
