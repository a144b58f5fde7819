//! The rules for pairs as a table, and properties that hold for any set of Keys.

use proptest::prelude::*;

use super::*;

const F: u8 = 1;
const G: u8 = 2;

fn issuer(family: u8) -> KeyClass {
    KeyClass::Issuer { family: Id::from_bytes([family; 16]), has_lock: true }
}

fn lockless(family: u8) -> KeyClass {
    KeyClass::Issuer { family: Id::from_bytes([family; 16]), has_lock: false }
}

/// Keys named a, b, c… plugged in one after the other.
fn in_turn(classes: &[KeyClass]) -> Vec<PresentKey<'static>> {
    const LABELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    classes
        .iter()
        .zip(LABELS)
        .enumerate()
        .map(|(n, (class, label))| PresentKey {
            label,
            class: *class,
            plugged: Plugged::Later(n as u64),
            revoked_in: &[],
        })
        .collect()
}

fn at_start(classes: &[KeyClass]) -> Vec<PresentKey<'static>> {
    let mut keys = in_turn(classes);
    keys.iter_mut().for_each(|key| key.plugged = Plugged::AtStart);
    keys
}

/// `issuer>other:verdict` for each ruling.
fn rulings(rulings: &[Ruling<'_>]) -> Vec<String> {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Offer(kinds) => kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join("+"),
        Verdict::None(reason) => reason.as_str().to_owned(),
    };
    let mut rows: Vec<_> = rulings
        .iter()
        .map(|r| format!("{}>{}:{}", r.issuer.unwrap_or("/"), r.other, word(&r.verdict)))
        .collect();
    rows.sort();
    rows
}

#[test]
fn pair_table_holds_in_both_plug_orders() {
    use KeyClass::*;
    // One Key, the other, and the ruling; X is the first Key and Y the second.
    let rows: &[(KeyClass, KeyClass, &str)] = &[
        (issuer(F), Blank, "X>Y:backup+sub"),
        (issuer(F), Sub, "X>Y:sub"),
        (issuer(F), issuer(F), "*:same-family"),
        (issuer(F), lockless(G), "X>Y:sub"),
        (lockless(F), lockless(G), "*:no-lock"),
        (lockless(F), Blank, "X>Y:no-lock"),
        (lockless(F), Sub, "X>Y:no-lock"),
        (lockless(F), Foreign, "X>Y:no-lock"),
        (Sub, Blank, "/>Y:not-an-issuer"),
        (Sub, Sub, "*:not-an-issuer"),
        (Sub, Foreign, "/>Y:not-an-issuer"),
        (Blank, Blank, "*:no-issuer"),
        (Blank, Foreign, "/>Y:no-issuer"),
        (Foreign, Foreign, "*:no-issuer"),
        (issuer(F), Foreign, "X>Y:foreign-credentials"),
        (issuer(F), Revoked, "X>Y:revoked"),
        (Blank, Revoked, "/>Y:revoked"),
        (Sub, Revoked, "/>Y:revoked"),
        (Unusable, Revoked, "/>Y:revoked"),
        (issuer(F), Unusable, "X>Y:unusable"),
        (lockless(F), Unusable, "X>Y:unusable"),
        (Blank, Unusable, "/>Y:unusable"),
    ];
    for (x, y, expected) in rows {
        for (classes, names) in [([*x, *y], ("a", "b")), ([*y, *x], ("b", "a"))] {
            for keys in [in_turn(&classes), at_start(&classes)] {
                let said = rulings(&decide(&keys, &[]));
                let expected = expected.replace('X', names.0).replace('Y', names.1);
                match expected.strip_prefix('*') {
                    // Symmetric rows: either Key may be named first.
                    Some(verdict) => assert!(
                        said.len() == 1 && said[0].ends_with(verdict),
                        "{classes:?}: {said:?}"
                    ),
                    None => assert_eq!(said, [expected], "{classes:?}"),
                }
            }
        }
    }
}

#[test]
fn issuer_present_first_issues() {
    assert_eq!(rulings(&decide(&in_turn(&[issuer(F), issuer(G)]), &[])), ["a>b:sub"]);
    assert_eq!(rulings(&decide(&in_turn(&[issuer(G), issuer(F)]), &[])), ["a>b:sub"]);
    let unordered = rulings(&decide(&at_start(&[issuer(F), issuer(G)]), &[]));
    assert_eq!(unordered, ["a>b:ambiguous-issuer"]);
}

#[test]
fn earlier_issuer_of_a_family_is_offered_the_blank_key() {
    let keys = in_turn(&[issuer(F), issuer(F), KeyClass::Blank]);
    let expected = ["a>b:same-family", "a>c:backup+sub", "b>c:ambiguous-issuer"];
    assert_eq!(rulings(&decide(&keys, &[])), expected);
    let keys = at_start(&[issuer(F), issuer(F), KeyClass::Blank]);
    let expected = ["a>b:same-family", "a>c:ambiguous-issuer", "b>c:ambiguous-issuer"];
    assert_eq!(rulings(&decide(&keys, &[])), expected);
}

#[test]
fn issuers_of_two_families_are_ambiguous_for_a_blank_key() {
    let keys = in_turn(&[issuer(F), issuer(G), KeyClass::Blank]);
    let expected = ["a>b:sub", "a>c:ambiguous-issuer", "b>c:ambiguous-issuer"];
    assert_eq!(rulings(&decide(&keys, &[])), expected);
}

#[test]
fn live_offer_is_never_ruled_on() {
    let keys = in_turn(&[issuer(F), KeyClass::Blank, issuer(G)]);
    let live = [(Some("a"), "b", PairState::Live)];
    assert_eq!(rulings(&decide(&keys, &live)), ["a>c:sub", "c>b:ambiguous-issuer"]);
}

#[test]
fn issuer_without_a_lock_causes_no_ambiguity() {
    let keys = in_turn(&[issuer(F), lockless(G), KeyClass::Blank]);
    assert_eq!(rulings(&decide(&keys, &[])), ["a>b:sub", "a>c:backup+sub", "b>c:no-lock"]);
}

#[test]
fn each_candidate_gets_an_offer() {
    let keys = in_turn(&[KeyClass::Blank, issuer(F), KeyClass::Blank, KeyClass::Sub]);
    let expected = [
        "/>a:not-an-issuer",
        "/>c:no-issuer",
        "/>c:not-an-issuer",
        "b>a:backup+sub",
        "b>c:backup+sub",
        "b>d:sub",
    ];
    assert_eq!(rulings(&decide(&keys, &[])), expected);
}

/// A Sub Key that F revoked and that shows F, and an issuer of G that F revoked as its guest.
#[test]
fn revocation_counts_in_the_family_that_made_it() {
    let in_f = [Id::from_bytes([F; 16])];
    let mut keys = in_turn(&[issuer(F), issuer(G), KeyClass::Revoked]);
    keys[1].revoked_in = &in_f;
    keys[2].revoked_in = &in_f;
    assert_eq!(rulings(&decide(&keys, &[])), ["a>b:revoked", "a>c:revoked", "b>c:sub"]);
    let keys = [keys[2], in_turn(&[issuer(G), KeyClass::Blank])[1]];
    assert_eq!(rulings(&decide(&keys, &[])), ["/>c:revoked"]);
}

#[test]
fn cancelled_or_done_pair_is_not_offered_again() {
    let keys = in_turn(&[issuer(F), KeyClass::Blank]);
    let cancelled = [(Some("a"), "b", PairState::Cancelled)];
    assert_eq!(rulings(&decide(&keys, &cancelled)), ["a>b:cancelled"]);
    let done = [(Some("a"), "b", PairState::Done)];
    assert_eq!(rulings(&decide(&keys, &done)), ["a>b:done"]);
}

#[test]
fn named_issuer_resolves_ambiguity() {
    assert_eq!(allowed_kinds(issuer(F), KeyClass::Blank), Ok(KINDS_FOR_BLANK));
    assert_eq!(allowed_kinds(issuer(F), issuer(G)), Ok(KINDS_FOR_MEMBER));
    assert_eq!(allowed_kinds(KeyClass::Sub, KeyClass::Blank), Err(Reason::NotAnIssuer));
    assert_eq!(allowed_kinds(KeyClass::Blank, issuer(F)), Err(Reason::NoIssuer));
    assert_eq!(allowed_kinds(lockless(F), KeyClass::Blank), Err(Reason::NoLock));
    assert_eq!(allowed_kinds(issuer(F), KeyClass::Foreign), Err(Reason::ForeignCredentials));
}

fn classes() -> impl Strategy<Value = KeyClass> {
    prop_oneof![
        Just(KeyClass::Blank),
        Just(KeyClass::Sub),
        Just(KeyClass::Foreign),
        Just(KeyClass::Revoked),
        Just(KeyClass::Unusable),
        (1u8..3).prop_map(issuer),
        (1u8..3).prop_map(lockless),
    ]
}

proptest! {
    #[test]
    fn one_ruling_a_pair_and_offers_only_by_issuers(
        classes in prop::collection::vec(classes(), 0..6),
        coldplug in any::<bool>(),
    ) {
        let keys = if coldplug { at_start(&classes) } else { in_turn(&classes) };
        let rulings = decide(&keys, &[]);
        prop_assert_eq!(rulings.len(), keys.len() * keys.len().saturating_sub(1) / 2);
        let class = |label| keys.iter().find(|k| k.label == label).unwrap().class;
        for ruling in &rulings {
            let Verdict::Offer(kinds) = ruling.verdict else { continue };
            let has_lock = matches!(
                class(ruling.issuer.unwrap()), KeyClass::Issuer { has_lock: true, .. }
            );
            prop_assert!(has_lock);
            let blank = class(ruling.other) == KeyClass::Blank;
            prop_assert_eq!(kinds.contains(&Kind::Backup), blank);
        }
        // No blank Key is offered to two issuers at once.
        for key in &keys {
            let offers = rulings.iter().filter(|r| {
                r.other == key.label && matches!(r.verdict, Verdict::Offer(_))
            });
            if key.class == KeyClass::Blank {
                prop_assert!(offers.count() <= 1);
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        classes in prop::collection::vec(classes(), 0..6),
    ) {
        let keys = in_turn(&classes);
        let reversed: Vec<_> = keys.iter().rev().copied().collect();
        prop_assert_eq!(rulings(&decide(&keys, &[])), rulings(&decide(&reversed, &[])));
    }
}
