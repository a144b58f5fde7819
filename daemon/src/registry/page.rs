//! Pages of long lists, and the filter that says which items are listed.

use keywright_proto::Id;

use super::error::RegistryError;

/// One page of a list, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The value of `after` for the next page; `None` on the last page.
    pub next: Option<Id>,
}

/// Which items are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this family.
    pub family: Option<Id>,
    /// Only those whose name contains this, in upper or lower case, or whose id starts with it.
    pub query: Option<String>,
}

impl Filter {
    /// Whether an item of this family, id and name is listed.
    pub fn admits(&self, family: Id, id: Id, name: &str) -> bool {
        self.family.is_none_or(|wanted| wanted == family) && Query::new(self).matches(id, name)
    }
}

/// A query, prepared once to be compared with 100,000 names.
pub(super) struct Query {
    text: Option<String>,
    /// The values of its digits if all of them are hexadecimal, so that it may be the start of an id.
    digits: Option<Vec<u8>>,
}

impl Query {
    pub(super) fn new(filter: &Filter) -> Self {
        let text = filter.query.as_ref().map(|query| query.to_lowercase());
        let digit = |digit: char| digit.to_digit(16).map(|digit| digit as u8);
        let digits = text.as_ref().and_then(|text| text.chars().map(digit).collect());
        Self { text, digits }
    }

    /// Whether every item matches.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_none()
    }

    pub(super) fn matches(&self, id: Id, name: &str) -> bool {
        self.text.as_ref().is_none_or(|text| {
            self.digits.as_ref().is_some_and(|digits| starts_with(id, digits))
                || contains(name, text)
        })
    }
}

/// Whether a name in upper or lower case contains this text, which is in lower case.
fn contains(name: &str, text: &str) -> bool {
    if !(name.is_ascii() && text.is_ascii()) {
        return name.to_lowercase().contains(text);
    }
    // The same, without a lower-case copy of every name.
    let text = text.as_bytes();
    text.is_empty()
        || name.as_bytes().windows(text.len()).any(|part| part.eq_ignore_ascii_case(text))
}

fn starts_with(id: Id, digits: &[u8]) -> bool {
    let own = id.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.len() <= 32 && own.zip(digits).all(|(own, digit)| own == *digit)
}

/// Takes the first `limit` items. One more is read to find out whether there is a next page.
pub(super) fn page<T>(
    mut items: impl Iterator<Item = Result<(Id, T), RegistryError>>,
    limit: usize,
) -> Result<Page<(Id, T)>, RegistryError> {
    let found = items.by_ref().take(limit).collect::<Result<Vec<_>, _>>()?;
    let more = items.next().transpose()?.is_some();
    let next = found.last().filter(|_| more).map(|(id, _)| *id);
    Ok(Page { items: found, next })
}

/// The first key of a page: the smallest one after the id `after` with this prefix.
pub(super) fn start_after(prefix: &[u8], after: Option<Id>) -> Vec<u8> {
    let mut start = prefix.to_vec();
    if let Some(after) = after {
        start.extend_from_slice(after.as_bytes());
        start.push(0);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_ignores_case() {
        for (name, text, found) in [
            ("Gate 1", "gate", true),
            ("North GATE", "gate", true),
            ("gat", "gate", false),
            ("", "gate", false),
            ("Gate", "", true),
            ("Tür", "TÜR", true),
            ("Straße 7", "straße", true),
            ("Tor", "tür", false),
            ("K", "k", true),
        ] {
            let query = Query::new(&Filter { family: None, query: Some(text.into()) });
            assert_eq!(query.matches(Id::from_bytes([0; 16]), name), found, "{text} in {name}");
        }
    }
}
