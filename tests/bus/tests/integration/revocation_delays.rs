//! A revocation delay that ends while the daemon runs, and Locks that report false versions.

use std::{
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use keywright_bus_tests::{
    Answers, Gate, Station,
    pins::{self, PIN},
};
use keywright_proto::Confirmation;
use keywrightd::registry::{Batch, Registry};

const DAY: u64 = 86_400;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A Backup's revocation of the Master takes effect after seven days, without a call to the running daemon.
#[tokio::test]
async fn running_daemon_acts_when_a_revocation_delay_ends() {
    let (mut station, master) = Station::with_master().await;
    Gate::add(&station, &master, "gate", 21).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = station.id(&master.path).await;
    let path = station.unplug(master).await;
    station.unplug(backup).await;
    assert!(station.daemon.stop().await.success());
    let (state, before) =
        (station.launch.state_dir.clone(), station.launch.state_dir.with_file_name("before"));
    copy(&state, &before);
    station.daemon.restart(station.client.connection()).await;
    let backup = station.plug("backup").await;
    station.until_state(&backup.path, "backup").await;
    let manager = station.client.manager().await;
    manager.revoke_key(&backup.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    station.until_state(&path, "master").await;
    assert!(station.daemon.stop().await.success());

    // The same revocation, first seen almost seven days ago.
    let of = |state: &Path| Registry::open(&state.join("registry")).unwrap();
    let registry = of(&state);
    let (family, _) = registry.families().unwrap().pop().unwrap();
    let revocation = registry.revocations(family).unwrap().pop().unwrap();
    drop(registry);
    std::fs::remove_dir_all(&state).unwrap();
    copy(&before, &state);
    let ends = now() + 20;
    let registry = of(&state);
    let seen = registry.uptime() + 20 - 7 * DAY;
    let mut batch = Batch::new();
    batch.put_revocation(family, revocation.clone());
    batch.put_revocation_uptime(family, &revocation, seen);
    registry.commit(batch).unwrap();
    registry.save_uptime();
    drop(registry);
    station.daemon.restart(station.client.connection()).await;
    station.until_state(&path, "master").await;
    assert!(now() < ends, "it was shown before the end");
    station.until_state(&path, "revoked").await;
    assert!(now() >= ends);
}

/// A Lock reports a false newest version: rights can still be changed and Keys revoked, here and at other Locks.
#[tokio::test]
async fn lock_reporting_a_false_version_blocks_nothing() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id, &barn.id])).await;
    let key = station.id(&sub.path).await;
    let manager = station.client.manager().await;
    let honest = gate.fetch(&station, &key).await;
    let said = Confirmation::verify(&honest, gate.public()).unwrap();
    for lie in [(1 << 53) - 1, (now() + 3650 * DAY) * 1_000] {
        let lying = gate.confirm(&Confirmation { newest_version: lie, ..said });
        manager.apply_confirmation(&lying).await.unwrap();
        for locks in [[&*gate.id, &*barn.id], [&*barn.id, &*gate.id]] {
            let (remove, add) = (&locks[..1], &locks[1..]);
            let changed =
                manager.change_rights(&master.path, &key, add, remove, pins::pipe(PIN)).await;
            changed.unwrap();
        }
        // No Lock parks the new statement.
        let confirmation = barn.fetch(&station, &key).await;
        let newest = Confirmation::verify(&confirmation, barn.public()).unwrap().newest_version;
        assert!(newest < (now() + DAY) * 1_000, "{lie}: {newest}");
    }
    // A version that a wrong clock may have made is exceeded by the next one.
    let ahead = (now() + 300 * DAY) * 1_000;
    let honest = barn.fetch(&station, &key).await;
    let said = Confirmation::verify(&honest, barn.public()).unwrap();
    let report = barn.confirm(&Confirmation { newest_version: ahead, ..said });
    manager.apply_confirmation(&report).await.unwrap();
    let locks = [&*gate.id];
    manager.change_rights(&master.path, &key, &[], &locks, pins::pipe(PIN)).await.unwrap();
    let confirmation = barn.fetch(&station, &key).await;
    let newest = Confirmation::verify(&confirmation, barn.public()).unwrap().newest_version;
    assert_eq!(newest, ahead + 1);
}
