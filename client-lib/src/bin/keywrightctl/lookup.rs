//! Finds the Key or Lock that a person names by its name, id or part of an id.

use keywright_client::{Client, ErrorName, Key, LockRow, bus, client::LockFilter, model::KeyState};

use crate::failure::Failure;

/// Digits of an id that tables show; at least [`SHORTEST`] have to be typed.
const SHOWN: usize = 8;
/// Fewer digits could too easily be a name.
const SHORTEST: usize = 4;

/// Something with an id and a name.
pub trait Named {
    /// The word for it in messages, and the command that lists all.
    const KIND: (&'static str, &'static str);
    /// Its id, 32 hexadecimal digits, or empty.
    fn id(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
}

impl Named for Key {
    const KIND: (&'static str, &'static str) = ("Key", "keywrightctl keys");
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for LockRow {
    const KIND: (&'static str, &'static str) = ("Lock", "keywrightctl locks");
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Shortens an id for tables.
pub fn short(id: &str) -> String {
    id.chars().take(SHOWN).collect()
}

/// Finds the only item that has this id, this name, or an id that begins with these digits (at least 4).
///
/// # Errors
/// NotFound, or a list of the candidates if several match.
pub fn find_one<'a, T: Named>(wanted: &str, all: &'a [T]) -> Result<&'a T, Failure> {
    let (kind, list) = T::KIND;
    if let Some(exact) = all.iter().find(|item| item.id() == wanted && !wanted.is_empty()) {
        return Ok(exact);
    }
    let digits = wanted.len() >= SHORTEST && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let prefix = wanted.to_ascii_lowercase();
    let fitting: Vec<&T> = all
        .iter()
        .filter(|item| {
            (!wanted.is_empty() && item.name() == wanted)
                || (digits && item.id().starts_with(&prefix))
        })
        .collect();
    match fitting.as_slice() {
        [only] => Ok(only),
        [] => Err(Failure::named(
            ErrorName::NotFound,
            format!("no {kind} has the name {wanted:?} or an id that begins with it; see `{list}`"),
        )),
        several => Err(ambiguous(kind, wanted, several.iter().map(|t| (t.name(), t.id())))),
    }
}

fn ambiguous<'a>(
    kind: &str,
    wanted: &str,
    fitting: impl Iterator<Item = (&'a str, &'a str)>,
) -> Failure {
    let mut text = format!("several {kind}s match {wanted:?}; give more digits of the id:");
    for (name, id) in fitting {
        text.push_str(&format!("\n  {id}  {name}"));
    }
    Failure::refused(text)
}

/// Lists all Keys: present ones first, then absent ones, then those that only `ListKeys` has.
pub async fn keys(client: &Client) -> Result<Vec<Key>, Failure> {
    let state = client.state().await?;
    let mut keys: Vec<Key> = state.keys.into_values().collect();
    keys.sort_by_key(|key| !key.present);
    for row in client.list_keys().await? {
        if !keys.iter().any(|key| key.id == row.id) {
            keys.push(Key::from_row(&row));
        }
    }
    Ok(keys)
}

/// Finds a Key that has a D-Bus object, by its path, id or name.
///
/// # Errors
/// NotFound; KeyAbsent if the Key has no object.
pub async fn key_object(client: &Client, wanted: &str) -> Result<Key, Failure> {
    let keys = keys(client).await?;
    let key = match keys.iter().find(|key| key.path == wanted) {
        Some(key) => key,
        None => find_one(wanted, &keys)?,
    };
    if key.path.is_empty() {
        let text = format!("{} is not plugged in; plug it in and try again", key.label());
        return Err(Failure::named(ErrorName::KeyAbsent, text));
    }
    Ok(key.clone())
}

/// Finds the Key that signs: the given one, or the only present issuer.
pub async fn issuer(client: &Client, wanted: Option<&str>) -> Result<Key, Failure> {
    match wanted {
        Some(wanted) => key_object(client, wanted).await,
        None => only_issuer(client.state().await?.keys.into_values()),
    }
}

fn only_issuer(keys: impl Iterator<Item = Key>) -> Result<Key, Failure> {
    let mut issuers: Vec<Key> = keys
        .filter(|key| {
            key.present && matches!(key.state.known(), Some(KeyState::Master | KeyState::Backup))
        })
        .collect();
    match (issuers.pop(), issuers.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            issuers.push(last);
            let mut text = String::from("several Keys could sign; choose one with --issuer:");
            for key in &issuers {
                text.push_str(&format!("\n  {}  {}", key.id, key.label()));
            }
            Err(Failure::named(ErrorName::AmbiguousIssuer, text))
        }
        (None, _) => Err(Failure::named(
            ErrorName::KeyAbsent,
            "no Master or Backup Key is plugged in; plug in the Key that is to sign",
        )),
    }
}

/// Resolves Locks to ids. Whole ids and groups (`group:NAME`) are passed on unchanged; the list of Locks is read only
/// if another word needs it.
pub async fn lock_ids(client: &Client, wanted: &[String]) -> Result<Vec<String>, Failure> {
    let mut known: Option<Vec<LockRow>> = None;
    let mut ids = Vec::with_capacity(wanted.len());
    for word in wanted {
        if word.parse::<keywright_proto::Id>().is_ok() || word.starts_with(bus::GROUP_PREFIX) {
            ids.push(word.clone());
            continue;
        }
        if known.is_none() {
            known = Some(client.list_locks(&LockFilter::default()).await?);
        }
        ids.push(find_one(word, known.as_deref().unwrap_or_default())?.id.clone());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(id: &str, name: &str) -> LockRow {
        LockRow {
            id: format!("{id:0<32}"),
            name: name.into(),
            family: String::new(),
            online: false,
            last_seen: 0,
        }
    }

    #[test]
    fn lookup_finds_exactly_one_or_fails() {
        let locks = [
            lock("abcd1", "Front door"),
            lock("abcd2", "Back door"),
            lock("beef", "Gate"),
            lock("cafe", "Gate"),
            lock("fade", "beef"),
        ];
        let full = locks[0].id.clone();
        let cases: [(&str, Result<usize, &str>); 11] = [
            (&full, Ok(0)),
            ("abcd1", Ok(0)),
            ("ABCD2", Ok(1)),
            ("Back door", Ok(1)),
            ("cafe", Ok(3)),
            ("abcd", Err("several")),
            ("Gate", Err("several")),
            ("beef", Err("several")), // a name here, a prefix there
            ("abc", Err("no Lock")),
            ("door", Err("no Lock")),
            ("", Err("no Lock")),
        ];
        for (wanted, expected) in cases {
            match (find_one(wanted, &locks), expected) {
                (Ok(found), Ok(index)) => assert_eq!(found, &locks[index], "{wanted:?}"),
                (Err(failure), Err(text)) => {
                    let line = failure.message().unwrap();
                    assert!(line.contains(text), "{wanted:?}: {line}");
                }
                (found, expected) => panic!("{wanted:?}: {found:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn ambiguous_lookup_lists_every_match() {
        let locks = [lock("abcd1", "Front door"), lock("abcd2", "Back door")];
        let line = find_one("abcd", &locks).unwrap_err().message().unwrap();
        for lock in &locks {
            assert!(line.contains(&lock.id) && line.contains(&lock.name), "{line}");
        }
    }
}
