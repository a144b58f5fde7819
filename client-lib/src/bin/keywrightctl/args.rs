//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use keywright_client::Kind;

/// Make and manage Backup and Sub Keys.
///
/// An ID is a name, an id, or the first 4 or more digits of an id, as long as only one fits.
#[derive(Debug, Parser)]
#[command(name = "keywrightctl", version, max_term_width = 100)]
pub struct Args {
    /// Print JSON: one document, or one line an event for `watch`
    #[arg(long, global = true)]
    pub json: bool,

    /// The daemon's bus: `system`, `session` or a D-Bus address
    #[arg(long, global = true, value_name = "BUS", default_value = "system")]
    pub bus: String,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List Keys: those plugged in, then the others that this station knows
    Keys,
    /// List Locks, or the rights of one Key
    Locks {
        /// Only the Locks that this Key may access, with the state of each right
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// Only the Locks of this group
        #[arg(long, value_name = "NAME", conflicts_with = "key")]
        group: Option<String>,
    },
    /// Say why there is no offer for a pair of Keys
    Decisions,
    /// Show plugs, offers and progress as they happen
    Watch,
    /// Make a Key, with questions
    Wizard,
    /// Make a Key, without questions
    Serialize(Serialize),
    /// Look at one Key or change it
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a Sub Key whose private key lives in software
    #[command(subcommand)]
    SoftKey(SoftKeyCommand),
    /// Add, rename or remove a Lock
    #[command(subcommand)]
    Lock(LockCommand),
    /// Name groups of Locks, to be used as `group:NAME` wherever Locks are named
    #[command(subcommand)]
    Group(GroupCommand),
    /// What a family publishes
    #[command(subcommand)]
    Family(FamilyCommand),
    /// The log of security-relevant events
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check this station and the Keys plugged in, and say what to mend
    Doctor,
}

/// `serialize`.
#[derive(Debug, ClapArgs)]
pub struct Serialize {
    /// What to make: `master`, `backup` or `sub`
    #[arg(long)]
    pub kind: Kind,
    /// What to call the new Key
    #[arg(long)]
    pub name: String,
    /// The issuing Key; needed where more than one could issue
    #[arg(long, value_name = "ID")]
    pub issuer: Option<String>,
    /// The object path of the Key to be made; needed where more than one could be
    #[arg(long, value_name = "PATH")]
    pub candidate: Option<String>,
    /// A Lock that a Sub Key may access, or a group as `group:NAME`; may be repeated
    #[arg(long = "lock", value_name = "ID", conflicts_with = "all_locks")]
    pub locks: Vec<String>,
    /// A Sub Key may access every Lock that the family has now
    #[arg(long)]
    pub all_locks: bool,
    /// A file with the issuing Key's PIN
    #[arg(long, value_name = "FILE")]
    pub issuer_pin_file: Option<PathBuf>,
    /// A file with the PIN that the Key to be made has now
    #[arg(long, value_name = "FILE")]
    pub candidate_pin_file: Option<PathBuf>,
    /// A file with the PIN that it gets, where it has its factory PIN
    #[arg(long, value_name = "FILE")]
    pub new_pin_file: Option<PathBuf>,
    /// Where to write the recovery code (mode 0600); must not exist, or be empty
    #[arg(long, value_name = "FILE")]
    pub recovery_code_file: Option<PathBuf>,
    /// Ask nothing; without it, a person at the terminal is asked for what is missing
    #[arg(long)]
    pub yes: bool,
}

/// Which Key signs, and its PIN.
#[derive(Debug, ClapArgs)]
pub struct Issuer {
    /// The issuing Key; needed where more than one is plugged in
    #[arg(long, value_name = "ID")]
    pub issuer: Option<String>,
    /// A file with its PIN; without it, the PIN is asked for
    #[arg(long, value_name = "FILE")]
    pub issuer_pin_file: Option<PathBuf>,
}

/// `key …`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a Key's certificate chain, PEM, leaf first
    Certificate {
        /// The Key
        id: String,
        /// The certificate of this family; default: the Key's own
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Rename a Key on this station
    Rename {
        /// The Key
        id: String,
        /// Its new name
        name: String,
    },
    /// Revoke a Key, for good
    Revoke {
        /// The Key
        id: String,
        /// Why: a word or two, kept with the revocation
        #[arg(long, default_value = "unspecified")]
        reason: String,
        /// Do not ask whether it is meant
        #[arg(long)]
        yes: bool,
        /// Who signs it
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Show a Key's rights, or change them
    Rights {
        /// The Key
        id: String,
        /// A Lock that it may access from now on, or a group as `group:NAME`; may be repeated
        #[arg(long, value_name = "ID")]
        add: Vec<String>,
        /// A Lock that it may no longer access, or a group as `group:NAME`; may be repeated
        #[arg(long, value_name = "ID")]
        remove: Vec<String>,
        /// Who signs it
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Change a Key's PIN
    Pin {
        /// The Key
        id: String,
        /// A file with its PIN as it is
        #[arg(long, value_name = "FILE")]
        old_pin_file: Option<PathBuf>,
        /// A file with its new PIN
        #[arg(long, value_name = "FILE")]
        new_pin_file: Option<PathBuf>,
    },
    /// Set a new PIN with the recovery code
    Unblock {
        /// The Key
        id: String,
        /// A file with the recovery code
        #[arg(long, value_name = "FILE")]
        recovery_code_file: Option<PathBuf>,
        /// A file with its new PIN
        #[arg(long, value_name = "FILE")]
        new_pin_file: Option<PathBuf>,
    },
}

/// `lock …`.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Serialize a Key to a Lock: certify the Lock's request
    Add {
        /// What to call the Lock
        name: String,
        /// The Lock's PKCS#10 request, PEM
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// Where to write its certificate chain, PEM
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Who signs it
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Rename a Lock on this station
    Rename {
        /// The Lock
        id: String,
        /// Its new name
        name: String,
    },
    /// Remove a Lock from its family, for good; it need not be there
    Remove {
        /// The Lock
        id: String,
        /// Do not ask whether it is meant
        #[arg(long)]
        yes: bool,
        /// Who signs it
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Write what a Lock has to know of a Key into a file, for it to be carried there
    Grant {
        /// The Key
        key: String,
        /// The Lock
        lock: String,
        /// The file; it must not exist yet
        #[arg(long)]
        out: PathBuf,
    },
    /// Take in what Locks confirmed, carried here by hand
    Confirm {
        /// The files with the confirmations
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// `soft-key …`.
#[derive(Debug, Subcommand)]
pub enum SoftKeyCommand {
    /// Make a key pair here and write it with its certificates into a PKCS#12 file
    Create {
        /// What to call it
        name: String,
        /// A Lock that it may access, or a group as `group:NAME`; may be repeated
        #[arg(long = "lock", value_name = "ID", required = true)]
        locks: Vec<String>,
        /// The file (mode 0600); it must not exist yet
        #[arg(long)]
        out: PathBuf,
        /// A file with the password for it; without it, the password is asked for
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Which Key signs
        #[command(flatten)]
        issuer: Issuer,
    },
}

/// `group …`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups
    List,
    /// List the Locks of a group
    Show {
        /// The group
        name: String,
        /// Its family, where several have such a group
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Add Locks to a group and take others out; makes it where there is none
    Set {
        /// The group
        name: String,
        /// A Lock to be added, or all of another group as `group:NAME`; may be repeated
        #[arg(long, value_name = "LOCK")]
        add: Vec<String>,
        /// A Lock to be taken out, or all of another group as `group:NAME`; may be repeated
        #[arg(long, value_name = "LOCK")]
        remove: Vec<String>,
        /// Its family; default: the one that has such a group, or the only one
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Remove a group; its Locks and all rights stay
    Remove {
        /// The group
        name: String,
        /// Its family, where several have such a group
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
}

/// `family …`.
#[derive(Debug, Subcommand)]
pub enum FamilyCommand {
    /// Show what is still to be signed in a family, and by which Key
    Show {
        /// The family, or a Key of it; default: the only one
        id: Option<String>,
    },
    /// Print a family's roots and CRLs, PEM: what a server needs to check its Keys
    Bundle {
        /// The family, or a Key of it; default: the only one
        id: Option<String>,
        /// Write the roots here instead
        #[arg(long, value_name = "FILE", requires = "crls")]
        roots: Option<PathBuf>,
        /// Write the CRLs here instead
        #[arg(long, value_name = "FILE", requires = "roots")]
        crls: Option<PathBuf>,
    },
    /// Write a family's signed objects, for another station
    Export {
        /// Where to write them; must not exist
        file: PathBuf,
        /// The family, or a Key of it; default: the only one
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Merge what another station exported
    Import {
        /// Its export
        file: PathBuf,
    },
}

/// `audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the log, one line of JSON an event, oldest first
    Export {
        /// Write it into this file instead; it must not exist yet
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check that no event was changed, left out or put in, and print the hash of the newest one
    Verify {
        /// A file with an exported log, `-` for standard input; default: the daemon's own log
        file: Option<PathBuf>,
        /// A hash that was noted earlier: the log has to go at least as far
        #[arg(long, value_name = "HASH")]
        expect: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Args, ErrorKind> {
        Args::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn command_line_definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn documented_command_lines_parse() {
        for line in [
            "keywrightctl keys",
            "keywrightctl --json keys",
            "keywrightctl keys --json --bus session",
            "keywrightctl --bus unix:path=/run/x locks",
            "keywrightctl locks --key 1234",
            "keywrightctl decisions",
            "keywrightctl watch --json",
            "keywrightctl wizard",
            "keywrightctl serialize --kind master --name M --yes",
            "keywrightctl serialize --kind sub --name S --lock a --lock b --yes",
            "keywrightctl serialize --kind backup --name B --issuer 1234 --candidate /a/b \
             --issuer-pin-file i --candidate-pin-file c --new-pin-file n \
             --recovery-code-file r --yes",
            "keywrightctl key certificate 1234",
            "keywrightctl key rename 1234 Spare",
            "keywrightctl key revoke 1234",
            "keywrightctl key rights 1234 --add a --remove b",
            "keywrightctl key pin 1234",
            "keywrightctl key unblock 1234",
            "keywrightctl lock add Door --csr c --out o",
            "keywrightctl lock rename 1234 Door",
            "keywrightctl lock remove 1234 --yes",
            "keywrightctl family show",
            "keywrightctl family bundle",
            "keywrightctl family export out",
            "keywrightctl family import in",
            "keywrightctl locks --group Hall",
            "keywrightctl group list",
            "keywrightctl group show Hall --family 1234",
            "keywrightctl group set Hall --add a --add b --remove group:Old",
            "keywrightctl group remove Hall",
            "keywrightctl audit export",
            "keywrightctl audit export --out f",
            "keywrightctl audit verify",
            "keywrightctl audit verify f --expect 00",
            "keywrightctl doctor",
        ] {
            parse(line).unwrap_or_else(|kind| panic!("{line}: {kind:?}"));
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for (line, kind) in [
            ("keywrightctl", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("keywrightctl keyz", ErrorKind::InvalidSubcommand),
            ("keywrightctl serialize --kind sub", ErrorKind::MissingRequiredArgument),
            ("keywrightctl serialize --kind soft --name N", ErrorKind::ValueValidation),
            (
                "keywrightctl serialize --kind sub --name N --lock a --all-locks",
                ErrorKind::ArgumentConflict,
            ),
            ("keywrightctl lock add Door --csr c", ErrorKind::MissingRequiredArgument),
            ("keywrightctl family bundle --roots r", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(parse(line).err(), Some(kind), "{line}");
        }
    }
}
