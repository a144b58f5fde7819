//! The methods of `org.keywright1.Manager` and `org.keywright1.Key`, typed.
//!
//! Every method fails with [`Error::Daemon`] when the daemon refuses the call and with [`Error::Bus`] or
//! [`Error::NotRunning`] when it cannot be reached; "Errors" below names the refusals.

use keywright_proto::{Kind, bus};
use zbus::{
    Connection, Fd, ObjectPath, Variant,
    proxy::{CacheProperties, Defaults},
};

use crate::{
    error::{Error, Result},
    model::{GroupRow, IssuerRow, KeyRow, LockRow, RightRow, State, WaitingRow},
    pin::Pin,
    proxy::{KeyProxy, ManagerProxy, Options},
    snapshot,
    wizard::Wizard,
};

/// Rows per page. At about 150 bytes a row this is far below the size limit of a bus message.
const PAGE: u32 = 1000;

/// Which bus the daemon is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bus {
    /// The system bus, where the installed daemon runs.
    #[default]
    System,
    /// The user's session bus.
    Session,
    /// The bus at this D-Bus address, such as `unix:path=/run/test/bus`.
    Address(String),
}

impl From<&str> for Bus {
    fn from(word: &str) -> Self {
        match word {
            "system" => Self::System,
            "session" => Self::Session,
            address => Self::Address(address.to_owned()),
        }
    }
}

/// Filter of [`Client::list_locks`]. Fields that are None do not filter.
#[derive(Debug, Clone, Default)]
pub struct LockFilter {
    /// Only Locks of this family.
    pub family: Option<String>,
    /// Only Locks whose name contains this text or whose id begins with it.
    pub query: Option<String>,
    /// Only Locks selected in this serialization (its object path).
    pub serialization: Option<String>,
    /// Only Locks of this group.
    pub group: Option<String>,
}

impl LockFilter {
    fn options(&self) -> Result<Options<'_>> {
        let mut options = Options::new();
        for (name, text) in
            [("family", &self.family), ("query", &self.query), ("group", &self.group)]
        {
            if let Some(text) = text {
                options.insert(name, text.as_str().into());
            }
        }
        if let Some(path) = &self.serialization {
            options.insert("serialization", Variant::from(object(path)?));
        }
        Ok(options)
    }
}

/// A connection to the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Client {
    /// Connects to a bus. This does not start the daemon; the first call does.
    ///
    /// # Errors
    /// [`Error::Bus`] if the bus cannot be reached.
    pub async fn connect(bus: &Bus) -> Result<Self> {
        let builder = match bus {
            Bus::System => zbus::connection::Builder::system(),
            Bus::Session => zbus::connection::Builder::session(),
            Bus::Address(address) => zbus::connection::Builder::address(address.as_str()),
        };
        Self::from_connection(builder.build().await?).await
    }

    /// Uses an existing connection to a bus, or a peer-to-peer connection to a daemon.
    ///
    /// # Errors
    /// [`Error::Bus`] if the connection is closed.
    pub async fn from_connection(connection: Connection) -> Result<Self> {
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self { connection, manager })
    }

    /// The D-Bus connection, for calls that this library does not cover.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the daemon's version. The bus starts the daemon if it is not running.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if the bus cannot start it.
    pub async fn version(&self) -> Result<String> {
        Ok(self.manager.version().await?)
    }

    /// Returns the daemon's current state. To follow changes, use [`crate::Watch`].
    pub async fn state(&self) -> Result<State> {
        let snapshot = snapshot::fetch(&self.connection, bus::NAME).await?;
        State::from_snapshot(snapshot)
    }

    /// Lists all Keys that this station knows.
    ///
    /// # Errors
    /// NotAuthorized.
    pub async fn list_keys(&self) -> Result<Vec<KeyRow>> {
        let manager = &self.manager;
        all_pages(async |after| manager.list_keys(Options::new(), &after, PAGE).await).await
    }

    /// Lists all Locks that pass the filter.
    ///
    /// # Errors
    /// NotAuthorized, NotFound.
    pub async fn list_locks(&self, filter: &LockFilter) -> Result<Vec<LockRow>> {
        let manager = &self.manager;
        let options = filter.options()?;
        all_pages(async |after| manager.list_locks(options.clone(), &after, PAGE).await).await
    }

    /// Lists the groups of Locks of one family, or of all.
    ///
    /// # Errors
    /// NotAuthorized.
    pub async fn list_groups(&self, family: Option<&str>) -> Result<Vec<GroupRow>> {
        let manager = &self.manager;
        let filter: Options<'_> =
            family.map(|family| ("family", family.into())).into_iter().collect();
        all_pages(async |after| manager.list_groups(filter.clone(), &after, PAGE).await).await
    }

    /// Adds Locks to a group of a family and removes others; creates the group if it does not exist. Locks are given by
    /// id, or as `group:NAME`. Returns the number of Locks that the group now has.
    ///
    /// # Errors
    /// NotFound, KeyAbsent, LimitExceeded and more.
    pub async fn set_group(
        &self,
        family: &str,
        name: &str,
        add: &[&str],
        remove: &[&str],
    ) -> Result<u32> {
        Ok(self.manager.set_group(family, name, add, remove).await?)
    }

    /// Deletes a group. Its Locks and all rights stay.
    ///
    /// # Errors
    /// NotFound, KeyAbsent and more.
    pub async fn remove_group(&self, family: &str, name: &str) -> Result<()> {
        Ok(self.manager.remove_group(family, name).await?)
    }

    /// Lists a Key's rights.
    ///
    /// # Errors
    /// NotFound, NotAuthorized.
    pub async fn list_rights(&self, key_id: &str) -> Result<Vec<RightRow>> {
        let manager = &self.manager;
        all_pages(async |after| manager.list_rights(key_id, &after, PAGE).await).await
    }

    /// Lists the signatures that are pending in a family.
    ///
    /// # Errors
    /// NotFound, NotAuthorized.
    pub async fn list_waiting(&self, family: &str) -> Result<Vec<WaitingRow>> {
        let manager = &self.manager;
        all_pages(async |after| manager.list_waiting(family, &after, PAGE).await).await
    }

    /// Lists the issuing keys of a family, whether they are believed or revoked.
    ///
    /// # Errors
    /// NotFound, NotAuthorized.
    pub async fn list_issuers(&self, family: &str) -> Result<Vec<IssuerRow>> {
        let manager = &self.manager;
        all_pages(async |after| manager.list_issuers(family, &after, PAGE).await).await
    }

    /// Where an earlier registry is that was damaged and set aside; none if nothing is lost, or it was acknowledged.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub async fn lost_registry(&self) -> Result<Option<String>> {
        Ok(Some(self.manager.lost_registry().await?).filter(|path| !path.is_empty()))
    }

    /// Acknowledges that it is lost: the daemon signs again by what it knows now.
    ///
    /// # Errors
    /// NotAuthorized, StoreFailed.
    pub async fn acknowledge_lost_registry(&self) -> Result<()> {
        Ok(self.manager.acknowledge_lost_registry().await?)
    }

    /// Starts a serialization and returns its object path; returns the path of the open one if the pair already has
    /// one. Without an issuer the candidate becomes a new Master.
    ///
    /// # Errors
    /// The reasons that `Decisions` lists, as errors (`docs/dbus.md`), and InvalidArgument.
    pub async fn start_serialization(
        &self,
        issuer: Option<&str>,
        candidate: &str,
        kind: Option<Kind>,
        name: Option<&str>,
    ) -> Result<String> {
        let mut options = Options::new();
        if let Some(kind) = kind {
            options.insert("kind", kind.as_str().into());
        }
        if let Some(name) = name {
            options.insert("name", name.into());
        }
        let issuer = object(issuer.unwrap_or(bus::NO_OBJECT))?;
        let path = self.manager.start_serialization(&issuer, &object(candidate)?, options).await?;
        Ok(path.to_string())
    }

    /// Attaches a wizard session to a serialization.
    ///
    /// # Errors
    /// [`Error::Gone`] if there is none at this path.
    pub async fn wizard(&self, path: &str) -> Result<Wizard> {
        Wizard::attach(self, path).await
    }

    /// Certifies a Lock with the issuing Key at this object path. Returns the Lock's id and its certificate chain: PEM,
    /// leaf first, root included.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, PinInvalid and more; InvalidArgument for a bad request.
    pub async fn add_lock(
        &self,
        issuer: &str,
        name: &str,
        csr_pem: &str,
        pin: &Pin,
    ) -> Result<(String, String)> {
        let fd = pin.to_fd()?;
        Ok(self.manager.add_lock(&object(issuer)?, name, csr_pem, Fd::from(fd)).await?)
    }

    /// Removes a Lock from its family for good.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, NotFound, PinInvalid and more.
    pub async fn remove_lock(&self, issuer: &str, lock_id: &str, pin: &Pin) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.manager.remove_lock(&object(issuer)?, lock_id, fd).await?)
    }

    /// Adds and removes a Key's rights on Locks, which are given by id or as `group:NAME`.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, NotFound, PinInvalid and more.
    pub async fn change_rights(
        &self,
        issuer: &str,
        key_id: &str,
        add: &[&str],
        remove: &[&str],
        pin: &Pin,
    ) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.manager.change_rights(&object(issuer)?, key_id, add, remove, fd).await?)
    }

    /// Revokes a Key for good.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, NotFound, PinInvalid and more.
    pub async fn revoke_key(
        &self,
        issuer: &str,
        key_id: &str,
        reason: &str,
        pin: &Pin,
    ) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.manager.revoke_key(&object(issuer)?, key_id, reason, fd).await?)
    }

    /// Certifies a Sub Key whose private key is in software. Returns its id and its certificate chain: PEM, leaf first,
    /// root included.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, NotFound, PinInvalid and more; InvalidArgument for a bad request.
    pub async fn issue_soft_key(
        &self,
        issuer: &str,
        name: &str,
        csr_pem: &str,
        locks: &[&str],
        pin: &Pin,
    ) -> Result<(String, String)> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.manager.issue_soft_key(&object(issuer)?, name, csr_pem, locks, fd).await?)
    }

    /// Renames a Key on this station.
    ///
    /// # Errors
    /// NotFound, InvalidArgument, KeyAbsent.
    pub async fn rename_key(&self, id: &str, name: &str) -> Result<()> {
        Ok(self.manager.rename_key(id, name).await?)
    }

    /// Renames a Lock on this station.
    ///
    /// # Errors
    /// NotFound, InvalidArgument, KeyAbsent.
    pub async fn rename_lock(&self, id: &str, name: &str) -> Result<()> {
        Ok(self.manager.rename_lock(id, name).await?)
    }

    /// Returns a family's self-signed roots and its CRLs as PEM: what a server needs to verify its Keys.
    ///
    /// # Errors
    /// NotFound.
    pub async fn family_bundle(&self, family: &str) -> Result<(String, String)> {
        Ok(self.manager.get_family_bundle(family).await?)
    }

    /// Returns the grant of a Key for one Lock: the signed statement with its inclusion proof.
    ///
    /// # Errors
    /// NotFound.
    pub async fn get_grant(&self, key_id: &str, lock_id: &str) -> Result<Vec<u8>> {
        Ok(self.manager.get_grant(key_id, lock_id).await?)
    }

    /// Imports a Lock's confirmation that was carried by hand.
    ///
    /// # Errors
    /// Unverified, InvalidArgument.
    pub async fn apply_confirmation(&self, confirmation: &[u8]) -> Result<()> {
        Ok(self.manager.apply_confirmation(confirmation).await?)
    }

    /// Makes the daemon write a family's signed objects to a file.
    ///
    /// # Errors
    /// NotFound, NotAuthorized.
    pub async fn export_family(&self, family: &str, out: &std::fs::File) -> Result<()> {
        Ok(self.manager.export_family(family, Fd::from(out)).await?)
    }

    /// Merges the export of another station. Returns the number of objects that were new.
    ///
    /// # Errors
    /// Unverified, InvalidArgument, NotAuthorized.
    pub async fn import_family(&self, input: &std::fs::File) -> Result<u32> {
        Ok(self.manager.import_family(Fd::from(input)).await?)
    }

    /// Makes the daemon write its audit log to a file, one line of JSON per event. [`crate::audit`] verifies it.
    ///
    /// # Errors
    /// NotAuthorized, StaleRevision.
    pub async fn export_audit(&self, out: &std::fs::File) -> Result<()> {
        Ok(self.manager.export_audit(Fd::from(out)).await?)
    }

    /// Returns a Key's certificate chain in a family (default: its own) as PEM, leaf first.
    ///
    /// # Errors
    /// NotFound; Unsupported for a blank Key.
    pub async fn certificate_chain(&self, key: &str, family: Option<&str>) -> Result<String> {
        Ok(self.key(key).await?.get_certificate_chain(family.unwrap_or_default()).await?)
    }

    /// Changes a Key's PIN.
    ///
    /// # Errors
    /// PinInvalid, PinBlocked, KeyAbsent, KeyBusy.
    pub async fn change_pin(&self, key: &str, old: &Pin, new: &Pin) -> Result<()> {
        let (old, new) = (Fd::from(old.to_fd()?), Fd::from(new.to_fd()?));
        Ok(self.key(key).await?.change_pin(old, new).await?)
    }

    /// Sets a new PIN with the recovery code (the PUK).
    ///
    /// # Errors
    /// PinInvalid if the code is wrong, PinBlocked, KeyAbsent, KeyBusy.
    pub async fn unblock_pin(&self, key: &str, code: &Pin, new: &Pin) -> Result<()> {
        let (code, new) = (Fd::from(code.to_fd()?), Fd::from(new.to_fd()?));
        Ok(self.key(key).await?.unblock_pin(code, new).await?)
    }

    async fn key(&self, path: &str) -> Result<KeyProxy<'static>> {
        self.proxy(path).await
    }

    /// Builds a proxy without a property cache: [`crate::Watch`] follows properties in a consistent order.
    pub(crate) async fn proxy<P>(&self, path: &str) -> Result<P>
    where
        P: From<zbus::Proxy<'static>> + Defaults + zbus::proxy::ProxyImpl<'static>,
    {
        Ok(zbus::proxy::Builder::new(&self.connection)
            .path(object(path)?.into_owned())
            .cache_properties(CacheProperties::No)
            .build()
            .await?)
    }
}

/// Converts an object path from the daemon to its D-Bus type.
pub(crate) fn object(path: &str) -> Result<ObjectPath<'_>> {
    ObjectPath::try_from(path).map_err(|_| Error::malformed(format_args!("object path {path:?}")))
}

/// Reads a list to its end, `page` by page, each from the cursor that the one before returned.
///
/// # Errors
/// [`Error::Malformed`] if a cursor repeats: a faulty daemon must not keep a client in this loop for ever.
async fn all_pages<W, R, F>(page: impl Fn(String) -> F) -> Result<Vec<R>>
where
    R: From<W>,
    F: Future<Output = zbus::Result<(Vec<W>, String)>>,
{
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let (wires, next) = page(after.clone()).await?;
        rows.extend(wires.into_iter().map(R::from));
        if next.is_empty() {
            return Ok(rows);
        }
        if next == after {
            return Err(Error::malformed("next page (its cursor repeats)"));
        }
        after = next;
    }
}
