//! `keywright-lockd run`: the inbox, the hook, a full disk, and a crash.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use keywright_proto::{
    Confirmation,
    Effect::{Allow, Deny},
    read_csr,
};

use crate::common::{self, Ca, Key, Lock, PROGRAM, pem_of, refused, run};

#[test]
fn grant_in_the_inbox_is_answered() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let running = lock.start("");
    let answer = running.drop_grant("bob", &lock.grant(&ca, &sub, 5, Allow)).unwrap();
    assert_eq!(Confirmation::verify(&answer, &lock.key).unwrap().effect, Allow);
    let reason = running.drop_grant("bad", b"garbage").unwrap_err();
    assert!(reason.contains("not a Keywright grant"), "{reason}");
    // Another process hands its grant to the running service.
    let output = common::done(lock.apply("deny", &lock.grant(&ca, &sub, 6, Deny)));
    assert!(output.contains("is not admitted"), "{output}");
    assert!(refused(lock.apply("old", &lock.grant(&ca, &sub, 5, Allow))).contains("older"));
    assert_eq!(lock.list("ssh_keys"), "");
    // The answer is written before the file is removed.
    let begun = Instant::now();
    while common::files_in_inbox(&lock) > 0 {
        assert!(begun.elapsed() < common::LIMIT, "what was confirmed stays");
        std::thread::yield_now();
    }
}

#[test]
fn accepted_grant_is_confirmed_after_a_crash() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    // The grant is accepted, and the process ends before it is put in force.
    common::take(&mut lock.service(), &lock.grant(&ca, &sub, 5, Allow)).unwrap();
    let running = lock.start("");
    let id = sub.public().id().to_string();
    running.answer(&id).unwrap();
    assert!(lock.list("ssh_keys").contains(&id));
    // A file that was moved into the inbox while the service was down is found.
    running.kill();
    fs::write(lock.state().join("inbox/late"), lock.grant(&ca, &sub, 6, Deny)).unwrap();
    let running = lock.start("");
    running.answer("late").unwrap();
    assert_eq!(lock.list("ssh_keys"), "");
}

#[test]
fn unclaimed_service_waits_for_a_claim() {
    let dir = tempfile::TempDir::new().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let made = common::watch(&state);
    // The leftover of a process that ended at a power cut.
    let left = state.join(format!(".request.pem.{}.0.new", u32::MAX));
    fs::write(&left, "-----BEGIN").unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["run", "--state-dir", state.to_str().unwrap()])
        .spawn()
        .unwrap();
    let until = |name: &str| loop {
        let found = made.recv_timeout(common::LIMIT).unwrap();
        if found == keywright_lockd::inbox::DirectoryEvent::File(name.into()) {
            break;
        }
    };
    until("request.pem");
    assert!(!left.exists());
    let key = read_csr(&fs::read_to_string(state.join("request.pem")).unwrap()).unwrap();
    let chain = common::certify(&Ca::at_depth(1), &key);
    common::done(run(&state, &["claim", "-"], pem_of(&chain).as_bytes()));
    // It locks the state directory once it has a family.
    until("lockd.lock");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_is_confirmed_before_the_hook_succeeds() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let (gate, ran) = (lock.dir.path().join("gate"), lock.dir.path().join("ran"));
    let hook =
        format!("cat $KEYWRIGHT_LISTS/ssh_keys >> {}; test -e {}", ran.display(), gate.display());
    let config: keywright_lockd::config::Config =
        toml::from_str(&format!("hook = ['sh', '-c', '{hook}']")).unwrap();
    let mut service = lock.service_with(config);
    common::take(&mut service, &lock.grant(&ca, &sub, 5, Allow)).unwrap();
    let problem = service.settle().unwrap_err().to_string();
    assert!(problem.contains("the hook sh failed"), "{problem}");
    assert!(service.settle().is_err());
    assert_eq!(fs::read_dir(lock.state().join("outbox")).unwrap().count(), 0);
    fs::write(gate, "").unwrap();
    service.settle().unwrap();
    let id = sub.public().id().to_string();
    assert_eq!(lock.confirmation(&id).effect, Allow);
    // The hook ran with the new list each time, and does not run without a change.
    assert_eq!(fs::read_to_string(&ran).unwrap().matches(&id).count(), 3);
    service.settle().unwrap();
    assert_eq!(fs::read_to_string(&ran).unwrap().matches(&id).count(), 3);
}

/// A grant that could not be saved is retried, even if other work succeeds meanwhile and takes longer than the wait.
#[test]
fn grant_that_could_not_be_saved_is_retried() {
    let (ca, sub, other) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::of(&ca);
    // No record of this Key can be written until the hook has run for another Key, longer than the first wait.
    let name = format!("{}.cbor", hex::encode(sub.public().hash()));
    let obstacle = lock.state().join("keys").join(name);
    let script = format!(
        "if grep -q . $KEYWRIGHT_LISTS/ssh_keys; then sleep 11; rm -r {}; fi",
        obstacle.display()
    );
    let running = lock.start(&format!("hook = ['sh', '-c', '{script}']"));
    // It has read its records, so it does not find this one damaged.
    running.drop_grant("bad", b"garbage").unwrap_err();
    fs::create_dir(&obstacle).unwrap();
    fs::write(lock.state().join("inbox/first"), lock.grant(&ca, &sub, 5, Deny)).unwrap();
    running.drop_grant("other", &lock.grant(&ca, &other, 5, Allow)).unwrap();
    running.answer("first").unwrap();
    assert_eq!(common::files_in_inbox(&lock), 0);
}

/// The directory is replaced, which only the end of the watch reports.
#[test]
fn recreated_inbox_is_watched_again() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let running = lock.start("");
    running.drop_grant("bob", &lock.grant(&ca, &sub, 5, Allow)).unwrap();
    let inbox = lock.state().join("inbox");
    fs::remove_dir_all(&inbox).unwrap();
    running.drop_grant("found", &lock.grant(&ca, &sub, 6, Deny)).unwrap();
    // Reported by the watch: a retry would list the inbox 20 s later.
    let begun = Instant::now();
    running.drop_grant("watched", &lock.grant(&ca, &sub, 7, Allow)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// Each file replaces the one before, which the service may be verifying at that moment.
#[test]
fn last_file_of_one_name_is_applied() {
    let (ca, sub) = (Ca::at_depth(1), Key::new(30));
    let lock = Lock::of(&ca);
    let running = lock.start("");
    running.drop_grant("bob", &lock.grant(&ca, &sub, 1, Allow)).unwrap();
    let inbox = lock.state().join("inbox");
    for round in 1..=5 {
        let versions: Vec<_> = (round * 100..round * 100 + 20).collect();
        let grants = versions.iter().map(|version| lock.grant(&ca, &sub, *version, Allow));
        for grant in grants.collect::<Vec<_>>() {
            fs::write(inbox.join(".bob"), grant).unwrap();
            fs::rename(inbox.join(".bob"), inbox.join("bob")).unwrap();
        }
        let newest = || {
            let answer = running.answer("bob").unwrap();
            Confirmation::verify(&answer, &lock.key).unwrap().newest_version
        };
        while newest() != versions[19] {}
    }
}

/// Run by [`full_disk_changes_nothing`] in a mount namespace, with the state directory on a small file system that is
/// full.
#[test]
#[ignore = "wants a mount namespace; run by full_disk_changes_nothing"]
fn full_disk_in_a_mount_namespace() {
    let disk = tempfile::TempDir::new_in("/mnt").unwrap();
    let (ca, sub, other) = (Ca::at_depth(1), Key::new(30), Key::new(31));
    let lock = Lock::in_directory(disk, &ca);
    let mut service = lock.service();
    common::take(&mut service, &lock.grant(&ca, &sub, 5, Allow)).unwrap();
    service.settle().unwrap();
    let dropped = lock.state().join("inbox/bad");
    fs::write(&dropped, b"garbage").unwrap();
    let fill = |bytes: usize| fs::write("/mnt/fill", vec![1; bytes]);
    assert!(fill(1 << 20).is_err(), "the disk is small");
    let before = lock.everything();
    let refusal = common::take(&mut service, &lock.grant(&ca, &other, 5, Allow)).unwrap_err();
    assert!(refusal.contains("could not be saved, so nothing changes"), "{refusal}");
    assert_eq!(lock.everything(), before);
    // There is no room for the reason of a refusal either: the file stays until there is.
    let reason = lock.state().join("outbox/bad.refused");
    assert!(service.take_file("bad".as_ref()).is_err());
    assert!(dropped.exists() && !reason.exists());
    // Room for the record, and none for the lists.
    let filled = fs::OpenOptions::new().write(true).open("/mnt/fill").unwrap();
    filled.set_len(filled.metadata().unwrap().len() - 8192).unwrap();
    drop(filled);
    common::take(&mut service, &lock.grant(&ca, &other, 6, Allow)).unwrap();
    assert!(fs::write("/mnt/fill2", vec![1; 1 << 20]).is_err());
    let list = lock.list("ssh_keys");
    let problem = service.settle().unwrap_err().to_string();
    assert!(problem.contains("the old lists stay in force"), "{problem}");
    assert_eq!(lock.list("ssh_keys"), list);
    // Room for the first list, which sshd reads, and none for the others.
    let all = lock.everything();
    let filled = fs::OpenOptions::new().write(true).open("/mnt/fill2").unwrap();
    filled.set_len(filled.metadata().unwrap().len() - 4096).unwrap();
    drop(filled);
    assert!(service.settle().unwrap_err().to_string().contains("the old lists stay in force"));
    assert_eq!(lock.everything(), all);
    fs::remove_file("/mnt/fill2").unwrap();
    fs::remove_file("/mnt/fill").unwrap();
    service.take_file("bad".as_ref()).unwrap();
    assert!(!dropped.exists() && fs::read_to_string(reason).unwrap().contains("not a Keywright"));
    service.settle().unwrap();
    assert!(lock.list("ssh_keys").contains(&other.public().id().to_string()));
    assert_eq!(lock.confirmation(&other.public().id().to_string()).effect, Allow);
}

#[test]
fn full_disk_changes_nothing() {
    let test = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256k none /mnt && exec '{}' --ignored --exact service::full_disk_in_a_mount_namespace",
        test.display()
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{why}");
}
