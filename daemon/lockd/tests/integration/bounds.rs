//! Limits on what a broker can make a Lock keep in memory by replaying grants and never acknowledging.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use keywright_lockd::{config::Config, service::Service};
use keywright_proto::{
    Confirmation,
    Effect::{Allow, Deny},
};

use crate::common::{Ca, Key, Lock, take};

/// How often the broker replays a grant.
const REPLAYS: usize = 100;

fn replay(service: &mut Service, grant: &[u8]) -> usize {
    take(service, grant).unwrap();
    service.settle().unwrap().len()
}

#[test]
fn replayed_grant_has_one_confirmation_in_flight() {
    let (ca, bob, eve) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::of(&ca);
    let mut service = lock.service();
    service.set_link_up(true);
    let grant = lock.grant(&ca, &bob, 5, Allow);
    take(&mut service, &grant).unwrap();
    let first = service.settle().unwrap().remove(0);
    let more: usize = (0..REPLAYS).map(|_| replay(&mut service, &grant)).sum();
    assert_eq!((more, service.pending_confirmations()), (0, 1));
    // Another Key's confirmation is not held up.
    assert_eq!(replay(&mut service, &lock.grant(&ca, &eve, 5, Allow)), 1);
    // A newer statement of the same Key waits, and its confirmation reports the effect at that later time.
    let denial = lock.grant(&ca, &bob, 6, Deny);
    assert_eq!(replay(&mut service, &denial), 0);
    service.published(first.number).unwrap();
    let mut last = None;
    for _ in 0..3 {
        for answer in service.settle().unwrap() {
            assert_eq!(answer.key, bob.public().id());
            service.published(answer.number).unwrap();
            last = Some(Confirmation::verify(&answer.confirmation, &lock.key).unwrap());
            assert_eq!(last.as_ref().unwrap().effect, Deny);
        }
    }
    assert_eq!(last.unwrap().newest_version, 6);
    assert_eq!(service.pending_confirmations(), 0);
    // After the acknowledgement a replay is confirmed again.
    assert_eq!(replay(&mut service, &denial), 1);
    // A confirmation that may be lost is sent once more with the next connection.
    service.set_link_up(false);
    assert!((0..REPLAYS).all(|_| replay(&mut service, &denial) == 0));
    service.set_link_up(true);
    assert_eq!(service.settle().unwrap().len(), 2);
    assert_eq!(service.pending_confirmations(), 0);
}

#[test]
fn replays_while_the_hook_fails_are_confirmed_once() {
    let (ca, bob) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let gate = lock.dir.path().join("gate");
    let config: Config =
        toml::from_str(&format!("hook = ['test', '-e', '{}']", gate.display())).unwrap();
    let mut service = lock.service_with(config);
    service.set_link_up(true);
    let grant = lock.grant(&ca, &bob, 5, Allow);
    for _ in 0..REPLAYS {
        take(&mut service, &grant).unwrap();
    }
    assert!(service.settle().is_err());
    service.set_link_up(false);
    service.set_link_up(true);
    for _ in 0..REPLAYS {
        take(&mut service, &grant).unwrap();
    }
    assert_eq!(service.pending_confirmations(), 1);
    fs::write(gate, "").unwrap();
    assert_eq!(service.settle().unwrap().len(), 1);
}

/// Whoever asks without end for what is confirmed already costs the Lock a signature, and no write to the disk.
#[test]
fn replayed_grant_writes_nothing() {
    let (ca, bob) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let mut service = lock.service();
    service.set_link_up(true);
    let (allow, deny) = (lock.grant(&ca, &bob, 5, Allow), lock.grant(&ca, &bob, 6, Deny));
    let ask = |service: &mut Service| {
        for grant in [&allow, &deny] {
            let _ = take(service, grant);
            for answer in service.settle().unwrap() {
                service.published(answer.number).unwrap();
            }
        }
    };
    ask(&mut service);
    let before = written(&lock.state());
    for _ in 0..REPLAYS {
        ask(&mut service);
    }
    assert_eq!(written(&lock.state()), before);
}

/// The number of each file below a directory: a file that is replaced has another one.
fn written(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(written(&entry.path())),
            false => drop(files.insert(entry.path(), entry.metadata().unwrap().ino())),
        }
    }
    files
}
