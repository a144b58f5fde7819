//! The one URI in the SAN of every certificate, shaped as a SPIFFE ID.

use std::{fmt, str::FromStr};

use crate::{Id, Role};

/// The family, and for an end entity the role and the id, that a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uri {
    /// `spiffe://<family>`: a CA of the family.
    Ca {
        /// The family.
        family: Id,
    },
    /// `spiffe://<family>/<role>/<id>`: a Key's access key or a Lock.
    EndEntity {
        /// The family.
        family: Id,
        /// The role in it.
        role: Role,
        /// The id of the certified key.
        id: Id,
    },
}

/// A text that is neither of the two shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Keywright URI, spiffe://<family> or spiffe://<family>/<role>/<id>")]
pub struct NotOurUri;

const SCHEME: &str = "spiffe://";

impl Uri {
    /// The family that it names.
    pub const fn family(&self) -> Id {
        match self {
            Self::Ca { family } | Self::EndEntity { family, .. } => *family,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca { family } => write!(f, "{SCHEME}{family}"),
            Self::EndEntity { family, role, id } => write!(f, "{SCHEME}{family}/{role}/{id}"),
        }
    }
}

impl FromStr for Uri {
    type Err = NotOurUri;

    fn from_str(text: &str) -> Result<Self, NotOurUri> {
        let mut parts = text.strip_prefix(SCHEME).ok_or(NotOurUri)?.split('/');
        let id = |part: Option<&str>| part.ok_or(NotOurUri)?.parse().map_err(|_| NotOurUri);
        let family = id(parts.next())?;
        let uri = match parts.next() {
            None => Self::Ca { family },
            Some(role) => Self::EndEntity {
                family,
                role: role.parse().map_err(|_| NotOurUri)?,
                id: id(parts.next())?,
            },
        };
        if parts.next().is_some() { Err(NotOurUri) } else { Ok(uri) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let family = Id::from_bytes([0xab; 16]);
        let id = Id::from_bytes([1; 16]);
        let ca = Uri::Ca { family };
        assert_eq!(ca.to_string().parse(), Ok(ca));
        for role in [Role::Lock, Role::Soft, Role::Sub, Role::Backup, Role::Master] {
            let uri = Uri::EndEntity { family, role, id };
            assert_eq!(uri.to_string().parse(), Ok(uri));
        }
        for bad in [
            String::new(),
            "spiffe://".into(),
            format!("spiffe://{family}/"),
            format!("SPIFFE://{family}"),
            format!("https://{family}"),
            format!("spiffe://{family}/sub"),
            format!("spiffe://{family}/ca/{id}"),
            format!("spiffe://{family}/sub/{id}/"),
            format!("spiffe://{family}/sub/{id}/x"),
            format!("spiffe://{family}/Sub/{id}"),
            format!("spiffe://{family}/sub/{id}?x"),
            format!(" spiffe://{family}"),
        ] {
            assert_eq!(bad.parse::<Uri>(), Err(NotOurUri), "{bad:?}");
        }
    }
}
