//! The write is interrupted at every single command: a Key is pulled out, or the daemon is killed.
//! Afterwards the job is finished or rolled back, and no Key is lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use keywright_bus_tests::{
    Answers, Ended, Objects, Plugged, Station,
    api::{NONE, Options},
    card::Reaction,
    certs,
    pins::PIN,
};
use rustix::process::{Signal, kill_process};
use zbus::OwnedObjectPath;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    /// It is pulled out before the command is executed.
    Candidate,
    /// It is pulled out after it has executed the command, before it answers.
    CandidateLate,
    Issuer,
    IssuerLate,
    /// It is killed while the candidate executes the command.
    Daemon,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    RollForward,
    /// Cancel, and make the Key in a new job.
    RollBack,
}

/// A station with a Master and a Lock.
struct Bench {
    station: Station,
    master: Option<Plugged>,
    lock: String,
}

/// Interrupts a job of this kind at its first command, at its second, and so on to the last.
async fn interrupt_everywhere(kind: &'static str, victim: Victim, then: Then) {
    let mut bench = Bench::new().await;
    let mut n = 1;
    while bench.interrupt(kind, victim, then, n).await {
        n += 1;
    }
    assert!(n > 3, "a job has more commands than {n}");
}

impl Bench {
    async fn new() -> Self {
        let mut station = Station::start().await;
        let master = station.plug("master").await;
        station.make_master(&master, "Master").await;
        let (lock, _) = station.add_lock(&master, "gate").await;
        Self { station, master: Some(master), lock }
    }

    /// Runs one job on a new Key, interrupted at the n-th command of its write. Returns false if the
    /// write has fewer commands.
    async fn interrupt(
        &mut self,
        kind: &'static str,
        victim: Victim,
        then: Then,
        n: usize,
    ) -> bool {
        let name = format!("{kind} {n}");
        let answers = self.answers(kind, &name);
        // Plugged in first, so that the candidate's port is free when it is plugged in again.
        self.plug_master_for(kind).await;
        let candidate = self.station.plug(&name).await;
        let job = self.start(&candidate, &answers).await;
        self.answer_all_but_the_last(&job, &answers).await;
        let fired = self.arm(&candidate, victim, n);
        // The call may end with the daemon.
        let _ = self.station.client.answer(&self.station.watch, &job, &answers).await;
        let stopped = |objects: &Objects| match objects.serialization(&job) {
            None => Some("gone".to_owned()),
            Some(job) => Some(job.text("Step")).filter(|step| {
                ["finished", "failed", "cancelled", "awaiting-key"].contains(&step.as_str())
            }),
        };
        let step = self.station.watch.until("the job stopped", stopped).await;
        if !fired.load(SeqCst) {
            assert_eq!(step, "finished");
            self.close(&job).await;
            self.station.unplug(candidate).await;
            return false;
        }
        let candidate = self.bring_back(candidate, victim, &name).await;
        // A job that is interrupted after its commit may be finished.
        if step != "finished" {
            self.resume(&job, &candidate, &answers, then, n).await;
        } else {
            self.close(&job).await;
        }
        self.check(&candidate, kind).await;
        self.station.unplug(candidate).await;
        true
    }

    fn answers(&self, kind: &'static str, name: &str) -> Answers {
        match kind {
            "master" => Answers::master(name),
            "backup" => Answers::backup(name),
            _ => Answers::sub(name, &[&self.lock]),
        }
    }

    /// Plugs the Master in, unless the job makes another Master.
    async fn plug_master_for(&mut self, kind: &str) {
        if kind == "master" {
            self.unplug_master().await;
        } else if self.master.is_none() {
            self.master = Some(self.station.plug("master").await);
        }
    }

    async fn start(&mut self, candidate: &Plugged, answers: &Answers) -> OwnedObjectPath {
        if let Some(master) = &self.master {
            return self.station.offer(master, candidate).await;
        }
        self.station.until_state(&candidate.path, "blank").await;
        self.station.client.start_master(&candidate.path, &answers.name).await
    }

    async fn unplug_master(&mut self) {
        if let Some(master) = self.master.take() {
            self.station.unplug(master).await;
        }
    }

    /// Answers everything but the new PIN, which starts the write.
    async fn answer_all_but_the_last(&mut self, job: &OwnedObjectPath, answers: &Answers) {
        let Station { client, watch, .. } = &mut self.station;
        client.answer_until(watch, job, answers, "pins").await;
        let needed = |objects: &Objects| Some(objects.serialization(job)?.words("PinsNeeded"));
        while watch.until("PinsNeeded", needed).await != ["candidate-new"] {
            client.answer(watch, job, answers).await.unwrap();
        }
    }

    fn arm(&self, candidate: &Plugged, victim: Victim, n: usize) -> Arc<AtomicBool> {
        let fired = Arc::new(AtomicBool::new(false));
        let (fire, daemon) = (fired.clone(), self.station.daemon.pid());
        let card = match victim {
            Victim::Issuer | Victim::IssuerLate => &self.master.as_ref().unwrap().card,
            _ => &candidate.card,
        };
        card.script(move |now, _| {
            if now != n {
                return Reaction::Forward;
            }
            fire.store(true, SeqCst);
            match victim {
                Victim::Candidate | Victim::Issuer => Reaction::Cut,
                Victim::CandidateLate | Victim::IssuerLate => Reaction::ExecuteAndCut,
                Victim::Daemon => {
                    kill_process(daemon, Signal::KILL).unwrap();
                    Reaction::Forward
                }
            }
        });
        fired
    }

    /// Plugs the Key in again, or starts the daemon again, whichever was interrupted.
    async fn bring_back(&mut self, candidate: Plugged, victim: Victim, name: &str) -> Plugged {
        match victim {
            Victim::Candidate | Victim::CandidateLate => {
                self.station.unplug(candidate).await;
                self.station.plug(name).await
            }
            Victim::Issuer | Victim::IssuerLate => {
                self.unplug_master().await;
                self.master = Some(self.station.plug("master").await);
                candidate
            }
            Victim::Daemon => {
                let had_master = self.master.take().is_some();
                drop(candidate);
                self.station.daemon.ended().await;
                self.station.daemon.restart(self.station.client.connection()).await;
                if had_master {
                    self.master = Some(self.station.plug("master").await);
                }
                self.station.plug(name).await
            }
        }
    }

    async fn resume(
        &mut self,
        job: &OwnedObjectPath,
        candidate: &Plugged,
        answers: &Answers,
        then: Then,
        n: usize,
    ) {
        self.station.watch.until_step(job, "pins").await;
        if then == Then::RollForward {
            let ended = self.answer(job, answers).await;
            assert_eq!(ended.step, "finished", "cut at {n}: {}", ended.outcome);
            self.close(job).await;
            return;
        }
        self.station.client.serialization(job).await.cancel().await.unwrap();
        self.station.watch.until_step(job, "cancelled").await;
        let objects = self.station.watch.objects().await;
        let (error, text): (String, String) = objects.serialization(job).unwrap().get("Outcome");
        assert_eq!(error, "", "cut at {n}: {text}");
        let id = self.station.id(&candidate.path).await;
        if !id.is_empty() {
            let rights = self.station.client.manager().await.list_rights(&id, "", 10).await;
            let stayed = rights.is_ok_and(|(rows, _)| !rows.is_empty());
            assert!(!stayed, "cut at {n}: a right stayed");
        }
        let options = Options::new();
        let issuer = self.master.as_ref().map_or(NONE, |m| (*m.path).clone());
        let manager = self.station.client.manager().await;
        let again = manager.start_serialization(&issuer, &candidate.path, options).await.unwrap();
        let ended = self.answer(&again, answers).await;
        assert_eq!(ended.step, "finished", "after a cancelled job, cut at {n}: {}", ended.outcome);
        self.close(&again).await;
    }

    /// Answers everything. After an interrupted PIN change only the token knows which PIN is in force,
    /// so the old one is tried first.
    async fn answer(&mut self, job: &OwnedObjectPath, answers: &Answers) -> Ended {
        let Station { client, watch, .. } = &mut self.station;
        let ended = client.answer_all(watch, job, answers).await;
        if ended.outcome != "PinInvalid" {
            return ended;
        }
        let mut other = answers.clone();
        other.pins.candidate = PIN.into();
        client.answer_all(watch, job, &other).await
    }

    async fn close(&mut self, job: &OwnedObjectPath) {
        self.station.client.serialization(job).await.finish().await.unwrap();
    }

    /// Checks that the Key has its role, that openssl accepts its chain, and that its management key is
    /// known, so that it can be written to again.
    async fn check(&mut self, key: &Plugged, kind: &'static str) {
        self.station.until_state(&key.path, kind).await;
        let family = self.station.family(&key.path).await;
        let manager = self.station.client.manager().await;
        let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
        let chain = self.station.client.key(&key.path).await.get_certificate_chain("").await;
        certs::verify(&chain.unwrap(), &roots, &crls);
        if kind == "sub" {
            let options = Options::new();
            let issuer = &self.master.as_ref().unwrap().path;
            let job = manager.start_serialization(issuer, &key.path, options).await.unwrap();
            let mut answers = self.answers(kind, "again");
            answers.pins.candidate = PIN.into();
            self.station.finish(&job, &answers).await;
        }
    }
}

macro_rules! interruptions {
    ($($name:ident: $kind:literal, $victim:ident, $then:ident;)*) => {
        $(#[tokio::test]
        async fn $name() {
            interrupt_everywhere($kind, Victim::$victim, Then::$then).await;
        })*
    };
}

interruptions! {
    a_master_pulled_out_is_finished: "master", Candidate, RollForward;
    a_master_pulled_out_late_is_finished: "master", CandidateLate, RollForward;
    a_master_pulled_out_is_rolled_back: "master", CandidateLate, RollBack;
    a_killed_daemon_finishes_a_master: "master", Daemon, RollForward;
    a_sub_key_pulled_out_is_finished: "sub", Candidate, RollForward;
    a_sub_key_pulled_out_late_is_finished: "sub", CandidateLate, RollForward;
    a_sub_key_pulled_out_is_rolled_back: "sub", Candidate, RollBack;
    a_sub_key_pulled_out_late_is_rolled_back: "sub", CandidateLate, RollBack;
    a_sub_key_whose_issuer_is_pulled_out_is_finished: "sub", Issuer, RollForward;
    a_sub_key_whose_issuer_is_pulled_out_late_is_finished: "sub", IssuerLate, RollForward;
    a_sub_key_whose_issuer_is_pulled_out_is_rolled_back: "sub", IssuerLate, RollBack;
    a_killed_daemon_finishes_a_sub_key: "sub", Daemon, RollForward;
    a_killed_daemon_rolls_a_sub_key_back: "sub", Daemon, RollBack;
    a_backup_pulled_out_late_is_finished: "backup", CandidateLate, RollForward;
    a_backup_pulled_out_late_is_rolled_back: "backup", CandidateLate, RollBack;
    a_backup_whose_issuer_is_pulled_out_late_is_finished: "backup", IssuerLate, RollForward;
    a_killed_daemon_finishes_a_backup: "backup", Daemon, RollForward;
}
