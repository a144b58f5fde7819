//! Compares `docs/org.keywright1.xml`, and `docs/dbus.md` made from it, with the introspection data of the live objects.
//! `KEYWRIGHT_WRITE_DOCS=1 cargo test -p keywrightd introspection` (`make docs-xml`) writes both files again.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use keywright_proto::ErrorName;
use tokio::sync::watch;
use zbus::object_server::Interface;

use super::{
    authorizer::Policy,
    key::KeyObject,
    manager::Manager,
    serialization::SerializationObject,
    tests::{TestBus, a_key, a_serialization},
};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"#;

const INTRODUCTION: &str = "\
# The D-Bus API `org.keywright1`

Generated from `org.keywright1.xml`, which a test compares with the live objects; do not edit by hand.

The daemon is on the system bus. It exports all objects before it takes the name. Properties hold the complete state for
a client that connects late, and properties that change together are in one `PropertiesChanged`. Secrets are passed only
as file descriptors: a pipe, or a memfd sealed against writing, which is read from its beginning. A PIN is exactly the
bytes of the descriptor, 6 to 8 of them, and must arrive within 5 s.

Paths: `/org/keywright1` (also `org.freedesktop.DBus.ObjectManager`), `/org/keywright1/keys/…`,
`/org/keywright1/serializations/…`. The last parts are opaque.

Arguments of the wrong D-Bus type are refused with the standard error `org.freedesktop.DBus.Error.InvalidArgs`, calls to
unknown objects with `org.freedesktop.DBus.Error.UnknownObject`. All other errors are `org.keywright1.Error.…`; each
text says what happened, to what, and what to do next. Any method may fail with `Interrupted` beside the errors that it
names: the daemon is stopping, or a job inside it broke off; try once more. And with `LimitExceeded`: one user has at most
64 calls open, over all connections, of which 4 may be ExportFamily, ImportFamily or ExportAudit; wait until one has ended.

polkit actions, all beginning with `org.keywright1.`: `inspect` for List… and Get… (properties are open to all);
`serialize` for StartSerialization and every method of a serialization; `manage-locks` for AddLock, RemoveLock, RenameLock,
SetGroup, RemoveGroup and ApplyConfirmation; `manage-keys` for everything else that changes Keys. On a bus other than the
system bus only the daemon's own user is served.

Limits: a name has 1 to 100 characters and at most 256 bytes; a selection has at most 100,000 Locks. A page's `limit` is
at least 1, and above 1,000 counts as 1,000. A page may be shorter than its limit: follow `next` until it is empty.

An offer that nobody answered is removed when both its Keys are unplugged. An ended serialization without an owner is
removed when one of its Keys is; call Finish to remove it earlier. GetManagedObjects also lists `/org/keywright1/keys`
and `/org/keywright1/serializations`, which have no interface of ours.
";

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Property,
    Method,
    Signal,
}

/// A method, property or signal as described in the XML.
struct Member {
    sort: Sort,
    name: String,
    /// A property's type, a method's arguments or a signal's arguments.
    takes: String,
    answers: String,
    meaning: String,
    errors: Vec<String>,
}

impl Member {
    fn signature(&self) -> String {
        let Self { takes, answers, .. } = self;
        match self.sort {
            Sort::Property => takes.clone(),
            Sort::Method => format!("({takes}) → ({answers})"),
            Sort::Signal => format!("({takes})"),
        }
    }
}

#[tokio::test]
async fn committed_description_matches_the_live_objects() {
    let xml = live_xml().await;
    let markdown = markdown(&xml);
    for (file, text) in [("org.keywright1.xml", &xml), ("dbus.md", &markdown)] {
        let path = Path::new(DOCS).join(file);
        if std::env::var_os("KEYWRIGHT_WRITE_DOCS").is_some() {
            fs::write(&path, text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *text,
            "{} is out of date: KEYWRIGHT_WRITE_DOCS=1 cargo test -p keywrightd introspection",
            path.display()
        );
    }
}

#[tokio::test]
async fn every_method_names_its_errors() {
    for (interface, members) in interfaces(&live_xml().await) {
        for method in members.iter().filter(|member| member.sort == Sort::Method) {
            let name = format!("{interface}.{}", method.name);
            assert_eq!(method.errors.first().map(String::as_str), Some("NotAuthorized"), "{name}");
            for error in &method.errors {
                assert!(error.parse::<ErrorName>().is_ok(), "{name}: {error}");
            }
            let different: BTreeSet<_> = method.errors.iter().collect();
            assert_eq!(different.len(), method.errors.len(), "{name} names an error twice");
        }
        assert!(members.iter().all(|member| !member.meaning.is_empty()), "{interface}");
    }
}

#[tokio::test]
async fn signatures_are_unchanged() {
    let interfaces = interfaces(&live_xml().await);
    let mut live: Vec<_> = interfaces
        .iter()
        .flat_map(|(name, members)| {
            let last = name.rsplit('.').next().unwrap_or_default();
            members
                .iter()
                .map(move |member| format!("{last}.{} {}", member.name, member.signature()))
        })
        .collect();
    live.sort();
    let mut committed: Vec<_> = SIGNATURES.iter().map(|line| (*line).to_owned()).collect();
    committed.sort();
    assert_eq!(live, committed);
}

/// The published interface. Front-ends depend on it: add lines, but do not change one.
const SIGNATURES: &[&str] = &[
    "Manager.Version s",
    "Manager.Decisions a(oos)",
    "Manager.StartSerialization (ooa{sv}) → (o)",
    "Manager.AddLock (ossh) → (ss)",
    "Manager.RemoveLock (osh) → ()",
    "Manager.LostRegistry s",
    "Manager.AcknowledgeLostRegistry () → ()",
    "Manager.ListIssuers (ssu) → (a(sssiassts)s)",
    "Manager.ListWaiting (ssu) → (a(sssss)s)",
    "Manager.ListKeys (a{sv}su) → (a(sssst)s)",
    "Manager.ListLocks (a{sv}su) → (a(sssbt)s)",
    "Manager.ListRights (ssu) → (a(ssst)s)",
    "Manager.ChangeRights (osasash) → ()",
    "Manager.RevokeKey (ossh) → ()",
    "Manager.RenameKey (ss) → ()",
    "Manager.RenameLock (ss) → ()",
    "Manager.IssueSoftKey (ossash) → (ss)",
    "Manager.GetFamilyBundle (s) → (ss)",
    "Manager.GetGrant (ss) → (ay)",
    "Manager.ApplyConfirmation (ay) → ()",
    "Manager.RightsConfirmed (sa(sst))",
    "Manager.ExportFamily (sh) → ()",
    "Manager.ImportFamily (h) → (u)",
    "Manager.ExportAudit (h) → ()",
    "Manager.ListGroups (a{sv}su) → (a(ssu)s)",
    "Manager.SetGroup (ssasas) → (u)",
    "Manager.RemoveGroup (ss) → ()",
    "Key.Id s",
    "Key.Name s",
    "Key.State s",
    "Key.Memberships a(ss)",
    "Key.Trouble (ss)",
    "Key.Present b",
    "Key.Model s",
    "Key.Serial s",
    "Key.Port s",
    "Key.Pin s",
    "Key.PinRetries i",
    "Key.Authorized b",
    "Key.Card (ss)",
    "Key.Locks u",
    "Key.PendingLocks u",
    "Key.LastSeen t",
    "Key.GetCertificateChain (s) → (s)",
    "Key.ChangePin (hh) → ()",
    "Key.UnblockPin (hh) → ()",
    "Serialization.Issuer o",
    "Serialization.Candidate o",
    "Serialization.Result o",
    "Serialization.Kinds as",
    "Serialization.Kind s",
    "Serialization.Name s",
    "Serialization.Selected u",
    "Serialization.AllLocks b",
    "Serialization.Step s",
    "Serialization.Steps as",
    "Serialization.Revision u",
    "Serialization.PinsNeeded as",
    "Serialization.Progress (uu)",
    "Serialization.Owner s",
    "Serialization.Stage s",
    "Serialization.Outcome (ss)",
    "Serialization.OutcomeDetails a{sv}",
    "Serialization.Claim () → ()",
    "Serialization.Release () → ()",
    "Serialization.SetKind (s) → ()",
    "Serialization.SetName (s) → ()",
    "Serialization.Back () → ()",
    "Serialization.SelectLocks (asb) → ()",
    "Serialization.Review () → (a{sv}u)",
    "Serialization.Save (u) → ()",
    "Serialization.ProvidePin (sha{sv}) → ()",
    "Serialization.TakeRecoveryCode () → (h)",
    "Serialization.Finish () → ()",
    "Serialization.Cancel () → ()",
];

async fn live_xml() -> String {
    let context = TestBus::open(Policy::Polkit).await.context;
    let key = watch::channel(a_key()).1;
    let serialization = watch::channel(a_serialization()).1;
    let mut xml = HEAD.to_owned();
    Manager::new(context.clone(), watch::channel(Vec::new()).1).introspect_to_writer(&mut xml, 2);
    KeyObject::new(context.clone(), "a".into(), key).introspect_to_writer(&mut xml, 2);
    SerializationObject::new(context, 1, serialization).introspect_to_writer(&mut xml, 2);
    xml.push_str("</node>\n");
    xml.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Reads the XML as zbus writes it: one element a line, a comment before what it is about.
fn interfaces(xml: &str) -> Vec<(String, Vec<Member>)> {
    let mut interfaces: Vec<(String, Vec<Member>)> = Vec::new();
    let (mut comment, mut in_comment) = (String::new(), false);
    for line in xml.lines().map(str::trim) {
        let attribute = |name: &str| {
            let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
            Some(line[start..].split('"').next()?.to_owned())
        };
        if line.starts_with("<!--") {
            (comment, in_comment) = (String::new(), true);
        } else if line == "-->" {
            in_comment = false;
        } else if in_comment {
            comment.push_str(if line.is_empty() { "\n" } else { line });
            comment.push(' ');
        } else if line.starts_with("<interface ") {
            interfaces.push((attribute("name").unwrap(), Vec::new()));
        } else if let Some(sort) = sort_of(line) {
            let (meaning, errors) = comment.split_once("Errors:").unwrap_or((&comment, ""));
            interfaces.last_mut().unwrap().1.push(Member {
                sort,
                name: attribute("name").unwrap(),
                takes: attribute("type").unwrap_or_default(),
                answers: String::new(),
                meaning: meaning.split_whitespace().collect::<Vec<_>>().join(" "),
                errors: errors
                    .split(',')
                    .map(|error| error.trim().trim_end_matches('.').to_owned())
                    .filter(|error| !error.is_empty())
                    .collect(),
            });
            comment.clear();
        } else if line.starts_with("<arg ") {
            let member = interfaces.last_mut().unwrap().1.last_mut().unwrap();
            match attribute("direction").as_deref() {
                Some("out") => member.answers.push_str(&attribute("type").unwrap()),
                _ => member.takes.push_str(&attribute("type").unwrap()),
            }
        }
    }
    interfaces
}

fn sort_of(line: &str) -> Option<Sort> {
    let sorts =
        [("<property ", Sort::Property), ("<method ", Sort::Method), ("<signal ", Sort::Signal)];
    sorts.into_iter().find(|(start, _)| line.starts_with(start)).map(|(_, sort)| sort)
}

fn markdown(xml: &str) -> String {
    let mut text = INTRODUCTION.to_owned();
    for (interface, members) in interfaces(xml) {
        write!(text, "\n## `{interface}`\n\n").unwrap();
        for (sort, head) in [
            (Sort::Property, "| property | type | meaning |\n| --- | --- | --- |\n"),
            (
                Sort::Method,
                "\n| method | signature | meaning | errors |\n| --- | --- | --- | --- |\n",
            ),
            (Sort::Signal, "\n| signal | type | meaning |\n| --- | --- | --- |\n"),
        ] {
            if !members.iter().any(|member| member.sort == sort) {
                continue;
            }
            text.push_str(head);
            for member in members.iter().filter(|member| member.sort == sort) {
                let Member { name, meaning, errors, .. } = member;
                write!(text, "| {name} | `{}` | {meaning} |", member.signature()).unwrap();
                if sort == Sort::Method {
                    write!(text, " {} |", errors.join(", ")).unwrap();
                }
                text.push('\n');
            }
        }
    }
    text
}
