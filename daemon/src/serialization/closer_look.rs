//! The closer look: checks after the PIN that nothing which this station did not make would be overwritten.

use keywright_token::{Printed, Retired, Usage, decode_card};

use super::order::Failure;

/// Checks a token that looked blank without its PIN. `ours`: a job of this station has begun to write it.
pub fn check_blank(usage: &Usage, ours: bool) -> Result<(), Failure> {
    let in_use = [
        (usage.access_key && !ours, "slot 9A"),
        (usage.issuing_key && !ours, "slot 9C"),
        (usage.key_management, "slot 9D"),
        (usage.card_authentication, "slot 9E"),
        (usage.retired.iter().any(|(which, found)| !is_card(*which, found)), "a retired slot"),
        (usage.printed == Printed::Other, "the object PRINTED"),
    ];
    match in_use.into_iter().find(|(used, _)| *used) {
        Some((_, what)) => Err(Failure::Foreign(what)),
        None => Ok(()),
    }
}

/// Whether the object is a family's card, left by an earlier job.
fn is_card(which: Retired, found: &[u8]) -> bool {
    which == Retired::FAMILY_CARD && decode_card(found).is_some()
}

/// The first free retired container, for one more family's certificate. The first of all is reserved for the family's
/// card.
pub fn free_container(usage: &Usage) -> Result<Retired, Failure> {
    Retired::all()
        .filter(|retired| *retired != Retired::FAMILY_CARD)
        .find(|retired| usage.retired.iter().all(|(used, _)| used != retired))
        .ok_or(Failure::NoRoom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Usage {
        Usage {
            access_key: false,
            issuing_key: false,
            key_management: false,
            card_authentication: false,
            printed: Printed::Factory,
            retired: Vec::new(),
        }
    }

    #[test]
    fn a_token_in_use_is_refused_whatever_is_used() {
        let first = Retired::all().next().unwrap();
        let used = [
            Usage { access_key: true, ..empty() },
            Usage { issuing_key: true, ..empty() },
            Usage { key_management: true, ..empty() },
            Usage { card_authentication: true, ..empty() },
            Usage { printed: Printed::Other, ..empty() },
            Usage { retired: vec![(first, vec![1])], ..empty() },
        ];
        for usage in &used {
            assert!(matches!(check_blank(usage, false), Err(Failure::Foreign(_))), "{usage:?}");
        }
        assert!(check_blank(&empty(), false).is_ok());
        assert!(check_blank(&Usage { printed: Printed::ManagementKey, ..empty() }, false).is_ok());
    }

    #[test]
    fn what_a_job_of_ours_left_may_be_replaced_but_nothing_else() {
        let left = Usage { access_key: true, issuing_key: true, ..empty() };
        assert!(check_blank(&left, true).is_ok());
        assert!(check_blank(&Usage { key_management: true, ..left }, true).is_err());
    }

    #[test]
    fn a_card_is_ours_in_its_own_place_and_nothing_else_is() {
        // An array that begins with the name.
        let card = [&[0x85, 0x6e], &b"keywright-card"[..]].concat();
        let mut found = vec![0xC0, u8::try_from(card.len()).unwrap()];
        found.extend(card);
        let other = Retired::all().nth(1).unwrap();
        for (which, contents, ours) in [
            (Retired::FAMILY_CARD, found.clone(), true),
            (other, found.clone(), false),
            (Retired::FAMILY_CARD, found[..found.len() - 1].to_vec(), false),
            (Retired::FAMILY_CARD, [&found[..], &[0]].concat(), false),
            (Retired::FAMILY_CARD, vec![0x70, 1, 7], false),
        ] {
            let usage = Usage { retired: vec![(which, contents)], ..empty() };
            assert_eq!(check_blank(&usage, false).is_ok(), ours, "{usage:?}");
        }
    }

    #[test]
    fn the_family_card_keeps_its_container() {
        let mut usage = empty();
        let mut taken = Vec::new();
        while let Ok(container) = free_container(&usage) {
            taken.push(container);
            usage.retired.push((container, vec![1]));
        }
        assert_eq!(taken.len(), Retired::all().count() - 1);
        assert!(!taken.contains(&Retired::FAMILY_CARD));
    }
}
