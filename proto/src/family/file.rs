//! The file of a family's signed objects that stations exchange (`ExportFamily`): deterministic CBOR, described in
//! `docs/formats.md`.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decoder, Encoder, data::Type};

use super::{SignedObjects, SignedStatement};
use crate::{Certificate, Crl, Effect, Target, chain::ChainError, tree::Hash};

/// The longest file, in bytes.
pub const MAX_FAMILY_FILE: usize = 64 << 20;
/// The longest file of revocations alone ([`SignedObjects::revocations`]), in bytes.
pub const MAX_REVOCATIONS_FILE: usize = 4 << 20;
/// The most leaves in a file, over all its statements with more than one.
pub const MAX_FILE_LEAVES: usize = 1 << 22;
/// What a file begins with.
const NAME: &str = "keywright-family";
/// The first version of the format, without removals of Locks and own roots of Backups.
const FIRST: u64 = 1;
/// The newest version. A file without removals and own roots is written as [`FIRST`], for older stations.
const VERSION: u64 = 2;

/// Why a file is not made or not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not such a file, or not in its one encoding.
    #[error("not a file of a family's signed objects as Keywright exports it")]
    Malformed,
    /// Of a later version.
    #[error("the file is of a newer version; import it with a newer Keywright")]
    NewerVersion,
    /// Over [`MAX_FAMILY_FILE`] or [`MAX_FILE_LEAVES`].
    #[error("the file has more than {MAX_FAMILY_FILE} bytes or {MAX_FILE_LEAVES} rights")]
    TooLarge,
    /// Its root is not the pinned one.
    #[error("the file is of another family, or of a root that is not pinned here")]
    OtherFamily,
    /// The pinned certificate is no root.
    #[error(transparent)]
    Root(#[from] ChainError),
}

impl SignedObjects {
    /// The file.
    ///
    /// # Errors
    /// [`FileError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        self.encode_within(MAX_FAMILY_FILE)
    }

    /// The file in at most `limit` bytes, and how many objects were left out for that: confirmations first, those of
    /// denials last, because Locks send them again; then what exceeds the share of its first-level CA. Every first-level CA
    /// has the same share, and revocations come first in it: so a thief who signs without end fills one share.
    ///
    /// # Errors
    /// [`FileError::TooLarge`]: not even the root fits.
    pub fn encode_most(&mut self, limit: usize) -> Result<(Vec<u8>, usize), FileError> {
        if let Ok(bytes) = self.encode_within(limit) {
            return Ok((bytes, 0));
        }
        let before = self.count();
        let all = std::mem::take(&mut self.confirmations);
        let length = match self.encode_within(limit) {
            Ok(bytes) => bytes.len(),
            Err(_) => {
                *self = self.within(limit)?;
                self.encode_within(limit)?.len()
            }
        };
        let mut room = limit.saturating_sub(length);
        let (allows, denials): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|((_, _, allow, _), _)| *allow);
        for (said, bytes) in denials.into_iter().chain(allows) {
            // 8: the CBOR heads of its length, and of the number of confirmations.
            let left = room.checked_sub(bytes.len() + 8);
            if let Some(left) = left.filter(|_| self.locks.contains_key(&said.0)) {
                room = left;
                self.confirmations.insert(said, bytes);
            }
        }
        Ok((self.encode_within(limit)?, before.saturating_sub(self.count())))
    }

    pub(super) fn encode_within(&self, limit: usize) -> Result<Vec<u8>, FileError> {
        let targets: BTreeSet<Hash> = self.statements().flat_map(SignedStatement::locks).collect();
        let numbers: BTreeMap<&Hash, u64> = targets.iter().zip(0u64..).collect();
        let leaves: usize =
            self.statements().map(|signed| signed.leaves.len()).filter(|leaves| *leaves > 1).sum();
        let mut e = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail.
        let _ = self.write(&mut e, &targets, &numbers);
        let bytes = e.into_writer();
        if bytes.len() > limit || leaves > MAX_FILE_LEAVES {
            return Err(FileError::TooLarge);
        }
        Ok(bytes)
    }

    fn write(
        &self,
        e: &mut Encoder<Vec<u8>>,
        targets: &BTreeSet<Hash>,
        numbers: &BTreeMap<&Hash, u64>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        let is_first = self.removals.is_empty() && self.own_roots.is_empty();
        let (length, version) = if is_first { (8, FIRST) } else { (10, VERSION) };
        e.array(length)?.str(NAME)?.u64(version)?.bytes(self.root.der())?;
        byte_strings(e, self.certificates.keys())?;
        byte_strings(e, self.crl_ders())?;
        byte_strings(e, targets)?;
        let statements: BTreeMap<_, _> =
            self.statements.values().map(|signed| (&signed.cose, signed)).collect();
        e.array(statements.len() as u64)?;
        for signed in statements.values() {
            e.array(3)?.bytes(&signed.cose)?.bytes(&signed.seed)?;
            e.array(signed.leaves.len() as u64)?;
            for leaf in &signed.leaves {
                match leaf {
                    (Target::All, effect) => e.bool(*effect == Effect::Allow)?,
                    (Target::Lock(lock), effect) => {
                        let number = numbers.get(lock).copied().unwrap_or_default();
                        if *effect == Effect::Allow {
                            e.u64(number)?
                        } else {
                            e.i64(-1 - number as i64)?
                        }
                    }
                };
            }
        }
        byte_strings(e, self.confirmations.values().collect::<BTreeSet<_>>())?;
        if !is_first {
            byte_strings(e, self.removals.values().collect::<BTreeSet<_>>())?;
            byte_strings(
                e,
                self.own_roots.values().map(Certificate::der).collect::<BTreeSet<_>>(),
            )?;
        }
        Ok(())
    }

    /// Reads a file and keeps what verifies up to the pinned root certificate (DER). Returns also how many objects were
    /// left out.
    ///
    /// # Errors
    /// A file that cannot be read, or is of another family.
    pub fn decode(bytes: &[u8], pinned_root: &[u8]) -> Result<(Self, usize), FileError> {
        if bytes.len() > MAX_FAMILY_FILE {
            return Err(FileError::TooLarge);
        }
        let file = File::read(bytes)?;
        if file.root != pinned_root {
            return Err(FileError::OtherFamily);
        }
        let root = Certificate::parse(pinned_root).map_err(|_| ChainError::NotARoot)?;
        let mut objects = Self::new(root)?;
        let certificates: Vec<_> =
            file.certificates.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        let mut left_out = file.too_many + file.certificates.len() - certificates.len();
        left_out += objects.add_certificates(certificates);
        let crls = file.crls.iter().filter_map(|der| Crl::parse(der).ok());
        let crls: Vec<_> = crls.filter(|crl| objects.verify_crl(crl).is_ok()).collect();
        left_out += file.crls.len() - crls.len();
        objects.keep_crls(crls);
        let mut count = |taken: bool| left_out += usize::from(!taken);
        for (cose, seed, leaves) in file.statements {
            count(objects.add_statement(cose.to_vec(), seed, leaves).is_ok());
        }
        for bytes in file.confirmations {
            count(objects.add_confirmation(bytes.to_vec()).is_ok());
        }
        for bytes in file.removals {
            count(objects.add_removal(bytes.to_vec()).is_ok());
        }
        for der in file.own_roots {
            count(Certificate::parse(der).is_ok_and(|root| objects.add_own_root(root).is_ok()));
        }
        Ok((objects, left_out))
    }

    /// The root certificate (DER) that a file claims, to find the family by. Nothing is verified.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn claimed_root(bytes: &[u8]) -> Result<&[u8], FileError> {
        Ok(header(&mut Decoder::new(bytes))?.0)
    }
}

/// A statement as it is in the file: the COSE_Sign1, the seed, the leaves.
type FileStatement<'a> = (&'a [u8], [u8; 32], Vec<(Target, Effect)>);

/// A file as it was read. Nothing in it is verified.
struct File<'a> {
    root: &'a [u8],
    certificates: Vec<&'a [u8]>,
    crls: Vec<&'a [u8]>,
    statements: Vec<FileStatement<'a>>,
    confirmations: Vec<&'a [u8]>,
    removals: Vec<&'a [u8]>,
    own_roots: Vec<&'a [u8]>,
    /// How many statements were skipped because the file has more than [`MAX_FILE_LEAVES`].
    too_many: usize,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, FileError> {
        let mut d = Decoder::new(bytes);
        let (root, version) = header(&mut d)?;
        let all = Self::read_lists(&mut d, root, version).ok_or(FileError::Malformed)?;
        if d.position() == bytes.len() { Ok(all) } else { Err(FileError::Malformed) }
    }

    fn read_lists(d: &mut Decoder<'a>, root: &'a [u8], version: u64) -> Option<Self> {
        let (certificates, crls, targets) = (sorted(d)?, sorted(d)?, as_hashes(sorted(d)?)?);
        let mut statements: Vec<FileStatement<'a>> = Vec::new();
        let mut last: Option<&[u8]> = None;
        let (mut room, mut too_many) = (MAX_FILE_LEAVES, 0);
        for _ in 0..length(d)? {
            let (cose, seed, length) = statement(d)?;
            if last.replace(cose).is_some_and(|before| before >= cose) {
                return None;
            }
            // A revocation has one leaf, and is read whatever else is in the file.
            let counted = if length > 1 { length } else { 0 };
            match room.checked_sub(counted) {
                Some(left) => {
                    room = left;
                    let leaves: Option<Vec<_>> = (0..length).map(|_| leaf(d, &targets)).collect();
                    statements.push((cose, seed, leaves?));
                }
                None => {
                    (0..length).try_for_each(|_| leaf(d, &targets).map(drop))?;
                    too_many += 1;
                }
            }
        }
        let confirmations = sorted(d)?;
        let (mut removals, mut own_roots) = (Vec::new(), Vec::new());
        if version > FIRST {
            (removals, own_roots) = (sorted(d)?, sorted(d)?);
            // One encoding only: without removals and own roots it has to be FIRST.
            if removals.is_empty() && own_roots.is_empty() {
                return None;
            }
        }
        Some(Self {
            root,
            certificates,
            crls,
            statements,
            confirmations,
            removals,
            own_roots,
            too_many,
        })
    }
}

/// Reads the beginning: the root and the version.
fn header<'a>(d: &mut Decoder<'a>) -> Result<(&'a [u8], u64), FileError> {
    let items = length(d);
    let begins = d.str().ok() == Some(NAME);
    let version = number(d).filter(|_| begins).ok_or(FileError::Malformed)?;
    let expected = match version {
        FIRST => 8,
        VERSION => 10,
        0 => return Err(FileError::Malformed),
        _ => return Err(FileError::NewerVersion),
    };
    let root = byte_string(d).filter(|_| items == Some(expected));
    Ok((root.ok_or(FileError::Malformed)?, version))
}

fn statement<'a>(d: &mut Decoder<'a>) -> Option<(&'a [u8], [u8; 32], usize)> {
    (length(d)? == 3).then_some(())?;
    Some((byte_string(d)?, byte_string(d)?.try_into().ok()?, length(d)?))
}

fn leaf(d: &mut Decoder<'_>, targets: &[Hash]) -> Option<(Target, Effect)> {
    let lock = |number: u64| targets.get(usize::try_from(number).ok()?).copied().map(Target::Lock);
    Some(match d.datatype().ok()? {
        Type::Bool if d.bool().ok()? => (Target::All, Effect::Allow),
        Type::Bool => (Target::All, Effect::Deny),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => (lock(number(d)?)?, Effect::Allow),
        _ => {
            let (at, negative) = (d.position(), d.int().ok()?);
            let number = u64::try_from(-1 - i128::from(negative)).ok()?;
            (d.position() - at == head(number)).then_some(())?;
            (lock(number)?, Effect::Deny)
        }
    })
}

/// How many bytes the head of an item with this argument has, in its shortest form.
const fn head(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// An unsigned number in its shortest form.
pub(crate) fn number(d: &mut Decoder<'_>) -> Option<u64> {
    let (at, number) = (d.position(), d.u64().ok()?);
    (d.position() - at == head(number)).then_some(number)
}

/// The length of an array, definite and in its shortest form. No more than there are bytes left: an
/// item has at least one.
pub(crate) fn length(d: &mut Decoder<'_>) -> Option<usize> {
    let (at, length) = (d.position(), d.array().ok()??);
    let left = d.input().len() - d.position();
    let length = usize::try_from(length).ok().filter(|length| *length <= left)?;
    (d.position() - at == head(length as u64)).then_some(length)
}

/// A byte string of definite length, in its shortest form.
pub(crate) fn byte_string<'a>(d: &mut Decoder<'a>) -> Option<&'a [u8]> {
    let (at, bytes) = (d.position(), d.bytes().ok()?);
    (d.position() - at == head(bytes.len() as u64) + bytes.len()).then_some(bytes)
}

/// An array of byte strings, sorted, none twice.
fn sorted<'a>(d: &mut Decoder<'a>) -> Option<Vec<&'a [u8]>> {
    let mut items: Vec<&[u8]> = Vec::new();
    for _ in 0..length(d)? {
        let item = byte_string(d)?;
        items.last().is_none_or(|before| *before < item).then_some(())?;
        items.push(item);
    }
    Some(items)
}

fn as_hashes(items: Vec<&[u8]>) -> Option<Vec<Hash>> {
    items.into_iter().map(|item| item.try_into().ok()).collect()
}

pub(crate) fn byte_strings<T: AsRef<[u8]>>(
    e: &mut Encoder<Vec<u8>>,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    let items = items.into_iter();
    e.array(items.len() as u64)?;
    for item in items {
        e.bytes(item.as_ref())?;
    }
    Ok(())
}

impl SignedStatement {
    /// The key hashes of the Locks that it names.
    fn locks(&self) -> impl Iterator<Item = Hash> {
        self.leaves.iter().filter_map(|(target, _)| match target {
            Target::Lock(hash) => Some(*hash),
            Target::All => None,
        })
    }
}
