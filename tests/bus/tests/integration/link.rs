//! A station and its Locks over a real mosquitto: `keywrightd` and `keywright-lockd`, without files carried by hand.

use keywright_bus_tests::{
    Answers, LIMIT, Station,
    lockd::Lockd,
    pins::{self, PIN},
};
use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn rights_become_active_and_end_when_locks_confirm() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Mia").await;
    let mut locks = Vec::new();
    for name in ["gate", "attic", "cellar"] {
        locks.push(Lockd::add(&station, &master, name).await);
    }
    let key = station.client.key(&master.path).await;
    let chain = key.get_certificate_chain("").await.unwrap();
    station.unplug(master).await;
    let mut broker = station.link(&chain).await;
    // Two Locks are online, the third is not.
    locks[0].start(&broker, "");
    locks[1].start(&broker, "");
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    station.until_rights(&master.path, 2, 1).await;
    let bob = station.plug("bob").await;
    station.make(&master, &bob, &Answers::sub("Bob", &[])).await;
    station.until_rights(&bob.path, 2, 1).await;
    let id = station.id(&bob.path).await;
    assert!(locks[0].list("ssh_keys").contains(&id) && locks[1].list("ssh_keys").contains(&id));

    // The broker is killed and restarted; then the third Lock connects.
    broker.kill();
    broker.restart();
    locks[2].start(&broker, "");
    station.until_rights(&bob.path, 3, 0).await;
    let manager = station.client.manager().await;
    // There is no signal for Locks that connect or disconnect.
    let all_there = async {
        while !manager.list_locks(HashMap::new(), "", 10).await.unwrap().0.iter().all(|row| row.3) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, all_there).await.expect("all Locks there");

    // One Lock is offline while its right is removed, and receives the denial when it reconnects.
    locks[0].kill();
    let gone = locks[0].id.clone();
    let taken = [gone.as_str()];
    let changed = manager.change_rights(&master.path, &id, &[], &taken, pins::pipe(PIN));
    changed.await.unwrap();
    let state = |rows: Vec<(String, String, String, u64)>| {
        rows.into_iter().find(|row| row.0 == gone).map(|row| row.2)
    };
    let (rows, _) = manager.list_rights(&id, "", 10).await.unwrap();
    assert_eq!(state(rows).as_deref(), Some("removing"));
    assert!(locks[0].list("ssh_keys").contains(&id));
    let mut signals = manager.receive_rights_confirmed().await.unwrap();
    locks[0].start(&broker, "");
    // The counts do not change: the end of a removal has a signal of its own.
    let told = timeout(LIMIT, async {
        while let Some(signal) = signals.next().await {
            let told = signal.args().unwrap();
            let removed = |row: &(String, String, u64)| row.0 == gone && row.1 == "removed";
            if told.key_id == id && told.rights.iter().any(removed) {
                return;
            }
        }
    });
    told.await.unwrap();
    let (rows, _) = manager.list_rights(&id, "", 10).await.unwrap();
    assert_eq!(state(rows), None);
    assert!(!locks[0].list("ssh_keys").contains(&id));
    station.until_rights(&bob.path, 2, 0).await;
}
