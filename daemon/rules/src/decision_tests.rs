//! Contract section 2, row by row.

use proptest::prelude::*;

use super::*;

const F: u8 = 1;
const G: u8 = 2;

fn issuer(family: u8) -> Standing {
    Standing::Issuer { family: Id::from_bytes([family; 16]), has_lock: true }
}

fn lockless(family: u8) -> Standing {
    Standing::Issuer { family: Id::from_bytes([family; 16]), has_lock: false }
}

/// Keys named a, b, c… plugged in one after the other.
fn in_turn(standings: &[Standing]) -> Vec<Present<'static>> {
    const LABELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    standings
        .iter()
        .zip(LABELS)
        .enumerate()
        .map(|(n, (standing, label))| Present {
            label,
            standing: *standing,
            plugged: Plugged::Later(n as u64),
        })
        .collect()
}

fn at_start(standings: &[Standing]) -> Vec<Present<'static>> {
    let mut keys = in_turn(standings);
    keys.iter_mut().for_each(|key| key.plugged = Plugged::AtStart);
    keys
}

/// `issuer>other:verdict` for each ruling.
fn said(rulings: &[Ruling<'_>]) -> Vec<String> {
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
fn every_row_in_both_plug_orders() {
    use Standing::*;
    // One Key, the other, and what is said of them; X is the first one and Y the second.
    let rows: &[(Standing, Standing, &str)] = &[
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
        for (standings, names) in [([*x, *y], ("a", "b")), ([*y, *x], ("b", "a"))] {
            for keys in [in_turn(&standings), at_start(&standings)] {
                let said = said(&decide(&keys, &[]));
                let expected = expected.replace('X', names.0).replace('Y', names.1);
                match expected.strip_prefix('*') {
                    // Symmetric rows: whichever is named first.
                    Some(verdict) => assert!(
                        said.len() == 1 && said[0].ends_with(verdict),
                        "{standings:?}: {said:?}"
                    ),
                    None => assert_eq!(said, [expected], "{standings:?}"),
                }
            }
        }
    }
}

#[test]
fn of_two_issuers_the_one_present_first_issues() {
    assert_eq!(said(&decide(&in_turn(&[issuer(F), issuer(G)]), &[])), ["a>b:sub"]);
    assert_eq!(said(&decide(&in_turn(&[issuer(G), issuer(F)]), &[])), ["a>b:sub"]);
    let unordered = said(&decide(&at_start(&[issuer(F), issuer(G)]), &[]));
    assert_eq!(unordered, ["a>b:ambiguous-issuer"]);
}

#[test]
fn two_issuers_of_one_family_and_a_blank() {
    let keys = in_turn(&[issuer(F), issuer(F), Standing::Blank]);
    let expected = ["a>b:same-family", "a>c:backup+sub", "b>c:ambiguous-issuer"];
    assert_eq!(said(&decide(&keys, &[])), expected);
    let keys = at_start(&[issuer(F), issuer(F), Standing::Blank]);
    let expected = ["a>b:same-family", "a>c:ambiguous-issuer", "b>c:ambiguous-issuer"];
    assert_eq!(said(&decide(&keys, &[])), expected);
}

#[test]
fn issuers_of_two_families_and_a_blank() {
    let keys = in_turn(&[issuer(F), issuer(G), Standing::Blank]);
    let expected = ["a>b:sub", "a>c:ambiguous-issuer", "b>c:ambiguous-issuer"];
    assert_eq!(said(&decide(&keys, &[])), expected);
}

#[test]
fn a_pair_in_an_offer_never_changes() {
    let keys = in_turn(&[issuer(F), Standing::Blank, issuer(G)]);
    let live = [(Some("a"), "b", Past::Live)];
    assert_eq!(said(&decide(&keys, &live)), ["a>c:sub", "c>b:ambiguous-issuer"]);
}

#[test]
fn one_lockless_issuer_does_not_make_the_other_ambiguous() {
    let keys = in_turn(&[issuer(F), lockless(G), Standing::Blank]);
    assert_eq!(said(&decide(&keys, &[])), ["a>b:sub", "a>c:backup+sub", "b>c:no-lock"]);
}

#[test]
fn several_candidates_get_an_offer_each() {
    let keys = in_turn(&[Standing::Blank, issuer(F), Standing::Blank, Standing::Sub]);
    let expected = [
        "/>a:not-an-issuer",
        "/>c:no-issuer",
        "/>c:not-an-issuer",
        "b>a:backup+sub",
        "b>c:backup+sub",
        "b>d:sub",
    ];
    assert_eq!(said(&decide(&keys, &[])), expected);
}

#[test]
fn a_cancelled_or_done_pair_waits_for_a_replug() {
    let keys = in_turn(&[issuer(F), Standing::Blank]);
    let cancelled = [(Some("a"), "b", Past::Cancelled)];
    assert_eq!(said(&decide(&keys, &cancelled)), ["a>b:cancelled"]);
    let done = [(Some("a"), "b", Past::Done)];
    assert_eq!(said(&decide(&keys, &done)), ["a>b:done"]);
}

#[test]
fn a_person_may_name_the_issuer() {
    assert_eq!(permit(issuer(F), Standing::Blank), Ok(FOR_BLANK));
    assert_eq!(permit(issuer(F), issuer(G)), Ok(FOR_MEMBER));
    assert_eq!(permit(Standing::Sub, Standing::Blank), Err(Reason::NotAnIssuer));
    assert_eq!(permit(Standing::Blank, issuer(F)), Err(Reason::NoIssuer));
    assert_eq!(permit(lockless(F), Standing::Blank), Err(Reason::NoLock));
    assert_eq!(permit(issuer(F), Standing::Foreign), Err(Reason::ForeignCredentials));
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Blank),
        Just(Standing::Sub),
        Just(Standing::Foreign),
        Just(Standing::Revoked),
        Just(Standing::Unusable),
        (1u8..3).prop_map(issuer),
        (1u8..3).prop_map(lockless),
    ]
}

proptest! {
    #[test]
    fn one_ruling_a_pair_and_offers_only_by_issuers(
        standings in prop::collection::vec(standings(), 0..6),
        coldplug in any::<bool>(),
    ) {
        let keys = if coldplug { at_start(&standings) } else { in_turn(&standings) };
        let rulings = decide(&keys, &[]);
        prop_assert_eq!(rulings.len(), keys.len() * keys.len().saturating_sub(1) / 2);
        let standing = |label| keys.iter().find(|k| k.label == label).unwrap().standing;
        for ruling in &rulings {
            let Verdict::Offer(kinds) = ruling.verdict else { continue };
            let has_lock = matches!(
                standing(ruling.issuer.unwrap()), Standing::Issuer { has_lock: true, .. }
            );
            prop_assert!(has_lock);
            let blank = standing(ruling.other) == Standing::Blank;
            prop_assert_eq!(kinds.contains(&Kind::Backup), blank);
        }
        // No blank Key is offered to two issuers at once.
        for key in &keys {
            let offers = rulings.iter().filter(|r| {
                r.other == key.label && matches!(r.verdict, Verdict::Offer(_))
            });
            if key.standing == Standing::Blank {
                prop_assert!(offers.count() <= 1);
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        standings in prop::collection::vec(standings(), 0..6),
    ) {
        let keys = in_turn(&standings);
        let reversed: Vec<_> = keys.iter().rev().copied().collect();
        prop_assert_eq!(said(&decide(&keys, &[])), said(&decide(&reversed, &[])));
    }
}
