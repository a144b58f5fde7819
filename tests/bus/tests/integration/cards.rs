//! The family card on a Key, and its use by a station that does not know the family yet.

use keywright_bus_tests::{
    Answers, Gate, Objects, Plugged, Station,
    api::Options,
    card::{Reaction, Script},
    certs,
    client::assert_refused,
    pins::{self, FACTORY_PIN, PIN},
};
use zbus::{OwnedObjectPath, Variant};

const CARD: &[u8] = &[0x5C, 0x03, 0x5F, 0xC1, 0x0D];

fn has(command: &[u8], instruction: u8, object: &[u8]) -> bool {
    command[1] == instruction && command.windows(object.len()).any(|bytes| bytes == object)
}

/// The object that was last put into 5FC10D: its whole TLV.
fn written(commands: &[Vec<u8>]) -> Option<Vec<u8>> {
    let put = commands.iter().rev().find(|command| has(command, 0xDB, CARD))?;
    let at = put.windows(CARD.len()).position(|bytes| bytes == CARD)?;
    Some(put[at + CARD.len()..].to_vec())
}

/// A station with a Master, a Lock, and the Master's family; what is on the Master's card.
async fn family() -> (Station, Plugged, Gate, String, Vec<u8>) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let gate = Gate::add(&station, &master, "gate", 21).await;
    let family = station.family(&master.path).await;
    let card = written(&master.card.take_commands()).unwrap();
    (station, master, gate, family, card)
}

/// The Locks of a family that ListLocks names, and of all families.
async fn locks(station: &Station, family: &str) -> (Vec<String>, usize) {
    let manager = station.client.manager().await;
    let of_family = Options::from([("family", Variant::from(family))]);
    let named = manager.list_locks(of_family, "", 10).await.unwrap().0;
    let all = manager.list_locks(Options::new(), "", 10).await.unwrap().0;
    (named.into_iter().map(|row| row.0).collect(), all.len())
}

#[tokio::test]
async fn station_new_to_a_family_offers_at_once_by_its_card() {
    let (mut here, master, mut gate, family, _) = family().await;
    let backup = here.plug("backup").await;
    here.make(&master, &backup, &Answers::backup("Backup")).await;
    here.unplug(master).await;
    let mut backup = Some(backup);
    for name in ["master", "backup"] {
        let mut there = Station::start().await;
        let key = match (name, backup.take()) {
            ("backup", Some(backup)) => here.carry_to(&mut there, backup, name).await,
            (_, kept) => {
                backup = kept;
                std::fs::copy(here.memory(name), there.memory(name)).unwrap();
                there.plug(name).await
            }
        };
        let blank = there.plug("blank").await;
        let job = there.offer(&key, &blank).await;
        // Still a claim: listed on request, and not stored.
        assert_eq!(locks(&there, &family).await, (vec![gate.id.clone()], 0), "{name}");
        assert_eq!(there.client.manager().await.list_keys([].into(), "", 9).await.unwrap().0, []);
        let sub = Answers::sub("Sub", &[]);
        there.client.answer_until(&mut there.watch, &job, &sub, "review").await;
        let (summary, _) = there.client.serialization(&job).await.review().await.unwrap();
        assert_eq!(u32::try_from(summary["locks"].try_clone().unwrap()).unwrap(), 1);
        there.finish(&job, &sub).await;
        there.until_state(&blank.path, "sub").await;

        // The Lock, which has only its own root, accepts the grant.
        let sub = there.id(&blank.path).await;
        let manager = there.client.manager().await;
        let rights = manager.list_rights(&sub, "", 9).await.unwrap().0;
        assert_eq!((&*rights[0].0, &*rights[0].2), (&*gate.id, "pending"));
        gate.settle(&there, &sub).await;
        assert!(gate.admits(&sub));
        let own = there.id(&key.path).await;
        gate.fetch(&there, &own).await;
        assert!(gate.admits(&own), "the Key's own statement came along");
        assert_eq!(locks(&there, &family).await, (vec![gate.id.clone()], 1));
        let (roots, _) = manager.get_family_bundle(&family).await.unwrap();
        assert_eq!(roots, here.client.manager().await.get_family_bundle(&family).await.unwrap().0);
        let chain = there.client.key(&blank.path).await.get_certificate_chain("").await.unwrap();
        assert!(certs::certificates(&chain).len() == if name == "master" { 2 } else { 3 });

        // One command reads the card, and none once the family is known.
        let asked = |key: &Plugged| {
            let commands = key.card.take_commands();
            commands.iter().filter(|command| has(command, 0xCB, CARD)).count()
        };
        assert_eq!(asked(&key), 1, "{name}");
        there.unplug(key).await;
        let key = there.plug(name).await;
        there.until_state(&key.path, name).await;
        assert_eq!(asked(&key), 0);
    }
}

/// Plugs in a Key whose data object 5FC10D has this content.
async fn with_card(
    station: &mut Station,
    name: &str,
    object: Vec<u8>,
) -> (keywright_bus_tests::card::Card, keywright_bus_tests::key::VirtualKey, OwnedObjectPath) {
    let script: Script = Box::new(move |_, command| match has(command, 0xCB, CARD) {
        true => Reaction::Answer([&object[..], &[0x90, 0]].concat()),
        false => Reaction::Forward,
    });
    let (card, key) = station.insert_scripted(name, &[], script);
    let master = |objects: &Objects| {
        let found = objects.present().find(|key| key.text("State") == "master")?;
        Some(found.path.clone())
    };
    let path = station.watch.until("a Master", master).await;
    (card, key, path)
}

#[tokio::test]
async fn forged_cards_make_no_offer() {
    let (here, master, _, family, card) = family().await;
    let (_other, _, _, _, others) = self::family().await;
    drop(master);
    let mut there = Station::start().await;
    std::fs::copy(here.memory("master"), there.memory("master")).unwrap();
    let blank = there.plug("blank").await;
    let long = vec![0; 60_000];
    let length = [0x53, 0x83, 0, 0xEA, 0x64, 0xC0, 0x83, 0, 0xEA, 0x60];
    let mut hostile = vec![
        others,
        [&length[..], &long].concat(),
        card[..card.len() - 1].to_vec(),
        [&card[..], &[0]].concat(),
        vec![0x53, 0x03, 0xC0, 0x01, 0x80],
        vec![0x53, 0x03, 0x70, 0x01, 0x07],
    ];
    for at in [20, 60, 200, 400, 700, card.len() - 1] {
        let mut flipped = card.clone();
        flipped[at] ^= 4;
        hostile.push(flipped);
    }
    for object in hostile {
        let what = format!("{} bytes", object.len());
        let (card, key, path) = with_card(&mut there, "master", object).await;
        there.watch.until_decision([&path, &blank.path], "no-lock").await;
        assert_eq!(locks(&there, &family).await, (vec![], 0), "{what}");
        drop((card, key));
        let gone = |objects: &Objects| (objects.present().count() == 1).then_some(());
        there.watch.until("the Key gone", gone).await;
    }
    // The unchanged card makes an offer.
    let (_card, _key, path) = with_card(&mut there, "master", card).await;
    let offer = |objects: &Objects| Some(objects.offer(&path, &blank.path)?.path.clone());
    there.watch.until("an offer", offer).await;
}

/// A token with a Master's certificates and card but keys of its own is asked for a PIN, and then fails to sign.
#[tokio::test]
async fn copied_card_fails_once_the_pin_is_given() {
    let (here, master, _, family, card) = family().await;
    let chain = here.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    let stolen: Vec<_> = certs::certificates(&chain).iter().map(|c| certs::container(c)).collect();
    drop(master);
    let mut thieves = Station::start().await;
    let thief = thieves.plug("thief").await;
    thieves.make_master(&thief, "Thief").await;
    thieves.unplug(thief).await;

    // The thief's token has an issuing key of its own, another one has none.
    for (name, pin) in [("thief", PIN), ("empty", FACTORY_PIN)] {
        let mut there = Station::start().await;
        if name == "thief" {
            std::fs::copy(thieves.memory(name), there.memory(name)).unwrap();
        }
        let (card, stolen) = (card.clone(), stolen.clone());
        let script: Script = Box::new(move |_, command: &[u8]| {
            let object = match command {
                _ if has(command, 0xCB, CARD) => &card,
                _ if has(command, 0xCB, &[0x5F, 0xC1, 0x05]) => &stolen[0],
                _ if has(command, 0xCB, &[0x5F, 0xC1, 0x0A]) => &stolen[1],
                _ => return Reaction::Forward,
            };
            Reaction::Answer([&object[..], &[0x90, 0]].concat())
        });
        let (_copy, _key) = there.insert_scripted(name, &[], script);
        let blank = there.plug("blank").await;
        let offered = |objects: &Objects| Some(objects.serializations.first()?.path.clone());
        let job = there.watch.until("an offer by the copy", offered).await;
        let mut answers = Answers::sub("Sub", &[]);
        answers.pins.issuer = pin.into();
        let ended = there.client.answer_all(&mut there.watch, &job, &answers).await;
        assert_eq!((&*ended.step, &*ended.outcome), ("failed", "Unverified"), "{name}");
        assert_eq!(locks(&there, &family).await.1, 0);
        let manager = there.client.manager().await;
        assert_eq!(manager.list_keys([].into(), "", 9).await.unwrap().0, []);
        assert_refused(manager.get_family_bundle(&family).await, "NotFound");
        let commands = blank.card.take_commands();
        assert!(!commands.iter().any(|command| [0xDB, 0x47, 0x24].contains(&command[1])));
    }
}

/// Another program's data in 5FC10D is kept; if a token has no room for a card, the outcome says so and the job succeeds.
#[tokio::test]
async fn card_overwrites_no_foreign_data_and_fails_no_job() {
    let (mut station, master, _, _, _) = family().await;
    master.card.script(|_, command| match has(command, 0xCB, CARD) {
        true => Reaction::Answer(vec![0x53, 0x03, 0x70, 0x01, 0x07, 0x90, 0]),
        false => Reaction::Forward,
    });
    station.add_lock(&master, "barn").await;
    let commands = master.card.take_commands();
    assert!(commands.iter().any(|command| has(command, 0xCB, CARD)));
    assert_eq!(written(&commands), None);
    let card = |objects: &Objects, key: &Plugged| {
        let (word, why): (String, String) = objects.key(&key.path).unwrap().get("Card");
        assert_eq!(word.is_empty(), why.is_empty(), "{word}: {why}");
        word
    };
    assert_eq!(card(&station.watch.objects().await, &master), "in-use");
    master.card.script(|_, _| Reaction::Forward);
    let (shed, _) = station.add_lock(&master, "shed").await;
    assert_eq!(card(&station.watch.objects().await, &master), "", "it is renewed");
    // RemoveLock removes it from the card, if the card can be written.
    master.card.script(|_, command| match has(command, 0xDB, CARD) {
        true => Reaction::Answer(vec![0x6A, 0x84]),
        false => Reaction::Forward,
    });
    let manager = station.client.manager().await;
    manager.remove_lock(&master.path, &shed, pins::pipe(PIN)).await.unwrap();
    assert_eq!(card(&station.watch.objects().await, &master), "no-room");
    master.card.script(|_, _| Reaction::Forward);

    let backup = station.plug("backup").await;
    backup.card.script(|_, command| match has(command, 0xDB, CARD) {
        true => Reaction::Answer(vec![0x6A, 0x84]),
        false => Reaction::Forward,
    });
    let job = station.offer(&master, &backup).await;
    let answers = Answers::backup("Backup");
    station.client.answer_all(&mut station.watch, &job, &answers).await.assert_finished();
    let objects = station.watch.objects().await;
    let object = objects.serialization(&job).unwrap();
    let (_, text): (String, String) = object.get("Outcome");
    assert!(text.contains("no room"), "{text}");
    let details: std::collections::HashMap<String, zbus::OwnedVariant> =
        object.get("OutcomeDetails");
    let word: &str = (&details["card"]).try_into().unwrap();
    assert_eq!(word, "no-room");
    assert_eq!(card(&objects, &backup), "no-room");
    let tried = backup.card.take_commands();
    assert_eq!(tried.iter().filter(|command| has(command, 0xDB, CARD)).count(), 2);
}

/// AddLock puts the newest Lock first; RemoveLock removes one.
#[tokio::test]
async fn card_is_updated_when_locks_are_added_and_removed() {
    let (mut here, master, gate, family, _) = family().await;
    master.card.take_commands();
    let barn = Gate::add(&here, &master, "barn", 22).await;
    // SELECT, the PIN, one signature, the card by the key in PRINTED (6), cleared and checked (4).
    assert_eq!(master.card.take_commands().len(), 13);
    let manager = here.client.manager().await;
    manager.remove_lock(&master.path, &gate.id, pins::pipe(PIN)).await.unwrap();
    let mut there = Station::start().await;
    let _master = here.carry_to(&mut there, master, "master").await;
    assert_eq!(locks(&there, &family).await, (vec![barn.id], 0));
}

/// Of many AddLocks in one plug, only the first ones write the card.
#[tokio::test]
async fn full_card_is_rewritten_only_after_a_replug() {
    let (mut station, master, ..) = family().await;
    for n in 0..3 {
        Gate::add(&station, &master, &format!("barn {n}"), 22 + n).await;
        assert_eq!(master.card.take_commands().len(), 13, "{n}");
    }
    Gate::add(&station, &master, "shed", 30).await;
    assert_eq!(master.card.take_commands().len(), 5);
    station.unplug(master).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    master.card.take_commands();
    Gate::add(&station, &master, "attic", 31).await;
    // Certificates of one second are in the order of their bytes: whether this one gets a place is chance.
    let commands = master.card.take_commands();
    assert!(
        commands.iter().any(|command| has(command, 0xCB, CARD)),
        "the card is looked after again"
    );
}

/// An old card still lists a Lock that was removed later; a station that knows of the removal ignores that.
#[tokio::test]
async fn old_card_does_not_restore_a_removed_lock() {
    let (mut station, master, gate, family, _) = family().await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    station.unplug(backup).await;
    let manager = station.client.manager().await;
    manager.remove_lock(&master.path, &gate.id, pins::pipe(PIN)).await.unwrap();
    station.unplug(master).await;
    let backup = station.plug("backup").await;
    let blank = station.plug("blank").await;
    station.watch.until_decision([&backup.path, &blank.path], "no-lock").await;
    let commands = backup.card.take_commands();
    assert!(commands.iter().any(|command| has(command, 0xCB, CARD)), "its card was read");
    assert_eq!(locks(&station, &family).await, (vec![], 0));
}
