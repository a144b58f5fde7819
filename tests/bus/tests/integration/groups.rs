//! Groups of Locks, in every method that selects Locks.

use keywright_bus_tests::{
    Answers, Gate, Plugged, Station,
    api::Options,
    certs,
    client::assert_refused,
    pins::{self, PIN},
};
use zbus::Variant;

/// A station with a Master, its family, and three Locks.
async fn station() -> (Station, Plugged, String, [Gate; 3]) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let family = station.family(&master.path).await;
    let mut gates = Vec::new();
    for (name, number) in [("gate", 21), ("barn", 22), ("attic", 23)] {
        gates.push(Gate::add(&station, &master, name, number).await);
    }
    let gates = gates.try_into().ok().unwrap();
    (station, master, family, gates)
}

fn pending(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).into(), "pending".into())).collect()
}

#[tokio::test]
async fn group_name_selects_its_locks_in_every_method() {
    let (mut station, master, family, [gate, barn, attic]) = station().await;
    let manager = station.client.manager().await;
    let hall = manager.set_group(&family, "Hall 1", &[&gate.id, &barn.id], &[]).await;
    assert_eq!(hall.unwrap(), 2);

    // SelectLocks: a Lock that is also in the group is counted once.
    let sub = station.plug("sub").await;
    let both = Answers::sub("Sub", &["group:Hall 1", &gate.id]);
    station.make(&master, &sub, &both).await;
    let key = station.id(&sub.path).await;
    assert_eq!(station.rights_by_name(&key).await, pending(&["barn", "gate"]));

    // IssueSoftKey.
    let (request, locks) = (certs::request("phone"), ["group:Hall 1"]);
    let soft = manager.issue_soft_key(&master.path, "Phone", &request, &locks, pins::pipe(PIN));
    let (soft, _) = soft.await.unwrap();
    assert_eq!(station.rights_by_name(&soft).await, pending(&["barn", "gate"]));

    // A later change of the group changes no right.
    let set = async |add: &[&str], remove: &[&str]| {
        manager.set_group(&family, "Hall 1", add, remove).await
    };
    assert_eq!(set(&[&attic.id], &[&gate.id]).await.unwrap(), 2);
    assert_eq!(station.rights_by_name(&key).await, pending(&["barn", "gate"]));

    // ChangeRights, of two groups that overlap.
    manager.set_group(&family, "Top", &[&attic.id], &[]).await.unwrap();
    let change = async |add: &[&str], remove: &[&str]| {
        manager.change_rights(&master.path, &soft, add, remove, pins::pipe(PIN)).await
    };
    change(&["group:Top", "group:Hall 1"], &[]).await.unwrap();
    assert_eq!(station.rights_by_name(&soft).await, pending(&["attic", "barn", "gate"]));
    assert_refused(change(&["group:Top"], &[&attic.id]).await, "InvalidArgument");
    assert_refused(change(&["group:top"], &[]).await, "NotFound");
    change(&[], &["group:Hall 1"]).await.unwrap();
    let left = station.rights_by_name(&soft).await;
    for name in ["attic", "barn"] {
        assert!(left.contains(&(name.into(), "removing".into())), "{left:?}");
    }

    // ListLocks.
    let list = async |filter: &[(&'static str, &str)], after: &str, limit| {
        let filter = filter.iter().map(|(name, value)| (*name, Variant::from(*value)));
        manager.list_locks(filter.collect(), after, limit).await
    };
    let in_hall = [("group", "Hall 1")];
    let (first, next) = list(&in_hall, "", 1).await.unwrap();
    let (second, end) = list(&in_hall, &next, 1).await.unwrap();
    let mut names: Vec<_> = [first, second].concat().into_iter().map(|row| row.1).collect();
    names.sort();
    assert_eq!((names, end), (vec!["attic".into(), "barn".into()], String::new()));
    let (found, _) = list(&[("group", "Hall 1"), ("query", "att")], "", 10).await.unwrap();
    assert_eq!(found.len(), 1);
    let of = [("group", "Hall 1"), ("family", &*family)];
    assert_eq!(list(&of, "", 10).await.unwrap().0.len(), 2);
    assert_refused(list(&[("group", "Hall 2")], "", 1).await, "NotFound");
    assert_refused(list(&[("group", "a"), ("serialization", "b")], "", 1).await, "InvalidArgument");
}

#[tokio::test]
async fn group_belongs_to_one_family_and_is_not_exported() {
    let (mut station, master, family, [gate, barn, _]) = station().await;
    let manager = station.client.manager().await;
    let set = async |name: &str, add: &[&str], remove: &[&str]| {
        manager.set_group(&family, name, add, remove).await
    };
    let unknown = "0".repeat(32);
    assert_refused(set("Hall", &[&unknown], &[]).await, "NotFound");
    assert_refused(set("Hall", &["group:Hall"], &[]).await, "NotFound");
    assert_refused(set("Hall", &["gate"], &[]).await, "InvalidArgument");
    assert_refused(set("Hall", &[&gate.id, &gate.id], &[]).await, "InvalidArgument");
    assert_refused(set("a\nb", &[], &[]).await, "InvalidArgument");
    assert_refused(manager.set_group(&unknown, "Hall", &[], &[]).await, "NotFound");
    assert_eq!(set("Hall", &[&gate.id], &[&unknown]).await.unwrap(), 1);
    assert_eq!(set("All", &["group:Hall", &barn.id], &[]).await.unwrap(), 2);
    assert_eq!(set("All", &[], &["group:Hall"]).await.unwrap(), 1);
    assert_eq!(set("Nothing", &[], &[]).await.unwrap(), 0);

    let list = async |filter: &[(&'static str, &str)]| {
        let filter: Options<'_> =
            filter.iter().map(|(name, value)| (*name, Variant::from(*value))).collect();
        let (mut rows, _) = manager.list_groups(filter, "", 10).await.unwrap();
        rows.sort();
        rows.into_iter().map(|row| (row.1, row.2)).collect::<Vec<_>>()
    };
    let all = [("All", 1), ("Hall", 1), ("Nothing", 0)].map(|(name, locks)| (name.into(), locks));
    assert_eq!(list(&[]).await, all);
    assert_eq!(list(&[("family", &family), ("query", "not")]).await, all[2..]);
    let request = certs::request("phone");
    let nothing = ["group:Nothing"];
    let soft = manager.issue_soft_key(&master.path, "Phone", &request, &nothing, pins::pipe(PIN));
    assert_refused(soft.await, "InvalidArgument");

    // The exchange between stations does not contain it.
    let file = tempfile::tempfile().unwrap();
    manager.export_family(&family, zbus::Fd::from(&file)).await.unwrap();
    let mut exported = Vec::new();
    std::io::Seek::rewind(&mut &file).unwrap();
    std::io::Read::read_to_end(&mut &file, &mut exported).unwrap();
    assert!(!exported.windows(7).any(|bytes| bytes == b"Nothing"));

    station.daemon.stop().await;
    station.daemon.restart(station.client.connection()).await;
    assert_eq!(list(&[]).await, all);
    station.watch.until("no Key", |objects| objects.present().next().is_none().then_some(())).await;
    let remove = async |name: &str| manager.remove_group(&family, name).await;
    assert_refused(remove("Hall").await, "KeyAbsent");
    assert_refused(set("Hall", &[], &[]).await, "KeyAbsent");
    drop(master);
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    assert_refused(remove("hall").await, "NotFound");
    remove("Hall").await.unwrap();
    assert_eq!(list(&[]).await, [all[0].clone(), all[2].clone()]);

    manager.remove_lock(&master.path, &barn.id, pins::pipe(PIN)).await.unwrap();
    assert_eq!(list(&[("query", "all")]).await, [("All".into(), 0)], "it has left its group");
}

#[tokio::test]
async fn keywrightctl_makes_and_uses_groups() {
    let (mut station, master, _, _gates) = station().await;
    station.write("pin", PIN);
    station.write("factory", pins::FACTORY_PIN);
    let none = station.ctl(&["group", "list"]).await.done().stdout;
    assert!(none.contains("No groups yet"), "{none}");
    let set = ["--json", "group", "set", "Hall", "--add", "gate", "--add", "barn"];
    assert_eq!(station.ctl(&set).await.json()["locks"], 2);
    let said = station.ctl(&["group", "list"]).await.done().stdout;
    assert!(said.contains("Hall") && said.contains('2'), "{said}");
    let shown = station.ctl(&["--json", "group", "show", "Hall"]).await.json();
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(station.ctl(&["--json", "locks", "--group", "Hall"]).await.json(), shown);

    let sub = station.plug("sub").await;
    station.offer(&master, &sub).await;
    let make = ["serialize", "--kind", "sub", "--name", "Travel", "--lock", "group:Hall"];
    let files = ["--issuer-pin-file", "@pin", "--candidate-pin-file", "@factory"];
    let rest = ["--new-pin-file", "@pin", "--yes"];
    station.ctl(&[&make[..], &files, &rest].concat()).await.done();
    let key = station.id(&sub.path).await;
    assert_eq!(station.rights_by_name(&key).await, pending(&["barn", "gate"]));

    station.ctl(&["group", "set", "Hall", "--add", "attic", "--remove", "gate"]).await.done();
    let pin = ["--issuer-pin-file", "@pin"];
    let add = ["key", "rights", "Travel", "--add", "group:Hall"];
    station.ctl(&[&add[..], &pin].concat()).await.done();
    assert_eq!(station.rights_by_name(&key).await, pending(&["attic", "barn", "gate"]));
    station.write("password", "long enough");
    let soft = ["--json", "soft-key", "create", "Phone", "--lock", "group:Hall", "--out", "@p12"];
    let soft = [&soft[..], &["--password-file", "@password"], &pin].concat();
    let soft = station.ctl(&soft).await.json();
    let soft = station.rights_by_name(soft["id"].as_str().unwrap()).await;
    assert_eq!(soft, pending(&["attic", "barn"]));

    let refused = station.ctl(&["group", "show", "Hell"]).await;
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("Error.NotFound: "), "{}", refused.stderr);
    station.ctl(&["group", "remove", "Hall"]).await.done();
    assert_eq!(station.ctl(&["--json", "group", "list"]).await.json(), serde_json::json!([]));
}
