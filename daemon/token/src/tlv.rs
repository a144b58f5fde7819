//! Encodes and decodes BER-TLV as SP 800-73-4 uses it. It encodes one-byte tags and decodes any tag.

use iso7816::tlv::take_data_object;
use zeroize::Zeroizing;

/// Returns the value of the first top-level object with this tag; `None` if there is none, or if the bytes before it are
/// malformed.
pub fn find(tag: u8, mut bytes: &[u8]) -> Option<&[u8]> {
    while let Some((found, value, rest)) = take_data_object(bytes) {
        if found == tag.into() {
            return Some(value);
        }
        bytes = rest;
    }
    None
}

/// Returns the value of the only object in `bytes`; `None` if they are anything else than one object with this tag.
pub fn only(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    match take_data_object(bytes) {
        Some((found, value, [])) if found == tag.into() => Some(value),
        _ => None,
    }
}

/// Appends one object, with the shortest encoding of its length.
pub fn push(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let length = value.len().to_be_bytes();
    let significant = &length[length.iter().position(|&b| b != 0).unwrap_or(length.len() - 1)..];
    if significant.len() > 1 || significant[0] > 0x7F {
        // The length has at most 8 bytes, so the cast is exact.
        out.push(0x80 | significant.len() as u8);
    }
    out.extend_from_slice(significant);
    out.extend_from_slice(value);
}

/// Encodes one object. The bytes are zeroized when dropped, because they may hold a secret.
pub fn encode(tag: u8, value: &[u8]) -> Zeroizing<Vec<u8>> {
    // Allocated at once, because a growing vector would leave copies that are not zeroized.
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() + 10));
    push(&mut out, tag, value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_minimal() {
        for (length, header) in [
            (0, &[0x53, 0][..]),
            (0x7F, &[0x53, 0x7F]),
            (0x80, &[0x53, 0x81, 0x80]),
            (0xFF, &[0x53, 0x81, 0xFF]),
            (0x100, &[0x53, 0x82, 1, 0]),
            (0x1_0000, &[0x53, 0x83, 1, 0, 0]),
        ] {
            let bytes = encode(0x53, &vec![0; length]);
            assert_eq!(&bytes[..bytes.len() - length], header);
        }
    }

    #[test]
    fn malformed_tlv_is_not_found() {
        for bytes in [&[][..], &[0x53], &[0x53, 2, 1], &[0x53, 0x82, 1], &[0x53, 0x84, 0, 0, 0, 0]]
        {
            assert_eq!(find(0x53, bytes), None, "{bytes:02X?}");
        }
        assert_eq!(only(0x53, &[0x53, 1, 7, 0]), None);
        assert_eq!(only(0x53, &[0x54, 1, 7]), None);
    }

    proptest! {
        #[test]
        fn encoded_values_decode(value in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = vec![0x70, 1, 9];
            push(&mut bytes, 0x71, &value);
            prop_assert_eq!(find(0x71, &bytes), Some(&value[..]));
            prop_assert_eq!(only(0x71, &bytes[3..]), Some(&value[..]));
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), tag: u8) {
            let _ = find(tag, &bytes);
            let _ = only(tag, &bytes);
        }
    }
}
