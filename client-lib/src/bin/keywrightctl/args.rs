//! The command line, as clap parses it. Doc comments here are the help texts.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use keywright_client::Kind;

/// Make and manage Backup and Sub Keys.
///
/// An ID is a name, an id, or at least the first 4 digits of an id, as long as only one matches.
#[derive(Debug, Parser)]
#[command(name = "keywrightctl", version, max_term_width = 100)]
pub struct Args {
    /// Print JSON: one document, or one line per event for `watch`
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
    /// List Keys: first those plugged in, then others that this station knows
    Keys,
    /// List Locks, or the rights of one Key
    Locks {
        /// Only Locks that this Key may access, with the state of each right
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// Only Locks of this group
        #[arg(long, value_name = "NAME", conflicts_with = "key")]
        group: Option<String>,
    },
    /// Show which pairs of Keys have no offer, and why
    Decisions,
    /// Show plugs, offers and progress as they happen
    Watch,
    /// Make a Key interactively
    Wizard,
    /// Make a Key non-interactively
    Serialize(Serialize),
    /// Show or change one Key
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a Sub Key whose private key is in software
    #[command(subcommand)]
    SoftKey(SoftKeyCommand),
    /// Add, rename or remove a Lock
    #[command(subcommand)]
    Lock(LockCommand),
    /// Manage groups of Locks; `group:NAME` stands for a group wherever Locks are given
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show, print, export or import what a family has signed
    #[command(subcommand)]
    Family(FamilyCommand),
    /// Acknowledge that a damaged registry was set aside
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Export or verify the log of security-relevant events
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check this station and the Keys plugged in, and show how to fix what is wrong
    Doctor,
}

/// `serialize`.
#[derive(Debug, ClapArgs)]
pub struct Serialize {
    /// Kind of Key: `master`, `backup` or `sub`
    #[arg(long)]
    pub kind: Kind,
    /// Name of the new Key
    #[arg(long)]
    pub name: String,
    /// The issuing Key; required if more than one could issue
    #[arg(long, value_name = "ID")]
    pub issuer: Option<String>,
    /// Object path of the Key to be made; required if more than one could be made
    #[arg(long, value_name = "PATH")]
    pub candidate: Option<String>,
    /// A Lock that the Sub Key may access, or a group as `group:NAME`; may be repeated
    #[arg(long = "lock", value_name = "ID", conflicts_with = "all_locks")]
    pub locks: Vec<String>,
    /// The Sub Key may access every Lock that the family has now
    #[arg(long)]
    pub all_locks: bool,
    /// A file with the issuing Key's PIN
    #[arg(long, value_name = "FILE")]
    pub issuer_pin_file: Option<PathBuf>,
    /// A file with the present PIN of the Key to be made
    #[arg(long, value_name = "FILE")]
    pub candidate_pin_file: Option<PathBuf>,
    /// A file with its new PIN; required if it has its factory PIN
    #[arg(long, value_name = "FILE")]
    pub new_pin_file: Option<PathBuf>,
    /// Write the recovery code to this file (mode 0600); it must not exist, or be empty
    #[arg(long, value_name = "FILE")]
    pub recovery_code_file: Option<PathBuf>,
    /// Ask nothing; without it, missing answers are asked for at the terminal
    #[arg(long)]
    pub yes: bool,
}

/// Options for the Key that signs.
#[derive(Debug, ClapArgs)]
pub struct Issuer {
    /// The issuing Key; required if more than one is plugged in
    #[arg(long, value_name = "ID")]
    pub issuer: Option<String>,
    /// A file with its PIN; default: ask at the terminal
    #[arg(long, value_name = "FILE")]
    pub issuer_pin_file: Option<PathBuf>,
}

/// `key …`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a Key's certificate chain as PEM, leaf first
    Certificate {
        /// The Key
        id: String,
        /// The family of the certificate; default: the Key's own
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
    /// Revoke a Key for good
    Revoke {
        /// The Key
        id: String,
        /// The reason, a word or two; kept with the revocation
        #[arg(long, default_value = "unspecified")]
        reason: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// The Key that signs
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Show a Key's rights, or change them
    Rights {
        /// The Key
        id: String,
        /// Add a right: a Lock, or a group as `group:NAME`; may be repeated
        #[arg(long, value_name = "ID")]
        add: Vec<String>,
        /// Remove a right: a Lock, or a group as `group:NAME`; may be repeated
        #[arg(long, value_name = "ID")]
        remove: Vec<String>,
        /// The Key that signs
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Change a Key's PIN
    Pin {
        /// The Key
        id: String,
        /// A file with its present PIN
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
    /// Add a Lock to a Key's family: certify its request
    Add {
        /// The Lock's name
        name: String,
        /// The Lock's PKCS#10 request (PEM)
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// Write its certificate chain (PEM) to this file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The Key that signs
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
    /// Remove a Lock from its family for good; it need not be online
    Remove {
        /// The Lock
        id: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// The Key that signs
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Write a Key's grant for a Lock to a file, to be carried to the Lock by hand
    Grant {
        /// The Key
        key: String,
        /// The Lock
        lock: String,
        /// The output file; it must not exist yet
        #[arg(long)]
        out: PathBuf,
    },
    /// Import Locks' confirmations that were carried here by hand
    Confirm {
        /// Files with confirmations
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// `soft-key …`.
#[derive(Debug, Subcommand)]
pub enum SoftKeyCommand {
    /// Generate a key pair here and write it with its certificates to a PKCS#12 file
    Create {
        /// Its name
        name: String,
        /// A Lock that it may access, or a group as `group:NAME`; may be repeated
        #[arg(long = "lock", value_name = "ID", required = true)]
        locks: Vec<String>,
        /// The PKCS#12 file (mode 0600); it must not exist yet
        #[arg(long)]
        out: PathBuf,
        /// A file with the password for it; default: ask at the terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The Key that signs
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
        /// Its family; required if several have a group of this name
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Add Locks to a group and remove others; creates the group if it does not exist
    Set {
        /// The group
        name: String,
        /// A Lock to add, or all of another group as `group:NAME`; may be repeated
        #[arg(long, value_name = "LOCK")]
        add: Vec<String>,
        /// A Lock to remove, or all of another group as `group:NAME`; may be repeated
        #[arg(long, value_name = "LOCK")]
        remove: Vec<String>,
        /// Its family; default: the one that has this group, or the only one
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Delete a group; its Locks and all rights stay
    Remove {
        /// The group
        name: String,
        /// Its family; required if several have a group of this name
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
}

/// `family …`.
#[derive(Debug, Subcommand)]
pub enum FamilyCommand {
    /// Show who can sign for a family, and the signatures that are pending in it
    Show {
        /// The family, or a Key of it; default: the only one
        id: Option<String>,
    },
    /// Revoke an issuing key whose Key nobody knows, for good
    RevokeIssuer {
        /// The issuing key: its id, or at least the first 4 digits of its id
        id: String,
        /// Why: `stolen` or `compromised` if a thief may have it; then nothing of it is re-issued automatically
        #[arg(long, value_name = "TEXT", default_value = "compromised")]
        reason: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// The Key that signs
        #[command(flatten)]
        issuer: Issuer,
    },
    /// Print a family's roots and CRLs as PEM: what a server needs to verify its Keys
    Bundle {
        /// The family, or a Key of it; default: the only one
        id: Option<String>,
        /// Write the roots to this file instead
        #[arg(long, value_name = "FILE", requires = "crls")]
        roots: Option<PathBuf>,
        /// Write the CRLs to this file instead
        #[arg(long, value_name = "FILE", requires = "roots")]
        crls: Option<PathBuf>,
    },
    /// Export a family's signed objects for another station
    Export {
        /// The output file; it must not exist yet
        file: PathBuf,
        /// The family, or a Key of it; default: the only one
        #[arg(long, value_name = "ID")]
        family: Option<String>,
    },
    /// Merge another station's export
    Import {
        /// The export file
        file: PathBuf,
    },
}

/// `registry …`.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Go on with what this station knows now: whatever only the lost registry knew is gone
    Acknowledge {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

/// `audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the log, one line of JSON per event, oldest first
    Export {
        /// Write it to this file instead; it must not exist yet
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Verify that no event was changed, removed or inserted, and print the newest event's hash
    Verify {
        /// A file with an exported log, `-` for standard input; default: the daemon's own log
        file: Option<PathBuf>,
        /// A hash noted earlier: the log must contain it
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
            "keywrightctl family revoke-issuer 1234 --yes",
            "keywrightctl family bundle",
            "keywrightctl family export out",
            "keywrightctl family import in",
            "keywrightctl locks --group Hall",
            "keywrightctl group list",
            "keywrightctl group show Hall --family 1234",
            "keywrightctl group set Hall --add a --add b --remove group:Old",
            "keywrightctl group remove Hall",
            "keywrightctl registry acknowledge --yes",
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
