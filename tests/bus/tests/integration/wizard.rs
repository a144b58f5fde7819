//! The wizard: who owns it, and which calls it accepts at which step.

use keywright_bus_tests::{
    Answers, Client, Objects, Plugged, Station,
    api::{Options, SerializationProxy},
    card::{Reaction, Script},
    client::assert_refused,
    pins::{self, PIN},
};
use rustix::process::geteuid;
use zbus::OwnedObjectPath;

/// A station where a Master with two Locks and a blank Key are offered to each other.
struct Offer {
    station: Station,
    master: Option<Plugged>,
    candidate: Option<Plugged>,
    job: OwnedObjectPath,
    locks: Vec<String>,
}

impl Offer {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Like [`Offer::new`], with more arguments for the candidate.
    async fn with(options: &[&str]) -> Self {
        let mut station = Station::start().await;
        let master = station.plug("master").await;
        station.make_master(&master, "Master").await;
        let mut locks = Vec::new();
        for name in ["gate", "barn"] {
            locks.push(station.add_lock(&master, name).await.0);
        }
        let candidate = station.plug_with("candidate", options).await;
        let job = station.offer(&master, &candidate).await;
        Self { station, master: Some(master), candidate: Some(candidate), job, locks }
    }

    fn master(&self) -> &Plugged {
        self.master.as_ref().unwrap()
    }

    async fn unplug_master(&mut self) {
        self.station.unplug(self.master.take().unwrap()).await;
    }

    async fn unplug_candidate(&mut self) {
        self.station.unplug(self.candidate.take().unwrap()).await;
    }

    async fn plug_candidate(&mut self) {
        self.candidate = Some(self.station.plug("candidate").await);
    }

    async fn proxy(&self) -> SerializationProxy<'static> {
        self.station.client.serialization(&self.job).await
    }

    async fn step(&self) -> String {
        self.property("Step").await
    }

    async fn property(&self, name: &str) -> String {
        self.station.watch.objects().await.serialization(&self.job).unwrap().text(name)
    }

    async fn until_owner(&mut self, owner: &str) {
        let job = self.job.clone();
        let check =
            |objects: &Objects| (objects.serialization(&job)?.text("Owner") == owner).then_some(());
        self.station.watch.until(&format!("Owner {owner:?}"), check).await;
    }

    async fn until_outcome(&mut self, outcome: &str) {
        let job = self.job.clone();
        let check =
            |objects: &Objects| (objects.serialization(&job)?.outcome() == outcome).then_some(());
        self.station.watch.until(&format!("Outcome {outcome:?}"), check).await;
    }

    async fn answer_until(&mut self, step: &str) {
        let answers = Answers::sub("Sub", &[]);
        let Self { station, job, .. } = self;
        station.client.answer_until(&mut station.watch, job, &answers, step).await;
    }
}

#[tokio::test]
async fn only_the_owner_can_answer() {
    let mut offer = Offer::new().await;
    let other = Client::new(offer.station.bus.connect().await);
    let (mine, theirs) = (offer.proxy().await, other.serialization(&offer.job).await);
    assert_eq!(offer.property("Owner").await, "");

    mine.claim().await.unwrap();
    let me = offer.station.client.connection().unique_name().unwrap().to_string();
    offer.until_owner(&me).await;
    assert_refused(theirs.claim().await, "NotOwner");
    assert_refused(theirs.set_kind("sub").await, "NotOwner");
    assert_refused(theirs.release().await, "NotOwner");
    if !geteuid().is_root() {
        assert_refused(theirs.cancel().await, "NotOwner");
    }
    assert_eq!(offer.step().await, "kind");

    mine.release().await.unwrap();
    offer.until_owner("").await;
    theirs.set_kind("sub").await.unwrap();
    let they = other.connection().unique_name().unwrap().to_string();
    offer.until_owner(&they).await;
    assert_refused(mine.set_name("Sub").await, "NotOwner");
    if geteuid().is_root() {
        mine.cancel().await.unwrap();
        assert_eq!(offer.step().await, "cancelled", "root may always");
        assert_eq!(offer.property("Owner").await, they);
    }
}

#[tokio::test]
async fn owner_leaving_the_bus_releases_the_job() {
    let mut offer = Offer::new().await;
    let other = Client::new(offer.station.bus.connect().await);
    other.serialization(&offer.job).await.set_kind("sub").await.unwrap();
    let they = other.connection().unique_name().unwrap().to_string();
    offer.until_owner(&they).await;
    other.connection().clone().close().await.unwrap();
    offer.until_owner("").await;
    assert_eq!(offer.step().await, "name", "what was answered stays");
    offer.proxy().await.set_name("Sub").await.unwrap();
}

#[tokio::test]
async fn write_continues_without_its_owner() {
    let mut offer = Offer::with(&["--sign-delay-ms", "200"]).await;
    let other = Client::new(offer.station.bus.connect().await);
    let Offer { station, job, .. } = &mut offer;
    other.answer_until(&mut station.watch, job, &Answers::sub("Sub", &[]), "writing").await;
    other.connection().clone().close().await.unwrap();
    station.watch.until_step(job, "finished").await;
    offer.until_owner("").await;
}

#[tokio::test]
async fn back_returns_to_the_previous_step_until_save() {
    let mut offer = Offer::new().await;
    let job = offer.proxy().await;
    for step in ["review", "locks", "name", "kind"] {
        offer.answer_until("review").await;
        while offer.step().await != step {
            job.back().await.unwrap();
        }
    }
    assert_refused(job.back().await, "InvalidStep");
    offer.answer_until("pins").await;
    assert_refused(job.back().await, "InvalidStep");
    assert_eq!(offer.step().await, "pins");
}

#[tokio::test]
async fn call_at_the_wrong_step_changes_nothing() {
    let mut offer = Offer::new().await;
    let job = offer.proxy().await;
    for step in ["kind", "name", "locks", "review", "pins"] {
        offer.answer_until(step).await;
        let before = format!("{:?}", offer.station.watch.objects().await.serializations);
        if step != "kind" {
            assert_refused(job.set_kind("backup").await, "InvalidStep");
        }
        if step != "name" {
            assert_refused(job.set_name("Other").await, "InvalidStep");
        }
        if step != "locks" {
            assert_refused(job.select_locks(&[&offer.locks[0]], false).await, "InvalidStep");
        }
        if step != "review" {
            assert_refused(job.save(0).await, "InvalidStep");
        }
        if step != "pins" {
            let pin = pins::pipe(PIN);
            assert_refused(job.provide_pin("issuer", pin, Options::new()).await, "InvalidStep");
            assert_refused(job.take_recovery_code().await, "InvalidStep");
        }
        assert_refused(job.finish().await, "InvalidStep");
        let after = format!("{:?}", offer.station.watch.objects().await.serializations);
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn save_needs_the_reviewed_revision() {
    let mut offer = Offer::new().await;
    let job = offer.proxy().await;
    offer.answer_until("review").await;
    let (summary, first) = job.review().await.unwrap();
    let text = |name: &str| String::try_from(summary[name].try_clone().unwrap()).unwrap();
    assert_eq!((text("kind").as_str(), text("name").as_str()), ("sub", "Sub"));
    assert_eq!(u32::try_from(summary["locks"].try_clone().unwrap()), Ok(2));

    job.back().await.unwrap();
    job.select_locks(&[&offer.locks[1]], false).await.unwrap();
    let (_, second) = job.review().await.unwrap();
    assert_ne!(first, second);
    assert_refused(job.save(first).await, "StaleRevision");
    assert_eq!(offer.step().await, "review");
    job.save(second).await.unwrap();
    offer.station.watch.until_step(&offer.job, "pins").await;
}

#[tokio::test]
async fn all_locks_are_fixed_by_save() {
    let mut offer = Offer::new().await;
    offer.answer_until("pins").await;
    offer.station.add_lock(offer.master(), "attic").await;
    let Offer { station, job, .. } = &mut offer;
    station.finish(job, &Answers::sub("Sub", &[])).await;
    let sub = &offer.candidate.as_ref().unwrap().path;
    let objects = offer.station.watch.objects().await;
    assert_eq!(objects.key(sub).unwrap().get::<u32>("PendingLocks"), 2);
}

#[tokio::test]
async fn review_of_all_locks_includes_new_ones() {
    let mut offer = Offer::new().await;
    offer.answer_until("review").await;
    offer.station.add_lock(offer.master(), "attic").await;
    let job = offer.proxy().await;
    let (summary, revision) = job.review().await.unwrap();
    assert_eq!(u32::try_from(summary["locks"].try_clone().unwrap()), Ok(3));
    job.save(revision).await.unwrap();
    let objects = offer.station.watch.objects().await;
    assert_eq!(objects.serialization(&offer.job).unwrap().get::<u32>("Selected"), 3);
}

#[tokio::test]
async fn unplugged_key_is_awaited_and_the_step_resumes() {
    let mut offer = Offer::new().await;
    for step in ["kind", "name", "locks", "review", "pins"] {
        offer.answer_until(step).await;
        offer.unplug_candidate().await;
        offer.station.watch.until_step(&offer.job, "awaiting-key").await;
        offer.plug_candidate().await;
        offer.station.watch.until_step(&offer.job, step).await;
        offer.unplug_master().await;
        offer.station.watch.until_step(&offer.job, "awaiting-key").await;
        offer.master = Some(offer.station.plug("master").await);
        offer.station.watch.until_step(&offer.job, step).await;
    }
    let Offer { station, job, .. } = &mut offer;
    station.finish(job, &Answers::sub("Sub", &[])).await;
}

#[tokio::test]
async fn another_key_in_place_of_the_awaited_is_wrong_key() {
    let mut offer = Offer::new().await;
    offer.answer_until("locks").await;
    offer.unplug_candidate().await;
    let other = offer.station.plug("other").await;
    offer.until_outcome("WrongKey").await;
    assert_eq!(offer.step().await, "awaiting-key");
    offer.station.unplug(other).await;
    assert_eq!(
        offer.station.watch.objects().await.serialization(&offer.job).unwrap().outcome(),
        "WrongKey"
    );
    offer.plug_candidate().await;
    offer.station.watch.until_step(&offer.job, "locks").await;
    offer.until_outcome("").await;
}

#[tokio::test]
async fn cancel_is_idempotent_and_a_replug_brings_a_new_offer() {
    let mut offer = Offer::new().await;
    offer.answer_until("locks").await;
    let job = offer.proxy().await;
    job.cancel().await.unwrap();
    offer.station.watch.until_step(&offer.job, "cancelled").await;
    job.cancel().await.unwrap();
    let pair = [offer.master().path.clone(), offer.candidate.as_ref().unwrap().path.clone()];
    offer.station.watch.until_decision([&pair[0], &pair[1]], "cancelled").await;

    offer.unplug_candidate().await;
    offer.plug_candidate().await;
    let old = offer.job.clone();
    let another = |objects: &Objects| {
        let job = objects.serializations.iter().find(|job| job.path != old)?;
        Some(job.path.clone())
    };
    let new = offer.station.watch.until("another offer", another).await;
    assert!(number(&new) > number(&old), "no number is used twice");
}

#[tokio::test]
async fn cancelled_job_with_an_owner_outlives_its_key() {
    let mut offer = Offer::new().await;
    offer.unplug_candidate().await;
    offer.station.watch.until_step(&offer.job, "awaiting-key").await;
    let job = offer.proxy().await;
    job.cancel().await.unwrap();
    assert_eq!(offer.step().await, "cancelled");
    job.cancel().await.unwrap();
    job.finish().await.unwrap();
}

#[tokio::test]
async fn cancelled_job_without_key_is_removed_with_its_owner() {
    let mut offer = Offer::new().await;
    offer.unplug_candidate().await;
    let other = Client::new(offer.station.bus.connect().await);
    other.serialization(&offer.job).await.cancel().await.unwrap();
    other.connection().clone().close().await.unwrap();
    let gone = |objects: &Objects| objects.serialization(&offer.job).is_none().then_some(());
    offer.station.watch.until("the cancelled job gone", gone).await;
}

#[tokio::test]
async fn manual_start_allows_a_cancelled_pair_and_returns_a_live_job() {
    let mut offer = Offer::new().await;
    let pair = [offer.master().path.clone(), offer.candidate.as_ref().unwrap().path.clone()];
    let manager = offer.station.client.manager().await;
    let start = || manager.start_serialization(&pair[0], &pair[1], Options::new());
    assert_eq!(start().await.unwrap(), offer.job);
    offer.unplug_candidate().await;
    assert_eq!(start().await.unwrap(), offer.job, "it waits for its Key");
    offer.plug_candidate().await;
    offer.station.watch.until_step(&offer.job, "kind").await;
    offer.proxy().await.cancel().await.unwrap();
    offer.station.watch.until_decision([&pair[0], &pair[1]], "cancelled").await;
    let again = start().await.unwrap();
    assert_ne!(again, offer.job);
    offer.station.finish(&again, &Answers::sub("Sub", &[])).await;
    offer.station.watch.until_decision([&pair[0], &pair[1]], "done").await;
}

fn number(job: &OwnedObjectPath) -> u64 {
    job.as_str().rsplit_once('/').unwrap().1.parse().unwrap()
}

/// Another program's objects that can be read without the PIN are reported before a PIN is asked for.
#[tokio::test]
async fn a_review_warns_of_other_slots_in_use() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    station.add_lock(&master, "gate").await;
    let script: Script = Box::new(|_, command| {
        let is_9d = command[1] == 0xCB && command.windows(3).any(|tag| tag == [0x5F, 0xC1, 0x0B]);
        let used = vec![0x53, 0x05, 0x70, 0x03, 0x30, 0x01, 0x00, 0x90, 0x00];
        if is_9d { Reaction::Answer(used) } else { Reaction::Forward }
    });
    let (card, _key) = station.insert_scripted("used", &[], script);
    let offered = |objects: &Objects| Some(objects.serializations.first()?.path.clone());
    let job = station.watch.until("an offer", offered).await;
    // They are read when the offer is made.
    let read = |objects: &Objects| {
        objects.present().all(|key| key.get::<i32>("PinRetries") == 3).then_some(())
    };
    station.watch.until("both counters of tries", read).await;
    let answers = Answers::sub("Sub", &[]);
    station.client.answer_until(&mut station.watch, &job, &answers, "review").await;
    let (mut summary, _) = station.client.serialization(&job).await.review().await.unwrap();
    let warnings: Vec<(String, String)> = summary.remove("warnings").unwrap().try_into().unwrap();
    let [(word, text)] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(word == "other-slots" && text.contains("9D"), "{warnings:?}");
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!((&*ended.step, &*ended.outcome), ("failed", "ForeignCredentials"));
    assert!(!card.take_commands().iter().any(|command| [0xDB, 0x47].contains(&command[1])));
    drop(master);
}
