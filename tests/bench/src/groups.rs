//! Tests that rights on a group of 10,000 Locks cost one signature. It is in this crate because it needs the loader.

use std::collections::HashMap;

use keywright_bus_tests::{
    Station, certs,
    pins::{self, PIN},
};

use crate::{lists::read_all, loader, token_log};

const LOCKS: usize = 10_000;
/// Rows per page, as many as are allowed.
const PAGE: u32 = 1_000;

#[tokio::test]
async fn rights_on_a_group_of_10000_locks_cost_one_signature() {
    let mut station = Station::start().await;
    let log = station.file("master.log");
    let master = station.plug_with("master", &["--log", log.to_str().unwrap()]).await;
    station.make_master(&master, "Master").await;
    let (gate, _) = station.add_lock(&master, "gate").await;
    let family: Vec<(String, String)> =
        station.watch.objects().await.key(&master.path).unwrap().get("Memberships");
    let family = family[0].0.clone();
    station.unplug(master).await;
    station.daemon.stop().await;
    loader::fill(&station.launch.state_dir, LOCKS as u32);
    station.daemon.restart(station.client.connection()).await;
    let master = station.plug_with("master", &["--log", log.to_str().unwrap()]).await;
    station.until_state(&master.path, "master").await;

    let manager = station.client.manager().await;
    let locks =
        read_all(async |after| manager.list_locks(HashMap::new(), &after, PAGE).await).await;
    assert_eq!(locks.len(), LOCKS);
    let all: Vec<_> = locks.iter().map(|row| row.0.as_str()).collect();
    let set = manager.set_group(&family, "Town", &all, &[]).await;
    assert_eq!(set.unwrap() as usize, LOCKS);
    let (request, locks) = (certs::request("phone"), [&*gate]);
    let soft = manager.issue_soft_key(&master.path, "Phone", &request, &locks, pins::pipe(PIN));
    let (key, _) = soft.await.unwrap();

    let signatures = || token_log::successes(&log, "AUTHENTICATE 9C");
    let before = signatures();
    let town = ["group:Town"];
    manager.change_rights(&master.path, &key, &town, &[], pins::pipe(PIN)).await.unwrap();
    assert_eq!(signatures() - before, 1);
    let rights = read_all(async |after| manager.list_rights(&key, &after, PAGE).await).await;
    assert_eq!(rights.iter().filter(|row| row.2 == "pending").count(), LOCKS);
    // Remove the rights again.
    let without = manager.change_rights(&master.path, &key, &[], &town, pins::pipe(PIN)).await;
    without.unwrap();
    assert_eq!(signatures() - before, 2);
}
