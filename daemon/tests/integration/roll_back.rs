//! A job that is rolled back leaves no right; certificates that may have been signed go into the issuer's next CRL.

use keywright_proto::{Id, Kind};
use keywrightd::{
    registry::{
        Batch, Registry,
        records::{Intent, IntentCandidate, IntentIssuer, IntentMade, Issuer, Leftover, Scope},
    },
    serialization::{left_behind, roll_back},
};

const NUMBER: u64 = 7;
const GUID: [u8; 16] = [9; 16];
const ISSUING_KEY: &[u8] = b"the issuing key";

fn intent(made: IntentMade) -> Intent {
    Intent {
        number: NUMBER,
        kind: Kind::Sub,
        name: "Sub".into(),
        started: 1_700_000_000,
        family: Some(Id::from_bytes([1; 16])),
        issuer: Some(IntentIssuer {
            label: "issuer".into(),
            access_key: Vec::new(),
            issuing_key: ISSUING_KEY.into(),
            port: "virtual".into(),
        }),
        candidate: IntentCandidate {
            label: "candidate".into(),
            access_key: None,
            guid_before: None,
            guid: Some(GUID),
            usb_serial: None,
            port: "virtual".into(),
            model: String::new(),
            serial: String::new(),
        },
        scope: Scope::Listed(1),
        made,
    }
}

/// Rolls back a job at this point; returns the serial numbers that the issuer has to revoke, and the token's leftover.
fn after_roll_back(made: IntentMade) -> (Vec<Vec<u8>>, Option<Leftover>) {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::open(&state.path().join("registry")).unwrap();
    let ca = Id::of_spki(ISSUING_KEY);
    let family = Id::from_bytes([1; 16]);
    let earlier = vec![vec![0x11]];
    let mut batch = Batch::new();
    batch
        .put_issuer(ca, Issuer { family, chain: vec![], crl: vec![], to_revoke: earlier })
        .put_intent(intent(made));
    registry.commit(batch).unwrap();
    roll_back(&registry, NUMBER, None).unwrap().unwrap();
    assert_eq!(registry.intents().unwrap(), []);
    assert_eq!(roll_back(&registry, NUMBER, None).unwrap(), None, "once");
    let issuer = registry.issuer(ca).unwrap().unwrap();
    (issuer.to_revoke, registry.leftover(GUID).unwrap())
}

#[test]
fn roll_back_revokes_possible_signatures_and_records_leftovers() {
    let serials = vec![vec![0x22], vec![0x33]];
    // Whether it was signed is unknown: an unplug may have hidden the signature.
    let looked = IntentMade { looked: true, serials: serials.clone(), ..IntentMade::default() };
    let (to_revoke, leftover) = after_roll_back(looked.clone());
    assert_eq!(to_revoke, [vec![0x11], vec![0x22], vec![0x33]]);
    let nothing_known = Leftover { access_key: None, issuing_key: None, puk_tried: false };
    assert_eq!(leftover, Some(nothing_known));

    let further = IntentMade {
        access_key: Some(vec![1]),
        pin_begun: true,
        management_key_begun: true,
        puk_begun: true,
        ..looked
    };
    let left = left_behind(&intent(further.clone()));
    let words = ["keys", "PIN", "management key", "recovery code"];
    assert!(words.iter().zip(&left).all(|(word, text)| text.contains(word)), "{left:?}");
    assert_eq!(left.len(), words.len());
    let remembered = Leftover { access_key: Some(vec![1]), issuing_key: None, puk_tried: true };
    assert_eq!(after_roll_back(further).1, Some(remembered));
}

#[test]
fn roll_back_before_the_closer_look_revokes_nothing() {
    let made = IntentMade { serials: vec![vec![0x22]], ..IntentMade::default() };
    assert_eq!(after_roll_back(made.clone()), (vec![vec![0x11]], None));
    assert_eq!(left_behind(&intent(made)), [""; 0]);
}
