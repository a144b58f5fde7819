//! A Key in the Lock's own USB port certifies the Lock, with real firmware.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use keywright_bus_tests::{
    Answers, Objects, Plugged, Station,
    card::{Card, Reaction, Script},
    certs,
    key::VirtualKey,
    lockd::Lockd,
    pins::{PIN, WRONG_PIN},
    programs,
};

fn directory(station: &Station) -> PathBuf {
    station.file("lock-port")
}

/// The Lock's state directory.
fn state(station: &Station) -> PathBuf {
    directory(station).join("state")
}

/// Runs `keywright-lockd claim --key` and plugs this Key in when asked for one. Returns exit status, stdout and stderr.
fn claim(station: &Station, key: &str, pin: &str, more: &[&str]) -> (i32, String, String) {
    claim_from(station, key, pin, more, Box::new(|_, _| Reaction::Forward))
}

/// Like [`claim`], with scripted answers of the Key.
fn claim_from(
    station: &Station,
    key: &str,
    pin: &str,
    more: &[&str],
    script: Script,
) -> (i32, String, String) {
    let socket = station.file("lock-reader");
    station.write("lock-pin", pin);
    let mut claim = Command::new(programs::find("keywright-lockd"))
        .arg("--state-dir")
        .arg(state(station))
        .args(["claim", "--key", "--virtual-reader"])
        .arg(&socket)
        .arg("--pin-file")
        .arg(station.file("lock-pin"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(claim.stderr.take().unwrap());
    while !said.contains("plug in the Master Key") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let between = station.file("lock-card");
    let _ = fs::remove_file(&between);
    let listener = UnixListener::bind(&between).unwrap();
    let _key = VirtualKey::plug(&between, &station.memory(key), key, &[]);
    let _card = Card::scripted_in_front_of(&listener, &socket, script);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).unwrap();
    let output = claim.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), rest)
}

const CARD: &[u8] = &[0x5C, 0x03, 0x5F, 0xC1, 0x0D];

/// A Key that answers with this object instead of its family card; none: "not found".
fn shows(object: Option<Vec<u8>>) -> Script {
    let answer = match object {
        Some(object) => [&object[..], &[0x90, 0]].concat(),
        None => vec![0x6A, 0x82],
    };
    Box::new(move |_, command| {
        let asks = command[1] == 0xCB && command.windows(CARD.len()).any(|part| part == CARD);
        if asks { Reaction::Answer(answer.clone()) } else { Reaction::Forward }
    })
}

/// The object that was last put into 5FC10D: its whole TLV.
fn card_of(key: &Plugged) -> Vec<u8> {
    let commands = key.card.take_commands();
    let at = |command: &[u8]| command.windows(CARD.len()).position(|part| part == CARD);
    let put = commands.iter().rev().find(|command| command[1] == 0xDB && at(command).is_some());
    let put = put.unwrap();
    put[at(put).unwrap() + CARD.len()..].to_vec()
}

#[tokio::test]
async fn lock_is_certified_by_a_master_in_its_own_port() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Mia").await;
    let (_, first) = station.add_lock(&master, "gate").await;
    let family = certs::key_id(certs::certificates(&first).last().unwrap());
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Ben")).await;
    let chain = station.client.key(&backup.path).await.get_certificate_chain("").await.unwrap();
    station.write("backup-chain", &chain);
    let manager = station.client.manager().await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let (master_card, backup_card) = (card_of(&master), card_of(&backup));
    station.unplug(master).await;
    station.unplug(backup).await;

    fs::create_dir(directory(&station)).unwrap();
    // A blank Key, and a wrong PIN, which costs one try and no more.
    let (status, _, said) = claim(&station, "blank", PIN, &[]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("not a Master or Backup Key"), "{said}");
    let (status, _, said) = claim(&station, "master", WRONG_PIN, &[]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("refused the PIN; 2 tries are left"), "{said}");
    assert!(!state(&station).join("chain.pem").exists());

    let (status, told, said) = claim(&station, "master", PIN, &[]);
    assert_eq!(status, 0, "{said}");
    assert!(told.contains(&family), "{told}");
    let chain = fs::read_to_string(state(&station).join("chain.pem")).unwrap();
    certs::verify(&chain, &roots, &crls);

    // A Backup of the same family may certify it again: its card has the CA certificates up to the root.
    let by_backup = || {
        let chain = fs::read_to_string(state(&station).join("chain.pem")).unwrap();
        certs::verify(&chain, &roots, &crls);
        assert_eq!(certs::certificates(&chain).len(), 3);
        chain
    };
    let (status, _, said) = claim(&station, "backup", PIN, &[]);
    assert_eq!(status, 0, "{said}");
    let first_by_backup = by_backup();

    // Without a card, or with a forged one, the chain must be given as a file.
    let cut = backup_card[..backup_card.len() - 5].to_vec();
    let mut flipped = backup_card;
    *flipped.last_mut().unwrap() ^= 1;
    for (object, why) in [
        (None, "no family card"),
        (Some(vec![0x53, 0]), "no family card"),
        (Some(flipped), "the family card"),
        (Some(master_card), "the family card"),
        (Some(cut), "family card cannot be read"),
    ] {
        let (status, _, said) = claim_from(&station, "backup", PIN, &[], shows(object));
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("--chain") && said.contains(why), "{said}");
        let chain = fs::read_to_string(state(&station).join("chain.pem")).unwrap();
        assert_eq!(chain, first_by_backup);
    }
    let above = station.file("backup-chain");
    let given = ["--chain", above.to_str().unwrap()];
    let (status, _, said) = claim_from(&station, "backup", PIN, &given, shows(None));
    assert_eq!(status, 0, "{said}");
    let chain = by_backup();
    assert_ne!(chain, first_by_backup);

    // The station learns of the Lock once there is a link, and the Master, which may access every Lock, is admitted.
    let id = certs::key_id(&chain);
    let broker = station.link(&first).await;
    let mut lock = Lockd::at(directory(&station), id.clone());
    lock.start(&broker, "");
    let master = station.plug("master").await;
    let admitted = |objects: &Objects| {
        let key = objects.key(&master.path)?;
        (key.get::<u32>("Locks") == 1 && key.get::<u32>("PendingLocks") == 1).then_some(())
    };
    station.watch.until("the Master at the new Lock", admitted).await;
    let manager = station.client.manager().await;
    let (locks, _) = manager.list_locks([].into(), "", 10).await.unwrap();
    assert!(locks.len() == 2 && locks.iter().any(|row| row.0 == id), "{locks:?}");
    // The file that it exports for a station without a link has the same content.
    let exported = Command::new(programs::find("keywright-lockd"))
        .arg("--state-dir")
        .arg(state(&station))
        .args(["export", "-"])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    assert_eq!(station.import(&exported.stdout).await, 0);
}
