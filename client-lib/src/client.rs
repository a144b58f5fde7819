//! Asking and ordering: the Manager's methods, typed.

use keywright_proto::{Kind, bus};
use zbus::{
    Connection, Fd, ObjectPath, Variant,
    proxy::{CacheProperties, Defaults},
};

use crate::{
    error::{Error, Result},
    model::{Decision, GroupRow, KeyRow, LockRow, RightRow, State, WaitingRow},
    pin::Pin,
    proxy::{KeyProxy, ManagerProxy, Options},
    snapshot,
    wizard::Wizard,
};

/// Rows asked for at once. At about 150 bytes a row, far below what a bus message may hold.
const PAGE: u32 = 1000;

/// Which bus the daemon is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bus {
    /// The system bus: where the installed daemon is.
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

/// Which Locks to list.
#[derive(Debug, Clone, Default)]
pub struct LockFilter {
    /// Only this family's.
    pub family: Option<String>,
    /// Only those that the daemon finds by this text.
    pub query: Option<String>,
    /// Only those selected in this serialization (its path).
    pub serialization: Option<String>,
    /// Only those of this group.
    pub group: Option<String>,
}

/// A connection to the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Client {
    /// Connects to a bus. The daemon is not started by this, but by the first call.
    ///
    /// # Errors
    /// [`Error::Bus`] where the bus cannot be reached.
    pub async fn connect(bus: &Bus) -> Result<Self> {
        let builder = match bus {
            Bus::System => zbus::connection::Builder::system(),
            Bus::Session => zbus::connection::Builder::session(),
            Bus::Address(address) => zbus::connection::Builder::address(address.as_str()),
        };
        Self::from_connection(builder.build().await?).await
    }

    /// Uses a connection that exists, to a bus or straight to a daemon.
    ///
    /// # Errors
    /// None in practice; [`Error::Bus`] where the connection is already closed.
    pub async fn from_connection(connection: Connection) -> Result<Self> {
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self { connection, manager })
    }

    /// The connection, for what this library leaves out.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The daemon's version; starts the daemon where the bus can.
    ///
    /// # Errors
    /// [`Error::NotRunning`] where it cannot.
    pub async fn version(&self) -> Result<String> {
        Ok(self.manager.version().await?)
    }

    /// Everything that the daemon shows now. To follow it, use [`crate::Watch`].
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn state(&self) -> Result<State> {
        let snapshot = snapshot::fetch(&self.connection, bus::NAME).await?;
        State::from_snapshot(snapshot)
    }

    /// Present pairs without an offer, and why.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn decisions(&self) -> Result<Vec<Decision>> {
        let rows = self.manager.decisions().await?;
        Ok(rows.into_iter().map(Decision::from).collect())
    }

    /// All Keys this station knows, page by page.
    ///
    /// # Errors
    /// NotAuthorized, and those of the bus.
    pub async fn list_keys(&self) -> Result<Vec<KeyRow>> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let (page, next) = self.manager.list_keys(Options::new(), &after, PAGE).await?;
            rows.extend(page.into_iter().map(KeyRow::from));
            if !next_page(&mut after, next)? {
                return Ok(rows);
            }
        }
    }

    /// All Locks that pass the filter, page by page.
    ///
    /// # Errors
    /// NotAuthorized, NotFound, and those of the bus.
    pub async fn list_locks(&self, filter: &LockFilter) -> Result<Vec<LockRow>> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let (page, next) = self.lock_page(filter, &after, PAGE).await?;
            rows.extend(page);
            if !next_page(&mut after, next)? {
                return Ok(rows);
            }
        }
    }

    /// One page of Locks after the one named, and what to pass for the next page (empty: none).
    ///
    /// # Errors
    /// As [`Client::list_locks`].
    pub async fn lock_page(
        &self,
        filter: &LockFilter,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<LockRow>, String)> {
        let mut options = Options::new();
        if let Some(family) = &filter.family {
            options.insert("family", family.as_str().into());
        }
        if let Some(query) = &filter.query {
            options.insert("query", query.as_str().into());
        }
        if let Some(path) = &filter.serialization {
            options.insert("serialization", Variant::from(object(path)?));
        }
        if let Some(group) = &filter.group {
            options.insert("group", group.as_str().into());
        }
        let (page, next) = self.manager.list_locks(options, after, limit).await?;
        Ok((page.into_iter().map(LockRow::from).collect(), next))
    }

    /// All groups of Locks, of all families or of one, page by page.
    ///
    /// # Errors
    /// NotAuthorized, and those of the bus.
    pub async fn list_groups(&self, family: Option<&str>) -> Result<Vec<GroupRow>> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let filter = family.map(|family| ("family", family.into())).into_iter().collect();
            let (page, next) = self.manager.list_groups(filter, &after, PAGE).await?;
            rows.extend(page.into_iter().map(GroupRow::from));
            if !next_page(&mut after, next)? {
                return Ok(rows);
            }
        }
    }

    /// Adds Locks (their ids, or `group:` and the name of a group) to a group of a family, and takes others out; makes it
    /// where there is none. Returns how many it has now.
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

    /// Removes a group; its Locks and all rights stay.
    ///
    /// # Errors
    /// NotFound, KeyAbsent and more.
    pub async fn remove_group(&self, family: &str, name: &str) -> Result<()> {
        Ok(self.manager.remove_group(family, name).await?)
    }

    /// A Key's rights, page by page.
    ///
    /// # Errors
    /// NotFound, NotAuthorized, and those of the bus.
    pub async fn list_rights(&self, key_id: &str) -> Result<Vec<RightRow>> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let (page, next) = self.manager.list_rights(key_id, &after, PAGE).await?;
            rows.extend(page.into_iter().map(RightRow::from));
            if !next_page(&mut after, next)? {
                return Ok(rows);
            }
        }
    }

    /// What is still to be signed in a family, page by page.
    ///
    /// # Errors
    /// NotFound, NotAuthorized, and those of the bus.
    pub async fn list_waiting(&self, family: &str) -> Result<Vec<WaitingRow>> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let (page, next) = self.manager.list_waiting(family, &after, PAGE).await?;
            rows.extend(page.into_iter().map(WaitingRow::from));
            if !next_page(&mut after, next)? {
                return Ok(rows);
            }
        }
    }

    /// Starts a serialization by hand and returns its path; the path of a live one, if there is
    /// one for the pair. No issuer: the candidate becomes a new Master.
    ///
    /// # Errors
    /// The reasons of the contract, section 2, and InvalidArgument.
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

    /// Drives a serialization.
    ///
    /// # Errors
    /// [`Error::Gone`] where there is none at this path.
    pub async fn wizard(&self, path: &str) -> Result<Wizard> {
        Wizard::attach(self, path).await
    }

    /// Serializes an issuing Key (its path) to a Lock; returns the Lock's id and its certificate
    /// chain, PEM, leaf first, root included.
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

    /// Removes a Lock (its id) from its family, for good.
    ///
    /// # Errors
    /// KeyAbsent, NotAnIssuer, NotFound, PinInvalid and more.
    pub async fn remove_lock(&self, issuer: &str, lock_id: &str, pin: &Pin) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.manager.remove_lock(&object(issuer)?, lock_id, fd).await?)
    }

    /// Gives and takes rights on Locks (their ids, or `group:` and the name of a group).
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

    /// Certifies a key that lives in software; returns the Key's id and its certificate chain, PEM, leaf first, root
    /// included.
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

    /// A family's self-signed roots and its CRLs, PEM: what a server needs to check its Keys.
    ///
    /// # Errors
    /// NotFound.
    pub async fn family_bundle(&self, family: &str) -> Result<(String, String)> {
        Ok(self.manager.get_family_bundle(family).await?)
    }

    /// A Key's statement for one Lock with its inclusion proof.
    ///
    /// # Errors
    /// NotFound.
    pub async fn get_grant(&self, key_id: &str, lock_id: &str) -> Result<Vec<u8>> {
        Ok(self.manager.get_grant(key_id, lock_id).await?)
    }

    /// Takes a Lock's confirmation that was carried by hand.
    ///
    /// # Errors
    /// Unverified, InvalidArgument.
    pub async fn apply_confirmation(&self, confirmation: &[u8]) -> Result<()> {
        Ok(self.manager.apply_confirmation(confirmation).await?)
    }

    /// Has the daemon write a family's signed objects into a file.
    ///
    /// # Errors
    /// NotFound, NotAuthorized.
    pub async fn export_family(&self, family: &str, out: &std::fs::File) -> Result<()> {
        Ok(self.manager.export_family(family, Fd::from(out)).await?)
    }

    /// Merges another station's export; returns how many objects were new.
    ///
    /// # Errors
    /// Unverified, InvalidArgument, NotAuthorized.
    pub async fn import_family(&self, input: &std::fs::File) -> Result<u32> {
        Ok(self.manager.import_family(Fd::from(input)).await?)
    }

    /// Has the daemon write its log of events into a file: one line of JSON an event. [`crate::audit`] checks it.
    ///
    /// # Errors
    /// NotAuthorized, StaleRevision.
    pub async fn export_audit(&self, out: &std::fs::File) -> Result<()> {
        Ok(self.manager.export_audit(Fd::from(out)).await?)
    }

    /// A Key's certificate chain, PEM, leaf first. No family: its own.
    ///
    /// # Errors
    /// NotFound, Unsupported for a blank Key.
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

    /// Sets a new PIN with the recovery code.
    ///
    /// # Errors
    /// PinInvalid (of the code), PinBlocked, KeyAbsent, KeyBusy.
    pub async fn unblock_pin(&self, key: &str, code: &Pin, new: &Pin) -> Result<()> {
        let (code, new) = (Fd::from(code.to_fd()?), Fd::from(new.to_fd()?));
        Ok(self.key(key).await?.unblock_pin(code, new).await?)
    }

    async fn key(&self, path: &str) -> Result<KeyProxy<'static>> {
        self.proxy(path).await
    }

    /// A proxy without a property cache: a [`crate::Watch`] follows properties, consistently.
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

/// A path that the daemon gave, as D-Bus wants it.
pub(crate) fn object(path: &str) -> Result<ObjectPath<'_>> {
    ObjectPath::try_from(path).map_err(|_| Error::malformed(format_args!("object path {path:?}")))
}

/// Moves to the next page. A daemon that repeats itself must not keep a client busy for ever.
fn next_page(after: &mut String, next: String) -> Result<bool> {
    if !next.is_empty() && next == *after {
        return Err(Error::malformed("next page (it is the same again)"));
    }
    *after = next;
    Ok(!after.is_empty())
}
