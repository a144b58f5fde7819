//! The management key (SP 800-73-4: PIV Card Application Administration Key, 9B): its types, its cipher, and its encoding
//! in PRINTED (the PIN-protected convention of Yubico's tools).

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use des::{TdesEde3, weak_key_test};
use zeroize::Zeroizing;

use super::tlv;

/// The byte pattern of the factory's key on every known token.
const FACTORY: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const PROTECTED: u8 = 0x88;
const PROTECTED_KEY: u8 = 0x89;
/// The contents of the admin data object (Yubico's `pivman` data) that say: the management key is stored under the PIN.
pub const ADMIN_DATA: [u8; 5] = [0x80, 3, 0x81, 1, 2];

/// The algorithm of a management key (SP 800-78-5 table 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyType {
    /// 3DES, three keys.
    Tdes = 0x03,
    /// AES-128.
    Aes128 = 0x08,
    /// AES-192.
    Aes192 = 0x0A,
    /// AES-256.
    Aes256 = 0x0C,
}

impl KeyType {
    /// All types, the most common first.
    pub const ALL: [KeyType; 4] =
        [KeyType::Tdes, KeyType::Aes192, KeyType::Aes256, KeyType::Aes128];

    /// Returns the PIV algorithm identifier.
    pub fn algorithm(self) -> u8 {
        self as u8
    }

    /// Returns the length of a key in bytes.
    pub fn length(self) -> usize {
        match self {
            KeyType::Aes128 => 16,
            KeyType::Tdes | KeyType::Aes192 => 24,
            KeyType::Aes256 => 32,
        }
    }

    /// Returns the length of witness, challenge and response in bytes: one block of the cipher.
    pub fn block(self) -> usize {
        if self == KeyType::Tdes { 8 } else { 16 }
    }
}

/// A management key. It is zeroized when dropped, and `Debug` does not print it.
#[derive(Clone)]
pub struct ManagementKey {
    kind: KeyType,
    bytes: Zeroizing<Vec<u8>>,
}

impl ManagementKey {
    /// Creates a key of this type; `None` if the length is wrong.
    pub fn new(kind: KeyType, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == kind.length()).then(|| Self { kind, bytes: bytes.to_vec().into() })
    }

    /// Returns the factory's key.
    pub fn factory(kind: KeyType) -> Self {
        let bytes: Vec<u8> = FACTORY.iter().copied().cycle().take(kind.length()).collect();
        Self { kind, bytes: bytes.into() }
    }

    /// Creates a random key. A 3DES key gets odd parity and no weak part, because tokens refuse others.
    pub fn random(kind: KeyType) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new(vec![0; kind.length()]);
        loop {
            getrandom::fill(&mut bytes)?;
            if kind == KeyType::Tdes {
                bytes.iter_mut().for_each(|byte| *byte ^= u8::from(byte.count_ones() % 2 == 0));
                if weak_key_test(&bytes).is_err() {
                    continue;
                }
            }
            return Ok(Self { kind, bytes });
        }
    }

    /// Returns the type of the key.
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encrypts one block; `None` if `block` has the wrong length.
    pub(super) fn encrypt(&self, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.kind {
            KeyType::Tdes => encrypt::<TdesEde3>(&self.bytes, block),
            KeyType::Aes128 => encrypt::<Aes128>(&self.bytes, block),
            KeyType::Aes192 => encrypt::<Aes192>(&self.bytes, block),
            KeyType::Aes256 => encrypt::<Aes256>(&self.bytes, block),
        }
    }

    /// Decrypts one block; `None` if `block` has the wrong length.
    pub(super) fn decrypt(&self, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.kind {
            KeyType::Tdes => decrypt::<TdesEde3>(&self.bytes, block),
            KeyType::Aes128 => decrypt::<Aes128>(&self.bytes, block),
            KeyType::Aes192 => decrypt::<Aes192>(&self.bytes, block),
            KeyType::Aes256 => decrypt::<Aes256>(&self.bytes, block),
        }
    }

    /// Encodes the key as the contents of PRINTED: `88 { 89 key }`.
    pub(super) fn protected(&self) -> Zeroizing<Vec<u8>> {
        tlv::encode(PROTECTED, &tlv::encode(PROTECTED_KEY, &self.bytes))
    }
}

/// Decodes the key from the contents of PRINTED; `None` if they are something else.
pub(super) fn protected_key(printed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = tlv::only(PROTECTED_KEY, tlv::only(PROTECTED, printed)?)?;
    matches!(key.len(), 16 | 24 | 32).then(|| key.to_vec().into())
}

impl fmt::Debug for ManagementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagementKey({:?})", self.kind)
    }
}

fn encrypt<C: BlockCipherEncrypt + KeyInit>(key: &[u8], data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut block = Block::<C>::try_from(data).ok()?;
    C::new_from_slice(key).ok()?.encrypt_block(&mut block);
    Some(block.to_vec().into())
}

fn decrypt<C: BlockCipherDecrypt + KeyInit>(key: &[u8], data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut block = Block::<C>::try_from(data).ok()?;
    C::new_from_slice(key).ok()?.decrypt_block(&mut block);
    Some(block.to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197 appendix C; for 3DES the example of SP 800-67 appendix B, first block.
    #[test]
    fn ciphers_match_the_standards_examples() {
        let plain = "00112233445566778899aabbccddeeff";
        for (kind, key, plain, expected) in [
            (
                KeyType::Tdes,
                "0123456789abcdef23456789abcdef01456789abcdef0123",
                "5468652071756663",
                "a826fd8ce53b855f",
            ),
            (
                KeyType::Aes128,
                "000102030405060708090a0b0c0d0e0f",
                plain,
                "69c4e0d86a7b0430d8cdb78070b4c55a",
            ),
            (
                KeyType::Aes192,
                "000102030405060708090a0b0c0d0e0f1011121314151617",
                plain,
                "dda97ca4864cdfe06eaf70a0ec0d7191",
            ),
            (
                KeyType::Aes256,
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                plain,
                "8ea2b7ca516745bfeafc49904b496089",
            ),
        ] {
            let key = ManagementKey::new(kind, &hex::decode(key).unwrap()).unwrap();
            let plain = hex::decode(plain).unwrap();
            let encrypted = key.encrypt(&plain).unwrap();
            assert_eq!(hex::encode(&*encrypted), expected, "{kind:?}");
            assert_eq!(*key.decrypt(&encrypted).unwrap(), plain, "{kind:?}");
            assert!(key.encrypt(&plain[1..]).is_none());
        }
    }

    #[test]
    fn factory_keys_have_the_right_length() {
        for kind in KeyType::ALL {
            let key = ManagementKey::factory(kind);
            assert_eq!(key.bytes().len(), kind.length());
            assert_eq!(key.bytes()[8..16], FACTORY);
        }
    }

    #[test]
    fn random_keys_are_strong_and_differ() {
        for kind in KeyType::ALL {
            let (a, b) =
                (ManagementKey::random(kind).unwrap(), ManagementKey::random(kind).unwrap());
            assert_eq!(a.bytes().len(), kind.length());
            assert_ne!(a.bytes(), b.bytes());
            if kind == KeyType::Tdes {
                assert!(a.bytes().iter().all(|byte| byte.count_ones() % 2 == 1));
                assert!(weak_key_test(a.bytes()).is_ok());
            }
        }
    }

    #[test]
    fn only_protected_keys_are_read_from_printed() {
        for kind in KeyType::ALL {
            let key = ManagementKey::random(kind).unwrap();
            assert_eq!(protected_key(&key.protected()).unwrap()[..], *key.bytes());
        }
        for other in [&[][..], &[0x88, 0], &[0x88, 3, 0x89, 1, 7], &[0x01, 2, 0x4E, 0x69]] {
            assert!(protected_key(other).is_none(), "{other:02X?}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert_eq!(format!("{:?}", ManagementKey::factory(KeyType::Tdes)), "ManagementKey(Tdes)");
    }
}
