//! The log of events: it has every security-relevant event with its caller, no secrets, and shows any change to it.

use std::{fs::File, io::Read};

use keywright_bus_tests::{
    Answers, Gate, Objects, Plugged, Station,
    api::Options,
    card::{GENERATE, Reaction},
    certs,
    client::assert_refused,
    pins::{self, FACTORY_PIN, FACTORY_PUK, NEW_PIN, PIN, WRONG_PIN},
};
use serde_json::Value;
use zbus::Fd;

/// The lines of the log.
async fn export(station: &Station) -> String {
    let mut file = tempfile::tempfile().unwrap();
    let manager = station.client.manager().await;
    manager.export_audit(Fd::from(&file)).await.unwrap();
    let mut lines = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut lines).unwrap();
    lines
}

/// The events that were logged since the last call.
struct Log(usize);

impl Log {
    async fn new_events(&mut self, station: &Station) -> Vec<Value> {
        let lines = export(station).await;
        let new = lines.lines().skip(self.0).map(|line| serde_json::from_str(line).unwrap());
        let new: Vec<Value> = new.collect();
        self.0 += new.len();
        new
    }

    /// Panics unless the new events are exactly these, all requested by our user.
    #[track_caller]
    fn expect(new: &[Value], words: &[&str]) {
        let found: Vec<_> = new.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(found, words, "{new:#?}");
        let uid = rustix::process::getuid().as_raw().to_string();
        for event in new {
            assert_eq!(event["fields"]["uid"], uid, "{event}");
        }
    }
}

/// Restarts the daemon with this state directory.
async fn move_to(station: &mut Station, state_dir: &str) {
    station.daemon.stop().await;
    station.launch.state_dir = station.dir.path().join(state_dir);
    let _ = std::fs::create_dir(&station.launch.state_dir);
    station.daemon = station.launch.start(station.client.connection()).await;
}

/// Makes a Master and takes its recovery code.
async fn master(station: &mut Station) -> (Plugged, String) {
    let master = station.plug("master").await;
    station.until_state(&master.path, "blank").await;
    let job = station.client.start_master(&master.path, "Master").await;
    let answers = Answers::master("Master");
    station.client.answer_all(&mut station.watch, &job, &answers).await.assert_finished();
    let proxy = station.client.serialization(&job).await;
    let code = pins::read(proxy.take_recovery_code().await.unwrap());
    proxy.finish().await.unwrap();
    station.until_state(&master.path, "master").await;
    (master, code)
}

#[tokio::test]
async fn events_are_logged_with_the_caller_and_without_secrets() {
    let mut station = Station::start().await;
    let mut log = Log(0);
    let (master, code) = master(&mut station).await;
    let new = log.new_events(&station).await;
    Log::expect(&new, &["job-saved", "family-pinned", "key-made", "code-taken"]);
    assert_eq!((&new[2]["fields"]["kind"], &new[0]["position"]), (&"master".into(), &0.into()));

    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let manager = station.client.manager().await;
    let barn = certs::request("barn");
    let refused = manager.add_lock(&master.path, "barn", &barn, pins::pipe(WRONG_PIN));
    assert_refused(refused.await, "PinInvalid");
    let new = log.new_events(&station).await;
    Log::expect(&new, &["lock-added", "pin-refused"]);
    let own = station.id(&master.path).await;
    assert_eq!(new[1]["fields"]["retries"], "2");
    assert_eq!(
        (&new[0]["fields"]["lock"], &new[1]["fields"]["key"]),
        (&gate.id.as_str().into(), &own.as_str().into())
    );

    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = station.id(&sub.path).await;
    gate.settle(&station, &key).await;
    manager.rename_key(&key, "Travel").await.unwrap();
    manager.rename_lock(&gate.id, "Front").await.unwrap();
    let (request, locks) = (certs::request("phone"), [&*gate.id]);
    let soft = manager.issue_soft_key(&master.path, "Phone", &request, &locks, pins::pipe(PIN));
    let (soft, _) = soft.await.unwrap();
    let rights = manager.change_rights(&master.path, &soft, &[], &locks, pins::pipe(PIN));
    rights.await.unwrap();
    manager.revoke_key(&master.path, &soft, "lost", pins::pipe(PIN)).await.unwrap();
    let family = station.family(&master.path).await;
    let mut file = tempfile::tempfile().unwrap();
    manager.export_family(&family, Fd::from(&file)).await.unwrap();
    let new = log.new_events(&station).await;
    let words = ["job-saved", "key-made", "rights-confirmed", "key-renamed", "lock-renamed"];
    let more = ["key-made", "rights-changed", "key-revoked", "key-judged"];
    Log::expect(&new, &[&words[..], &more, &["family-exported"]].concat());
    let fields =
        |number: usize, names: [&str; 2]| names.map(|n| new[number]["fields"][n].as_str().unwrap());
    assert_eq!(fields(2, ["allow", "lock"]), ["true", &gate.id]);
    assert_eq!(fields(6, ["allowed", "denied"]), ["0", "1"]);
    assert_eq!(fields(7, ["key", "reason"]), [soft.as_str(), "lost"]);

    // Another station of the family has its own log.
    let home = station.launch.state_dir.clone();
    move_to(&mut station, "elsewhere").await;
    drop(master);
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    station.add_lock(&master, "attic").await;
    std::io::Seek::rewind(&mut file).unwrap();
    manager.import_family(Fd::from(&file)).await.unwrap();
    let new = Log(0).new_events(&station).await;
    // First the Key's family card is imported, then the file.
    let words = ["family-pinned", "lock-added", "family-imported", "family-imported"];
    Log::expect(&new, &[&words[..], &["rights-confirmed", "key-judged"]].concat());
    assert_eq!(
        (&new[5]["fields"]["key"], &new[5]["fields"]["revoked"]),
        (&soft.into(), &"true".into())
    );
    station.unplug(master).await;
    move_to(&mut station, home.to_str().unwrap()).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;

    station.change_pin(&master, PIN, NEW_PIN).await.unwrap();
    assert_refused(station.change_pin(&master, WRONG_PIN, PIN).await, "PinInvalid");
    assert_refused(station.change_pin(&master, WRONG_PIN, PIN).await, "PinInvalid");
    station.unplug(master).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    assert_refused(station.change_pin(&master, WRONG_PIN, PIN).await, "PinBlocked");
    let object = station.client.key(&master.path).await;
    let wrong = object.unblock_pin(pins::pipe("00000000"), pins::pipe(PIN)).await;
    assert_refused(wrong, "PinInvalid");
    object.unblock_pin(pins::pipe(&code), pins::pipe(PIN)).await.unwrap();
    let new = log.new_events(&station).await;
    let words = ["pin-changed", "pin-refused", "pin-refused", "pin-blocked", "code-refused"];
    Log::expect(&new, &[&words[..], &["pin-unblocked"]].concat());

    let written = export(&station).await + &station.daemon.log();
    for secret in [PIN, NEW_PIN, WRONG_PIN, FACTORY_PIN, FACTORY_PUK, &code] {
        assert!(!pins::tells(&written, secret), "{secret}");
    }
    assert!(
        station.daemon.log().contains("logged: pin-unblocked key="),
        "{}",
        station.daemon.log()
    );
}

#[tokio::test]
async fn failed_and_cancelled_jobs_are_logged() {
    let mut station = Station::start().await;
    let (master, _) = master(&mut station).await;
    let (lock, _) = station.add_lock(&master, "gate").await;
    let mut log = Log(export(&station).await.lines().count());

    // Saved, and cancelled before anything was written.
    let candidate = station.plug("candidate").await;
    let answers = Answers::sub("Sub", &[&lock]);
    let job = station.offer(&master, &candidate).await;
    station.client.answer_until(&mut station.watch, &job, &answers, "pins").await;
    station.client.serialization(&job).await.cancel().await.unwrap();
    Log::expect(&log.new_events(&station).await, &["job-saved", "job-cancelled"]);
    let calls = station.client.serialization(&job).await;
    calls.finish().await.unwrap();
    station.unplug(candidate).await;

    // Pulled out during its write, another token in its place, and the job cancelled.
    let candidate = station.plug("candidate").await;
    let job = station.offer(&master, &candidate).await;
    candidate.card.script(|_, command| match command[1] {
        GENERATE => Reaction::Cut,
        _ => Reaction::Forward,
    });
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended.step, "awaiting-key");
    Log::expect(&log.new_events(&station).await, &["job-saved", "job-interrupted"]);
    station.unplug(candidate).await;
    let other = station.plug("other").await;
    let wrong =
        |objects: &Objects| (objects.serialization(&job)?.outcome() == "WrongKey").then_some(());
    station.watch.until("WrongKey", wrong).await;
    let new = log.new_events(&station).await;
    assert_eq!((new.len(), &new[0]["event"]), (1, &"wrong-key".into()), "{new:?}");
    assert_eq!(new[0]["fields"]["uid"], Value::Null, "nobody asked for it");
    station.unplug(other).await;
    station.client.serialization(&job).await.cancel().await.unwrap();
    Log::expect(&log.new_events(&station).await, &["job-rolled-back", "job-cancelled"]);
    station.client.serialization(&job).await.finish().await.unwrap();

    // A token that refuses a command that every PIV token supports.
    let broken = station.plug("broken").await;
    let job = station.offer(&master, &broken).await;
    broken.card.script(|_, command| match command[1] {
        GENERATE => Reaction::Answer(vec![0x6D, 0x00]),
        _ => Reaction::Forward,
    });
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended.step, "failed");
    let new = log.new_events(&station).await;
    Log::expect(&new, &["job-saved", "job-failed", "job-rolled-back"]);
    assert_eq!(new[1]["fields"]["error"], ended.outcome.as_str());

    let options = Options::from([("nonsense", 1_u32.into())]);
    let manager = station.client.manager().await;
    let refused = manager.start_serialization(&master.path, &broken.path, options).await;
    assert_refused(refused, "InvalidArgument");
    Log::expect(&log.new_events(&station).await, &[]);
}

/// Repeated attempts of one user are one event, which has their number.
#[tokio::test]
async fn unverified_objects_are_logged_at_a_limited_rate() {
    let mut station = Station::start().await;
    let mut log = Log(0);
    let (master, _) = master(&mut station).await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let key = station.id(&master.path).await;
    let mut forged = gate.fetch(&station, &key).await;
    *forged.last_mut().unwrap() ^= 1;
    log.new_events(&station).await;
    let manager = station.client.manager().await;
    for _ in 0..9 {
        assert_refused(manager.apply_confirmation(&forged).await, "Unverified");
    }
    let new = log.new_events(&station).await;
    Log::expect(&new, &["not-verified"]);
    assert_eq!(
        (&new[0]["fields"]["what"], &new[0]["fields"]["calls"]),
        (&"confirmation".into(), &"1".into())
    );
}

#[tokio::test]
async fn keywrightctl_verifies_the_log_with_and_without_a_daemon() {
    let mut station = Station::start().await;
    let none = station.ctl(&["audit", "verify"]).await.done().stdout;
    assert!(none.contains("no events yet"), "{none}");
    let (_master, _) = master(&mut station).await;
    let noted = station.ctl(&["--json", "audit", "verify"]).await.json();
    assert_eq!((&noted["events"], &noted["first"]), (&4.into(), &0.into()));
    let noted = noted["head"].as_str().unwrap().to_owned();
    let key = station.watch.objects().await.present().next().unwrap().text("Id");
    station.ctl(&["key", "rename", &key, "Root"]).await.done();

    let exported = station.ctl(&["audit", "export", "--out", "@exported"]).await.done();
    assert!(exported.stdout.contains("the log is in"), "{exported:?}");
    assert_eq!(
        station.ctl(&["audit", "export", "--out", "@exported"]).await.status,
        2,
        "is not overwritten"
    );
    let lines = std::fs::read_to_string(station.file("exported")).unwrap();
    assert_eq!(station.ctl(&["audit", "export"]).await.done().stdout, lines);
    assert_eq!(lines, export(&station).await);

    station.daemon.stop().await;
    let said =
        station.ctl(&["audit", "verify", "@exported", "--expect", &noted]).await.done().stdout;
    assert!(said.contains("The log is intact: 5 events"), "{said}");
    let cut: String = lines.lines().take(3).map(|line| format!("{line}\n")).collect();
    station.write("cut", &cut);
    station.ctl(&["audit", "verify", "@cut"]).await.done();
    for (name, text, part) in [
        ("cut", cut.clone(), "is not in the log"),
        ("changed", lines.replace("Root", "Boot"), "line 5: the event at position 4 was changed"),
        ("garbage", "{}\n".into(), "line 1 is not an event"),
    ] {
        station.write(name, &text);
        let refused =
            station.ctl(&["audit", "verify", &format!("@{name}"), "--expect", &noted]).await;
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    for usage in
        [&["audit", "verify", "@exported", "--expect", "ab"][..], &["audit", "verify", "@none"]]
    {
        assert_eq!(station.ctl(usage).await.status, 2);
    }
}

/// Other descriptors are refused: they could block, or be devices.
#[tokio::test]
async fn log_is_exported_to_files_and_pipes_only() {
    let station = Station::start().await;
    let manager = station.client.manager().await;
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_refused(manager.export_audit(Fd::from(&null)).await, "InvalidArgument");
}
