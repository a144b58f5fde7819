//! What Locks confirm about statements whose signers are revoked later: it falls with them, so that whatever is signed
//! since is said to the Locks, a denial above all.

use keywright_proto::Effect::{Allow, Deny};

use crate::family::{self, Bench, Saying, confirm, nothing_said, say};

const GATE: u8 = 100;
const SUB: u8 = 31;
/// The places of the Master and of a Backup.
const MASTER: usize = 0;
const BACKUP: usize = 1;

fn rights(version: u64, effect: keywright_proto::Effect) -> Saying {
    Saying::Rights(SUB, version, vec![(GATE, effect)])
}

fn state(bench: &Bench) -> String {
    bench.rights(SUB).pop().map(|(_, state)| state).unwrap_or_default()
}

/// A stolen Backup revokes a Sub Key, and a Lock confirms that. The Master revokes the Backup and grants anew; and then
/// takes the right away for good.
#[test]
fn denial_after_a_void_revocation_waits_for_the_lock() {
    let (mut bench, mut papers) = (Bench::start(), nothing_said());
    let first = say(&mut papers, MASTER, &rights(5, Allow));
    bench.import(papers.clone());
    bench.confirm(confirm(GATE, first, Allow, 5));
    assert_eq!(state(&bench), "active");
    let theft = say(&mut papers, BACKUP, &Saying::RevokeSub(SUB));
    bench.import(papers.clone());
    assert_eq!(state(&bench), "removing");
    let stolen = confirm(GATE, theft, Deny, 5);
    bench.confirm(stolen.clone());
    assert_eq!(state(&bench), "");

    say(&mut papers, MASTER, &Saying::RevokeCa(BACKUP, 10));
    let anew = say(&mut papers, MASTER, &rights(12, Allow));
    bench.import(papers.clone());
    assert_eq!(state(&bench), "pending");
    // What a Lock said before comes again: it is not about this.
    bench.confirm(stolen.clone());
    assert_eq!(state(&bench), "pending");
    let admitted = confirm(GATE, anew, Allow, 12);
    bench.confirm(admitted.clone());
    assert_eq!(state(&bench), "active");

    let denied = say(&mut papers, MASTER, &rights(13, Deny));
    bench.import(papers);
    assert_eq!(state(&bench), "removing");
    for again in [stolen, admitted] {
        bench.confirm(again);
        assert_eq!(state(&bench), "removing");
    }
    bench.confirm(confirm(GATE, denied, Deny, 13));
    assert_eq!(state(&bench), "");
}

/// The denial comes where the Lock has not confirmed what was granted anew: it may admit the Key all the same.
#[test]
fn void_revocation_does_not_deny_later_grants() {
    let (mut bench, mut papers) = (Bench::start(), nothing_said());
    let theft = say(&mut papers, BACKUP, &Saying::RevokeSub(SUB));
    say(&mut papers, MASTER, &rights(5, Allow));
    bench.import(papers.clone());
    bench.confirm(confirm(GATE, theft, Deny, 5));
    assert_eq!(state(&bench), "");
    say(&mut papers, MASTER, &Saying::RevokeCa(BACKUP, 10));
    say(&mut papers, MASTER, &rights(12, Allow));
    say(&mut papers, MASTER, &rights(13, Deny));
    bench.import(papers.clone());
    assert_eq!(state(&bench), "removing");
    // The Master's own revocation is another one.
    say(&mut papers, MASTER, &Saying::RevokeSub(SUB));
    bench.import(papers);
    assert_eq!(state(&bench), "removing");
}

/// A Lock that admitted a Key by the word of a Backup no longer does once it hears that the Backup was revoked: what is
/// granted anew has to reach it.
#[test]
fn reissued_right_is_pending_until_confirmed() {
    let (mut bench, mut papers) = (Bench::start(), nothing_said());
    let by_backup = say(&mut papers, BACKUP, &rights(5, Allow));
    bench.import(papers.clone());
    bench.confirm(confirm(GATE, by_backup, Allow, 5));
    assert_eq!(state(&bench), "active");
    say(&mut papers, MASTER, &Saying::RevokeCa(BACKUP, 10));
    bench.import(papers.clone());
    assert_eq!(state(&bench), "pending");
    let anew = say(&mut papers, MASTER, &rights(12, Allow));
    bench.import(papers);
    assert_eq!(state(&bench), "pending");
    bench.confirm(confirm(GATE, anew, Allow, 12));
    assert_eq!(state(&bench), "active");
}

/// While the revocation of a Master waits, a Lock that was added since hears first that it admits the Master, and then of
/// the revocation.
#[test]
fn new_lock_gets_the_masters_right_before_its_revocation() {
    use family::{EVERYWHERE, MASTERS_KEY, MOMENT, lock};
    use keywright_proto::{Grant, Id, statement::digest};
    let (mut bench, mut papers) = (Bench::start(), nothing_said());
    let allow = say(&mut papers, MASTER, &EVERYWHERE);
    let theft = say(&mut papers, BACKUP, &Saying::RevokeCa(MASTER, 10));
    bench.import(papers);
    let (key, gate) = (family::Key::new(MASTERS_KEY).public().id(), Id::of_hash(&lock(GATE)));
    let given = |bench: &Bench| {
        let grant = keywrightd::queries::grant(&bench.registry, key, gate, MOMENT).unwrap();
        digest(&Grant::decode(&grant).unwrap().statement).unwrap()
    };
    let needs_delayed_revocation = |bench: &Bench| {
        keywrightd::queries::needs_delayed_revocation(&bench.registry, key, gate, MOMENT).unwrap()
    };
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (allow, false));
    bench.confirm(confirm(GATE, allow, Allow, 1));
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (theft, true));
    // It goes on admitting the Master.
    bench.confirm(confirm(GATE, theft, Allow, 1));
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (theft, false));
}
