//! The family's card: a data object on a Master or Backup Key that introduces its family to a station which does not know
//! it yet. `docs/formats.md` describes it.
//!
//! It has no signature of its own, because everything in it is signed, up to a root that it brings along. Whether that root
//! may be pinned the Key proves by a signature made at the station.

use std::cmp::Ordering;

use minicbor::{Decoder, Encoder};

use crate::{
    Certificate, Effect, Role, SignedObjects, Target,
    chain::{ChainError, verify_chain, verify_next},
    cose::{self, Received},
    family::{
        SignedObjectError,
        file::{byte_string, byte_strings, length, number},
    },
    profile::MAX_CAS,
    statement::MAX_STATEMENT,
};

/// The longest card, in bytes. The smallest data object of a known token holds 3,000.
pub const MAX_CARD: usize = 2900;
/// What a card begins with.
const NAME: &str = "keywright-card";
/// The version of the format.
const VERSION: u64 = 1;

/// A card that was verified up to the root that came with it.
#[derive(Debug, Clone)]
pub struct Card {
    chain: Vec<Certificate>,
    objects: SignedObjects,
    locks: Vec<Certificate>,
}

/// Why a card is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// No card, or not in its one encoding, or over [`MAX_CARD`].
    #[error("not a Keywright family card, or longer than {MAX_CARD} bytes")]
    Malformed,
    /// Its version is newer than [`VERSION`].
    #[error("the family card is of a newer version")]
    NewerVersion,
    /// The Key's certificates do not lead to the card's root.
    #[error("the family card: {0}")]
    Chain(#[from] ChainError),
    /// A Lock's certificate or the statement does not verify.
    #[error("the family card: {0}")]
    Object(#[from] SignedObjectError),
}

/// A statement without its x5chain, which is an end of the Key's own chain.
struct Short<'a> {
    /// The position of the signer in the chain.
    signer: usize,
    payload: &'a [u8],
    signature: [u8; 64],
    seed: [u8; 32],
}

impl Card {
    /// Writes the card of a Key: its CA certificates (its own first, the root last), the newest statement on it with its
    /// seed, and as many of the family's Locks as fit into `room` bytes, the newest first. Only Locks that a CA of the
    /// chain certified are taken, and only a statement that one of them signed: a card has no room for other CAs. None
    /// where not even the chain fits.
    pub fn write(
        chain: &[Certificate],
        statement: Option<(&[u8], [u8; 32])>,
        locks: impl IntoIterator<Item = Certificate>,
        room: usize,
    ) -> Option<Vec<u8>> {
        let room = room.min(MAX_CARD);
        let received = statement.and_then(|(cose, seed)| {
            let received = Received::parse(cose, cose::STATEMENT, MAX_STATEMENT)?;
            let end = |signer: &usize| {
                let end = chain.get(*signer..).unwrap_or_default();
                received.chain.iter().map(Vec::as_slice).eq(end.iter().map(Certificate::der))
            };
            let signer = (0..chain.len()).find(end)?;
            Some((signer, seed, received))
        });
        let short = received.as_ref().map(|(signer, seed, received)| Short {
            signer: *signer,
            payload: &received.payload,
            signature: received.signature(),
            seed: *seed,
        });
        let mut by_chain: Vec<_> =
            locks.into_iter().filter(|lock| issuer_of(lock, chain).is_some()).collect();
        by_chain.sort_by(newest_first);
        by_chain.dedup();
        let (_, above) = chain.split_first()?;
        let encode = |locks: &[Certificate]| {
            let mut e = Encoder::new(Vec::new());
            // Writing to a Vec cannot fail.
            let _ = encode(&mut e, above, short.as_ref(), locks);
            Some(e.into_writer()).filter(|bytes| bytes.len() <= room)
        };
        let most = (0..=by_chain.len()).take_while(|n| encode(&by_chain[..*n]).is_some()).last()?;
        encode(&by_chain[..most])
    }

    /// Reads the card of a Key whose access and CA certificates are these, and verifies everything that is in it.
    ///
    /// # Errors
    /// Says what is wrong with it. One error refuses the whole card.
    pub fn read(bytes: &[u8], access: &Certificate, own: &Certificate) -> Result<Self, CardError> {
        if bytes.len() > MAX_CARD {
            return Err(CardError::Malformed);
        }
        let mut d = Decoder::new(bytes);
        let items = length(&mut d);
        let begins = d.str().ok() == Some(NAME);
        match number(&mut d).filter(|_| begins).ok_or(CardError::Malformed)? {
            VERSION => {}
            0 => return Err(CardError::Malformed),
            _ => return Err(CardError::NewerVersion),
        }
        let read = Self::read_rest(&mut d).filter(|_| items == Some(5));
        let (above, short, locks) = read.ok_or(CardError::Malformed)?;
        let parse = |ders: Vec<&[u8]>| {
            ders.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>()
        };
        let (Ok(above), Ok(locks)) = (parse(above), parse(locks)) else {
            return Err(CardError::Malformed);
        };
        let mut again = Encoder::new(Vec::new());
        let _ = encode(&mut again, &above, short.as_ref(), &locks);
        if again.into_writer() != bytes {
            return Err(CardError::Malformed);
        }
        let chain = [&[own.clone()][..], &above].concat();
        let root = chain.last().unwrap_or(own).clone();
        let whole = [&[access.clone()][..], &chain].concat();
        if !access.role().is_some_and(Role::is_issuer) {
            return Err(ChainError::Role.into());
        }
        verify_chain(&whole, root.der(), None)?;
        let mut objects = SignedObjects::new(root)?;
        for certificate in whole.iter().rev() {
            objects.add_certificate(certificate.clone())?;
        }
        for lock in &locks {
            if lock.role() != Some(Role::Lock) {
                return Err(CardError::Malformed);
            }
            objects.add_certificate(lock.clone())?;
        }
        if locks.windows(2).any(|pair| newest_first(&pair[0], &pair[1]) != Ordering::Less) {
            return Err(CardError::Malformed);
        }
        if let Some(short) = short {
            let end = chain.get(short.signer..).unwrap_or_default();
            let ders: Vec<_> = end.iter().map(|ca| ca.der().to_vec()).collect();
            let (payload, signature) = (short.payload.to_vec(), &short.signature);
            let statement = cose::signed(cose::STATEMENT, &ders, payload, signature);
            let statement = statement.ok_or(CardError::Malformed)?;
            objects.add_statement(statement, short.seed, vec![(Target::All, Effect::Allow)])?;
            let about = objects.statements().next().map(|signed| &signed.statement.subject);
            if about != Some(access.public_key()) {
                return Err(CardError::Malformed);
            }
        }
        Ok(Self { chain, objects, locks })
    }

    #[allow(clippy::type_complexity, reason = "the parts of a card, in their order")]
    fn read_rest<'a>(
        d: &mut Decoder<'a>,
    ) -> Option<(Vec<&'a [u8]>, Option<Short<'a>>, Vec<&'a [u8]>)> {
        let above = strings(d)?;
        (above.len() < MAX_CAS).then_some(())?;
        let short = match length(d)? {
            0 => None,
            4 => Some(Short {
                signer: usize::try_from(number(d)?).ok()?,
                payload: byte_string(d)?,
                signature: byte_string(d)?.try_into().ok()?,
                seed: byte_string(d)?.try_into().ok()?,
            }),
            _ => return None,
        };
        Some((above, short, strings(d)?))
    }

    /// The Key's CA certificates, its own first and the root last.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The root that came with it.
    pub const fn root(&self) -> &Certificate {
        self.objects.root()
    }

    /// The Locks' certificates, the newest first.
    pub fn locks(&self) -> &[Certificate] {
        &self.locks
    }

    /// All of it, to be merged once the root is pinned.
    pub const fn objects(&self) -> &SignedObjects {
        &self.objects
    }
}

/// Whether bytes look like a card. Nothing is verified.
pub fn is_card(bytes: &[u8]) -> bool {
    let mut d = Decoder::new(bytes);
    length(&mut d).is_some() && d.str().ok() == Some(NAME)
}

/// The Locks' certificates on a card; empty where it cannot be read. Nothing is verified.
pub fn locks_on(bytes: &[u8]) -> Vec<Certificate> {
    let mut d = Decoder::new(bytes);
    let known = length(&mut d) == Some(5)
        && d.str().ok() == Some(NAME)
        && number(&mut d) == Some(VERSION)
        && bytes.len() <= MAX_CARD;
    let read = known.then(|| Card::read_rest(&mut d)).flatten();
    let locks = read.map(|(_, _, locks)| locks).unwrap_or_default();
    locks.into_iter().filter_map(|der| Certificate::parse(der).ok()).collect()
}

/// The CA of a chain that certified a Lock.
fn issuer_of<'a>(lock: &Certificate, chain: &'a [Certificate]) -> Option<&'a Certificate> {
    let mut ends = (0..chain.len()).map(|n| &chain[n..]);
    let above = ends.find(|above| verify_next(lock, above).is_ok())?;
    above.first().filter(|_| lock.role() == Some(Role::Lock))
}

/// Orders by notBefore, the newest first; equal ones by their bytes.
fn newest_first(one: &Certificate, other: &Certificate) -> Ordering {
    let by_time = other.not_before().cmp(&one.not_before());
    by_time.then_with(|| one.der().cmp(other.der()))
}

fn strings<'a>(d: &mut Decoder<'a>) -> Option<Vec<&'a [u8]>> {
    (0..length(d)?).map(|_| byte_string(d)).collect()
}

fn encode(
    e: &mut Encoder<Vec<u8>>,
    above: &[Certificate],
    statement: Option<&Short<'_>>,
    locks: &[Certificate],
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    e.array(5)?.str(NAME)?.u64(VERSION)?;
    byte_strings(e, above.iter().map(Certificate::der))?;
    match statement {
        None => e.array(0)?,
        Some(short) => e
            .array(4)?
            .u64(short.signer as u64)?
            .bytes(short.payload)?
            .bytes(&short.signature)?
            .bytes(&short.seed)?,
    };
    byte_strings(e, locks.iter().map(Certificate::der))
}
