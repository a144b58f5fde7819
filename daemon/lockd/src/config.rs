//! The configuration file, `/etc/keywright/lockd.toml`.

use std::path::{Path, PathBuf};

use keywright_base::toml_error_in_one_line;
use keywright_proto::{
    Id,
    trust::{MAX_REVOKE_DELAY_DAYS, REVOKE_DELAY_DAYS},
};
use serde::Deserialize;

use crate::files;

/// The longest configuration file that is read, in bytes.
const MAX_CONFIG: usize = 1 << 20;

/// The settings that an administrator may choose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A program and its arguments, run after a list has changed. Empty: none.
    pub hook: Vec<String>,
    /// How long the hook may run, in seconds: from 1 to 3600.
    pub hook_seconds: u64,
    /// How many Keys the Lock keeps at most: from 1 to 1,000,000.
    pub max_keys: usize,
    /// Days before a Backup's revocation of the Master takes effect, so that the Master can object: at most 365.
    pub revoke_delay_days: u64,
    /// The family that an unclaimed Lock may join over the link. None: only a person can claim it.
    #[serde(deserialize_with = "family")]
    pub family: Option<Id>,
    /// The link to the stations. None: grants and confirmations are exchanged as files.
    pub link: Option<Link>,
    /// Accounts that Keys may log in to by SSH. Empty by default.
    #[serde(rename = "account")]
    pub accounts: Vec<Account>,
}

/// An account of this machine that Keys may log in to by SSH.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The account's name.
    pub name: String,
    /// Ids of the Keys that may log in; absent: every Key that this Lock admits. It can only narrow what the Lock
    /// admits.
    #[serde(default, deserialize_with = "ids")]
    pub keys: Option<Vec<Id>>,
    /// Options before the key, as in `authorized_keys`: `restrict,pty`.
    #[serde(default)]
    pub options: String,
}

/// The link: an MQTT 5 broker, over TLS, with this Lock's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The broker's host and port: `broker.example:8883`.
    pub broker: String,
    /// A PEM file with the CA certificates that may certify the broker.
    pub ca: PathBuf,
    /// A PEM certificate that the broker accepts, used until the Lock has one of its family.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// After how many seconds of silence the broker is pinged: from 10 to 3600.
    #[serde(default = "keep_alive")]
    pub keep_alive_seconds: u16,
}

/// Short enough to keep most NAT mappings open, at some tens of kilobytes a day.
const fn keep_alive() -> u16 {
    300
}

impl Link {
    /// The broker's host and port.
    pub fn address(&self) -> Option<(String, u16)> {
        keywright_link::broker_address(&self.broker)
    }
}

fn ids<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<Id>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let id = |text: &String| text.parse().map_err(|_| serde::de::Error::custom(NOT_AN_ID));
    texts.iter().map(id).collect::<Result<_, _>>().map(Some)
}

fn family<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Id>, D::Error> {
    let id = String::deserialize(from)?.parse();
    id.map(Some).map_err(|_| serde::de::Error::custom(NOT_A_FAMILY))
}

const NOT_A_FAMILY: &str = "a family's id is 32 lower-case hexadecimal digits";
const NOT_AN_ID: &str = "a Key's id is 32 lower-case hexadecimal digits";

impl Default for Config {
    fn default() -> Self {
        Self {
            hook: Vec::new(),
            hook_seconds: 60,
            max_keys: 10_000,
            revoke_delay_days: REVOKE_DELAY_DAYS.into(),
            family: None,
            link: None,
            accounts: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration file. A missing field has its default. An error is one line: what is wrong, and where.
    pub fn load(path: &Path) -> Result<Self, String> {
        let named = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let bytes = files::read(path, MAX_CONFIG).map_err(|error| named(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| named(&"not UTF-8"))?;
        Self::parse(&text).map_err(|what| named(&what))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self =
            toml::from_str(text).map_err(|error| toml_error_in_one_line(&error, text))?;
        for (field, value, least, most) in [
            ("hook_seconds", config.hook_seconds, 1, 3_600),
            ("max_keys", config.max_keys as u64, 1, 1_000_000),
            ("revoke_delay_days", config.revoke_delay_days, 0, MAX_REVOKE_DELAY_DAYS.into()),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{field} is {value}, not from {least} to {most}"));
            }
        }
        if let Some(link) = &config.link {
            keywright_link::check_settings(&link.broker, link.keep_alive_seconds)?;
            if link.certificate.is_some() != link.key.is_some() {
                return Err("certificate and key of [link] are given both or not at all".into());
            }
        }
        for account in &config.accounts {
            // A line break would end the `authorized_keys` line and start another one.
            if account.options.contains(['\n', '\r', '\0']) {
                return Err(format!("the options of account {} are not one line", account.name));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_fields_and_defaults_are_read() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        let id = "0123456789abcdef0123456789abcdef";
        let text = format!(
            "hook = [\"true\"]\n[[account]]\nname = \"a\"\n[[account]]\nname = \"b\"\nkeys = [\"{id}\"]\noptions = \"restrict\""
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.hook, ["true"]);
        let link = Config::parse("[link]\nbroker = \"[::1]:8883\"\nca = \"/ca\"").unwrap().link;
        assert_eq!(link.unwrap().address(), Some(("::1".into(), 8883)));
        assert_eq!(config.accounts[0].keys, None);
        assert_eq!(config.accounts[1].keys, Some(vec![id.parse().unwrap()]));
    }

    #[test]
    fn configuration_error_is_one_line_with_its_place() {
        for (text, part) in [
            ("hook_seconds = 5\nfoo = 1", "line 2: unknown field `foo`"),
            ("max_keys = 0", "max_keys is 0"),
            ("hook_seconds = 0", "hook_seconds is 0"),
            ("hook = \"true\"", "line 1"),
            ("[link]\nbroker = \"b\"\nca = \"/ca\"", "not host:port"),
            ("[link]\nbroker = \"b:1\"\nca = \"/ca\"\nkeep_alive_seconds = 9", "9, not from 10"),
            ("[link]\nbroker = \"b:1\"", "missing field `ca`"),
            ("[link]\nbroker = \"b:1\"\nca = \"/ca\"\nkey = \"/k\"", "both or not at all"),
            ("family = \"x\"", "a family's id is 32 lower-case"),
            ("[[account]]\nname = \"a\"\nkeys = [\"x\"]", "32 lower-case"),
            ("[[account]]\nkeys = []", "missing field `name`"),
            ("[[account]]\nname = \"a\"\noptions = \"a\\nb\"", "not one line"),
            ("\u{0}garbage", "line 1"),
        ] {
            let what = Config::parse(text).unwrap_err();
            assert!(what.contains(part) && !what.contains('\n'), "{what:?}");
        }
    }
}
