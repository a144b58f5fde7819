//! Invalid arguments are refused with the right error and change nothing.

use keywright_bus_tests::{
    Answers, Plugged, Station,
    api::{ManagerProxy, NONE, Options},
    certs,
    client::assert_refused,
    pins::{self, PIN},
};
use zbus::{ObjectPath, OwnedObjectPath, Variant};

/// Names that no object may get.
fn bad_names() -> [String; 4] {
    ["".into(), "x".repeat(300), "two\nlines".into(), "bell\u{7}".into()]
}

fn nobody() -> ObjectPath<'static> {
    ObjectPath::from_static_str_unchecked("/org/keywright1/keys/nobody")
}

/// A station where a Master with one Lock and a blank Key are offered to each other.
async fn offer() -> (Station, Plugged, Plugged, OwnedObjectPath, String) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let (lock, _) = station.add_lock(&master, "gate").await;
    let candidate = station.plug("candidate").await;
    let job = station.offer(&master, &candidate).await;
    (station, master, candidate, job, lock)
}

/// Everything that the daemon publishes, except times.
async fn everything(station: &Station, manager: &ManagerProxy<'_>) -> String {
    let objects = station.watch.objects().await;
    let jobs = &objects.serializations;
    let locks = manager.list_locks(Options::new(), "", 1000).await.unwrap();
    let keys: Vec<_> =
        objects.keys.iter().map(|key| (key.text("State"), key.text("Name"))).collect();
    format!("{jobs:?} {keys:?} {locks:?} {:?}", station.watch.decisions().await)
}

#[tokio::test]
async fn long_and_unprintable_names_are_refused() {
    let (mut station, master, candidate, job, lock) = offer().await;
    let manager = station.client.manager().await;
    let proxy = station.client.serialization(&job).await;
    let answers = Answers::sub("Sub", &[]);
    for kind in ["", "soft", "master", "Sub"] {
        assert_refused(proxy.set_kind(kind).await, "InvalidArgument");
    }
    station.client.answer_until(&mut station.watch, &job, &answers, "name").await;
    let id = station.id(&master.path).await;
    let before = everything(&station, &manager).await;
    for name in &bad_names() {
        assert_refused(proxy.set_name(name).await, "InvalidArgument");
        assert_refused(manager.rename_key(&id, name).await, "InvalidArgument");
        assert_refused(manager.rename_lock(&lock, name).await, "InvalidArgument");
        let request = certs::request("lock");
        let add = manager.add_lock(&master.path, name, &request, pins::pipe(PIN)).await;
        assert_refused(add, "InvalidArgument");
        let options = Options::from([("name", Variant::from(name.as_str()))]);
        let start = manager.start_serialization(&master.path, &candidate.path, options).await;
        assert_refused(start, "InvalidArgument");
    }
    assert_eq!(everything(&station, &manager).await, before);
    for name in ["Ł", "Käthe's 2. Schlüssel", "鍵"] {
        manager.rename_key(&id, name).await.unwrap();
    }
}

#[tokio::test]
async fn invalid_lock_requests_are_refused() {
    let (station, master, _candidate, _job, _) = offer().await;
    let manager = station.client.manager().await;
    let before = everything(&station, &manager).await;
    let good = certs::request("lock");
    let long = format!("{good}{}", "#".repeat(1_000_000));
    master.card.take_commands();
    for request in
        ["", "nonsense", &good[..200], &certs::forged_request(), &certs::rsa_request(1024), &long]
    {
        let add = manager.add_lock(&master.path, "lock", request, pins::pipe(PIN)).await;
        assert_refused(add, "InvalidArgument");
    }
    assert!(master.card.take_commands().is_empty(), "no token is asked for what is refused anyway");
    let add = manager.add_lock(&nobody(), "lock", &good, pins::pipe(PIN)).await;
    assert_refused(add, "NotFound");
    let add = manager.add_lock(&master.path, "lock", &good, pins::pipe("12345")).await;
    assert_refused(add, "InvalidArgument");
    assert_eq!(everything(&station, &manager).await, before);
}

#[tokio::test]
async fn unknown_and_repeated_locks_are_refused_in_a_selection() {
    let (mut station, _master, _candidate, job, lock) = offer().await;
    let manager = station.client.manager().await;
    let answers = Answers::sub("Sub", &[]);
    station.client.answer_until(&mut station.watch, &job, &answers, "locks").await;
    let proxy = station.client.serialization(&job).await;
    let before = everything(&station, &manager).await;
    let unknown = "0".repeat(32);
    let table: [(&[&str], bool, &str); 7] = [
        (&[], false, "InvalidArgument"),
        (&[&lock], true, "InvalidArgument"),
        (&[&lock, &lock], false, "InvalidArgument"),
        (&["not an id"], false, "InvalidArgument"),
        (&[&lock.to_uppercase()], false, "InvalidArgument"),
        (&[&unknown], false, "NotFound"),
        (&[&lock, &unknown], false, "NotFound"),
    ];
    for (ids, all, error) in table {
        assert_refused(proxy.select_locks(ids, all).await, error);
    }
    let many: Vec<_> = (0..100_001).map(|n| format!("{n:032x}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_refused(proxy.select_locks(&many, false).await, "LimitExceeded");
    assert_eq!(everything(&station, &manager).await, before);
}

#[tokio::test]
async fn start_with_unknown_keys_or_options_is_refused() {
    let (mut station, master, candidate, job, _) = offer().await;
    let manager = station.client.manager().await;
    let (a, b) = (&master.path, &candidate.path);
    let options = |name, value: &'static str| Options::from([(name, Variant::from(value))]);
    let before = everything(&station, &manager).await;
    for options in [options("colour", "red"), options("kind", "lock"), options("kind", "")] {
        assert_refused(manager.start_serialization(a, b, options).await, "InvalidArgument");
    }
    let wrong_type = Options::from([("kind", Variant::from(7u32))]);
    assert_refused(manager.start_serialization(a, b, wrong_type).await, "InvalidArgument");
    assert_refused(manager.start_serialization(a, a, Options::new()).await, "InvalidArgument");
    for (issuer, other) in [(&nobody(), &**b), (&**a, &nobody()), (&NONE, &nobody())] {
        assert_refused(
            manager.start_serialization(issuer, other, Options::new()).await,
            "NotFound",
        );
    }
    assert_refused(manager.start_serialization(b, a, Options::new()).await, "NotAnIssuer");
    assert_eq!(everything(&station, &manager).await, before);
    // No job waits for the Key.
    let proxy = station.client.serialization(&job).await;
    proxy.cancel().await.unwrap();
    proxy.finish().await.unwrap();
    let path = station.unplug(candidate).await;
    assert_refused(manager.start_serialization(a, &path, Options::new()).await, "NotFound");
    let path = station.unplug(master).await;
    let candidate = station.plug("candidate").await;
    let start = manager.start_serialization(&path, &candidate.path, Options::new());
    assert_refused(start.await, "KeyAbsent");
}

#[tokio::test]
async fn lists_and_lookups_refuse_unknown_ids() {
    let (station, master, _candidate, _job, lock) = offer().await;
    let manager = station.client.manager().await;
    let unknown = "0".repeat(32);
    for bad in ["", "xyz", &unknown.replace('0', "G")] {
        assert_refused(manager.list_rights(bad, "", 10).await, "InvalidArgument");
        assert_refused(manager.get_family_bundle(bad).await, "InvalidArgument");
        assert_refused(manager.get_grant(bad, &lock).await, "InvalidArgument");
        assert_refused(manager.rename_key(bad, "name").await, "InvalidArgument");
        assert_refused(manager.rename_lock(bad, "name").await, "InvalidArgument");
    }
    assert_refused(manager.list_rights(&unknown, "", 10).await, "NotFound");
    assert_refused(manager.get_family_bundle(&unknown).await, "NotFound");
    assert_refused(manager.get_grant(&unknown, &lock).await, "NotFound");
    assert_refused(manager.rename_key(&unknown, "name").await, "NotFound");
    assert_refused(manager.rename_lock(&unknown, "name").await, "NotFound");
    for (key, value) in [("colour", Variant::from("red")), ("family", Variant::from(1u8))] {
        let filter = || Options::from([(key, value.try_clone().unwrap())]);
        assert_refused(manager.list_keys(filter(), "", 10).await, "InvalidArgument");
        assert_refused(manager.list_locks(filter(), "", 10).await, "InvalidArgument");
    }
    let none = Options::new;
    for (after, limit) in [("", 0), ("x", 10), (&unknown[1..], 10)] {
        assert_refused(manager.list_keys(none(), after, limit).await, "InvalidArgument");
        assert_refused(manager.list_locks(none(), after, limit).await, "InvalidArgument");
        assert_refused(manager.list_rights(&unknown, after, limit).await, "InvalidArgument");
    }
    for path in ["/", "/org/keywright1/serializations/0", "/org/keywright1/serializations/999"] {
        let path = Variant::from(ObjectPath::try_from(path).unwrap());
        let filter = Options::from([("serialization", path)]);
        assert_refused(manager.list_locks(filter, "", 10).await, "NotFound");
    }
    let key = station.client.key(&master.path).await;
    assert_refused(key.get_certificate_chain("xyz").await, "InvalidArgument");
    assert_refused(key.get_certificate_chain(&unknown).await, "NotFound");
}

#[tokio::test]
async fn calls_to_unknown_objects_get_unknown_object() {
    let station = Station::start().await;
    for path in ["/org/keywright1/keys/x", "/org/keywright1/serializations/999"] {
        let path = OwnedObjectPath::try_from(path).unwrap();
        let claim = station.client.serialization(&path).await.claim().await;
        let chain = station.client.key(&path).await.get_certificate_chain("").await;
        for refused in [claim.unwrap_err(), chain.unwrap_err()] {
            let said = refused.to_string();
            assert!(said.contains("org.freedesktop.DBus.Error.UnknownObject"), "{said}");
        }
    }
    station.client.manager().await.version().await.unwrap();
}
