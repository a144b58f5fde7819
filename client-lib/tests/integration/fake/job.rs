//! The fake's serialization: all steps, without a token.

use std::collections::HashMap;

use keywright_client::Pin;
use keywright_proto::bus as names;
use zbus::{Connection, Fd, ObjectPath, OwnedFd, OwnedVariant, Variant, interface};

use super::{BLANK, Fake, Key, Refusal, changed, secret};

/// The object's properties.
#[derive(Clone, Default)]
pub struct State {
    issuer: String,
    pub kind: String,
    name: String,
    pub step: &'static str,
    selected: u32,
    all: bool,
    pins_needed: Vec<&'static str>,
    progress: (u32, u32),
    stage: &'static str,
    outcome: (String, String),
    /// The detail `puk` of the outcome.
    puk: Option<&'static str>,
    result: String,
    owner: String,
}

impl State {
    pub fn offer(issuer: &str) -> Self {
        Self {
            issuer: issuer.into(),
            step: "kind",
            result: "/".into(),
            stage: "checking",
            ..Self::default()
        }
    }

    fn is_master(&self) -> bool {
        self.issuer == "/"
    }

    fn details(&self) -> HashMap<&'static str, Variant<'_>> {
        self.puk.map(|puk| ("puk", Variant::from(puk))).into_iter().collect()
    }

    fn changes(&self) -> HashMap<&'static str, Variant<'_>> {
        HashMap::from([
            ("Kind", Variant::from(self.kind.as_str())),
            ("Name", Variant::from(self.name.as_str())),
            ("Step", Variant::from(self.step)),
            ("Selected", Variant::from(self.selected)),
            ("AllLocks", Variant::from(self.all)),
            ("PinsNeeded", Variant::from(self.pins_needed.clone())),
            ("Progress", Variant::from(self.progress)),
            ("Stage", Variant::from(self.stage)),
            ("Outcome", Variant::from(self.outcome.clone())),
            ("OutcomeDetails", Variant::from(self.details())),
            ("Result", Variant::from(ObjectPath::try_from(self.result.as_str()).unwrap())),
            ("Owner", Variant::from(self.owner.as_str())),
        ])
    }
}

pub struct Job(pub Fake);

impl Job {
    fn state(&self) -> State {
        self.0.world().job.clone()
    }

    /// Changes the state and announces it in one signal.
    async fn change(&self, connection: &Connection, change: impl FnOnce(&mut State)) {
        let state = {
            let mut world = self.0.world();
            change(&mut world.job);
            world.job.clone()
        };
        changed(connection, super::JOB, names::SERIALIZATION, state.changes()).await;
    }

    async fn write(&self, connection: &Connection) {
        for (done, stage) in (1..).zip(["checking", "keys", "certificates", "saving"]) {
            self.change(connection, |job| {
                job.step = "writing";
                job.stage = stage;
                job.progress = (done, 4);
            })
            .await;
        }
        let failed = self.0.world().outcome.clone();
        let puk = self.0.world().puk;
        if failed.is_none() {
            // The Key has its id now: same path, other properties.
            let server = connection.object_server();
            server.remove::<Key, _>(BLANK).await.unwrap();
            server.at(BLANK, Key::sub()).await.unwrap();
        }
        self.change(connection, |job| {
            job.puk = puk;
            match failed {
                Some(outcome) => (job.step, job.outcome) = ("failed", outcome),
                None => (job.step, job.result) = ("finished", BLANK.into()),
            }
        })
        .await;
    }
}

fn path(path: &str) -> ObjectPath<'static> {
    ObjectPath::try_from(path.to_owned()).unwrap()
}

#[interface(name = "org.keywright1.Serialization")]
impl Job {
    #[zbus(property)]
    fn issuer(&self) -> ObjectPath<'static> {
        path(&self.state().issuer)
    }
    #[zbus(property)]
    fn candidate(&self) -> ObjectPath<'static> {
        path(BLANK)
    }
    #[zbus(property)]
    fn result(&self) -> ObjectPath<'static> {
        path(&self.state().result)
    }
    #[zbus(property)]
    fn kinds(&self) -> Vec<&str> {
        if self.state().is_master() { vec!["master"] } else { vec!["backup", "sub"] }
    }
    #[zbus(property)]
    fn kind(&self) -> String {
        self.state().kind
    }
    #[zbus(property)]
    fn name(&self) -> String {
        self.state().name
    }
    #[zbus(property)]
    fn selected(&self) -> u32 {
        self.state().selected
    }
    #[zbus(property)]
    fn all_locks(&self) -> bool {
        self.state().all
    }
    #[zbus(property)]
    fn step(&self) -> &str {
        self.state().step
    }
    #[zbus(property)]
    fn steps(&self) -> Vec<&str> {
        vec!["kind", "name", "locks", "review", "pins", "writing", "finished"]
    }
    #[zbus(property)]
    fn revision(&self) -> u32 {
        7
    }
    #[zbus(property)]
    fn pins_needed(&self) -> Vec<&str> {
        self.state().pins_needed
    }
    #[zbus(property)]
    fn progress(&self) -> (u32, u32) {
        self.state().progress
    }
    #[zbus(property)]
    fn stage(&self) -> &str {
        self.state().stage
    }
    #[zbus(property)]
    fn owner(&self) -> String {
        self.state().owner
    }
    #[zbus(property)]
    fn outcome(&self) -> (String, String) {
        self.state().outcome
    }
    #[zbus(property)]
    fn outcome_details(&self) -> HashMap<String, OwnedVariant> {
        let owned =
            |(name, value): (&str, Variant<'_>)| (name.into(), value.try_to_owned().unwrap());
        self.state().details().into_iter().map(owned).collect()
    }

    fn claim(&self) -> Result<(), Refusal> {
        self.0.call("Claim", String::new())
    }

    async fn set_kind(
        &self,
        kind: String,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        self.0.call("SetKind", kind.clone())?;
        self.change(connection, |job| (job.kind, job.step) = (kind, "name")).await;
        Ok(())
    }

    async fn set_name(
        &self,
        name: String,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        self.0.call("SetName", name.clone())?;
        self.change(connection, |job| {
            job.step = if job.kind == "sub" { "locks" } else { "review" };
            job.name = name;
        })
        .await;
        Ok(())
    }

    async fn back(&self, #[zbus(connection)] connection: &Connection) -> Result<(), Refusal> {
        self.0.call("Back", String::new())?;
        self.change(connection, |job| {
            job.step = match job.step {
                "review" if job.kind == "sub" => "locks",
                "review" | "locks" => "name",
                _ => "kind",
            }
        })
        .await;
        Ok(())
    }

    async fn select_locks(
        &self,
        ids: Vec<String>,
        all: bool,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        self.0.call("SelectLocks", format!("{} {all}", ids.join(",")))?;
        self.change(connection, |job| {
            job.selected = ids.len().try_into().unwrap();
            (job.all, job.step) = (all, "review");
        })
        .await;
        Ok(())
    }

    fn review(&self) -> Result<(HashMap<String, OwnedVariant>, u32), Refusal> {
        self.0.call("Review", String::new())?;
        let job = self.state();
        let warnings = vec![("other-slots".to_owned(), "other slots are in use".to_owned())];
        let summary = [
            ("kind", Variant::from(job.kind)),
            ("name", Variant::from(job.name)),
            ("locks", Variant::from(job.selected)),
            ("pending", Variant::from(0_u32)),
            ("warnings", Variant::from(warnings)),
        ];
        let owned =
            |(name, value): (&str, Variant<'_>)| (name.to_owned(), value.try_to_owned().unwrap());
        Ok((summary.into_iter().map(owned).collect(), 7))
    }

    async fn save(
        &self,
        revision: u32,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        self.0.call("Save", revision.to_string())?;
        self.change(connection, |job| {
            job.step = "pins";
            job.pins_needed =
                if job.is_master() { vec!["candidate"] } else { vec!["issuer", "candidate"] };
        })
        .await;
        Ok(())
    }

    async fn provide_pin(
        &self,
        who: String,
        pin: Fd<'_>,
        _options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let pin = secret(OwnedFd::from(pin.try_to_owned().unwrap()));
        self.0.call("ProvidePin", format!("{who} {pin}"))?;
        self.change(connection, |job| {
            job.pins_needed.retain(|needed| *needed != who);
            // The factory PIN: a new PIN is needed as well.
            if who == "candidate" && pin == "123456" {
                job.pins_needed.push("candidate-new");
            }
        })
        .await;
        if self.state().pins_needed.is_empty() {
            self.write(connection).await;
        }
        Ok(())
    }

    fn take_recovery_code(&self) -> Result<OwnedFd, Refusal> {
        self.0.call("TakeRecoveryCode", String::new())?;
        Ok(Pin::new(*b"87654321").to_fd().unwrap().into())
    }

    async fn finish(&self, #[zbus(connection)] connection: &Connection) -> Result<(), Refusal> {
        self.0.call("Finish", String::new())?;
        connection.object_server().remove::<Self, _>(super::JOB).await.unwrap();
        Ok(())
    }
}
