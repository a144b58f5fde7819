//! Grants: a statement with the one leaf that is for a Lock, and how the Lock verifies it offline.

use minicbor::{Decoder, Encoder};

use crate::{
    Certificate, Role,
    chain::verify_below,
    profile::MAX_CAS,
    statement::{MAX_STATEMENT, StatementError, VerifiedStatement, parse_chain, verify_statement},
    tree::{Effect, Hash, Leaf, MAX_PATH, NotIncluded, Target},
};

/// The longest grant, in bytes.
pub const MAX_GRANT: usize = 64 * 1024;

/// A statement, and the leaf of its tree that is for one Lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The statement: a tagged COSE_Sign1.
    pub statement: Vec<u8>,
    /// The leaf.
    pub leaf: Leaf,
    /// Its index in the tree.
    pub index: u64,
    /// Its inclusion path.
    pub path: Vec<Hash>,
    /// The subject's access certificate (slot 9A) first, the root last, DER. Where the leaf allows
    /// `*` it has to be there, because only a Key with a CA certificate may have that. Where it
    /// allows one Lock it may be: TLS servers know a Key by its certificate. Empty elsewhere.
    pub access_chain: Vec<Vec<u8>>,
}

/// A grant that was verified. The Lock still compares its version with those of other statements on this Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedGrant {
    /// The statement.
    pub statement: VerifiedStatement,
    /// This Lock, or every Lock of the family.
    pub target: Target,
    /// Whether the Key may access it.
    pub effect: Effect,
    /// The subject's access certificate first, the root last; empty where the grant has none. It
    /// was verified up to the root, and is one of the subject's key.
    pub access_chain: Vec<Certificate>,
}

/// Why a grant does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not a grant in its one encoding, or over [`MAX_GRANT`].
    #[error("not a Keywright grant, or longer than {MAX_GRANT} bytes")]
    Malformed,
    /// Its statement does not verify.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The leaf is not the statement's.
    #[error(transparent)]
    NotIncluded(#[from] NotIncluded),
    /// It is for another Lock.
    #[error("the grant is for another Lock")]
    OtherLock,
    /// A statement without version that does not deny every Lock and nothing else.
    #[error("a revocation denies every Lock, and nothing else")]
    BadRevocation,
    /// An access certificate that is not the subject's.
    #[error("the access certificate in the grant is another Key's")]
    OtherKey,
    /// A `*` that allows, for a Key that is not shown to be a Master or Backup of the family.
    #[error("only a Master or Backup of the family may be allowed at every Lock")]
    NotAnIssuer,
}

impl Grant {
    /// Its deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail.
        let _ = self.write(&mut e);
        e.into_writer()
    }

    fn write(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(5)?.bytes(&self.statement)?.bytes(&self.leaf.encode())?.u64(self.index)?;
        e.array(self.path.len() as u64)?;
        for hash in &self.path {
            e.bytes(hash)?;
        }
        e.array(self.access_chain.len() as u64)?;
        for certificate in &self.access_chain {
            e.bytes(certificate)?;
        }
        Ok(())
    }

    /// Reads a grant of at most [`MAX_GRANT`] bytes. Nothing is verified.
    ///
    /// # Errors
    /// [`GrantError::Malformed`], also for an encoding that is not the deterministic one.
    pub fn decode(bytes: &[u8]) -> Result<Self, GrantError> {
        if bytes.len() > MAX_GRANT {
            return Err(GrantError::Malformed);
        }
        Self::read(bytes).filter(|grant| grant.encode() == bytes).ok_or(GrantError::Malformed)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        (d.array().ok()?? == 5).then_some(())?;
        let statement = d.bytes().ok()?;
        (statement.len() <= MAX_STATEMENT).then_some(())?;
        let leaf = Leaf::decode(d.bytes().ok()?)?;
        let index = d.u64().ok()?;
        let path = read_array(&mut d, MAX_PATH, |item| item.try_into().ok())?;
        let access_chain = read_array(&mut d, MAX_CAS + 1, |item| Some(item.to_vec()))?;
        Some(Self { statement: statement.to_vec(), leaf, index, path, access_chain })
    }
}

fn read_array<T>(
    d: &mut Decoder<'_>,
    longest: usize,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let length = usize::try_from(d.array().ok()??).ok().filter(|length| *length <= longest)?;
    (0..length).map(|_| read(d.bytes().ok()?)).collect()
}

/// Verifies a grant, as a Lock does, with the pinned root certificate of its family (DER) and the SHA-256 of its own
/// identity key (DER SubjectPublicKeyInfo).
///
/// # Errors
/// Says what is wrong with it.
pub fn verify_grant(
    bytes: &[u8],
    pinned_root: &[u8],
    lock_key_hash: &Hash,
) -> Result<VerifiedGrant, GrantError> {
    let grant = Grant::decode(bytes)?;
    let statement = verify_statement(&grant.statement, pinned_root)?;
    statement.tree.verify(&grant.leaf, grant.index, &grant.path)?;
    let Leaf { target, effect, .. } = grant.leaf;
    if matches!(target, Target::Lock(hash) if hash != *lock_key_hash) {
        return Err(GrantError::OtherLock);
    }
    if statement.version.is_none()
        && (target, effect, statement.tree.size) != (Target::All, Effect::Deny, 1)
    {
        return Err(GrantError::BadRevocation);
    }
    let access_chain = match effect {
        Effect::Allow => verify_access(&grant.access_chain, &statement)?,
        Effect::Deny if grant.access_chain.is_empty() => Vec::new(),
        Effect::Deny => return Err(GrantError::Malformed),
    };
    let role = access_chain.first().and_then(Certificate::role);
    if (target, effect) == (Target::All, Effect::Allow) && !role.is_some_and(Role::is_issuer) {
        return Err(GrantError::NotAnIssuer);
    }
    Ok(VerifiedGrant { statement, target, effect, access_chain })
}

/// Verifies that the access certificate, if there is one, is of the statement's subject; [`verify_below`] checks that a
/// Master or Backup has an issuing key of its own.
///
/// The certificates at the end that both chains share were verified with the statement and are not verified again, because
/// verifying signatures takes most of a Lock's time.
fn verify_access(
    access_chain: &[Vec<u8>],
    statement: &VerifiedStatement,
) -> Result<Vec<Certificate>, GrantError> {
    if access_chain.is_empty() {
        return Ok(Vec::new());
    }
    let ends = access_chain.iter().rev().zip(statement.chain.iter().rev());
    let shared = ends.take_while(|(der, verified)| *der == verified.der()).count();
    let (own, _) = access_chain.split_at(access_chain.len() - shared);
    let mut chain = parse_chain(own)?;
    chain.extend(statement.chain.iter().skip(statement.chain.len() - shared).cloned());
    verify_below(&chain, shared).map_err(StatementError::from)?;
    let access =
        chain.first().filter(|access| access.role().is_some_and(|role| role != Role::Lock));
    if access.is_some_and(|access| *access.public_key() == statement.subject) {
        Ok(chain)
    } else {
        Err(GrantError::OtherKey)
    }
}
