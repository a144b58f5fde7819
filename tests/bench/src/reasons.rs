//! The table of reasons for each command of a job: by phase, token and name.

/// A part of a whole job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the plug to the offer.
    Plug,
    /// PINs are entered and verified.
    Pins,
    /// Everything after the last PIN.
    Write,
}

/// The token that gets the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The Key that signs.
    Issuer,
    /// The token that becomes a Key.
    Candidate,
}

impl Phase {
    /// Name in the list.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plug => "plug",
            Self::Pins => "PINs",
            Self::Write => "write",
        }
    }
}

impl Who {
    /// Name in the list.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Candidate => "candidate",
        }
    }
}

/// A row of the table: phase, token (None: either), name, name of the token's previous command (empty: any), reason.
type Reason = (Phase, Option<Who>, &'static str, &'static str, &'static str);

/// Printed for a command that is not in the table.
const UNEXPLAINED: &str = "NOT EXPLAINED: add the reason to tests/bench/src/reasons.rs";

const CANDIDATE: Option<Who> = Some(Who::Candidate);
const ISSUER: Option<Who> = Some(Who::Issuer);
const EITHER: Option<Who> = None;

/// If a command is sent several times in a phase, its rows are in that order; the last row is used for all further ones.
const REASONS: &[Reason] = &[
    // Plug: 4 commands identify the Key, then at most 5 read its properties (3 with this firmware, 5 of a blank Key).
    (Phase::Plug, EITHER, "SELECT", "", "is there a PIV application"),
    (Phase::Plug, EITHER, "GET 5FC105", "", "9A's certificate: whose Key it is"),
    (Phase::Plug, EITHER, "GET 5FC10A", "", "9C's certificate: whether it can issue"),
    (Phase::Plug, EITHER, "GET 5FC102", "", "CHUID: its GUID, to know a blank Key again"),
    (
        Phase::Plug,
        EITHER,
        "GET METADATA 80",
        "",
        "factory PIN, tries; this firmware answers nothing, so no more metadata is read",
    ),
    (Phase::Plug, EITHER, "VERIFY QUERY", "", "tries of the PIN, if there is no metadata"),
    (Phase::Plug, EITHER, "GET VERSION", "", "whether the token has a serial number of its own"),
    (Phase::Plug, EITHER, "GET 5FC10B", "", "blank Key: is 9D in use, for a warning at the review"),
    (Phase::Plug, EITHER, "GET 5FC101", "", "blank Key: is 9E in use"),
    (Phase::Plug, EITHER, "GET SERIAL", "", "its serial number"),
    // PINs: each is verified at once, then the token is released until the write.
    (Phase::Pins, EITHER, "SELECT", "", "the token was released after its plug"),
    (Phase::Pins, EITHER, "VERIFY", "", "verifies the PIN at once"),
    (
        Phase::Pins,
        EITHER,
        "VERIFY CLEAR",
        "",
        "nothing stays authorized while the person enters other PINs",
    ),
    (Phase::Pins, EITHER, "VERIFY QUERY", "", "confirms that the PIN is cleared"),
    // The write, on the candidate: the closer look.
    (Phase::Write, CANDIDATE, "SELECT", "", "the token was released after its PIN"),
    (
        Phase::Write,
        CANDIDATE,
        "SELECT",
        "",
        "drops the management key's authorization on tokens where SELECT does that",
    ),
    (Phase::Write, CANDIDATE, "VERIFY", "SELECT", "the closer look needs the PIN"),
    (Phase::Write, CANDIDATE, "VERIFY", "", "9C wants the PIN before every signature"),
    (
        Phase::Write,
        CANDIDATE,
        "AUTHENTICATE 9C",
        "",
        "closer look: does 9C hold a key (only a signature tells)",
    ),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9C", "", "signs its own access certificate"),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9C", "", "signs its first CRL"),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9A", "", "closer look: does 9A hold a key"),
    (Phase::Write, CANDIDATE, "GET 5FC10B", "", "closer look: 9D is factory"),
    (Phase::Write, CANDIDATE, "GET 5FC101", "", "closer look: 9E is factory"),
    (Phase::Write, CANDIDATE, "GET 5FC109", "", "closer look: PRINTED is factory"),
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC109",
        "",
        "the new management key reads back with the PIN, before the old one is replaced",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC109",
        "",
        "PRINTED cannot be read without the PIN, which is cleared",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC10C",
        "",
        "closer look: the key history lists retired containers",
    ),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9B", "", "management key: the token's witness"),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9B", "", "management key: mutual authentication"),
    // Keys.
    (Phase::Write, CANDIDATE, "PUT 5FC102", "", "CHUID with a random GUID: the first write"),
    (Phase::Write, CANDIDATE, "GET 5FC102", "", "read back"),
    (Phase::Write, CANDIDATE, "GENERATE 9A", "", "the access key"),
    (
        Phase::Write,
        CANDIDATE,
        "GENERATE 9A",
        "",
        "without an algorithm: is the management key still authorized",
    ),
    (Phase::Write, CANDIDATE, "GENERATE 9C", "", "the issuing key"),
    // The issuer's signatures.
    (Phase::Write, ISSUER, "SELECT", "", "the token was released after its PIN"),
    (Phase::Write, ISSUER, "VERIFY", "", "9C wants the PIN before every signature"),
    (Phase::Write, ISSUER, "AUTHENTICATE 9C", "", "signs the new Key's certificate"),
    (Phase::Write, ISSUER, "AUTHENTICATE 9C", "", "signs the statement"),
    (Phase::Write, ISSUER, "VERIFY CLEAR", "", "nothing stays authorized"),
    (Phase::Write, ISSUER, "VERIFY QUERY", "", "confirms that the PIN is cleared"),
    // Certificates.
    (Phase::Write, CANDIDATE, "PUT 5FC10A", "", "the CA certificate"),
    (Phase::Write, CANDIDATE, "GET 5FC10A", "", "read back"),
    (Phase::Write, CANDIDATE, "PUT 5FC105", "", "the access certificate"),
    (Phase::Write, CANDIDATE, "GET 5FC105", "", "read back"),
    // The family's card, on a Backup Key.
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC10D",
        "",
        "does the card's object hold another program's data",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "PUT 5FC10D",
        "",
        "the family's card, for stations that do not know the family",
    ),
    (Phase::Write, CANDIDATE, "GET 5FC10D", "PUT 5FC10D", "read back"),
    // PIN, management key, PUK.
    (Phase::Write, CANDIDATE, "CHANGE REFERENCE 80", "", "the new PIN"),
    (
        Phase::Write,
        CANDIDATE,
        "PUT 5FC109",
        "",
        "the new management key goes to PRINTED before it is in force",
    ),
    (Phase::Write, CANDIDATE, "SET MANAGEMENT KEY", "", "the new management key is in force"),
    (
        Phase::Write,
        CANDIDATE,
        "PUT 5FFF00",
        "",
        "marks a PIN-protected management key, on tokens that accept it",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "CHANGE REFERENCE 81",
        "",
        "the factory PUK becomes the recovery code",
    ),
    (Phase::Write, CANDIDATE, "VERIFY CLEAR", "", "clears the PIN: nothing stays authorized"),
];

/// Finds the reason for a command: the `nth` (from 0) of this name in its phase to its token, sent after the command
/// `before`.
pub fn why(phase: Phase, who: Who, name: &str, nth: usize, before: &str) -> &'static str {
    let of_name =
        |row: &&Reason| row.0 == phase && row.1.is_none_or(|wanted| wanted == who) && row.2 == name;
    let exact = REASONS.iter().filter(of_name).find(|row| !row.3.is_empty() && row.3 == before);
    let any: Vec<_> = REASONS.iter().filter(of_name).filter(|row| row.3.is_empty()).collect();
    exact.or(any.get(nth).or(any.last()).copied()).map_or(UNEXPLAINED, |row| row.4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_depends_on_phase_order_and_previous_command() {
        let write = |name, nth, before| why(Phase::Write, Who::Candidate, name, nth, before);
        assert_eq!(write("VERIFY", 0, "SELECT"), "the closer look needs the PIN");
        assert_eq!(write("VERIFY", 3, "GET 5FC109"), "9C wants the PIN before every signature");
        assert_eq!(write("GET 5FC105", 0, "PUT 5FC105"), "read back");
        assert_eq!(write("AUTHENTICATE 9C", 2, "VERIFY"), "signs its first CRL");
        assert_eq!(write("AUTHENTICATE 9C", 9, "VERIFY"), "signs its first CRL");
        assert_eq!(why(Phase::Plug, Who::Issuer, "GENERATE 9A", 0, ""), UNEXPLAINED);
    }
}
