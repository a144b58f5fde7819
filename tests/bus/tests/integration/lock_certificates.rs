//! A Lock receives its first certificate and re-issued ones over the link.

use std::time::Duration;

use keywright_bus_tests::{
    Answers, LIMIT, Plugged, Station, certs,
    lockd::Lockd,
    pins::{self, PIN},
};
use tokio::time::{Instant, sleep};

async fn text(station: &Station, key: &Plugged, property: &str) -> String {
    station.watch.objects().await.key(&key.path).unwrap().text(property)
}

/// Waits until `check` accepts the Lock's chain. There is no signal for a file.
async fn until_chain(lock: &Lockd, check: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + LIMIT;
    loop {
        let chain = lock.chain();
        if check(&chain) {
            return chain;
        }
        assert!(Instant::now() < end, "{}\n{chain}", lock.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// A station where a Master, which is not plugged in any more, has made a Backup, and the certificate of one Lock.
struct Family {
    station: Station,
    backup: Plugged,
    /// The Backup's id, and the family's.
    backup_id: String,
    family: String,
    /// The Lock's certificate chain.
    first: String,
}

async fn family() -> Family {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Mia").await;
    let (_, first) = station.add_lock(&master, "first").await;
    let family = certs::key_id(certs::certificates(&first).last().unwrap());
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Ben")).await;
    let backup_id = text(&station, &backup, "Id").await;
    station.unplug(master).await;
    Family { station, backup, backup_id, family, first }
}

#[tokio::test]
async fn lock_is_certified_again_when_its_issuer_is_revoked() {
    let Family { mut station, backup, backup_id, family, first } = self::family().await;
    station.unplug(backup).await;
    let broker = station.link(&first).await;

    // Two Locks without a family wait at the broker. The Backup certifies them: one over the link, one by hand.
    let (mut gate, request) = Lockd::newcomer(&station, "gate");
    gate.start_newcomer(&broker, &family);
    let backup = station.plug("backup").await;
    station.until_state(&backup.path, "backup").await;
    let manager = station.client.manager().await;
    let added = manager.add_lock(&backup.path, "gate", &request, pins::pipe(PIN)).await;
    let (id, by_backup) = added.unwrap();
    assert_eq!(id, gate.id);
    assert_eq!(until_chain(&gate, |chain| !chain.is_empty()).await, by_backup);
    station.until_rights(&backup.path, 1, 1).await;
    let mut attic = Lockd::add(&station, &backup, "attic").await;
    let old = attic.chain();
    assert_eq!(certs::certificates(&old).len(), 3);

    // The Master revokes the Backup and re-issues the certificates that it had signed; one Lock is offline meanwhile.
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    let revoked = manager.revoke_key(&master.path, &backup_id, "lost", pins::pipe(PIN));
    revoked.await.unwrap();
    let by_master = |chain: &str| certs::certificates(chain).len() == 2;
    let chain = until_chain(&gate, by_master).await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    certs::verify(&chain, &roots, &crls);
    assert_eq!(attic.chain(), old);
    attic.start(&broker, "");
    let chain = until_chain(&attic, by_master).await;
    certs::verify(&chain, &roots, &crls);
    station.until_rights(&master.path, 2, 1).await;
}

#[tokio::test]
async fn lock_gets_its_chain_when_an_upper_certificate_is_reissued() {
    let Family { mut station, backup, backup_id, family, first } = self::family().await;
    let below = station.plug("below").await;
    station.make(&backup, &below, &Answers::backup("Bea")).await;
    station.unplug(backup).await;
    station.unplug(below).await;
    let broker = station.link(&first).await;
    let below = station.plug("below").await;
    station.until_state(&below.path, "backup").await;
    let mut gate = Lockd::add(&station, &below, "gate").await;
    let own = certs::certificates(&gate.chain());
    assert_eq!(own.len(), 4);
    gate.start(&broker, "");
    station.until_rights(&below.path, 1, 1).await;
    station.unplug(below).await;

    // The Backup in between is revoked. The Master certifies the Backup below it; the Lock's own certificate stays.
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    let manager = station.client.manager().await;
    let revoked = manager.revoke_key(&master.path, &backup_id, "lost", pins::pipe(PIN));
    revoked.await.unwrap();
    let chain = until_chain(&gate, |chain| certs::certificates(chain).len() == 3).await;
    assert_eq!(certs::certificates(&chain)[0], own[0]);
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    certs::verify(&chain, &roots, &crls);
}
