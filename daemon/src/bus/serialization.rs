//! The interface `org.keywright1.Serialization`: one job, from the offer to its end. A comment on a method is its
//! documentation in `docs/dbus.md`.

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

/// The D-Bus object of one serialization.
pub struct SerializationObject {
    context: Context,
    number: u64,
    view: watch::Receiver<SerializationView>,
}

impl SerializationObject {
    /// Publishes the properties in `view`.
    pub fn new(context: Context, number: u64, view: watch::Receiver<SerializationView>) -> Self {
        Self { context, number, view }
    }

    /// Asks the station on behalf of the caller.
    async fn ask<T: Send + 'static>(
        &self,
        caller: &Caller,
        question: impl FnOnce(&mut Station, u64, Caller, Reply<T>) + Send + 'static,
    ) -> Result<T> {
        let (number, uid, caller) = (self.number, caller.uid, caller.clone());
        let station = &self.context.station;
        Ok(station.ask_for(uid, move |s, reply| question(s, number, caller, reply)).await?)
    }
}

#[interface(name = "org.keywright1.Serialization")]
impl SerializationObject {
    /// The Key that signs; `/` if a new Master is made.
    #[zbus(property(emits_changed_signal = "const"))]
    fn issuer(&self) -> ObjectPath<'static> {
        path(self.view.borrow().issuer.as_ref())
    }

    /// The Key that is written.
    #[zbus(property(emits_changed_signal = "const"))]
    fn candidate(&self) -> ObjectPath<'static> {
        path(Some(&self.view.borrow().candidate))
    }

    /// The finished Key; `/` until then.
    #[zbus(property)]
    fn result(&self) -> ObjectPath<'static> {
        path(self.view.borrow().result.as_ref())
    }

    /// The kinds of Key that this pair can make: `master`, `backup`, `sub`.
    #[zbus(property)]
    fn kinds(&self) -> Vec<String> {
        words(&self.view.borrow().kinds, |kind| kind.as_str())
    }

    /// The chosen kind; empty until SetKind.
    #[zbus(property)]
    fn kind(&self) -> String {
        self.view.borrow().kind.map_or("", |kind| kind.as_str()).into()
    }

    /// The name that the Key will have.
    #[zbus(property)]
    fn name(&self) -> String {
        self.view.borrow().name.clone()
    }

    /// How many Locks are selected.
    #[zbus(property)]
    fn selected(&self) -> u32 {
        self.view.borrow().selected
    }

    /// Whether all Locks are selected that the family has when Save is called.
    #[zbus(property)]
    fn all_locks(&self) -> bool {
        self.view.borrow().all_locks
    }

    /// The present step: `kind`, `name`, `locks`, `review`, `pins`, `writing`, `finished`, `cancelled`, `failed` or
    /// `awaiting-key`. Every step that is entered is signalled.
    #[zbus(property)]
    fn step(&self) -> String {
        self.view.borrow().step.as_str().into()
    }

    /// The steps of this kind of job, in order.
    #[zbus(property)]
    fn steps(&self) -> Vec<String> {
        words(&self.view.borrow().steps, |step| step.as_str())
    }

    /// Increases with every answer. Save needs the revision that Review returned.
    #[zbus(property)]
    fn revision(&self) -> u32 {
        self.view.borrow().revision
    }

    /// The PINs that are still needed: `issuer`, `candidate`, `candidate-new`.
    #[zbus(property)]
    fn pins_needed(&self) -> Vec<String> {
        words(&self.view.borrow().pins_needed, |who| who.as_str())
    }

    /// Progress of the write: units done, and units in all.
    #[zbus(property)]
    fn progress(&self) -> (u32, u32) {
        self.view.borrow().progress
    }

    /// The stage of the write: `checking`, `keys`, `certificates`, `statement`, `secrets`, `verifying` or `saving`;
    /// empty before the write.
    #[zbus(property)]
    fn stage(&self) -> String {
        self.view.borrow().stage.map_or("", |stage| stage.as_str()).into()
    }

    /// The unique bus name of the front-end that owns the serialization; empty if none does.
    #[zbus(property)]
    fn owner(&self) -> String {
        self.view.borrow().owner.clone().unwrap_or_default()
    }

    /// The name of an error and a text for people; or an empty name and a remark; or both empty. At step `pins` the
    /// error is PinInvalid or PinBlocked; at `awaiting-key` WrongKey, Interrupted or StoreFailed; at `failed` the
    /// error that ended the job, such as ForeignCredentials, Unverified, Unsupported, LimitExceeded or TokenFailed.
    #[zbus(property)]
    fn outcome(&self) -> (String, String) {
        let outcome = &self.view.borrow().outcome;
        (outcome.error.map_or("", |error| error.full()).into(), outcome.text.clone())
    }

    /// The facts in Outcome's text, for translation: `who` s and `retries` u of a refused PIN, `stage` s of an
    /// interrupted write, `left` s (what remains on the token), `port` s of a wrong Key, `replug` b, `puk` s
    /// (`left`, `replaced`, `unknown`), `card` s (why the Key does not carry its family's card: `in-use`,
    /// `no-room`).
    #[zbus(property)]
    fn outcome_details(&self) -> HashMap<String, Variant<'static>> {
        let details = &self.view.borrow().outcome.details;
        details.iter().map(|(name, detail)| ((*name).into(), variant(detail))).collect()
    }

    /// Makes the caller the owner: only the owner can answer; others can watch. A call that answers a step claims
    /// too. Fails with NotOwner if another front-end owns the serialization.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner.
    async fn claim(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, Station::claim).await
    }

    /// Gives ownership up, so that another front-end can claim the serialization.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner.
    async fn release(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, Station::release).await
    }

    /// Answers step `kind` with one of Kinds.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep.
    async fn set_kind(&self, #[zbus(header)] call: Header<'_>, kind: &str) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let kind = arguments::kind(kind)?;
        self.ask(&caller, move |s, number, caller, reply| s.set_kind(number, caller, kind, reply))
            .await
    }

    /// Answers step `name`.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidArgument, InvalidStep.
    async fn set_name(&self, #[zbus(header)] call: Header<'_>, name: String) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, move |s, number, caller, reply| s.set_name(number, caller, name, reply))
            .await
    }

    /// Returns to the previous step. Fails with InvalidStep after Save.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep.
    async fn back(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, Station::back).await
    }

    /// Answers step `locks` with these Locks, or with all; replaces an earlier selection. Locks are ids, or `group:`
    /// and the name of a group, which stands for the Locks that are in it now.
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
        self.ask(&caller, move |s, number, caller, reply| {
            s.select_locks(number, caller, choice, reply)
        })
        .await
    }

    /// Returns what Save would write, and the revision that Save needs. Summary: `kind` s, `name` s, `locks` u,
    /// `pending` u, and `warnings` a(ss), each a word and a text. Words: `rights-not-copied`; `right-not-copied` for
    /// each such right; `rights-removed`; `other-slots` for data of other programs on the token, as far as it shows
    /// without the PIN.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, NotAnIssuer, StoreFailed.
    #[zbus(out_args("summary", "revision"))]
    async fn review(
        &self,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(HashMap<&'static str, Variant<'static>>, u32)> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let summary = self.ask(&caller, Station::review).await?;
        let shown = HashMap::from([
            ("kind", Variant::from(summary.kind.as_str())),
            ("name", Variant::from(summary.name)),
            ("locks", Variant::from(summary.locks)),
            ("pending", Variant::from(summary.pending)),
            ("warnings", Variant::from(summary.warnings)),
        ]);
        Ok((shown, summary.revision))
    }

    /// Answers step `review`: fixes what will be written. Fails with StaleRevision if something changed since the
    /// Review that returned this revision.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, StaleRevision, NotAnIssuer, NoLock, Unsupported,
    /// LimitExceeded, StoreFailed.
    async fn save(&self, #[zbus(header)] call: Header<'_>, revision: u32) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, move |s, number, caller, reply| s.save(number, caller, revision, reply))
            .await
    }

    /// Gives one PIN of PinsNeeded; the token checks it at once. The last PIN starts the write, whose result is in
    /// Outcome. `options` must be empty. If this station has not met the issuer's family yet, the issuer signs a
    /// challenge with this PIN; then the family is pinned and the family's card is imported. Fails with Unverified
    /// if the challenge is not signed correctly, which ends the serialization as `failed`; and with Cancelled if the
    /// caller released the serialization meanwhile.
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
        self.ask(&caller, move |s, number, caller, reply| {
            s.provide_pin(number, caller, who, pin, reply);
        })
        .await
    }

    /// Returns the new Key's recovery code, once, as a pipe to read to its end. Only the user who saved the job, or root, can
    /// have it.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, LimitExceeded.
    #[zbus(out_args("code"))]
    async fn take_recovery_code(&self, #[zbus(header)] call: Header<'_>) -> Result<OwnedFd> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let pipe = CodePipe::open()?;
        let code = self.ask(&caller, Station::take_recovery_code).await?;
        Ok(pipe.fill(&code)?.into())
    }

    /// Removes a finished, cancelled or failed serialization.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep.
    async fn finish(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, Station::finish).await
    }

    /// Cancels the serialization and claims it. Cancelling again does no harm. Root may cancel whoever owns it.
    ///
    /// Errors: NotAuthorized, NotFound, NotOwner, InvalidStep, StoreFailed.
    async fn cancel(&self, #[zbus(header)] call: Header<'_>) -> Result<()> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        self.ask(&caller, Station::cancel).await
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
