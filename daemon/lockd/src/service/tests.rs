use std::{fs, path::Path, process::Command};

use keywright_proto::{
    Certificate, Confirmation, Effect, Grant, RevokedIssuer, Role, Target,
    pem::{self, Label},
    profile,
};

use super::*;
use crate::family::{Ca, Key, VALIDITY, leaf};

/// Longer than the delay of a revocation, in milliseconds.
const DELAY: u64 = 8 * 86_400_000;

fn claim(state: &Path, ca: &Ca) {
    let identity = Identity::load_or_create(state).unwrap();
    let own = profile::end_entity(identity.public(), Role::Lock, ca.certificate(), &[7], VALIDITY);
    let own = ca.key.sign(own.unwrap());
    let ders = ca.chain.iter().map(Certificate::der);
    let text = pem::to_pem(Label::Certificate, std::iter::once(&own[..]).chain(ders)).unwrap();
    Membership::claim(state, identity.public(), &text).unwrap();
}

fn take(service: &mut Service, grant: &Grant) {
    service.take(&grant.encode(), Origin::Link { retained: false }).unwrap();
}

/// Settles and acknowledges until no confirmation is left to publish; returns the effects confirmed for this Key.
fn publish_all(service: &mut Service, key: Id) -> Vec<Effect> {
    let lock = service.gate.identity().public().clone();
    let mut effects = Vec::new();
    loop {
        let answers = service.settle().unwrap();
        if answers.is_empty() {
            return effects;
        }
        for answer in answers {
            if answer.key == key {
                let confirmation = Confirmation::verify(&answer.confirmation, &lock).unwrap();
                effects.push(confirmation.effect);
            }
            service.published(answer.number).unwrap();
        }
    }
}

#[test]
fn effect_changed_during_publication_is_confirmed_again() {
    let (ca, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (master, bob) = (Key::new(40), Key::new(30));
    let dir = tempfile::tempdir().unwrap();
    claim(dir.path(), &ca);
    let mut service = Service::open(dir.path(), Config::default()).unwrap();
    service.set_link_up(true);
    let access = ca.issue(&master, Role::Master, &[9]);
    let everywhere = [leaf(Target::All, Effect::Allow)];
    take(&mut service, &ca.grant(&master, Some(1), &everywhere, 0, &access));
    let revokes = RevokedIssuer { issuing_key: ca.key.public().hash(), denials_until: 1 };
    take(&mut service, &backup.revocation(&master, Some(revokes)));
    let id = bob.public().id();
    assert_eq!(publish_all(&mut service, id), []);

    let here = [leaf(Target::Lock(service.gate.identity().public().hash()), Effect::Allow)];
    take(&mut service, &ca.grant(&bob, Some(5), &here, 0, &[]));
    let in_flight = service.settle().unwrap();
    let [OutgoingConfirmation { number, key, .. }] = in_flight[..] else { panic!("{in_flight:?}") };
    assert_eq!(key, id);
    // After the delay the Master that allowed the Key is revoked.
    let now = service.uptime.now();
    service.uptime.raise_to(now + DELAY);
    assert_eq!(publish_all(&mut service, id), [], "one of each Key is on its way");
    service.published(number).unwrap();
    assert_eq!(publish_all(&mut service, id), [Effect::Deny]);
    assert_eq!(service.pending_confirmations(), 0);
}

#[test]
fn leftover_temporary_files_are_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    claim(dir.path(), &Ca::at_depth(1));
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let name = format!(".some.{}.0.new", child.id());
    let places = [INBOX, OUTBOX, outputs::DIRECTORY, store::DIRECTORY];
    for place in places {
        fs::create_dir(dir.path().join(place)).unwrap();
        fs::write(dir.path().join(place).join(&name), "x").unwrap();
    }
    Service::open(dir.path(), Config::default()).unwrap();
    assert!(places.iter().all(|place| !dir.path().join(place).join(&name).exists()));
}
