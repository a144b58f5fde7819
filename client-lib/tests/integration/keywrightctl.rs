//! Runs `keywrightctl` against a fake daemon on a private bus.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, time::Duration};

use keywright_client::ErrorName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use zbus::{Connection, connection::Builder};

use crate::fake::{BLANK, Fake, LOCKS, MADE_ID, MASTER, MASTER_ID, bus::PrivateBus};

/// A bus with a fake daemon, and a directory for files.
struct Station {
    bus: PrivateBus,
    fake: Fake,
    daemon: Connection,
    dir: TempDir,
}

struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Station {
    async fn new() -> Self {
        let bus = PrivateBus::start();
        let fake = Fake::default();
        let daemon = fake.serve(Builder::address(bus.address()), true).await;
        let dir = tempfile::tempdir().unwrap();
        for (name, pin) in [("issuer", "111111\n"), ("candidate", "123456\n"), ("new", "975310")] {
            std::fs::write(dir.path().join(name), pin).unwrap();
        }
        Self { bus, fake, daemon, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        // `@` stands for the directory, `_` for a space inside an argument.
        let directory = format!("{}/", self.dir.path().display());
        let arguments = arguments.replace('@', &directory);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keywrightctl"));
        command
            .args(["--bus", self.bus.address()])
            .args(arguments.split_whitespace().map(|word| word.replace('_', " ")))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &str) -> Ran {
        let output = timeout(Duration::from_secs(60), self.command(arguments).output());
        let output = output.await.expect("it ends").unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

const SUB: &str = "serialize --kind sub --name Spare --lock 10cb --lock Front_door \
    --issuer-pin-file @issuer --candidate-pin-file @candidate --new-pin-file @new --yes";

#[tokio::test]
async fn serialize_takes_an_existing_offer() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    let ran = station.run(&format!("--json {SUB} --recovery-code-file @code")).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(
        station.fake.calls(),
        [
            "Claim",
            "SetKind sub",
            "SetName Spare",
            &format!("SelectLocks {},{} false", LOCKS[2].0, LOCKS[0].0),
            "Review",
            "Save 7",
            "ProvidePin issuer 111111",
            "ProvidePin candidate 123456",
            "ProvidePin candidate-new 975310",
            "TakeRecoveryCode",
            "Finish",
        ]
    );
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["serialization"]["step"], "finished");
    assert_eq!(json["serialization"]["kind"], "sub");
    assert_eq!(json["serialization"]["all_locks"], false);
    assert_eq!(json["key"]["id"], MADE_ID);
    assert!(ran.stderr.contains("4/4 saving"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: other slots are in use"), "{}", ran.stderr);
    let code = station.file("code");
    assert_eq!(std::fs::read(&code).unwrap(), b"87654321\n");
    assert_eq!(std::fs::metadata(&code).unwrap().permissions().mode() & 0o777, 0o600);
    for secret in ["111111", "123456", "975310", "87654321"] {
        assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn serialize_starts_a_master_without_an_offer() {
    let station = Station::new().await;
    let ran = station
        .run("serialize --kind master --name Root2 --candidate-pin-file @issuer --yes")
        .await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let calls = station.fake.calls();
    assert_eq!(
        calls[0],
        format!("StartSerialization / {BLANK} [\"kind=\\\"master\\\"\", \"name=\\\"Root2\\\"\"]")
    );
    assert!(
        !calls.iter().any(|call| call == "TakeRecoveryCode"),
        "it has no place to be written to"
    );
    assert!(ran.stdout.starts_with("Root2 is a master Key now"), "{}", ran.stdout);
}

#[tokio::test]
async fn serialize_goes_back_and_answers_again_what_others_answered() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    station.fake.world().job.step = "review";
    station.fake.world().job.kind = "sub".into();
    let ran = station.run(SUB).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(station.fake.calls().iter().filter(|call| *call == "Back").count(), 3);
}

#[tokio::test]
async fn every_refusal_exits_1_with_its_name_and_text() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    for name in ErrorName::ALL {
        station.fake.refuse("SetKind", *name, "what happened; what to do");
        let ran = station.run(SUB).await;
        assert_eq!(ran.status, 1, "{name}: {}", ran.stderr);
        assert_eq!(
            ran.stderr,
            format!("keywrightctl: {}: what happened; what to do\n", name.full())
        );
        assert_eq!(ran.stdout, "");
    }
}

#[tokio::test]
async fn refused_pin_is_never_resent() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    station.fake.refuse("ProvidePin", ErrorName::PinInvalid, "2 tries left; give the right one");
    let ran = station.run(SUB).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("Error.PinInvalid: 2 tries left"), "{}", ran.stderr);
    let pins = station.fake.calls().iter().filter(|call| call.starts_with("ProvidePin")).count();
    assert_eq!(pins, 1);
}

#[tokio::test]
async fn failed_job_exits_1_with_its_outcome() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    let name = ErrorName::TokenFailed.full().to_owned();
    station.fake.world().outcome = Some((name, "the token was mute; plug it in again".into()));
    let ran = station.run(SUB).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("Error.TokenFailed: the token was mute"), "{}", ran.stderr);
    assert_eq!(station.fake.calls().last().unwrap(), "Finish", "nothing lingers");
}

#[tokio::test]
async fn failed_job_without_an_error_name_gets_one() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    station.fake.world().outcome = Some((String::new(), "nothing was written".into()));
    let ran = station.run(SUB).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.ends_with("Error.TokenFailed: nothing was written\n"), "{}", ran.stderr);
}

#[tokio::test]
async fn recovery_code_not_in_force_is_kept_with_a_note() {
    for (fails, puk, word) in [
        (true, None, "is not in force"),
        (true, Some("unknown"), "is not known"),
        (false, Some("left"), "is not in force"),
        (false, None, ""),
    ] {
        let station = Station::new().await;
        station.fake.offer(&station.daemon).await;
        let outcome = (ErrorName::TokenFailed.full().to_owned(), "mute".to_owned());
        station.fake.world().outcome = fails.then_some(outcome);
        station.fake.world().puk = puk;
        let ran = station.run(&format!("{SUB} --recovery-code-file @code")).await;
        assert_eq!(ran.status, i32::from(fails), "{}", ran.stderr);
        assert_eq!(std::fs::read(station.file("code")).unwrap(), b"87654321\n");
        assert!(ran.stderr.contains(word), "{fails} {puk:?}: {}", ran.stderr);
        let said = ran.stderr.contains("in force");
        assert_eq!(said, !word.is_empty(), "{fails} {puk:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn missing_recovery_code_leaves_no_file_and_no_message() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    station.fake.refuse("TakeRecoveryCode", ErrorName::NotFound, "there is none");
    let ran = station.run(&format!("{SUB} --recovery-code-file @code")).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("code"), "{}", ran.stderr);
    assert!(!station.file("code").exists(), "an empty file would look like a code");
}

#[tokio::test]
async fn wrong_usage_exits_2_and_changes_nothing() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    std::fs::write(station.file("full"), "old code").unwrap();
    for arguments in [
        &format!("{SUB} --recovery-code-file @full"),
        "serialize --kind sub --name S --yes",
        "serialize --kind backup --name B --all-locks --yes",
        "serialize --kind backup --name B --issuer-pin-file @none --yes",
        "serialize --kind backup --name B --issuer-pin-file @ --yes",
        "serialize --kind backup --name B",
        "wizard",
        "lock add Door --csr @none --out @out",
        "lock add Door --csr @issuer --out @full --issuer-pin-file @issuer",
        "no-such-command",
    ] {
        let ran = station.run(arguments).await;
        assert_eq!(ran.status, 2, "{arguments}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{arguments}");
    }
    assert_eq!(station.fake.calls(), [""; 0]);
    assert_eq!(std::fs::read(station.file("full")).unwrap(), b"old code");
}

#[tokio::test]
async fn missing_pin_names_its_option() {
    let station = Station::new().await;
    station.fake.offer(&station.daemon).await;
    let ran = station.run("serialize --kind backup --name B --yes").await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("Error.PinRequired"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--issuer-pin-file"), "{}", ran.stderr);
}

#[tokio::test]
async fn json_lists_use_the_property_names() {
    let station = Station::new().await;
    let json = async |arguments: &str| -> Value {
        let ran = station.run(arguments).await;
        assert_eq!(ran.status, 0, "{arguments}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let keys = json("keys --json").await;
    assert_eq!(keys.as_array().unwrap().len(), 3, "two with objects, one known only: {keys}");
    let root = keys.as_array().unwrap().iter().find(|key| key["id"] == MASTER_ID).unwrap();
    assert_eq!((&root["pin_retries"], &root["path"]), (&3.into(), &MASTER.into()));
    let locks = json("locks --json").await;
    assert_eq!(locks[1]["name"], "Back door");
    assert_eq!(json("decisions --json").await[0]["reason"], "no-issuer");
    let bundle = json("family bundle --json").await;
    assert_eq!((&bundle["roots_pem"], &bundle["crls_pem"]), (&"ROOTS\n".into(), &"CRLS\n".into()));
}

#[tokio::test]
async fn ambiguous_name_lists_the_matches() {
    let station = Station::new().await;
    let ran = station.run("lock rename 10c0 Door").await;
    assert_eq!(ran.status, 1);
    for (id, name) in &LOCKS[..2] {
        assert!(ran.stderr.contains(id) && ran.stderr.contains(name), "{}", ran.stderr);
    }
    assert!(!ran.stderr.contains(LOCKS[2].0), "{}", ran.stderr);
}

#[tokio::test]
async fn lock_add_uses_the_only_issuer() {
    let station = Station::new().await;
    std::fs::write(station.file("csr"), "CSR").unwrap();
    let ran = station.run("lock add Door --csr @csr --out @chain --issuer-pin-file @issuer").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(station.fake.calls(), [format!("AddLock {MASTER} Door CSR 111111")]);
    assert_eq!(std::fs::read(station.file("chain")).unwrap(), b"CHAIN\n");
}

#[tokio::test]
async fn missing_daemon_says_how_to_start_it() {
    let station = Station::new().await;
    station.daemon.close().await.unwrap();
    let bus = station.bus.address();
    let run =
        Command::new(env!("CARGO_BIN_EXE_keywrightctl")).args(["--bus", bus, "keys"]).output();
    let output = timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("ServiceUnknown") && stderr.contains("systemctl start"), "{stderr}");
}

#[tokio::test]
async fn watch_prints_one_json_line_per_event() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let station = Station::new().await;
    let mut child = station.command("watch --json").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.unwrap()).unwrap()
    };
    assert_eq!(next().await["event"], "key_added");
    assert_eq!(next().await["event"], "key_added");
    assert_eq!(next().await["decisions"][0]["reason"], "no-issuer");
    station.fake.offer(&station.daemon).await;
    let offer = next().await;
    assert_eq!(
        (&offer["event"], &offer["serialization"]["step"]),
        (&"offer_added".into(), &"kind".into())
    );
    drop(station.daemon.close().await);
    assert_eq!(next().await["event"], "daemon_gone");
}

#[tokio::test]
async fn closed_stdout_is_no_crash() {
    let station = Station::new().await;
    let mut child =
        station.command("keys").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[tokio::test]
async fn doctor_warns_when_the_bus_cannot_start_the_daemon() {
    let station = Station::new().await;
    let ran = station.run("doctor --json").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let findings: Value = serde_json::from_str(&ran.stdout).unwrap();
    let of = |check: &str| -> Vec<String> {
        let all = findings.as_array().unwrap().iter();
        all.filter(|f| f["check"] == check).map(|f| f["result"].as_str().unwrap().into()).collect()
    };
    assert_eq!(of("bus"), ["ok"]);
    assert_eq!(of("daemon"), ["ok", "warn"]);
    assert_eq!(of("key"), ["ok", "ok"]);
    assert!(of("polkit").is_empty(), "no polkit on a private bus");
}
