//! How much memory a Lock takes with as many Keys as it keeps; the unit's `MemoryMax` has to hold it.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
};

use keywright_lockd::record::{Entry, Record};
use keywright_proto::{
    Effect::{self, Allow, Deny},
    Grant, PublicKey, Role, Statement, Tree, profile,
};
use p256::ecdsa::SigningKey;

use crate::common::{Ca, Key, Lock, VALIDITY, ders};

/// `MemoryMax` of `systemd/keywright-lockd.service`, in kB.
const MEMORY_MAX: u64 = 256 * 1024;

fn access_key(number: u32) -> PublicKey {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_slice(&secret).unwrap();
    PublicKey::from_sec1_point(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
}

/// Writes a Key's record, without waiting for the disk.
fn write_record(lock: &Lock, ca: &Ca, directory: &Path, number: u32) {
    let subject = access_key(number);
    let statement = |version, effect: Effect| {
        let tree = Tree::new([lock.leaf(effect)]).unwrap();
        let statement = Statement { subject: &subject, version, tree: tree.head(), revokes: None };
        let signed = ca.key.sign(statement.unsigned(&ca.chain).unwrap());
        let unsigned = profile::end_entity(
            &subject,
            Role::Sub,
            ca.certificate(),
            &number.to_be_bytes(),
            VALIDITY,
        );
        let access = ca.key.sign(unsigned.unwrap());
        let chain = [vec![access], ders(&ca.chain)].concat();
        Grant {
            statement: signed,
            leaf: lock.leaf(effect),
            index: 0,
            path: vec![],
            access_chain: if effect == Allow { chain } else { vec![] },
        }
    };
    // Most Keys were denied once and are allowed again: the longest usual record.
    let grants = [statement(Some(5), Deny), statement(Some(6), Allow)];
    let chains = vec![grants[1].access_chain.clone()];
    let entries = grants.iter().map(|grant| Entry {
        grant: grant.encode(),
        first_seen: 1,
        confirmed: true,
        due: true,
    });
    let record = Record { entries: entries.collect(), chains };
    fs::write(directory.join(hex::encode(subject.hash()) + ".cbor"), record.encode()).unwrap();
}

/// With every list, and while a list is written anew.
#[test]
#[ignore = "takes minutes; KEYWRIGHT_KEYS says how many Keys, 20,000 otherwise"]
fn lock_with_as_many_keys_as_it_keeps_fits_its_unit() {
    let ca = Ca::at_depth(2);
    let lock = Lock::of(&ca);
    let directory = lock.state().join("keys");
    fs::create_dir_all(&directory).unwrap();
    let keys = std::env::var("KEYWRIGHT_KEYS").map_or(20_000, |keys| keys.parse().unwrap());
    (1..=keys).for_each(|number| write_record(&lock, &ca, &directory, number));
    let (log, write) = io::pipe().unwrap();
    let running = lock.start_with_log("max_keys = 100000\n", write);
    // Verifying so many grants takes its time.
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready")));
    let pid = running.id();
    for number in 0..3 {
        let key = Key::new(100 + number);
        running.drop_grant(&format!("{number}"), &lock.grant(&ca, &key, 5, Allow)).unwrap();
    }
    let field = |file: &str, name: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (peak, resident) = (field("status", "VmHWM:"), field("status", "VmRSS:"));
    let proportional = field("smaps_rollup", "Pss:");
    println!("{keys} Keys: {proportional} kB PSS, {resident} kB RSS, {peak} kB at most");
    assert!(lock.list("keys.json").matches("\"role\"").count() > keys as usize);
    assert!(peak < MEMORY_MAX * 3 / 4, "{peak} kB");
}
