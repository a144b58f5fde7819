//! The names and fields of events, compared with their documentation.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const FORMATS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md"));

/// Every event, with each optional field once present and once absent.
fn samples() -> Vec<AuditEvent> {
    let with = |key| of_token(Token { key, serial: "12".into(), port: "usb".into() });
    [with(Some(id(2))), with(None)].concat()
}

fn of_token(token: Token) -> Vec<AuditEvent> {
    let (family, key, lock) = (id(1), id(2), id(3));
    let (serialization, name) = (7, "Anna".to_owned());
    let issuer = Some(key);
    vec![
        AuditEvent::FamilyPinned { family },
        AuditEvent::FamilyExported { family },
        AuditEvent::FamilyImported { family, new: 3 },
        AuditEvent::IssuerFound { family, issuer: key, by: "lock" },
        AuditEvent::JobSaved {
            serialization,
            kind: Kind::Sub,
            issuer,
            token: token.clone(),
            locks: 2,
        },
        AuditEvent::JobSaved {
            serialization,
            kind: Kind::Master,
            issuer: None,
            token: token.clone(),
            locks: 0,
        },
        AuditEvent::JobFailed {
            serialization,
            error: ErrorName::ForeignCredentials,
            token: token.clone(),
        },
        AuditEvent::JobInterrupted {
            serialization,
            error: ErrorName::KeyAbsent,
            token: token.clone(),
        },
        AuditEvent::JobCancelled { serialization, token: token.clone() },
        AuditEvent::JobRolledBack { serialization, kind: Kind::Sub },
        AuditEvent::KeyMade { family, key, kind: Role::Soft, locks: 1, serialization: None },
        AuditEvent::KeyMade { family, key, kind: Role::Sub, locks: 1, serialization: Some(7) },
        AuditEvent::KeyRenamed { key, name: name.clone() },
        AuditEvent::KeyRevoked { family, key, reason: "lost".into() },
        AuditEvent::KeyJudged { family, key, revoked: true },
        AuditEvent::LockJudged { family, lock, removed: true },
        AuditEvent::SignedAnew { family, papers: 4 },
        AuditEvent::KeyNotGenuine { token: token.clone() },
        AuditEvent::LockAdded { family, lock, name: name.clone() },
        AuditEvent::LockRemoved { family, lock },
        AuditEvent::LockRenamed { lock, name },
        AuditEvent::RightsChanged { family, key, allowed: 10_000, denied: 1 },
        AuditEvent::RightsConfirmed { key, allow: true, locks: vec![lock, id(4)] },
        AuditEvent::PinRefused { token: token.clone(), retries: 2 },
        AuditEvent::PinBlocked { token: token.clone() },
        AuditEvent::PinChanged { token: token.clone() },
        AuditEvent::PinUnblocked { token: token.clone() },
        AuditEvent::CodeRefused { token: token.clone(), retries: Some(1) },
        AuditEvent::CodeRefused { token: token.clone(), retries: None },
        AuditEvent::CodeBlocked { token: token.clone() },
        AuditEvent::CodeTaken { serialization, token: token.clone() },
        AuditEvent::WrongKey { serialization, token },
        AuditEvent::GroupChanged { family, group: "Hall".into(), locks: 9 },
        AuditEvent::GroupRemoved { family, group: "Hall".into() },
        AuditEvent::LossAcknowledged { path: "/var/lib/keywright/registry.damaged-1".into() },
        AuditEvent::NotAuthorized { action: "org.keywright1.inspect".into(), calls: 9 },
        AuditEvent::NotVerified { what: "import".into(), calls: 9 },
    ]
}

fn id(number: u8) -> Id {
    Id::from_bytes([number; 16])
}

/// The names in `AuditEvent::name`, so that no sample is forgotten.
fn words() -> BTreeSet<&'static str> {
    let word = |line: &'static str| line.split_once(" => \"")?.1.strip_suffix("\",");
    let mut words: BTreeSet<_> = include_str!("mod.rs").lines().filter_map(word).collect();
    words.extend([NOT_AUTHORIZED, NOT_VERIFIED]);
    words
}

/// Names and fields in the table of docs/formats.md. An optional field has a `?`.
fn documented() -> BTreeMap<String, Vec<String>> {
    let table = FORMATS.split_once("### Events\n").unwrap().1.split_once("\n#").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let names = |cell: &str| cell.split_whitespace().map(|name| name.replace('`', "")).collect();
    cells.map(|cells| (cells[1].replace('`', ""), names(cells[2]))).collect()
}

#[test]
fn documented_events_are_the_logged_ones() {
    let mut documented = documented();
    // Events that the registry itself logs.
    for own in [keywright_proto::audit::TRIMMED, keywright_proto::audit::REWRITTEN] {
        assert!(documented.remove(own).is_some(), "{own}");
    }
    let mut seen: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
    for event in samples() {
        let names = event.fields(Some(1000)).into_iter().map(|(name, _)| name);
        seen.entry(event.name().into()).or_default().push(names.collect());
    }
    assert_eq!(seen.keys().map(String::as_str).collect::<BTreeSet<_>>(), words());
    let live: BTreeMap<String, Vec<String>> = seen
        .into_iter()
        .map(|(word, all)| {
            let every = all.iter().flatten().cloned().collect::<BTreeSet<_>>();
            let fields = every.into_iter().filter(|name| name != UID).map(|name| {
                let always = all.iter().all(|names| names.contains(&name));
                if always { name } else { format!("{name}?") }
            });
            (word, fields.collect())
        })
        .collect();
    for fields in documented.values_mut() {
        fields.sort_by_key(|name| name.replace('?', ""));
    }
    assert_eq!(live, documented);
}

#[test]
fn events_name_the_user_who_asked() {
    for event in samples() {
        let has = |by| event.fields(by).iter().any(|(name, _)| name == UID);
        assert!(has(Some(0)) && !has(None), "{event:?}");
    }
}

/// A JSON object with a name twice is read differently by different programs.
#[test]
fn field_names_are_unique_and_valid_in_the_journal() {
    for event in samples() {
        let fields = event.fields(Some(1));
        let names: BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), fields.len(), "{event:?}");
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
        }
    }
}
