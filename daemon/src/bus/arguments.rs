//! Parses and checks the arguments of methods, before the station or the registry is asked. The text of an
//! `InvalidArgument` begins with the argument's name.

use std::collections::HashMap;

use keywright_proto::{Id, Kind, bus};
use zbus::{ObjectPath, Variant};

use crate::{
    error::Error, families::LockNames, jobs::LockChoice, queries::Page, registry::Filter,
    serialization::wizard::Who, view::Label,
};

/// The most Locks in one selection.
pub const MOST_LOCKS: usize = 100_000;
/// The longest page of a list; a larger `limit` counts as this.
pub const LONGEST_PAGE: u32 = 1_000;
/// The longest certificate request, in bytes: room for RSA-4096 and a few extensions.
pub const LONGEST_CSR: usize = 16 * 1024;

/// Options and filters, unparsed (`a{sv}`).
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;

/// The label of the Key at a path.
///
/// # Errors
/// `NotFound`: no Key has such a path.
pub fn key(path: &ObjectPath<'_>) -> Result<Label, Error> {
    bus::key_label(path).map(Label::from).ok_or_else(|| Error::NotFound(format!("Key at {path}")))
}

/// The label of the Key at a path, or none for `/`.
///
/// # Errors
/// `NotFound`: no Key has such a path.
pub fn key_or_none(path: &ObjectPath<'_>) -> Result<Option<Label>, Error> {
    if path.as_str() == bus::NO_OBJECT { Ok(None) } else { key(path).map(Some) }
}

/// An id.
///
/// # Errors
/// `InvalidArgument`.
pub fn id(argument: &str, text: &str) -> Result<Id, Error> {
    text.parse().map_err(|error| invalid(argument, error))
}

/// Locks: ids, and groups as `group:` and a name. A group named twice counts once.
///
/// # Errors
/// `LimitExceeded`: more than [`MOST_LOCKS`]. `InvalidArgument`: not an id.
pub fn lock_names(argument: &str, texts: &[&str]) -> Result<LockNames, Error> {
    if texts.len() > MOST_LOCKS {
        return Err(Error::LimitExceeded(format!(
            "{argument}: {} Locks are more than the {MOST_LOCKS} of one change; do it in several",
            texts.len()
        )));
    }
    let mut names = LockNames::default();
    for text in texts {
        match text.strip_prefix(bus::GROUP_PREFIX) {
            Some(group) => names.groups.push(group.to_owned()),
            None => names.ids.push(id(argument, text)?),
        }
    }
    names.groups.sort_unstable();
    names.groups.dedup();
    Ok(names)
}

/// An id, or none for an empty argument.
///
/// # Errors
/// `InvalidArgument`.
pub fn id_or_none(argument: &str, text: &str) -> Result<Option<Id>, Error> {
    if text.is_empty() { Ok(None) } else { id(argument, text).map(Some) }
}

/// The page of a list that follows `after`, which is empty for the first page or `next` of the page before.
///
/// # Errors
/// `InvalidArgument`: `after` is not an id, or the limit is 0.
pub fn page(after: &str, limit: u32) -> Result<Page, Error> {
    if limit == 0 {
        return Err(invalid("limit", "it must be at least 1"));
    }
    Ok(Page { after: id_or_none("after", after)?, limit: limit.min(LONGEST_PAGE) })
}

/// The Locks of a selection, sorted.
///
/// # Errors
/// `LimitExceeded`: too many. `InvalidArgument`: not an id, an id twice, no Lock at all, or ids together with `all`.
pub fn lock_choice(ids: &[&str], all: bool) -> Result<LockChoice, Error> {
    if ids.len() > MOST_LOCKS {
        return Err(Error::LimitExceeded(format!(
            "{} Locks are more than the {MOST_LOCKS} that one Key can be given at once; select fewer, or all",
            ids.len()
        )));
    }
    match (all, ids) {
        (true, []) => return Ok(LockChoice::All),
        (true, _) => return Err(invalid("ids", "leave it empty where all Locks are selected")),
        (false, []) => return Err(invalid("ids", "select at least one Lock")),
        (false, _) => {}
    }
    let mut names = lock_names("ids", ids)?;
    names.ids.sort_unstable();
    match names.ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid("ids", format!("Lock {} is in it twice", pair[0]))),
        None => Ok(LockChoice::These(names)),
    }
}

/// Whose PIN is given: `issuer`, `candidate` or `candidate-new`.
///
/// # Errors
/// `InvalidArgument`: any other word.
pub fn who(word: &str) -> Result<Who, Error> {
    word.parse().map_err(|_| {
        invalid("who", format!("{word:?} is none of issuer, candidate and candidate-new"))
    })
}

/// The kind of Key to make.
///
/// # Errors
/// `InvalidArgument`: no such kind.
pub fn kind(word: &str) -> Result<Kind, Error> {
    word.parse().map_err(|error| invalid("kind", error))
}

/// A certificate request, of at most [`LONGEST_CSR`] bytes.
///
/// # Errors
/// `InvalidArgument`: too long.
pub fn csr(pem: String) -> Result<String, Error> {
    if pem.len() > LONGEST_CSR {
        return Err(invalid("csr_pem", format!("it is longer than {LONGEST_CSR} bytes")));
    }
    Ok(pem)
}

/// The options of StartSerialization: kind and name.
///
/// # Errors
/// `InvalidArgument`: an unknown option, or one of the wrong type.
pub fn start_options(options: Options<'_>) -> Result<(Option<Kind>, Option<String>), Error> {
    let (mut chosen, mut name) = (None, None);
    for (option, value) in options {
        match option {
            "kind" => chosen = Some(kind(&text(option, value)?)?),
            "name" => name = Some(text(option, value)?),
            _ => return Err(invalid(option, "there is no such option")),
        }
    }
    Ok((chosen, name))
}

/// Checks the options of a method that has none yet.
///
/// # Errors
/// `InvalidArgument`: an unknown option.
pub fn no_options(options: &Options<'_>) -> Result<(), Error> {
    match options.keys().next() {
        Some(option) => Err(invalid(option, "there is no such option")),
        None => Ok(()),
    }
}

/// The filter of ListKeys and ListGroups: family and query.
///
/// # Errors
/// `InvalidArgument`: an unknown key, or a value of the wrong type.
pub fn key_filter(filter: Options<'_>) -> Result<Filter, Error> {
    let mut wanted = Filter::default();
    for (key, value) in filter {
        match key {
            "family" => wanted.family = Some(id(key, &text(key, value)?)?),
            "query" => wanted.query = Some(text(key, value)?),
            _ => return Err(unknown_key(key)),
        }
    }
    Ok(wanted)
}

/// The Locks that a list is limited to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockScope {
    /// All Locks.
    All,
    /// The Locks that the serialization of this number has selected.
    Selected(u64),
    /// The Locks in this group.
    Group(String),
}

/// The filter of ListLocks: family, query, and either a group or a serialization.
///
/// # Errors
/// `InvalidArgument`: an unknown key, a value of the wrong type, or both a group and a serialization. `NotFound`: no
/// such serialization.
pub fn lock_filter(filter: Options<'_>) -> Result<(Filter, LockScope), Error> {
    let (mut wanted, mut scope) = (Filter::default(), LockScope::All);
    if filter.contains_key("group") && filter.contains_key("serialization") {
        return Err(invalid("group", "it cannot be combined with serialization"));
    }
    for (key, value) in filter {
        match key {
            "family" => wanted.family = Some(id(key, &text(key, value)?)?),
            "query" => wanted.query = Some(text(key, value)?),
            "serialization" => {
                let path: ObjectPath<'_> = typed(key, value, "an object path")?;
                let number = bus::serialization_number(&path);
                let missing = || Error::NotFound(format!("serialization at {path}"));
                scope = LockScope::Selected(number.ok_or_else(missing)?);
            }
            "group" => scope = LockScope::Group(text(key, value)?),
            _ => return Err(unknown_key(key)),
        }
    }
    Ok((wanted, scope))
}

/// An `InvalidArgument` that says why this argument cannot be used.
pub fn invalid(argument: &str, why: impl std::fmt::Display) -> Error {
    Error::InvalidArgument(format!("{argument}: {why}; correct it and try again"))
}

fn unknown_key(key: &str) -> Error {
    invalid(key, "there is no such filter")
}

fn text(argument: &str, value: Variant<'_>) -> Result<String, Error> {
    typed(argument, value, "a string")
}

fn typed<'a, T: TryFrom<Variant<'a>>>(
    argument: &str,
    value: Variant<'a>,
    wanted: &str,
) -> Result<T, Error> {
    T::try_from(value).map_err(|_| invalid(argument, format!("it must be {wanted}")))
}

#[cfg(test)]
mod tests {
    use keywright_proto::ErrorName;

    use super::*;

    const ONE: &str = "00000000000000000000000000000001";
    const TWO: &str = "00000000000000000000000000000002";

    fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (ErrorName, String) {
        let error = answer.unwrap_err();
        (error.name(), error.to_string())
    }

    #[test]
    fn page_limit_is_1_to_1000_and_after_is_an_id() {
        assert_eq!(page("", 7).unwrap(), Page { after: None, limit: 7 });
        assert_eq!(page(ONE, 1000).unwrap(), Page { after: ONE.parse().ok(), limit: 1000 });
        assert_eq!(page("", 1001).unwrap().limit, 1000);
        assert_eq!(page("", u32::MAX).unwrap().limit, 1000);
        for (after, limit, named) in [("", 0, "limit"), ("x", 1, "after"), (&ONE[1..], 1, "after")]
        {
            let (name, text) = refused(page(after, limit));
            assert!(name == ErrorName::InvalidArgument && text.starts_with(named), "{text}");
        }
    }

    #[test]
    fn selection_has_ids_and_groups_once_each_or_all() {
        let names = |ids: &[&str], groups: &[&str]| LockNames {
            ids: ids.iter().map(|text| text.parse().unwrap()).collect(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
        };
        let these = |given: &[&str]| match lock_choice(given, false).unwrap() {
            LockChoice::These(names) => names,
            LockChoice::All => panic!("{given:?}"),
        };
        assert_eq!(lock_choice(&[], true).unwrap(), LockChoice::All);
        assert_eq!(these(&[TWO, ONE]), names(&[ONE, TWO], &[]));
        let groups = ["group:a b", ONE, "group:A", "group:a b", "group:"];
        assert_eq!(these(&groups), names(&[ONE], &["", "A", "a b"]));
        assert_eq!(lock_names("add", &groups).unwrap(), names(&[ONE], &["", "A", "a b"]));
        for (given, all, part) in [
            (&[][..], false, "at least one"),
            (&[ONE][..], true, "leave it empty"),
            (&[ONE, TWO, ONE][..], false, "twice"),
            (&[ONE, ""][..], false, "32 lower-case"),
            (&["Group:a"][..], false, "32 lower-case"),
        ] {
            let (name, text) = refused(lock_choice(given, all));
            assert!(name == ErrorName::InvalidArgument && text.contains(part), "{text}");
        }
    }

    #[test]
    fn selection_is_limited_in_size() {
        let texts: Vec<_> = (0..=MOST_LOCKS).map(|number| format!("{number:032x}")).collect();
        let ids: Vec<_> = texts.iter().map(String::as_str).collect();
        assert!(lock_choice(&ids[..MOST_LOCKS], false).is_ok());
        assert_eq!(refused(lock_choice(&ids, false)).0, ErrorName::LimitExceeded);
    }

    #[test]
    fn options_and_filters_are_parsed_or_refused_by_name() {
        let one = |name: &'static str, value: Variant<'static>| Options::from([(name, value)]);
        let text = |value: &'static str| Variant::from(value);
        let name = start_options(one("name", text("Anna"))).unwrap();
        assert_eq!(name, (None, Some("Anna".into())));
        let kind = start_options(one("kind", text("master"))).unwrap();
        assert_eq!(kind, (Some(Kind::Master), None));
        assert_eq!(key_filter(one("family", text(ONE))).unwrap().family, ONE.parse().ok());
        assert_eq!(key_filter(one("query", text("an"))).unwrap().query.as_deref(), Some("an"));
        let path = ObjectPath::try_from(bus::serialization_path(7)).unwrap();
        let path = || path.clone().into();
        assert_eq!(lock_filter(one("serialization", path())).unwrap().1, LockScope::Selected(7));
        assert_eq!(lock_filter(one("group", text("a"))).unwrap().1, LockScope::Group("a".into()));
        let both = Options::from([("group", text("a")), ("serialization", path())]);
        for (named, refusal) in [
            ("kind", refused(start_options(one("kind", text("soft"))))),
            ("name", refused(start_options(one("name", true.into())))),
            ("locks", refused(start_options(one("locks", true.into())))),
            ("force", refused(no_options(&one("force", true.into())))),
            ("family", refused(key_filter(one("family", text("mine"))))),
            ("serialization", refused(key_filter(one("serialization", text("/"))))),
            ("serialization", refused(lock_filter(one("serialization", text("/"))))),
            ("query", refused(lock_filter(one("query", 7_u32.into())))),
            ("group", refused(lock_filter(one("group", 7_u32.into())))),
            ("group", refused(lock_filter(both))),
        ] {
            assert_eq!(refusal.0, ErrorName::InvalidArgument);
            assert!(refusal.1.starts_with(&format!("{named}: ")), "{}", refusal.1);
        }
    }

    #[test]
    fn words_sizes_and_paths_are_checked() {
        assert_eq!(who("candidate-new").unwrap(), Who::CandidateNew);
        assert_eq!(refused(who("")).0, ErrorName::InvalidArgument);
        assert!(csr("x".repeat(LONGEST_CSR)).is_ok());
        assert_eq!(refused(csr("x".repeat(LONGEST_CSR + 1))).0, ErrorName::InvalidArgument);
        let path = |text: &'static str| ObjectPath::try_from(text).unwrap();
        assert_eq!(key_or_none(&path("/")).unwrap(), None);
        assert_eq!(refused(key(&path("/"))).0, ErrorName::NotFound);
        assert_eq!(refused(key(&path("/org/keywright1/keys/a/b"))).0, ErrorName::NotFound);
    }
}
