//! `org.keywright1.Serialization`: one job, from the offer to its end.

use std::collections::HashMap;

use keywright_proto::bus::{action::SERIALIZE, key_path};
use tokio::sync::watch;
use zbus::{ObjectPath, OwnedFd, Variant, interface, message::Header};

use super::{
    Context,
    arguments::{self, Options},
    error::Result,
    object_path,
    secret_fd::{CodePipe, read_pin},
};
use crate::{
    caller::Caller,
    station::{Reply, Station},
    view::{Detail, Label, SerializationView},
};

/// The object of one serialization.
pub struct SerializationObject {
    context: Context,
    number: u64,
    view: watch::Receiver<SerializationView>,
}

impl SerializationObject {
    /// Shows what is in `view`.
    pub fn new(context: Context, number: u64, view: watch::Receiver<SerializationView>) -> Self {
        Self { context, number, view }
    }

    /// Asks the station in the name of whoever sent the call.
    async fn ask<T: Send + 'static>(
        &self,
        caller: Caller,
        question: impl FnOnce(&mut Station, u64, Caller, Reply<T>) + Send + 'static,
    ) -> Result<T> {
        let (number, uid) = (self.number, caller.uid);
        let station = &self.context.station;
        Ok(station.ask_for(uid, move |s, reply| question(s, number, caller, reply)).await?)
    }
}

#[interface(name = "org.keywright1.Serialization")]
impl SerializationObject {
    /// The Key that makes; `/` for a new Master.
    #[zbus(property(emits_changed_signal = "const"))]
    fn issuer(&self) -> ObjectPath<'static> {
        path(self.view.borrow().issuer.as_ref())
    }

    /// The Key that is made.
    #[zbus(property(emits_changed_signal = "const"))]
    fn candidate(&self) -> ObjectPath<'static> {
        path(Some(&self.view.borrow().candidate))
    }

    /// The finished Key; `/` before.
    #[zbus(property)]
    fn result(&self) -> ObjectPath<'static> {
        path(self.view.borrow().result.as_ref())
    }

    /// What can be made of this pair: `master`, `backup`, `sub`.
    #[zbus(property)]
    fn kinds(&self) -> Vec<String> {
        words(&self.view.borrow().kinds, |kind| kind.as_str())
    }

    /// What is to be made; empty until it is chosen.
    #[zbus(property)]
    fn kind(&self) -> String {
        self.view.borrow().kind.map_or("", |kind| kind.as_str()).into()
    }

    /// How the Key is to be called.
    #[zbus(property)]
    fn name(&self) -> String {
        self.view.borrow().name.clone()
    }

    /// How many Locks are selected.
    #[zbus(property)]
    fn selected(&self) -> u32 {
        self.view.borrow().selected
    }

    /// Whether all Locks that the family has when Save is called are selected.
    #[zbus(property)]
    fn all_locks(&self) -> bool {
        self.view.borrow().all_locks
    }

    /// Where it is: `kind`, `name`, `locks`, `review`, `pins`, `writing`, `finished`, `cancelled`, `failed` or
    /// `awaiting-key`. Each one that is entered is announced.
    #[zbus(property)]
    fn step(&self) -> String {
        self.view.borrow().step.as_str().into()
    }

    /// The steps of this kind of job, in order.
    #[zbus(property)]
    fn steps(&self) -> Vec<String> {
        words(&self.view.borrow().steps, |step| step.as_str())
    }

    /// Grows with every answer; Save wants the one that Review gave.
    #[zbus(property)]
    fn revision(&self) -> u32 {
        self.view.borrow().revision
    }

    /// The PINs that are still needed: `issuer`, `candidate`, `candidate-new`.
    #[zbus(property)]
    fn pins_needed(&self) -> Vec<String> {
        words(&self.view.borrow().pins_needed, |who| who.as_str())
    }

    /// How much of the write is done, and how much there is, in the job's own units.
    #[zbus(property)]
    fn progress(&self) -> (u32, u32) {
        self.view.borrow().progress
    }

    /// What the write is doing: `checking`, `keys`, `certificates`, `statement`, `secrets`, `verifying` or
    /// `saving`; empty before it.
    #[zbus(property)]
    fn stage(&self) -> String {
        self.view.borrow().stage.map_or("", |stage| stage.as_str()).into()
    }

    /// The unique bus name of the front-end that drives it; empty where none does.
    #[zbus(property)]
    fn owner(&self) -> String {
        self.view.borrow().owner.clone().unwrap_or_default()
    }

    /// An error's name and what to say about it, or an empty name and a remark, or both empty. At `pins` PinInvalid or
    /// PinBlocked, at `awaiting-key` WrongKey, Interrupted or StoreFailed; what a job failed with, such as
    /// ForeignCredentials, Unverified, Unsupported, LimitExceeded or TokenFailed.
    #[zbus(property)]
    fn outcome(&self) -> (String, String) {
        let outcome = &self.view.borrow().outcome;
        (outcome.error.map_or("", |error| error.full()).into(), outcome.text.clone())
    }

    /// The same for translation: `who` s and `retries` u of a refused PIN, `stage` s of a broken write, `left` s (what is
    /// on the token), `port` s where another Key is, `replug` b, `puk` s (`left`, `replaced`, `unknown`),
    /// `card` s (why the Key does not carry its family's card: `in-use`, `no-room`).
    #[zbus(property)]
    fn outcome_details(&self) -> HashMap<String, Variant<'static>> {
        let details = &self.view.borrow().outcome.details;
        details.iter().map(|(name, detail)| ((*name).into(), variant(detail))).collect()
    }

    /// Drives it from now on; others watch. The first call that answers a step claims too.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner.
    async fn claim(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, Station::claim).await
    }

    /// Lets others drive it.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner.
    async fn release(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, Station::release).await
    }

    /// Answers step `kind` with one of Kinds.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep.
    async fn set_kind(&self, #[zbus(header)] call: Header<'_>, kind: &str) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let kind = arguments::kind(kind)?;
        self.ask(caller, move |s, number, caller, reply| s.set_kind(number, caller, kind, reply))
            .await
    }

    /// Answers step `name`.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep.
    async fn set_name(&self, #[zbus(header)] call: Header<'_>, name: String) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, move |s, number, caller, reply| s.set_name(number, caller, name, reply))
            .await
    }

    /// Goes one step back; possible until Save.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep.
    async fn back(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, Station::back).await
    }

    /// Answers step `locks`: these Locks in place of those selected before, or all of them. Locks are ids, or `group:` and
    /// the name of a group, which stands for the Locks that it has now.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep, NotAnIssuer, LimitExceeded,
    /// StoreFailed.
    async fn select_locks(
        &self,
        #[zbus(header)] call: Header<'_>,
        ids: Vec<&str>,
        all: bool,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let choice = arguments::lock_choice(&ids, all)?;
        self.ask(caller, move |s, number, caller, reply| {
            s.select_locks(number, caller, choice, reply)
        })
        .await
    }

    /// What Save would write: `kind` s, `name` s, `locks` u, `pending` u, `warnings` a(ss), each a word
    /// (`rights-not-copied`, `right-not-copied` for each of them, `rights-removed`, and `other-slots` for
    /// what of other programs' on the token shows without its PIN) and a text; and the revision that Save wants.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, NotAnIssuer, StoreFailed.
    #[zbus(out_args("summary", "revision"))]
    async fn review(
        &self,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(HashMap<&'static str, Variant<'static>>, u32)> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let summary = self.ask(caller, Station::review).await?;
        let shown = HashMap::from([
            ("kind", Variant::from(summary.kind.as_str())),
            ("name", Variant::from(summary.name)),
            ("locks", Variant::from(summary.locks)),
            ("pending", Variant::from(summary.pending)),
            ("warnings", Variant::from(summary.warnings)),
        ]);
        Ok((shown, summary.revision))
    }

    /// Answers step `review`: what was reviewed at this revision is what will be written.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, StaleRevision, NotAnIssuer, NoLock, Unsupported,
    /// LimitExceeded, StoreFailed.
    async fn save(&self, #[zbus(header)] call: Header<'_>, revision: u32) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, move |s, number, caller, reply| s.save(number, caller, revision, reply))
            .await
    }

    /// Gives a PIN of PinsNeeded; the token checks it at once. The last one starts the write, whose end is told by
    /// Outcome. There are no options yet. Cancelled: the caller let the serialization go meanwhile. An issuer of whose
    /// family this station has met nobody signs a challenge with it: then its family is pinned, and what its card says is
    /// taken in. Unverified: it could not, and the serialization has failed.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep, KeyAbsent, KeyBusy, Unsupported,
    /// Unverified, PinInvalid, PinBlocked, TokenFailed, StoreFailed, Cancelled.
    async fn provide_pin(
        &self,
        #[zbus(header)] call: Header<'_>,
        who: &str,
        pin: OwnedFd,
        options: Options<'_>,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        arguments::no_options(&options)?;
        let who = arguments::who(who)?;
        let pin = read_pin("pin", pin.into()).await?;
        self.ask(caller, move |s, number, caller, reply| {
            s.provide_pin(number, caller, who, pin, reply);
        })
        .await
    }

    /// Hands the recovery code of the new Key out, once, as a pipe to be read to its end.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, LimitExceeded.
    #[zbus(out_args("code"))]
    async fn take_recovery_code(&self, #[zbus(header)] call: Header<'_>) -> Result<OwnedFd> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let pipe = CodePipe::open()?;
        let code = self.ask(caller, Station::take_recovery_code).await?;
        Ok(pipe.fill(&code)?.into())
    }

    /// Ends a serialization that is finished, cancelled or failed: the object goes away.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep.
    async fn finish(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, Station::finish).await
    }

    /// Gives it up, and claims it. Once more does no harm; root may always.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, StoreFailed.
    async fn cancel(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(caller, Station::cancel).await
    }
}

fn path(label: Option<&Label>) -> ObjectPath<'static> {
    object_path(label.map(|label| key_path(label)))
}

fn words<T: Copy>(values: &[T], word: impl Fn(T) -> &'static str) -> Vec<String> {
    values.iter().map(|value| word(*value).into()).collect()
}

fn variant(detail: &Detail) -> Variant<'static> {
    match detail {
        Detail::Text(text) => Variant::from(text.clone()),
        Detail::Number(number) => Variant::from(*number),
        Detail::Flag(flag) => Variant::from(*flag),
    }
}
