//! `org.keywright1.Key`: one Key, present or known.

use keywright_proto::bus::action::{INSPECT, MANAGE_KEYS};
use tokio::sync::watch;
use zbus::{OwnedFd, interface, message::Header};

use super::{
    Context, arguments,
    error::Result,
    secret_fd::{read_pin, read_recovery_code},
};
use crate::view::{KeyView, Label};

/// The object of one Key.
pub struct KeyObject {
    context: Context,
    label: Label,
    view: watch::Receiver<KeyView>,
}

impl KeyObject {
    /// Shows what is in `view`.
    pub fn new(context: Context, label: Label, view: watch::Receiver<KeyView>) -> Self {
        Self { context, label, view }
    }
}

#[interface(name = "org.keywright1.Key")]
impl KeyObject {
    /// Its id: 32 hexadecimal digits; empty while it is blank.
    #[zbus(property)]
    fn id(&self) -> String {
        self.view.borrow().id.clone()
    }

    /// What people call it here.
    #[zbus(property)]
    fn name(&self) -> String {
        self.view.borrow().name.clone()
    }

    /// `blank`, `master`, `backup`, `sub`, `foreign`, `revoked` or `unusable`: what its certificates claim.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.into()
    }

    /// The families that it is in, and its role in each; its own family first.
    #[zbus(property)]
    fn memberships(&self) -> Vec<(String, String)> {
        self.view.borrow().memberships.clone()
    }

    /// Why it is `unusable`: the name of an error, and what happened and what to do next. Both are empty for any other
    /// Key. With KeyBusy another program holds it; it is taken up again when that lets it go.
    #[zbus(property)]
    fn trouble(&self) -> (String, String) {
        let trouble = &self.view.borrow().trouble;
        trouble.as_ref().map_or_else(Default::default, |trouble| {
            (trouble.error.full().into(), trouble.text.clone())
        })
    }

    /// Whether it is plugged in.
    #[zbus(property)]
    fn present(&self) -> bool {
        self.view.borrow().present
    }

    /// The product name.
    #[zbus(property)]
    fn model(&self) -> String {
        self.view.borrow().model.clone()
    }

    /// The token's serial number where it is unique, else the GUID of its CHUID in hexadecimal digits.
    #[zbus(property)]
    fn serial(&self) -> String {
        self.view.borrow().serial.clone()
    }

    /// Where it is plugged in, or was.
    #[zbus(property)]
    fn port(&self) -> String {
        self.view.borrow().port.clone()
    }

    /// What is known of its PIN: `default`, `set`, `blocked` or `unknown`.
    #[zbus(property)]
    fn pin(&self) -> String {
        self.view.borrow().pin.to_string()
    }

    /// How many tries are left for the PIN; -1 where that is not known.
    #[zbus(property)]
    fn pin_retries(&self) -> i32 {
        self.view.borrow().pin_retries
    }

    /// Whether something on it stays authorized until it is plugged in again.
    #[zbus(property)]
    fn authorized(&self) -> bool {
        self.view.borrow().authorized
    }

    /// How many Locks admit it.
    #[zbus(property)]
    fn locks(&self) -> u32 {
        self.view.borrow().locks
    }

    /// How many Locks have yet to confirm that they admit it.
    #[zbus(property)]
    fn pending_locks(&self) -> u32 {
        self.view.borrow().pending_locks
    }

    /// When it was last plugged in here, in Unix seconds.
    #[zbus(property)]
    fn last_seen(&self) -> u64 {
        self.view.borrow().last_seen
    }

    /// Why it does not carry its family's card, or not the newest one: `in-use`, `no-room` or `locked`, and a text for people.
    /// Both are empty for any other Key. Stations that have never met the family then need an export, or the link.
    #[zbus(property)]
    fn card(&self) -> (String, String) {
        let card = self.view.borrow().card;
        card.map_or_else(Default::default, |(word, why)| (word.into(), why.into()))
    }

    /// The certificates of its access key in a family, PEM, leaf first, root last and included. An empty
    /// family means its own.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, LimitExceeded, StoreFailed.
    #[zbus(out_args("chain_pem"))]
    async fn get_certificate_chain(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
    ) -> Result<String> {
        self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id_or_none("family", family)?;
        let label = self.label.clone();
        let station = &self.context.station;
        Ok(station.ask(move |s, reply| s.certificate_chain(label, family, reply)).await?)
    }

    /// Replaces its PIN.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, PinInvalid, PinBlocked, Unsupported,
    /// TokenFailed.
    async fn change_pin(
        &self,
        #[zbus(header)] call: Header<'_>,
        old: OwnedFd,
        new: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let old = read_pin("old", old.into()).await?;
        let new = read_pin("new", new.into()).await?;
        let label = self.label.clone();
        let context = &self.context;
        Ok(context.ask(&caller, move |s, reply| s.change_pin(label, old, new, reply)).await?)
    }

    /// Sets a new PIN with the recovery code.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, PinInvalid, PinBlocked, Unsupported,
    /// TokenFailed.
    async fn unblock_pin(
        &self,
        #[zbus(header)] call: Header<'_>,
        code: OwnedFd,
        new: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let code = read_recovery_code("code", code.into()).await?;
        let new = read_pin("new", new.into()).await?;
        let label = self.label.clone();
        let context = &self.context;
        Ok(context.ask(&caller, move |s, reply| s.unblock_pin(label, code, new, reply)).await?)
    }
}
