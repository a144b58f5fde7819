//! `org.keywright1.Manager`: what is not about one Key or one serialization.

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
    file_fd::{read_file, write_file},
    lists, object_path,
    secret_fd::read_pin,
};
use crate::{
    families::Brought,
    queries::{self, CompletedRightRow, GroupRow, KeyRow, LockRow, PendingSignatureRow, RightRow},
    view::DecisionView,
};

/// The object at `/org/keywright1`.
pub struct Manager {
    context: Context,
    decisions: watch::Receiver<Vec<DecisionView>>,
}

impl Manager {
    /// Shows these decisions.
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

    /// Each pair of present Keys without an offer: the issuer or `/`, the other Key, and why: `same-family`,
    /// `no-lock`, `not-an-issuer`, `no-issuer`, `foreign-credentials`, `revoked`, `unusable`,
    /// `ambiguous-issuer`, `cancelled` or `done`.
    #[zbus(property)]
    fn decisions(&self) -> Vec<(ObjectPath<'static>, ObjectPath<'static>, String)> {
        lists::decisions(&self.decisions.borrow())
    }

    /// Starts a serialization by hand. Issuer `/` makes a blank Key a new Master. Options: `kind` s, `name` s.
    /// Answers with the one that runs already, where there is one.
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

    /// Serializes a Key to a Lock: certifies the key in the Lock's PKCS#10 request, of at most 16 KiB. The chain is
    /// PEM, leaf first, root last and included. A Lock that was added before keeps its name and certificate: its
    /// chain is answered without asking the token, unless a revoked Key had certified it: then it is certified anew. One
    /// that was removed is InvalidArgument.
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

    /// Removes a Lock from its family, whether it is there or not: final for its identity key. It is in no list any more,
    /// nor are rights at it, here and at every station that hears of it; its certificate is in the CRL of its CA at once
    /// where that is the issuer's, with that one's next revocation where it is another. The Lock itself is told
    /// nothing, and lets in whom it let in: take the rights away first, or set the Lock up anew. Removing it again signs
    /// nothing, unless entries wait for the issuer's CRL.
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

    /// A page of what is still to be signed in a family: what, the id and name of the Key or Lock that it is about, the
    /// serial number of the certificate in hex, and the id of the Key that has to sign; empty: any Master or Backup of
    /// the family. `crl-entry`: the next revocation that this Key signs lists the certificate too. Without an id it is
    /// one that a job was given up on. `certificate`: whoever certified the Key or Lock was revoked; `ca-certificate`:
    /// the same of a Backup. `statement`: whoever had signed a right of the Key was revoked. RevokeKey, AddLock and a
    /// change of rights make them anew. Pages may be longer than asked for.
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
        self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id("family", family)?;
        let page = arguments::page(after, limit)?;
        let moment = self.context.moment();
        let waiting = self
            .context
            .read(move |registry| queries::pending_signatures(registry, family, page, moment));
        Ok(waiting.await?)
    }

    /// A page of the known Keys. Filter: `family` s, `query` s (in the name, or how the id begins). `after` is
    /// empty, or what the page before gave as `next`; `next` is empty after the last page.
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
        self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let filter = arguments::key_filter(filter)?;
        Ok(self.context.read(move |registry| queries::keys(registry, &filter, page)).await?)
    }

    /// A page of the Locks. Filter: `family` s, `query` s, and `serialization` o (its selection) or `group` s (what is in
    /// it). For pages see ListKeys; they may be shorter than asked for. With `family` or `serialization`, where no Lock of
    /// the family is known here, the rows are those that a Key which is plugged in claims on its card.
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
        self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let (filter, scope) = arguments::lock_filter(filter)?;
        Ok(lists::locks(&self.context, filter, scope, page).await?)
    }

    /// A page of the rights of a Key: the Lock, its name, `pending`, `active` or `removing`, and since when, in
    /// Unix seconds. For pages see ListLocks.
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
        self.context.authorize(&call, INSPECT).await?;
        let key = arguments::id("key_id", key_id)?;
        let page = arguments::page(after, limit)?;
        let moment = self.context.moment();
        Ok(self.context.read(move |registry| queries::rights(registry, key, page, moment)).await?)
    }

    /// Changes the rights of a Sub Key or Soft Key, which need not be plugged in: one signature by the issuer,
    /// whatever the number of Locks, which are ids, or `group:` and the name of a group. A right that is taken away is `removing` until the Lock has confirmed. Asking for
    /// what is so already signs nothing.
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

    /// Revokes a Key for good; it need not be plugged in. The revocation of a Master, or of a Backup nearer to it than
    /// the issuer, acts after a delay (`revoke_delay_days`), and not at all where that Key revokes the issuer. What a
    /// revoked Master or Backup had signed is signed anew in the same call, up to 200 signatures. The revocation stands
    /// whatever becomes of these: what was not signed, because the issuer was pulled out or something changed meanwhile,
    /// waits (ListWaiting); a further call goes on, and makes the issuer a root of the bundle once the revocation of the Master acts. With the reason `stolen` or `compromised` nothing is: grant what is right by hand. Certificates that the
    /// issuer had signed are in its CRL at once, those of another Master or Backup when that next revokes a Key.
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

    /// Gives a Key another name here. A Master or Backup Key of its family must be present.
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
        Ok(self.context.ask(&caller, move |s, reply| s.rename_key(id, name, reply)).await?)
    }

    /// Gives a Lock another name here. A Master or Backup Key of its family must be present.
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
        Ok(self.context.ask(&caller, move |s, reply| s.rename_lock(id, name, reply)).await?)
    }

    /// Makes a Sub Key whose private key lives in software, for at least one Lock (see ChangeRights): certifies the key in its PKCS#10
    /// request, which has to be a new one, of at most 16 KiB. The chain is PEM, leaf first, root last and included.
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

    /// What a server needs to check the Keys of a family, PEM: its self-signed roots, and one CRL for each CA. Once a
    /// Master's revocation acts, the roots are those that surviving Backups signed for themselves (see
    /// RevokeKey).
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("roots_pem", "crls_pem"))]
    async fn get_family_bundle(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
    ) -> Result<(String, String)> {
        self.context.authorize(&call, INSPECT).await?;
        let family = arguments::id("family", family)?;
        let moment = self.context.moment();
        let bundle =
            self.context.read(move |registry| queries::family_bundle(registry, family, moment));
        Ok(bundle.await?)
    }

    /// The newest statement on a Key with the inclusion proof for one Lock (`docs/formats.md`).
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, StoreFailed.
    #[zbus(out_args("grant"))]
    async fn get_grant(
        &self,
        #[zbus(header)] call: Header<'_>,
        key_id: &str,
        lock_id: &str,
    ) -> Result<Vec<u8>> {
        self.context.authorize(&call, INSPECT).await?;
        let key = arguments::id("key_id", key_id)?;
        let lock = arguments::id("lock_id", lock_id)?;
        let moment = self.context.moment();
        Ok(self.context.read(move |registry| queries::grant(registry, key, lock, moment)).await?)
    }

    /// Locks have confirmed what changes a right of this Key: each `active` or `removed`, and for how many seconds that was
    /// waited for. At most 1,000 in one signal. What still waits is counted by PendingLocks, and named by ListRights.
    #[zbus(signal)]
    pub async fn rights_confirmed(
        emitter: &SignalEmitter<'_>,
        key_id: &str,
        rights: &[CompletedRightRow],
    ) -> zbus::Result<()>;

    /// Takes in what a Lock confirmed, when it is carried by hand: only that makes a right `active`, or ends `removing`.
    /// An old confirmation that comes again changes nothing.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, Unverified, StoreFailed.
    async fn apply_confirmation(
        &self,
        #[zbus(header)] call: Header<'_>,
        confirmation: Vec<u8>,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_LOCKS).await?;
        let asked = self.context.ask(&caller, |s, reply| s.apply_confirmation(confirmation, reply));
        Ok(self.context.log_if_unverified(&caller, Brought::Confirmation, asked.await)?)
    }

    /// Writes the signed objects of a family, for another station of it (`docs/formats.md`), into a file or pipe.
    ///
    /// Errors: NotAuthorized, InvalidArgument, NotFound, LimitExceeded, StoreFailed.
    async fn export_family(
        &self,
        #[zbus(header)] call: Header<'_>,
        family: &str,
        out: OwnedFd,
    ) -> Result<()> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let family = arguments::id("family", family)?;
        let exported = self.context.read(move |registry| queries::export(registry, family)).await?;
        self.context.ask(&caller, move |s, reply| s.log_export(family, reply)).await?;
        Ok(self.context.read(move |_| write_file("out", out.into(), &exported)).await?)
    }

    /// Reads what another station exported, from a file or pipe of at most 64 MiB; answers how many objects were new.
    /// Only what verifies up to the root that is pinned here is kept, and names stay as they are.
    ///
    /// Errors: NotAuthorized, InvalidArgument, Unverified, LimitExceeded, StoreFailed.
    #[zbus(out_args("merged"))]
    async fn import_family(&self, #[zbus(header)] call: Header<'_>, from: OwnedFd) -> Result<u32> {
        let caller = self.context.authorize(&call, MANAGE_KEYS).await?;
        let read = self.context.read(move |registry| {
            let bytes = read_file("from", from.into(), MAX_FAMILY_FILE)?;
            queries::read_export(registry, &bytes)
        });
        let (family, papers) =
            self.context.log_if_unverified(&caller, Brought::Import, read.await)?;
        let merged = self.context.ask(&caller, move |station, reply| {
            station.import_family(family, papers, reply);
        });
        Ok(self.context.log_if_unverified(&caller, Brought::Import, merged.await)?)
    }

    /// Writes the log of security-relevant events into a file or pipe, oldest first: one line of JSON an event, with the
    /// hash that chains it to the next one (`docs/formats.md`). StaleRevision: the oldest ones were dropped meanwhile.
    ///
    /// Errors: NotAuthorized, InvalidArgument, StaleRevision, StoreFailed.
    async fn export_audit(&self, #[zbus(header)] call: Header<'_>, out: OwnedFd) -> Result<()> {
        self.context.authorize(&call, MANAGE_KEYS).await?;
        Ok(lists::export_audit(&self.context, out.into()).await?)
    }

    /// A page of the groups of Locks: the family, the name, and how many Locks are in it. Filter: `family` s, `query` s (in
    /// the name). For pages see ListKeys. A group is a label of this station, like a name: nothing of it is signed or
    /// exported. Where Locks are selected, `group:` and its name stands for the Locks that it has at that moment.
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
        self.context.authorize(&call, INSPECT).await?;
        let page = arguments::page(after, limit)?;
        let filter = arguments::key_filter(filter)?;
        Ok(self.context.read(move |registry| queries::groups(registry, &filter, page)).await?)
    }

    /// Adds Locks to a group of a family and takes others out of it; makes it where there is none. Locks are ids, or
    /// `group:` and the name of a group. Answers how many it has now. A Master or Backup Key of the family must be
    /// present. At most 1,000 groups, and 100,000 Locks in one.
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

    /// Removes a group of a family. Its Locks, and rights that were given to them, stay. A Master or Backup Key of the
    /// family must be present.
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
        Ok(self.context.ask(&caller, move |s, reply| s.remove_group(family, name, reply)).await?)
    }
}
