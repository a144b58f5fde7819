//! Names command APDUs for the log. A name never has the command's data, which may be a PIN.

use iso7816::command::CommandView;

/// Names a command, with its slot or object. A `+` means that more pieces of the same command follow (command
/// chaining).
pub fn name(command: &[u8]) -> String {
    let Ok(view) = CommandView::try_from(command) else { return "MALFORMED".into() };
    let (p1, p2, data) = (view.p1, view.p2, view.data());
    let name = match u8::from(view.instruction()) {
        0x20 if p1 == 0xFF => "VERIFY CLEAR".into(),
        0x20 if data.is_empty() => "VERIFY QUERY".into(),
        0x20 => "VERIFY".into(),
        0x24 => format!("CHANGE REFERENCE {p2:02X}"),
        0x2C => "RESET RETRY COUNTER".into(),
        0x47 => format!("GENERATE {p2:02X}"),
        0x87 => format!("AUTHENTICATE {p2:02X}"),
        0xA4 => "SELECT".into(),
        0xC0 => "GET RESPONSE".into(),
        0xCB => format!("GET {}", object(data)),
        0xDB => format!("PUT {}", object(data)),
        0xF7 => format!("GET METADATA {p2:02X}"),
        0xF8 => "GET SERIAL".into(),
        0xFB => "RESET".into(),
        0xFD => "GET VERSION".into(),
        0xFE => format!("IMPORT {p2:02X}"),
        0xFF => "SET MANAGEMENT KEY".into(),
        other => format!("INS {other:02X}"),
    };
    let more = if view.class().chain().not_the_last() { "+" } else { "" };
    format!("{name}{more}")
}

/// Reads the object's tag from a GET DATA or PUT DATA (SP 800-73-4 part 2, 3.1.2).
fn object(data: &[u8]) -> String {
    match data {
        [0x5C, length, rest @ ..] => {
            rest.iter().take((*length).into()).map(|byte| format!("{byte:02X}")).collect()
        }
        [tag, ..] => format!("{tag:02X}"),
        [] => "NOTHING".into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_name_has_the_object_and_never_the_data() {
        let table: [(&[u8], &str); 9] = [
            (b"\x00\xA4\x04\x00\x05\xA0\x00\x00\x03\x08\x00", "SELECT"),
            (b"\x00\x20\x00\x80\x08123456\xFF\xFF", "VERIFY"),
            (b"\x00\x20\x00\x80", "VERIFY QUERY"),
            (b"\x00\x20\xFF\x80", "VERIFY CLEAR"),
            (b"\x00\x47\x00\x9A\x05\xAC\x03\x80\x01\x11\x00", "GENERATE 9A"),
            (b"\x00\xCB\x3F\xFF\x05\x5C\x03\x5F\xC1\x05\x00", "GET 5FC105"),
            (b"\x10\xDB\x3F\xFF\x06\x5C\x03\x5F\xC1\x0A\x53", "PUT 5FC10A+"),
            (b"\x00\x99\x00\x00", "INS 99"),
            (b"\x00", "MALFORMED"),
        ];
        for (command, name) in table {
            assert_eq!(super::name(command), name);
        }
    }
}
