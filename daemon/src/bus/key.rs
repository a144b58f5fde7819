//! The interface `org.keywright1.Key`: one Key, plugged in or known from before.

use keywright_proto::bus::action::{INSPECT, MANAGE_KEYS};
use tokio::sync::watch;
use zbus::{OwnedFd, interface, message::Header};

use super::{
    Context, arguments,
    error::Result,
    secret_fd::{read_pin, read_recovery_code},
};
use crate::view::{KeyView, Label};

/// The D-Bus object of one Key.
pub struct KeyObject {
    context: Context,
    label: Label,
    view: watch::Receiver<KeyView>,
}

impl KeyObject {
    /// Publishes the properties in `view`.
    pub fn new(context: Context, label: Label, view: watch::Receiver<KeyView>) -> Self {
        Self { context, label, view }
    }
}

#[interface(name = "org.keywright1.Key")]
impl KeyObject {
    /// The Key's id: 32 hexadecimal digits. Empty for a blank Key.
    #[zbus(property)]
    fn id(&self) -> String {
        self.view.borrow().id.clone()
    }

    /// The Key's name at this station.
    #[zbus(property)]
    fn name(&self) -> String {
        self.view.borrow().name.clone()
    }

    /// What the certificates on the Key claim: `blank`, `master`, `backup`, `sub`, `foreign`, `revoked` or
    /// `unusable`.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.into()
    }

    /// The families that the Key belongs to and its role in each; its own family comes first.
    #[zbus(property)]
    fn memberships(&self) -> Vec<(String, String)> {
        self.view.borrow().memberships.clone()
    }

    /// Why the Key is `unusable`: the name of an error, and a text that says what happened and what to do. Both are
    /// empty for any other Key. KeyBusy means that another program uses the Key; the daemon reads it again when that
    /// program releases it.
    #[zbus(property)]
    fn trouble(&self) -> (String, String) {
        let trouble = &self.view.borrow().trouble;
        trouble.as_ref().map_or_else(Default::default, |trouble| {
            (trouble.error.full().into(), trouble.text.clone())
        })
    }

    /// Whether the Key is plugged in.
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

    /// The port that the Key is plugged in at, or was last.
    #[zbus(property)]
    fn port(&self) -> String {
        self.view.borrow().port.clone()
    }

    /// State of the PIN as far as it is known: `default`, `set`, `blocked` or `unknown`.
    #[zbus(property)]
    fn pin(&self) -> String {
        self.view.borrow().pin.to_string()
    }

    /// How many tries are left for the PIN; -1 if unknown.
    #[zbus(property)]
    fn pin_retries(&self) -> i32 {
        self.view.borrow().pin_retries
    }

    /// Whether the token stays authorized for something until it is unplugged.
    #[zbus(property)]
    fn authorized(&self) -> bool {
        self.view.borrow().authorized
    }

    /// How many Locks admit the Key.
    #[zbus(property)]
    fn locks(&self) -> u32 {
        self.view.borrow().locks
    }

    /// How many Locks have not confirmed yet that they admit the Key.
    #[zbus(property)]
    fn pending_locks(&self) -> u32 {
        self.view.borrow().pending_locks
    }

    /// When the Key was last plugged in here, in Unix seconds.
    #[zbus(property)]
    fn last_seen(&self) -> u64 {
        self.view.borrow().last_seen
    }

    /// Why the Key does not carry the newest card of its family: `in-use`, `no-room` or `locked`, and a text for
    /// people. Both are empty for any other Key. A station that has never met the family gets it then only by
    /// ImportFamily or over the link.
    #[zbus(property)]
    fn card(&self) -> (String, String) {
        let card = self.view.borrow().card;
        card.map_or_else(Default::default, |(word, why)| (word.into(), why.into()))
    }

    /// Returns the certificate chain of the Key's access key in a family, in PEM, leaf first, root included. An
    /// empty family means the Key's own.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, LimitExceeded, StoreFailed.
    #[zbus(out_args("chain_pem"))]
    async fn get_certificate_chain(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
    ) -> Result<String> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id_or_none("family", family)?;
        let label = self.label.clone();
        let station = &self.context.station;
        Ok(station
            .ask(move |station, reply| station.certificate_chain(label, family, reply))
            .await?)
    }

    /// Changes the Key's PIN. Fails with PinInvalid if `old` is wrong, which uses up one try, and with PinBlocked if
    /// no try is left.
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
        Ok(context
            .ask(&caller, move |station, reply| station.change_pin(label, old, new, reply))
            .await?)
    }

    /// Sets a new PIN with the recovery code. Fails with PinInvalid if the code is wrong, which uses up one of its
    /// tries, and with PinBlocked if none is left.
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
        Ok(context
            .ask(&caller, move |station, reply| station.unblock_pin(label, code, new, reply))
            .await?)
    }
}
