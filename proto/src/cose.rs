//! COSE_Sign1 (RFC 9052) as statements and confirmations use it: ES256, everything protected, one
//! encoding only.

use coset::{
    CoseSign1, CoseSign1Builder, Header, HeaderBuilder, Label, TaggedCborSerializable,
    cbor::value::Value, iana, iana::EnumI64,
};
use p256::ecdsa::Signature;
use sha2::{Digest, Sha256};

use crate::{PublicKey, Unsigned, public_key::BadSignature};

/// The content type of a statement. It is signed, so that one kind of message cannot pass for another.
pub(crate) const STATEMENT: &str = "application/vnd.keywright.statement+cbor";
/// See [`STATEMENT`].
pub(crate) const CONFIRMATION: &str = "application/vnd.keywright.confirmation+cbor";
/// See [`STATEMENT`].
pub(crate) const LOCK_REMOVAL: &str = "application/vnd.keywright.lock-removal+cbor";

/// A message without its signature. `chain` is left out where it is empty.
pub(crate) fn unsigned(
    signer: PublicKey,
    content_type: &str,
    chain: &[Vec<u8>],
    payload: Vec<u8>,
) -> Unsigned {
    Unsigned::cose(signer, message(content_type, chain, payload))
}

fn message(content_type: &str, chain: &[Vec<u8>], payload: Vec<u8>) -> CoseSign1 {
    let header = HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .content_type(content_type.to_owned());
    let x5chain = iana::HeaderParameter::X5Chain.to_i64();
    // RFC 9360, section 2: a lone certificate is not wrapped in an array.
    let header = match chain {
        [] => header,
        [one] => header.value(x5chain, Value::Bytes(one.clone())),
        many => {
            header.value(x5chain, Value::Array(many.iter().cloned().map(Value::Bytes).collect()))
        }
    };
    CoseSign1Builder::new().protected(header.build()).payload(payload).build()
}

/// A signed message, put together from its parts.
pub(crate) fn signed(
    content_type: &str,
    chain: &[Vec<u8>],
    payload: Vec<u8>,
    signature: &[u8; 64],
) -> Option<Vec<u8>> {
    let mut message = message(content_type, chain, payload);
    message.signature = signature.to_vec();
    message.to_tagged_vec().ok()
}

/// A message that was read. Nothing is verified yet.
pub(crate) struct Received {
    /// The x5chain, signer first; empty where there is none.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    /// SHA-256 of the Sig_structure.
    pub(crate) digest: [u8; 32],
    signature: Signature,
}

impl Received {
    /// Reads a tagged COSE_Sign1 of this content type and of at most `length` bytes; none where it
    /// is not exactly what [`unsigned`] and a signature make.
    pub(crate) fn parse(bytes: &[u8], content_type: &str, length: usize) -> Option<Self> {
        if bytes.len() > length {
            return None;
        }
        let found = CoseSign1::from_tagged_slice(bytes).ok()?;
        let chain = chain_of(&found.protected.header)?;
        let signature = Signature::from_slice(&found.signature).ok()?;
        // One encoding only: what was read has to come out again, byte for byte.
        let mut message = message(content_type, &chain, found.payload?);
        let digest = Sha256::digest(message.tbs_data(b"")).into();
        let payload = message.payload.clone()?;
        message.signature = found.signature;
        if message.to_tagged_vec().ok()? != bytes {
            return None;
        }
        Some(Self { chain, payload, digest, signature })
    }

    /// r and s, 64 bytes.
    pub(crate) fn signature(&self) -> [u8; 64] {
        self.signature.to_bytes().into()
    }

    pub(crate) fn verify(&self, signer: &PublicKey) -> Result<(), BadSignature> {
        signer.verify_signature(&self.digest, &self.signature)
    }
}

fn chain_of(header: &Header) -> Option<Vec<Vec<u8>>> {
    let certificate = |value: &Value| value.as_bytes().cloned();
    match header.rest.as_slice() {
        [] => Some(Vec::new()),
        [(Label::Int(33), Value::Array(many))] => many.iter().map(certificate).collect(),
        [(Label::Int(33), one)] => Some(vec![certificate(one)?]),
        _ => None,
    }
}
