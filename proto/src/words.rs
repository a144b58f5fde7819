//! Words of the D-Bus interface: each enum has the word that the daemon sends and a client reads.
//!
//! A client may meet a word of a newer daemon: parsing answers [`UnknownWord`] then.

use crate::role::UnknownWord;

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of the definition.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word on the bus.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> Self {
                value.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    other => Err(UnknownWord(other.into())),
                }
            }
        }
    )*};
}

words! {
    /// What a Key that is plugged in is: `State` of a Key.
    #[derive(Default)]
    KeyState {
        /// Nothing on it, as far as can be seen without a PIN.
        #[default]
        Blank = "blank",
        /// The root of a family.
        Master = "master",
        /// A peer of a Master.
        Backup = "backup",
        /// A Key for some Locks, also one in software.
        Sub = "sub",
        /// Slot 9A or 9C holds something that Keywright did not make.
        Foreign = "foreign",
        /// Revoked, as this station knows.
        Revoked = "revoked",
        /// No PIV, or no way to talk to it.
        Unusable = "unusable",
    }

    /// What is known of a PIN: `Pin` of a Key.
    #[derive(Default)]
    PinState {
        /// As the factory set it.
        Default = "default",
        /// A person set it.
        Set = "set",
        /// No tries are left.
        Blocked = "blocked",
        /// The token does not tell.
        #[default]
        Unknown = "unknown",
    }

    /// Where a serialization is: its `Step`.
    Step {
        /// To choose: what is made of the candidate.
        Kind = "kind",
        /// To choose: the new Key's name.
        Name = "name",
        /// To choose: the Locks that a Sub Key may access.
        Locks = "locks",
        /// The answers are shown once more before they are saved.
        Review = "review",
        /// PINs are needed.
        Pins = "pins",
        /// The tokens are being written.
        Writing = "writing",
        /// The new Key is made.
        Finished = "finished",
        /// A person gave up.
        Cancelled = "cancelled",
        /// An error ended it.
        Failed = "failed",
        /// A Key was unplugged and has to be plugged in again.
        AwaitingKey = "awaiting-key",
    }

    /// What a write is doing: `Stage` of a serialization.
    Stage {
        /// The PINs are verified and the tokens read.
        Checking = "checking",
        /// Keys are generated.
        Keys = "keys",
        /// Certificates are signed and written.
        Certificates = "certificates",
        /// The statement is signed.
        Statement = "statement",
        /// PIN, management key and PUK are replaced.
        Secrets = "secrets",
        /// What was written is read back.
        Verifying = "verifying",
        /// The registry is committed.
        Saving = "saving",
    }

    /// Whose PIN a serialization needs, in the order in which front-ends ask: `PinsNeeded`.
    Who {
        /// The issuer's.
        Issuer = "issuer",
        /// The candidate's, as it is now.
        Candidate = "candidate",
        /// The one that the candidate is to get.
        CandidateNew = "candidate-new",
    }

    /// Why a pair of Keys gets no offer: `Decisions` of the manager.
    Reason {
        /// Master and Backup, or two Backups, of one family.
        SameFamily = "same-family",
        /// The issuer's family has no Lock yet.
        NoLock = "no-lock",
        /// Neither may make Keys, and one is a Sub Key.
        NotAnIssuer = "not-an-issuer",
        /// Neither belongs to a family.
        NoIssuer = "no-issuer",
        /// The other Key is in use for something else.
        ForeignCredentials = "foreign-credentials",
        /// One was revoked.
        Revoked = "revoked",
        /// One cannot be used.
        Unusable = "unusable",
        /// More than one Key could be the issuer.
        AmbiguousIssuer = "ambiguous-issuer",
        /// The job was cancelled, and neither Key was re-plugged since.
        Cancelled = "cancelled",
        /// The job has ended, and neither Key was re-plugged since.
        Done = "done",
    }
}

impl Step {
    /// Whether the serialization has ended.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Cancelled | Self::Failed)
    }
}

impl Reason {
    /// What is wrong and what to do, for a person: the daemon refuses with this text, and `keywrightctl` shows it for a
    /// pair without an offer.
    pub const fn text(self) -> &'static str {
        match self {
            Self::SameFamily => {
                "both Keys are issuers of one family and have the same rights; take another Key"
            }
            Self::NoLock => {
                "the issuer has no Lock yet; add one first, with `keywrightctl lock add`"
            }
            Self::NotAnIssuer => {
                "only a Master or Backup Key can make Keys or add Locks; use one as the issuer"
            }
            Self::NoIssuer => {
                "neither Key can make Keys; make a Master Key first, with `keywrightctl wizard`"
            }
            Self::ForeignCredentials => {
                "the Key holds keys or certificates that Keywright did not make, and nothing on it is overwritten; \
                 use another, or reset its PIV application with its maker's tool"
            }
            Self::Revoked => "the Key was revoked, for good; use another",
            Self::Unusable => "the Key cannot be used; `keywrightctl doctor` says why",
            Self::AmbiguousIssuer => {
                "more than one Key could be the issuer; unplug one, or name it: `keywrightctl serialize --issuer`"
            }
            Self::Cancelled => {
                "this pair was cancelled; plug one of the Keys in again for a new offer"
            }
            Self::Done => {
                "the job of this pair has ended; plug one of the Keys in again for a new offer"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_others_do_not() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        for step in Step::ALL {
            assert_eq!(step.as_str().parse(), Ok(*step));
        }
        assert_eq!("dancing".parse::<Step>(), Err(UnknownWord("dancing".into())));
        assert_eq!(
            (KeyState::default(), PinState::default()),
            (KeyState::Blank, PinState::Unknown)
        );
    }

    #[test]
    fn every_reason_says_what_to_do() {
        for reason in Reason::ALL {
            assert!(reason.text().contains("; "), "{reason}");
        }
    }
}
