//! The vpcd protocol (vsmartcard, `virtualsmartcard/src/vpcd`), the card's side: messages of a
//! 2-byte big-endian length and that many bytes; one byte is a control code, more are an APDU.

use std::io::{self, ErrorKind, Read, Write};

const POWER_OFF: u8 = 0;
const POWER_ON: u8 = 1;
const RESET: u8 = 2;
const ATR: u8 = 4;

/// T=1, and historical bytes that name no product; the last byte is the checksum (ISO 7816-3, 8.2).
pub const ANSWER_TO_RESET: [u8; 13] = *b"\x3B\x89\x01Keywright\xC8";

/// Serves the reader until it closes the connection.
///
/// Power and reset do nothing: as in the product, this firmware keeps its security state through both, and
/// only an unplug clears it.
pub fn serve(
    reader: &mut (impl Read + Write),
    mut transmit: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    while let Some(message) = receive(reader)? {
        match message[..] {
            [POWER_OFF | POWER_ON | RESET] => (),
            [ATR] => send(reader, &ANSWER_TO_RESET)?,
            [] | [_] => return Err(io::Error::new(ErrorKind::InvalidData, "unknown control code")),
            _ => send(reader, &transmit(&message)?)?,
        }
    }
    Ok(())
}

/// Reads the next message; None at the end of the connection.
fn receive(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match reader.read_exact(&mut length) {
        Err(error)
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            return Ok(None);
        }
        result => result?,
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    reader.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Writes length and payload in one call: two writes cost 40 ms over TCP.
fn send(reader: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    reader.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_reset_is_well_formed() {
        let historical = usize::from(ANSWER_TO_RESET[1] & 0x0F);
        assert_eq!(ANSWER_TO_RESET.len(), 3 + historical + 1);
        assert_eq!(ANSWER_TO_RESET[1..].iter().fold(0, |sum, byte| sum ^ byte), 0);
    }
}
