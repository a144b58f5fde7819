//! `keywright-lockd authorized-keys USER FINGERPRINT`, for sshd's AuthorizedKeysCommand. It only reads the current
//! list and the configuration: no secret, no running service.

use std::path::Path;

use keywright_proto::Id;

use crate::{
    config::Account,
    error::Error,
    files,
    outputs::{self, MAX_LIST, SSH_KEYS},
};

/// The `authorized_keys` line for this key, or `None` if it may not log in.
///
/// # Errors
/// The list cannot be read: nobody may log in.
pub fn authorized_keys(
    state: &Path,
    accounts: &[Account],
    user: &str,
    fingerprint: &str,
) -> Result<Option<String>, Error> {
    let path = outputs::directory(state).join(SSH_KEYS);
    let list = files::read(&path, MAX_LIST).map_err(Error::file(&path))?;
    Ok(line(&String::from_utf8_lossy(&list), accounts, user, fingerprint))
}

fn line(list: &str, accounts: &[Account], user: &str, fingerprint: &str) -> Option<String> {
    let found = list.lines().find_map(|line| {
        let (found, key) = line.split_once(' ')?;
        (found == fingerprint).then_some(key)
    })?;
    let (key, id) = found.rsplit_once(' ')?;
    let id: Id = id.parse().ok()?;
    let may = |account: &&Account| {
        account.name == user && account.keys.as_ref().is_none_or(|keys| keys.contains(&id))
    };
    let account = accounts.iter().find(may)?;
    let options = account.options.trim();
    let space = if options.is_empty() { "" } else { " " };
    Some(format!("{options}{space}{key} keywright:{id}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn account(name: &str, keys: Option<&[&str]>, options: &str) -> Account {
        let keys = keys.map(|keys| keys.iter().map(|id| id.parse().unwrap()).collect());
        Account { name: name.into(), keys, options: options.into() }
    }

    #[test]
    fn authorized_keys_line_depends_on_account_and_key() {
        let list = format!("SHA256:aa ecdsa AAAA {ID}\nSHA256:bb ecdsa BBBB {}\n", "f".repeat(32));
        let accounts = [
            account("all", None, "restrict,pty"),
            account("one", Some(&[ID]), ""),
            account("none", Some(&[]), ""),
        ];
        let line = |user, fingerprint| line(&list, &accounts, user, fingerprint);
        let options = Some(format!("restrict,pty ecdsa AAAA keywright:{ID}\n"));
        assert_eq!(line("all", "SHA256:aa"), options);
        assert_eq!(line("one", "SHA256:aa"), Some(format!("ecdsa AAAA keywright:{ID}\n")));
        for (user, fingerprint) in [
            ("one", "SHA256:bb"),
            ("none", "SHA256:aa"),
            ("root", "SHA256:aa"),
            ("all", "SHA256:a"),
            ("all", "SHA256:aaa"),
            ("all", ""),
            ("all", "ecdsa"),
            ("", ""),
        ] {
            assert_eq!(line(user, fingerprint), None, "{user} {fingerprint}");
        }
    }
}
