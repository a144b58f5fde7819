//! The commands `keys`, `locks` and `decisions`.

use keywright_client::{
    Client, Key, LockRow, RightRow,
    client::LockFilter,
    model::{KeyState, PinState},
};

use crate::{
    failure::Failure,
    lookup::{self, short},
    output::Output,
    table::Table,
    times::local,
    watch,
};

/// Runs `keys`.
pub async fn keys(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let keys = lookup::keys(client).await?;
    output.show(&keys, || keys_table(&keys))
}

/// Runs `locks`; with a Key it lists the Key's rights.
pub async fn locks(
    client: &Client,
    key: Option<&str>,
    group: Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(key) = key else {
        let locks = client.list_locks(&LockFilter { group, ..LockFilter::default() }).await?;
        return output.show(&locks, || locks_table(&locks));
    };
    let keys = lookup::keys(client).await?;
    rights(client, lookup::find_one(key, &keys)?, output).await
}

/// Prints a Key's rights.
pub async fn rights(client: &Client, key: &Key, output: &mut Output) -> Result<(), Failure> {
    let rights = client.list_rights(&key.id).await?;
    output.show(&rights, || rights_table(key, &rights))
}

/// Runs `decisions`.
pub async fn decisions(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let state = client.state().await?;
    output.show(&state.decisions, || {
        if state.decisions.is_empty() {
            return "No pair of Keys that is plugged in lacks an offer.".into();
        }
        let lines = state.decisions.iter().map(|decision| watch::decision(&state, decision));
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn keys_table(keys: &[Key]) -> String {
    if keys.is_empty() {
        return "No Keys yet. Plug one in and run `keywrightctl wizard`.".into();
    }
    let mut table = Table::new(["NAME", "STATE", "PLUGGED IN", "PIN", "LOCKS", "ID"]);
    for key in keys {
        let seen = if key.present { "now".into() } else { local(key.last_seen) };
        let locks = match (key.path.as_str(), key.pending_locks) {
            ("", _) => String::new(),
            (_, 0) => key.locks.to_string(),
            (_, pending) => format!("{} + {pending} pending", key.locks),
        };
        table.row([key.label(), key.kind(), seen, pin(key), locks, short(&key.id)]);
    }
    table.to_string()
}

/// Describes the state of a Key's PIN.
fn pin(key: &Key) -> String {
    match (key.pin.known(), key.pin_retries) {
        _ if !key.present || key.state == KeyState::Unusable => String::new(),
        (Some(PinState::Default), _) => "factory".into(),
        (Some(PinState::Blocked), _) | (_, 0) => "blocked".into(),
        (_, retries @ 1..) => format!("{}, tries left: {retries}", key.pin),
        _ => key.pin.to_string(),
    }
}

/// Formats the table of `locks`.
pub fn locks_table(locks: &[LockRow]) -> String {
    if locks.is_empty() {
        return "No Locks yet. Add one with `keywrightctl lock add`.".into();
    }
    let mut table = Table::new(["NAME", "ONLINE", "LAST HEARD OF", "FAMILY", "ID"]);
    for lock in locks {
        let online = if lock.online { "yes" } else { "no" };
        table.row([
            lock.name.clone(),
            online.into(),
            local(lock.last_seen),
            short(&lock.family),
            short(&lock.id),
        ]);
    }
    table.to_string()
}

fn rights_table(key: &Key, rights: &[RightRow]) -> String {
    if rights.is_empty() {
        return format!("{} has no rights on any Lock.", key.label());
    }
    let mut table = Table::new(["LOCK", "RIGHT", "SINCE", "ID"]);
    for right in rights {
        let since = local(right.since);
        table.row([right.name.clone(), right.state.clone(), since, short(&right.lock_id)]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use keywright_client::{KeyRow, Role};

    use keywright_client::Word;

    use super::*;

    fn row(name: &str) -> Key {
        Key::from_row(&KeyRow {
            id: "0123456789abcdef0123456789abcdef".into(),
            name: name.into(),
            role: Some(Role::Sub),
            family: "fe".into(),
            last_seen: 0,
        })
    }

    #[test]
    fn keys_table_has_names_first_and_readable_values() {
        let mut here = row("Spare");
        here.path = "/k/1".into();
        here.present = true;
        here.pin = Word::Known(PinState::Set);
        here.pin_retries = 2;
        here.pending_locks = 3;
        assert_eq!(
            keys_table(&[here, row("Old")]),
            "NAME   STATE  PLUGGED IN  PIN                 LOCKS          ID\n\
             Spare  sub    now         set, tries left: 2  0 + 3 pending  01234567\n\
             Old    sub    never       -                   -              01234567\n"
        );
    }

    #[test]
    fn soft_key_state_says_soft() {
        let mut key = row("Phone");
        key.memberships[0].role = Some(Role::Soft);
        for (state, shown) in [("sub", "soft"), ("soft", "soft"), ("revoked", "revoked, soft")] {
            key.state = state.into();
            let table = keys_table(std::slice::from_ref(&key));
            assert!(table.contains(&format!("Phone  {shown}  ")), "{table}");
        }
    }

    #[test]
    fn pin_state_is_shown_in_words() {
        let mut key = row("K");
        key.present = true;
        for (state, retries, text) in [
            (PinState::Default, 3, "factory"),
            (PinState::Set, 1, "set, tries left: 1"),
            (PinState::Set, 0, "blocked"),
            (PinState::Blocked, -1, "blocked"),
            (PinState::Unknown, -1, "unknown"),
        ] {
            (key.pin, key.pin_retries) = (Word::Known(state), retries);
            assert_eq!(pin(&key), text);
        }
    }
}
