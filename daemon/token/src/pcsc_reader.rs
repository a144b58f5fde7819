//! Which of pcscd's readers a USB token is: by its place on the bus, never by a name that two of them may share.

use std::ffi::CString;

/// A device on a USB bus (sysfs `busnum`, `devnum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The bus.
    pub bus: u8,
    /// The device on it.
    pub device: u8,
}

impl Address {
    /// Reads the attribute SCARD_ATTR_CHANNEL_ID (PC/SC part 3, 3.1.2): `DDDDCCCC`, where DDDD is 0020 for USB and CCCC is
    /// bus and device, as the CCID driver of pcscd fills it in. `None` for a reader that is on no USB.
    pub fn of_channel_id(attribute: &[u8]) -> Option<Self> {
        // A DWORD, which has the length of a C long here.
        let (low, rest) = attribute.split_first_chunk::<4>()?;
        let id = u32::from_le_bytes(*low);
        let usb = id >> 16 == 0x0020 && rest.iter().all(|byte| *byte == 0);
        let [device, bus, ..] = id.to_le_bytes();
        usb.then_some(Self { bus, device })
    }
}

/// What was seen of one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The token.
    It,
    /// Not the token.
    Another,
    /// Another program keeps it to itself.
    Hidden,
}

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    /// The one at this position.
    Reader(usize),
    /// None of them.
    None,
    /// It cannot be known.
    Unsure(&'static str),
}

/// The reader that is the token. A token with several readers, and one that may be behind a reader that cannot be asked,
/// is not guessed.
pub fn matched(seen: &[Seen]) -> Matched {
    let mut those = seen.iter().enumerate().filter(|(_, seen)| **seen == Seen::It);
    match (those.next(), those.next()) {
        (Some((position, _)), None) => Matched::Reader(position),
        (Some(_), Some(_)) => Matched::Unsure("pcscd, which shows several readers for it"),
        (None, _) if seen.contains(&Seen::Hidden) => {
            Matched::Unsure("another program, which keeps a reader of pcscd to itself")
        }
        (None, _) => Matched::None,
    }
}

/// The readers whose name contains the hint before the others: an order to ask in, and nothing more.
pub fn likeliest_first(mut readers: Vec<CString>, hint: &str) -> Vec<CString> {
    readers.sort_by_key(|reader| !reader.to_string_lossy().contains(hint));
    readers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_id_is_a_place_on_usb_or_none() {
        for (bytes, expected) in [
            (&[4, 1, 0x20, 0, 0, 0, 0, 0][..], Some(Address { bus: 1, device: 4 })),
            (&[127, 2, 0x20, 0], Some(Address { bus: 2, device: 127 })),
            (&[4, 1, 0x21, 0, 0, 0, 0, 0], None),
            (&[4, 1, 0x20, 1, 0, 0, 0, 0], None),
            (&[4, 1, 0x20, 0, 1, 0, 0, 0], None),
            (&[4, 1, 0x20], None),
            (&[], None),
        ] {
            assert_eq!(Address::of_channel_id(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_reader_is_matched_surely_or_not_at_all() {
        use Seen::{Another, Hidden, It};
        for (seen, expected) in [
            (&[][..], Matched::None),
            (&[Another, Another], Matched::None),
            (&[Another, It], Matched::Reader(1)),
            (&[It, Hidden], Matched::Reader(0)),
        ] {
            assert_eq!(matched(seen), expected, "{seen:?}");
        }
        for seen in [&[It, It][..], &[Another, Hidden], &[It, Another, It]] {
            assert!(matches!(matched(seen), Matched::Unsure(_)), "{seen:?}");
        }
    }

    #[test]
    fn a_hint_only_orders() {
        let names = |names: &[&str]| -> Vec<CString> {
            names.iter().map(|name| CString::new(*name).unwrap()).collect()
        };
        let readers = names(&["A (1) 00 00", "B (2) 01 00", "A (3) 02 00"]);
        let ordered = names(&["A (3) 02 00", "A (1) 00 00", "B (2) 01 00"]);
        assert_eq!(likeliest_first(readers.clone(), "(3)"), ordered);
        assert_eq!(likeliest_first(readers.clone(), "(9)"), readers);
    }
}
