//! The interface `org.keywright1.Manager`: lists, rights, Locks, families, groups and the log.
//!
//! zbus takes all methods of an interface from one `impl`, so they are in this file; each only checks its arguments and
//! asks. Answers that need several questions are in `lists.rs`. A comment on a method is its documentation in
//! `docs/dbus.md`.

use keywright_proto::{
    bus::{
        action::{INSPECT, MANAGE_KEYS, MANAGE_LOCKS, SERIALIZE},
        serialization_path,
    },
    family::MAX_FAMILY_FILE,
};
use tokio::sync::watch;
use zbus::{ObjectPath, OwnedFd, interface, message::Header, object_server::SignalEmitter};

use super::{
    Context,
    arguments::{self, Options},
    error::Result,
    file_fd::{WHOLE_TIMEOUT, read_file, write_file},
    lists, object_path,
    secret_fd::read_pin,
};
use crate::{
    families::Brought,
    queries::{
        self, CompletedRightRow, GroupRow, IssuerRow, KeyRow, LockRow, PendingSignatureRow,
        RightRow,
    },
    view::DecisionView,
};

/// The D-Bus object at `/org/keywright1`.
pub struct Manager {
    context: Context,
    decisions: watch::Receiver<Vec<DecisionView>>,
}

impl Manager {
    /// Publishes these decisions.
    pub fn new(context: Context, decisions: watch::Receiver<Vec<DecisionView>>) -> Self {
        Self { context, decisions }
    }
}

#[interface(name = "org.keywright1.Manager")]
impl Manager {
    /// The version of the daemon.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// Why a pair of present Keys has no offer, for each such pair: the issuer or `/`, the other Key, and the
    /// reason: `same-family`, `no-lock`, `not-an-issuer`, `no-issuer`, `foreign-credentials`, `revoked`, `unusable`,
    /// `ambiguous-issuer`, `cancelled` or `done`.
    #[zbus(property)]
    fn decisions(&self) -> Vec<(ObjectPath<'static>, ObjectPath<'static>, String)> {
        lists::decisions(&self.decisions.borrow())
    }

    /// Where an earlier registry is that was damaged and set aside, until somebody acknowledges it; empty if there is
    /// none. Until then revocations may be unknown here, nothing is offered, and whatever signs fails with StoreFailed;
    /// except that AddLock can prove a family, so that its export can be imported.
    #[zbus(property)]
    fn lost_registry(&self) -> String {
        let lost = self.context.registry.lost();
        lost.map(|lost| lost.display().to_string()).unwrap_or_default()
    }

    /// Acknowledges that the registry at LostRegistry is lost: the caller has imported what other stations know, or does
    /// without it. Does nothing if none is lost.
    ///
    /// Errors: NotAuthorized, StoreFailed.
    async fn acknowledge_lost_registry(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        self.context.ask(&caller, |station, reply| station.acknowledge_loss(reply)).await?;
        // The bus may be gone; then nobody needs the signal.
        let _ = self.lost_registry_changed(&emitter).await;
        Ok(())
    }

    /// Starts a serialization of this pair without an offer. With issuer `/`, a blank Key becomes a new Master.
    /// Options: `kind` s, `name` s. Returns the running serialization of the pair if there is one.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, NoLock,
    /// ForeignCredentials, Revoked, Unsupported, StoreFailed.
    #[zbus(out_args("serialization"))]
    async fn start_serialization(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        candidate: ObjectPath<'_>,
        options: Options<'_>,
    ) -> Result<ObjectPath<'static>> {
        let caller = self.context.authorize(&call, SERIALIZE).await?;
        let issuer = arguments::key_or_none(&issuer)?;
        let candidate = arguments::key(&candidate)?;
        let (kind, name) = arguments::start_options(options)?;
        let driver = caller.clone();
        let started = self.context.ask(&caller, move |station, reply| {
            station.start_serialization(driver, issuer, candidate, kind, name, reply);
        });
        Ok(object_path(Some(serialization_path(started.await?))))
    }

    /// Adds a Lock to the issuer's family: certifies the key in the Lock's PKCS#10 request, which has at most 16
    /// KiB. Returns the Lock's id and its chain in PEM, leaf first, root included. If the Lock was added before,
    /// returns its present chain without asking the token, and its name stays; if a revoked Key had certified it,
    /// certifies it again. A removed Lock cannot be added: InvalidArgument.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, Revoked, Unverified,
    /// Unsupported, PinInvalid, PinBlocked, TokenFailed, StoreFailed, LimitExceeded.
    #[zbus(out_args("lock_id", "chain_pem"))]
    async fn add_lock(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        name: String,
        csr_pem: String,
        pin: OwnedFd,
    ) -> Result<(String, String)> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let issuer = arguments::key(&issuer)?;
        let csr_pem = arguments::csr(csr_pem)?;
        let pin = read_pin("pin", pin.into()).await?;
        let added = self.context.ask(&caller, move |station, reply| {
            station.add_lock(issuer, name, csr_pem, pin, reply);
        });
        let (lock, chain) = added.await?;
        Ok((lock.to_string(), chain))
    }

    /// Removes a Lock from its family for good: its identity key cannot be added again. The Lock need not be
    /// reachable. It and the rights at it leave all lists, at this station and at every other one that receives the
    /// removal. If the issuer certified the Lock, the certificate is in the issuer's CRL at once; if another Key
    /// did, it is in that Key's CRL when that Key next revokes something. The Lock itself is not told, and goes on
    /// admitting the same Keys: take their rights away first, or set the Lock up again. Removing it a second time
    /// signs nothing, unless entries for the issuer's CRL are pending.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, Revoked, Unverified,
    /// Unsupported, PinInvalid, PinBlocked, Interrupted, StoreFailed, TokenFailed.
    async fn remove_lock(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        lock_id: &str,
        pin: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let issuer = arguments::key(&issuer)?;
        let lock = arguments::id("lock_id", lock_id)?;
        let pin = read_pin("pin", pin.into()).await?;
        let removed = self.context.ask(&caller, move |station, reply| {
            station.remove_lock(issuer, lock, pin, reply);
        });
        Ok(removed.await?)
    }

    /// Returns a page of the signatures that are pending in a family. A row has: what is to be signed, the id and
    /// name of the Key or Lock concerned, the certificate's serial number in hex, and the id of the Key that has to
    /// sign; an empty id means any Master or Backup of the family. `crl-entry`: the Key lists this certificate in
    /// its CRL when it next revokes something; if the row has no id of a Key or Lock, the certificate is from a
    /// cancelled job. `certificate`: the Key that certified this Key or Lock was revoked. `ca-certificate`: the Key
    /// that certified this Backup was revoked. `statement`: the Key that signed a right of this Key was revoked.
    /// RevokeKey, AddLock and ChangeRights make these signatures. A page may be longer than `limit`.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("waiting", "next"))]
    async fn list_waiting(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<PendingSignatureRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id("family", family)?;
        let page = arguments::page(after, limit)?;
        let moment = self.context.moment();
        let waiting = self
            .context
            .read(move |registry| queries::pending_signatures(registry, family, page, moment));
        Ok(waiting.await?)
    }

    /// Returns a page of the issuing keys of a family, whether they are believed or not: nobody can sign for the family
    /// unseen. A row has: the id of the issuing key; the id and name of its Key, empty if nobody knows that Key here;
    /// how many certificates it is from the root, -1 if no believed issuing key certified it; the ids of the issuing
    /// keys that certified it; its standing: `believed`, `deposed` (revoked by juniors), `revoked`, `orphaned`
    /// (certified by revoked ones only) or `ignored` (one of more than 256 below one that the root certified); since
    /// when it is known here, in Unix seconds, 0 if that was not noted; and how it came here: a `job` made it, its `key`
    /// was plugged in, with an `import`, over the `link`, from a `lock`, or empty if that was not noted. RevokeKey also
    /// revokes one without a Key. For pages see ListKeys.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("issuers", "next"))]
    async fn list_issuers(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<IssuerRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id("family", family)?;
        let page = arguments::page(after, limit)?;
        let moment = self.context.moment();
        let issuers =
            self.context.read(move |registry| queries::issuers(registry, family, page, moment));
        Ok(issuers.await?)
    }

    /// Returns a page of the known Keys. Filter: `family` s, `query` s (a part of the name, or the beginning of the
    /// id). `after` is empty for the first page, then `next` of the page before. `next` is empty on the last page.
    ///
    /// Errors: NotAuthorized, InvalidArgument, StoreFailed.
    #[zbus(out_args("keys", "next"))]
    async fn list_keys(
        &self,
        #[zbus(header)] call: Header<'_>,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<KeyRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let filter = arguments::key_filter(filter)?;
        Ok(self.context.read(move |registry| queries::keys(registry, &filter, page)).await?)
    }

    /// Returns a page of the Locks. Filter: `family` s, `query` s, and either `serialization` o (the Locks that it
    /// has selected) or `group` s (the Locks in the group). For pages see ListKeys; these may be shorter than
    /// `limit`. If `family` or `serialization` is given and no Lock of the family is known here, the rows are the
    /// Locks on the card of a plugged-in Key, which are unverified.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("locks", "next"))]
    async fn list_locks(
        &self,
        #[zbus(header)] call: Header<'_>,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<LockRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let (filter, scope) = arguments::lock_filter(filter)?;
        Ok(lists::locks(&self.context, filter, scope, page).await?)
    }

    /// Returns a page of a Key's rights: the Lock's id and name, the state `pending`, `active` or `removing`, and
    /// since when, in Unix seconds. For pages see ListLocks.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("rights", "next"))]
    async fn list_rights(
        &self,
        #[zbus(header)] call: Header<'_>,
        key_id: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<RightRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let key = arguments::id("key_id", key_id)?;
        let page = arguments::page(after, limit)?;
        let moment = self.context.moment();
        Ok(self.context.read(move |registry| queries::rights(registry, key, page, moment)).await?)
    }

    /// Gives rights to a Sub Key or Soft Key and takes rights away; the Key need not be plugged in. Locks are ids,
    /// or `group:` and the name of a group. The issuer signs once, whatever the number of Locks. A right that is
    /// taken away is `removing` until its Lock has confirmed. Signs nothing if nothing changes.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, Revoked, Unverified,
    /// StaleRevision, PinInvalid, PinBlocked, Interrupted, StoreFailed, TokenFailed, LimitExceeded.
    async fn change_rights(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        key_id: &str,
        add: Vec<&str>,
        remove: Vec<&str>,
        pin: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let issuer = arguments::key(&issuer)?;
        let key = arguments::id("key_id", key_id)?;
        let add = arguments::lock_names("add", &add)?;
        let remove = arguments::lock_names("remove", &remove)?;
        let pin = read_pin("pin", pin.into()).await?;
        let changed = self.context.ask(&caller, move |station, reply| {
            station.change_rights(issuer, key, add, remove, pin, reply);
        });
        Ok(changed.await?)
    }

    /// Revokes a Key for good; it need not be plugged in. `key_id` may also be the id of an issuing key that ListIssuers
    /// shows without a Key. The revocation of a Master, or of a Backup nearer to the
    /// Master than the issuer, takes effect after a delay (`revoke_delay_days`), and not at all if that Key revokes
    /// the issuer meanwhile. Statements and certificates that a revoked Master or Backup had signed are signed again
    /// by the issuer in the same call, up to 200 signatures. Whatever is not signed, because the issuer was pulled
    /// out or something else changed, is pending (ListWaiting) and does not undo the revocation: call RevokeKey
    /// again to go on. Once the revocation of a Master is in effect, that further call also makes the issuer a root
    /// of the bundle. With the reason `stolen` or `compromised` nothing is signed again: grant the rights that are
    /// correct by hand. Revoked certificates that the issuer had signed are in its CRL at once; those that another
    /// Master or Backup had signed are in that Key's CRL when it next revokes something.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, Revoked, Unverified,
    /// StaleRevision, PinInvalid, PinBlocked, Interrupted, StoreFailed, TokenFailed, LimitExceeded.
    async fn revoke_key(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        key_id: &str,
        reason: String,
        pin: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let issuer = arguments::key(&issuer)?;
        let key = arguments::id("key_id", key_id)?;
        let pin = read_pin("pin", pin.into()).await?;
        let revoked = self.context.ask(&caller, move |station, reply| {
            station.revoke_key(issuer, key, reason, pin, reply);
        });
        Ok(revoked.await?)
    }

    /// Changes the name of a Key at this station. Fails with KeyAbsent unless a Master or Backup of its family is
    /// plugged in.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, StoreFailed.
    async fn rename_key(
        &self,
        #[zbus(header)] call: Header<'_>,
        id: &str,
        name: String,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let id = arguments::id("id", id)?;
        Ok(self
            .context
            .ask(&caller, move |station, reply| station.rename_key(id, name, reply))
            .await?)
    }

    /// Changes the name of a Lock at this station. Fails with KeyAbsent unless a Master or Backup of its family is
    /// plugged in.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, StoreFailed.
    async fn rename_lock(
        &self,
        #[zbus(header)] call: Header<'_>,
        id: &str,
        name: String,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let id = arguments::id("id", id)?;
        Ok(self
            .context
            .ask(&caller, move |station, reply| station.rename_lock(id, name, reply))
            .await?)
    }

    /// Makes a Soft Key, a Sub Key whose private key is in a file: certifies the key in its PKCS#10 request and
    /// gives it rights at one Lock or more (`locks` as in ChangeRights). The request has at most 16 KiB and must be
    /// for a new key. Returns the Key's id and its chain in PEM, leaf first, root included.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, KeyBusy, NotAnIssuer, Revoked, Unverified,
    /// StaleRevision, Unsupported, PinInvalid, PinBlocked, Interrupted, StoreFailed, TokenFailed, LimitExceeded.
    #[zbus(out_args("key_id", "chain_pem"))]
    async fn issue_soft_key(
        &self,
        #[zbus(header)] call: Header<'_>,
        issuer: ObjectPath<'_>,
        name: String,
        csr_pem: String,
        locks: Vec<&str>,
        pin: OwnedFd,
    ) -> Result<(String, String)> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let issuer = arguments::key(&issuer)?;
        let csr_pem = arguments::csr(csr_pem)?;
        let locks = arguments::lock_names("locks", &locks)?;
        let pin = read_pin("pin", pin.into()).await?;
        let made = self.context.ask(&caller, move |station, reply| {
            station.issue_soft_key(issuer, name, csr_pem, locks, pin, reply);
        });
        let (key, chain) = made.await?;
        Ok((key.to_string(), chain))
    }

    /// Returns what a server needs to verify the Keys of a family, in PEM: the self-signed roots, and a CRL of each
    /// CA. Once the revocation of a Master is in effect, the roots are those that the remaining Backups signed for
    /// themselves (see RevokeKey).
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("roots_pem", "crls_pem"))]
    async fn get_family_bundle(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
    ) -> Result<(String, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id("family", family)?;
        let moment = self.context.moment();
        let bundle =
            self.context.read(move |registry| queries::family_bundle(registry, family, moment));
        Ok(bundle.await?)
    }

    /// Returns the newest statement on a Key with the inclusion proof for one Lock (`docs/formats.md`).
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("grant"))]
    async fn get_grant(
        &self,
        #[zbus(header)] call: Header<'_>,
        key_id: &str,
        lock_id: &str,
    ) -> Result<Vec<u8>> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let key = arguments::id("key_id", key_id)?;
        let lock = arguments::id("lock_id", lock_id)?;
        let moment = self.context.moment();
        Ok(self.context.read(move |registry| queries::grant(registry, key, lock, moment)).await?)
    }

    /// Emitted when Locks have confirmed changes to rights of this Key. A row has the Lock's id, its answer `active`
    /// or `removed`, and how many seconds the change was pending. One signal has at most 1,000 rows. PendingLocks
    /// counts the rights that are still unconfirmed, and ListRights lists them.
    #[zbus(signal)]
    pub async fn rights_confirmed(
        emitter: &SignalEmitter<'_>,
        key_id: &str,
        rights: &[CompletedRightRow],
    ) -> zbus::Result<()>;

    /// Applies a Lock's confirmation that was carried here by hand. Only a confirmation makes a right `active` or
    /// ends `removing`. Applying an old one again changes nothing.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, Unverified, StoreFailed.
    async fn apply_confirmation(
        &self,
        #[zbus(header)] call: Header<'_>,
        confirmation: Vec<u8>,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let asked = self
            .context
            .ask(&caller, |station, reply| station.apply_confirmation(confirmation, reply));
        Ok(self.context.log_if_unverified(&caller, Brought::Confirmation, asked.await)?)
    }

    /// Writes the signed objects of a family to a file or pipe, for another station (`docs/formats.md`).
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, LimitExceeded, StoreFailed.
    async fn export_family(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        out: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let _file = self.context.files.enter(caller.uid)?;
        let family = arguments::id("family", family)?;
        let exported = self.context.read(move |registry| queries::export(registry, family)).await?;
        self.context.ask(&caller, move |station, reply| station.log_export(family, reply)).await?;
        Ok(self.context.read(move |_| write_file("out", out.into(), &exported)).await?)
    }

    /// Imports a family file of another station from a file or pipe, at most 64 MiB. Returns how many objects were
    /// new. Keeps only objects that verify up to the root pinned here. Names at this station do not change.
    ///
    /// Errors: NotAuthorized, InvalidArgument, Unverified, LimitExceeded, StoreFailed.
    #[zbus(out_args("merged"))]
    async fn import_family(&self, #[zbus(header)] call: Header<'_>, from: OwnedFd) -> Result<u32> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let _file = self.context.files.enter(caller.uid)?;
        let read = self.context.read(move |registry| {
            let bytes = read_file("from", from.into(), MAX_FAMILY_FILE, WHOLE_TIMEOUT)?;
            queries::read_export(registry, &bytes)
        });
        let (family, papers) =
            self.context.log_if_unverified(&caller, Brought::Import, read.await)?;
        let merged = self.context.ask(&caller, move |station, reply| {
            station.import_family(family, papers, reply);
        });
        Ok(self.context.log_if_unverified(&caller, Brought::Import, merged.await)?)
    }

    /// Writes the log of security events to a file or pipe, oldest first: one JSON object a line, with the hash that
    /// chains it to the next one (`docs/formats.md`). Fails with StaleRevision if the oldest events were dropped
    /// during the export.
    ///
    /// Errors: NotAuthorized, InvalidArgument, StaleRevision, StoreFailed.
    async fn export_audit(&self, #[zbus(header)] call: Header<'_>, out: OwnedFd) -> Result<()> {
        let call = self.context.authorize(&call, MANAGE_KEYS).await?;
        let _file = self.context.files.enter(call.uid)?;
        Ok(lists::export_audit(&self.context, out.into()).await?)
    }

    /// Returns a page of the groups of Locks: the family, the name, and the number of Locks. Filter: `family` s,
    /// `query` s (a part of the name). For pages see ListKeys. A group is a label of this station, like a name: it
    /// is neither signed nor exported. Where a method takes Locks, `group:` and the name stand for the Locks that
    /// are in the group at that moment.
    ///
    /// Errors: NotAuthorized, InvalidArgument, StoreFailed.
    #[zbus(out_args("groups", "next"))]
    async fn list_groups(
        &self,
        #[zbus(header)] call: Header<'_>,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<GroupRow>, String)> {
        let _call = self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let filter = arguments::key_filter(filter)?;
        Ok(self.context.read(move |registry| queries::groups(registry, &filter, page)).await?)
    }

    /// Adds Locks to a group and takes others out of it; creates the group if there is none of this name in the
    /// family. Locks are ids, or `group:` and the name of a group. Returns the number of Locks in the group. Fails
    /// with KeyAbsent unless a Master or Backup of the family is plugged in, and with LimitExceeded above 1,000
    /// groups or 100,000 Locks in one.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, LimitExceeded, StoreFailed.
    #[zbus(out_args("locks"))]
    async fn set_group(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        name: String,
        add: Vec<&str>,
        remove: Vec<&str>,
    ) -> Result<u32> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let family = arguments::id("family", family)?;
        let add = arguments::lock_names("add", &add)?;
        let remove = arguments::lock_names("remove", &remove)?;
        let set = self.context.ask(&caller, move |station, reply| {
            station.set_group(family, name, &add, &remove, reply);
        });
        Ok(set.await?)
    }

    /// Removes a group. Its Locks stay, and so do rights that were given through it. Fails with KeyAbsent unless a
    /// Master or Backup of the family is plugged in.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, KeyAbsent, StoreFailed.
    async fn remove_group(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        name: String,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let family = arguments::id("family", family)?;
        Ok(self
            .context
            .ask(&caller, move |station, reply| station.remove_group(family, name, reply))
            .await?)
    }
}
