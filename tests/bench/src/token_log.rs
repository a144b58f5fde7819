//! Names and counts the commands that went to a token; chained pieces and GET RESPONSE are not commands of their own.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use keywright_bus_tests::card::Exchange;

const INS_GET_RESPONSE: u8 = 0xC0;
/// CLA bit of command chaining: more pieces follow (ISO 7816-4, 5.3.3).
const CLA_CHAINED: u8 = 0x10;

/// A command that a token received.
#[derive(Debug, Clone)]
pub struct Command {
    /// When it was received.
    pub came: Instant,
    /// Its name in the virtual Key's log.
    pub name: String,
}

/// Whether this message ends a command: it is neither GET RESPONSE nor a chained piece with more to follow.
pub fn is_command(message: &[u8]) -> bool {
    match message {
        [class, instruction, ..] => *instruction != INS_GET_RESPONSE && class & CLA_CHAINED == 0,
        _ => false,
    }
}

/// Time that the token took for everything up to the end of the answer to its `n`-th command.
pub fn token_time(exchanges: &[Exchange], n: usize) -> Duration {
    let mut commands = 0;
    let before = exchanges.iter().take_while(|exchange| {
        commands += usize::from(is_command(&exchange.message));
        commands <= n
    });
    before.map(|exchange| exchange.took).sum()
}

/// Joins the commands with their names in the virtual Key's log, which has one line per APDU in the same order.
pub fn named(exchanges: &[Exchange], log: &Path) -> Vec<Command> {
    let log = fs::read_to_string(log).unwrap();
    let apdus = exchanges.iter().filter(|exchange| exchange.message.len() > 1);
    let named = apdus.zip(log.lines()).filter(|(exchange, _)| is_command(&exchange.message));
    let name = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    named.map(|(exchange, line)| Command { came: exchange.came, name: name(line) }).collect()
}

/// Counts the successes of a command in the virtual Key's log.
pub fn successes(log: &Path, name: &str) -> u64 {
    let log = fs::read_to_string(log).unwrap();
    let wanted = format!("{name}\t9000\t");
    log.lines().filter(|line| line.starts_with(&wanted)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(message: &[u8], milliseconds: u64) -> Exchange {
        let took = Duration::from_millis(milliseconds);
        Exchange { message: message.into(), came: Instant::now(), took }
    }

    #[test]
    fn chained_pieces_and_control_codes_are_not_counted() {
        let table: [(&[u8], bool); 5] = [
            (&[4], false),
            (&[0, 0xA4, 4, 0], true),
            (&[0, 0xC0, 0, 0, 0], false),
            (&[0x10, 0xDB, 0x3F, 0xFF], false),
            (&[0, 0xDB, 0x3F, 0xFF], true),
        ];
        for (message, expected) in table {
            assert_eq!(is_command(message), expected, "{message:02X?}");
        }
    }

    #[test]
    fn token_time_includes_get_response() {
        let select = [0, 0xA4, 4, 0];
        let more = [0, 0xC0, 0, 0, 0];
        let exchanges =
            [exchange(&[4], 1), exchange(&select, 2), exchange(&more, 4), exchange(&select, 8)];
        assert_eq!(token_time(&exchanges, 1), Duration::from_millis(7));
        assert_eq!(token_time(&exchanges, 2), Duration::from_millis(15));
    }

    #[test]
    fn command_names_come_from_the_log() {
        let dir = tempfile::TempDir::new().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "SELECT\t61FF\t1\nGET RESPONSE\t9000\t1\nVERIFY\t9000\t1\n").unwrap();
        let exchanges = [
            exchange(&[4], 0),
            exchange(&[0, 0xA4, 4, 0], 0),
            exchange(&[0, 0xC0, 0, 0, 0], 0),
            exchange(&[0, 0x20, 0, 0x80], 0),
        ];
        let names: Vec<_> = named(&exchanges, &log).into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["SELECT", "VERIFY"]);
        assert_eq!((successes(&log, "SELECT"), successes(&log, "VERIFY")), (0, 1));
    }
}
