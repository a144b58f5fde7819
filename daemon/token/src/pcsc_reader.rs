//! Determines which of pcscd's readers has a USB token: by its USB address, never by its name, which two tokens may share.

use std::ffi::CString;

/// The address of a USB device (sysfs `busnum`, `devnum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsbAddress {
    /// The bus number.
    pub bus: u8,
    /// The device number on the bus.
    pub device: u8,
}

impl UsbAddress {
    /// Decodes the attribute SCARD_ATTR_CHANNEL_ID (PC/SC part 3, 3.1.2): `DDDDCCCC`, where DDDD is 0020 for USB and CCCC
    /// is bus and device, as pcscd's CCID driver sets it. `None` for a reader that is not on USB.
    pub fn of_channel_id(attribute: &[u8]) -> Option<Self> {
        // A DWORD, which libpcsclite defines as a C long.
        let (low, rest) = attribute.split_first_chunk::<4>()?;
        let id = u32::from_le_bytes(*low);
        let usb = id >> 16 == 0x0020 && rest.iter().all(|byte| *byte == 0);
        let [device, bus, ..] = id.to_le_bytes();
        usb.then_some(Self { bus, device })
    }
}

/// What probing one reader found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderProbe {
    /// The reader has the token.
    Token,
    /// The reader does not have the token.
    NotToken,
    /// NotToken program keeps it to itself.
    Exclusive,
}

/// Which reader has the token.
#[derive(Debug, PartialEq, Eq)]
pub enum ReaderMatch {
    /// The reader at this position.
    Found(usize),
    /// No reader.
    NotFound,
    /// It cannot be determined, for this reason.
    Ambiguous(&'static str),
}

/// Determines the reader with the token. If the token has several readers, or may be in one that cannot be probed, the
/// result is ambiguous rather than a guess.
pub fn match_readers(seen: &[ReaderProbe]) -> ReaderMatch {
    let mut found = seen.iter().enumerate().filter(|(_, seen)| **seen == ReaderProbe::Token);
    match (found.next(), found.next()) {
        (Some((position, _)), None) => ReaderMatch::Found(position),
        (Some(_), Some(_)) => ReaderMatch::Ambiguous("pcscd, which shows several readers for it"),
        (None, _) if seen.contains(&ReaderProbe::Exclusive) => {
            ReaderMatch::Ambiguous("another program, which keeps a reader of pcscd to itself")
        }
        (None, _) => ReaderMatch::NotFound,
    }
}

/// Sorts readers whose name contains the hint before the others, so that they are probed first.
pub fn likeliest_first(mut readers: Vec<CString>, hint: &str) -> Vec<CString> {
    readers.sort_by_key(|reader| !reader.to_string_lossy().contains(hint));
    readers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_id_gives_the_usb_address() {
        for (bytes, expected) in [
            (&[4, 1, 0x20, 0, 0, 0, 0, 0][..], Some(UsbAddress { bus: 1, device: 4 })),
            (&[127, 2, 0x20, 0], Some(UsbAddress { bus: 2, device: 127 })),
            (&[4, 1, 0x21, 0, 0, 0, 0, 0], None),
            (&[4, 1, 0x20, 1, 0, 0, 0, 0], None),
            (&[4, 1, 0x20, 0, 1, 0, 0, 0], None),
            (&[4, 1, 0x20], None),
            (&[], None),
        ] {
            assert_eq!(UsbAddress::of_channel_id(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn reader_is_matched_only_if_unambiguous() {
        use ReaderProbe::{Exclusive, NotToken, Token};
        for (seen, expected) in [
            (&[][..], ReaderMatch::NotFound),
            (&[NotToken, NotToken], ReaderMatch::NotFound),
            (&[NotToken, Token], ReaderMatch::Found(1)),
            (&[Token, Exclusive], ReaderMatch::Found(0)),
        ] {
            assert_eq!(match_readers(seen), expected, "{seen:?}");
        }
        for seen in [&[Token, Token][..], &[NotToken, Exclusive], &[Token, NotToken, Token]] {
            assert!(matches!(match_readers(seen), ReaderMatch::Ambiguous(_)), "{seen:?}");
        }
    }

    #[test]
    fn hint_only_orders_readers() {
        let names = |names: &[&str]| -> Vec<CString> {
            names.iter().map(|name| CString::new(*name).unwrap()).collect()
        };
        let readers = names(&["A (1) 00 00", "B (2) 01 00", "A (3) 02 00"]);
        let ordered = names(&["A (3) 02 00", "A (1) 00 00", "B (2) 01 00"]);
        assert_eq!(likeliest_first(readers.clone(), "(3)"), ordered);
        assert_eq!(likeliest_first(readers.clone(), "(9)"), readers);
    }
}
