//! Why each command of a job is needed: by when it is sent, to which token, and its name.

/// A part of a whole job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The tokens are plugged in and the offer is made.
    Plug,
    /// A person gives PINs.
    Pins,
    /// From the last PIN on.
    Write,
}

/// Which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one that signs.
    Issuer,
    /// The one that becomes a Key.
    Candidate,
}

impl Phase {
    /// As the list has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plug => "plug",
            Self::Pins => "PINs",
            Self::Write => "write",
        }
    }
}

impl Who {
    /// As the list has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Candidate => "candidate",
        }
    }
}

/// One row of the table below: when, to which token (none: either), its name, the name of the
/// token's command before it (empty: any), and the reason.
type Reason = (Phase, Option<Who>, &'static str, &'static str, &'static str);

/// A command that nobody has explained.
const UNEXPLAINED: &str =
    "NOT EXPLAINED: a new command wants a reason in tests/bench/src/reasons.rs";

const CANDIDATE: Option<Who> = Some(Who::Candidate);
const ISSUER: Option<Who> = Some(Who::Issuer);
const EITHER: Option<Who> = None;

/// Where a command comes several times in a phase, its rows stand in that order; the last one goes
/// for all further ones.
const REASONS: &[Reason] = &[
    // Plug: what the Key is (4), then what is shown of it (3 here, 5 of a blank one, at most 5).
    (Phase::Plug, EITHER, "SELECT", "", "is there a PIV application"),
    (Phase::Plug, EITHER, "GET 5FC105", "", "9A's certificate: whose Key it is"),
    (Phase::Plug, EITHER, "GET 5FC10A", "", "9C's certificate: whether it can issue"),
    (Phase::Plug, EITHER, "GET 5FC102", "", "CHUID: its GUID, to know a blank Key again"),
    (
        Phase::Plug,
        EITHER,
        "GET METADATA 80",
        "",
        "factory PIN, tries; empty on this firmware, which ends the questions",
    ),
    (Phase::Plug, EITHER, "VERIFY QUERY", "", "tries of the PIN, where metadata is silent"),
    (Phase::Plug, EITHER, "GET VERSION", "", "whether its serial number is its own"),
    (
        Phase::Plug,
        EITHER,
        "GET 5FC10B",
        "",
        "of a blank one: is 9D in use, to say so at the review",
    ),
    (Phase::Plug, EITHER, "GET 5FC101", "", "the same of 9E"),
    (Phase::Plug, EITHER, "GET SERIAL", "", "its serial number"),
    // PINs: each is checked at once, and the token is released until the write.
    (Phase::Pins, EITHER, "SELECT", "", "the token was released after its plug"),
    (Phase::Pins, EITHER, "VERIFY", "", "the PIN is checked at once"),
    (
        Phase::Pins,
        EITHER,
        "VERIFY CLEAR",
        "",
        "nothing stays authorized while the person goes on typing",
    ),
    (Phase::Pins, EITHER, "VERIFY QUERY", "", "whether that worked"),
    // The write, on the candidate: the closer look.
    (Phase::Write, CANDIDATE, "SELECT", "", "the token was released after its PIN"),
    (
        Phase::Write,
        CANDIDATE,
        "SELECT",
        "",
        "drops the management key's authorization on tokens where a SELECT does",
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
        "the management key reads back with the PIN, before the old one is given up",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC109",
        "",
        "and is hidden without it: PRINTED is under the PIN, and the PIN is cleared",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "GET 5FC10C",
        "",
        "closer look: key history tells of retired containers",
    ),
    (Phase::Write, CANDIDATE, "AUTHENTICATE 9B", "", "management key: the token's witness"),
    (
        Phase::Write,
        CANDIDATE,
        "AUTHENTICATE 9B",
        "",
        "management key: both sides prove that they hold it",
    ),
    // Keys.
    (Phase::Write, CANDIDATE, "PUT 5FC102", "", "CHUID with a random GUID: the first write"),
    (Phase::Write, CANDIDATE, "GET 5FC102", "", "read back"),
    (Phase::Write, CANDIDATE, "GENERATE 9A", "", "the access key"),
    (
        Phase::Write,
        CANDIDATE,
        "GENERATE 9A",
        "",
        "without an algorithm: does the management key stay authorized",
    ),
    (Phase::Write, CANDIDATE, "GENERATE 9C", "", "the issuing key"),
    // The issuer signs.
    (Phase::Write, ISSUER, "SELECT", "", "the token was released after its PIN"),
    (Phase::Write, ISSUER, "VERIFY", "", "9C wants the PIN before every signature"),
    (Phase::Write, ISSUER, "AUTHENTICATE 9C", "", "signs the new Key's certificate"),
    (Phase::Write, ISSUER, "AUTHENTICATE 9C", "", "signs the statement"),
    (Phase::Write, ISSUER, "VERIFY CLEAR", "", "nothing stays authorized"),
    (Phase::Write, ISSUER, "VERIFY QUERY", "", "whether that worked"),
    // Certificates.
    (Phase::Write, CANDIDATE, "PUT 5FC10A", "", "the CA certificate"),
    (Phase::Write, CANDIDATE, "GET 5FC10A", "", "read back"),
    (Phase::Write, CANDIDATE, "PUT 5FC105", "", "the access certificate"),
    (Phase::Write, CANDIDATE, "GET 5FC105", "", "read back"),
    // The family's card, on a Backup Key.
    (Phase::Write, CANDIDATE, "GET 5FC10D", "", "is another program's data where the card goes"),
    (
        Phase::Write,
        CANDIDATE,
        "PUT 5FC10D",
        "",
        "the family's card, for stations that never met it",
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
        "marks a PIN-protected management key, where a token takes it",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "CHANGE REFERENCE 81",
        "",
        "the factory PUK becomes the recovery code",
    ),
    (
        Phase::Write,
        CANDIDATE,
        "VERIFY CLEAR",
        "",
        "the PIN is not needed any more: nothing stays authorized",
    ),
];

/// Why the command of this name was sent: the `nth` (from 0) of its name in its phase to its token,
/// after the command `before`.
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
