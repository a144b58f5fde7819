//! Collects a family's signed objects from the registry, as stations exchange them.

use keywright_proto::{
    Certificate, Crl, Effect, Id, SignedObjects, Target,
    family::{FileError, MAX_FAMILY_FILE, MAX_REVOCATIONS_FILE},
};

use super::damaged;
use crate::{
    error::Error,
    registry::{Registry, RegistryError, records::Revocation},
};

/// The file of `ExportFamily`. If not all objects fit, some are left out: see `SignedObjects::encode_most`.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn export(registry: &Registry, family: Id) -> Result<Vec<u8>, Error> {
    let (file, left_out) =
        signed_objects(registry, family)?.encode_most(MAX_FAMILY_FILE).map_err(file_error)?;
    if left_out > 0 {
        tracing::warn!(%family, left_out, "the exported family is too large: some objects are left out; revocations are not");
    }
    Ok(file)
}

/// The file with a family's revocations alone; none if there are none. Of too many, those that exceed the share of their
/// first-level CA are left out.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn export_revocations(registry: &Registry, family: Id) -> Result<Option<Vec<u8>>, Error> {
    let mut objects = authorities(registry, family)?;
    for revocation in registry.revocations(family)? {
        let access = registry.access_certificates(revocation.key, family);
        add_certificates(&mut objects, of_key(access, revocation.key)?.unwrap_or_default());
        add_revocation(&mut objects, revocation);
    }
    add_removals(registry, family, &mut objects)?;
    if !objects.has_revocations() {
        return Ok(None);
    }
    let mut revocations = objects.revocations().map_err(damaged)?;
    let (file, left_out) = revocations.encode_most(MAX_REVOCATIONS_FILE).map_err(file_error)?;
    if left_out > 0 {
        tracing::warn!(%family, left_out, "some revocations are published with the whole family only: their signer signed too many");
    }
    Ok(Some(file))
}

/// Those of another station's objects for which this one has room: all of them, unless its own and these exceed the largest
/// file. Then those that exceed the share of their first-level CA are left out.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn fitting(
    registry: &Registry,
    family: Id,
    objects: &SignedObjects,
) -> Result<SignedObjects, Error> {
    let own = signed_objects(registry, family)?;
    own.fitting(objects, MAX_FAMILY_FILE).map_err(damaged)
}

/// Reads a file that another station exported. Its objects are verified up to the root that is pinned here; those that do
/// not verify are left out and logged.
///
/// # Errors
/// `InvalidArgument`: not an exported family. `Unverified`: its family is not pinned here, or its root is not
/// the pinned one. The registry cannot be read.
pub fn read_export(registry: &Registry, bytes: &[u8]) -> Result<(Id, SignedObjects), Error> {
    let (family, objects, left_out) = verified_export(registry, bytes)?;
    if left_out > 0 {
        tracing::warn!(%family, left_out, "objects of an import did not verify");
    }
    Ok((family, objects))
}

/// Reads an exported file and returns also how many objects did not verify. It does not log them, because a broker could
/// then fill the log.
///
/// # Errors
/// As [`read_export`].
pub fn verified_export(
    registry: &Registry,
    bytes: &[u8],
) -> Result<(Id, SignedObjects, usize), Error> {
    let claimed = SignedObjects::claimed_root(bytes).map_err(file_error)?;
    let root = Certificate::parse(claimed)
        .map_err(|error| Error::InvalidArgument(format!("the file's root: {error}")))?;
    let family = root.family();
    let pinned = registry.family(family)?.ok_or(Error::Unverified(family))?.root;
    match SignedObjects::decode(bytes, &pinned) {
        Err(FileError::OtherFamily) => Err(Error::Unverified(family)),
        Err(error) => Err(file_error(error)),
        Ok((objects, left_out)) => Ok((family, objects, left_out)),
    }
}

/// The CAs of a family with their CRLs.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn authorities(registry: &Registry, family: Id) -> Result<SignedObjects, Error> {
    let missing = || Error::NotFound(format!("family {family}"));
    let root = registry.family(family)?.ok_or_else(missing)?.root;
    let root = Certificate::parse(&root).map_err(damaged)?;
    let mut objects = SignedObjects::new(root).map_err(damaged)?;
    add_certificates(&mut objects, registry.ca_certificates(family)?);
    for (_, issuer) in registry.issuers_of(family)? {
        if let Ok(crl) = Crl::parse(&issuer.crl)
            && let Err(error) = objects.add_crl(crl)
        {
            left_out("CRL", &error);
        }
    }
    Ok(objects)
}

/// All signed objects of a family. Those of a Key or Lock whose record is damaged are left out: the others have to get
/// out, above all revocations.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn signed_objects(registry: &Registry, family: Id) -> Result<SignedObjects, Error> {
    let mut objects = authorities(registry, family)?;
    let keys = registry.member_ids(family)?;
    let mut certificates = Vec::new();
    for key in &keys {
        let access = registry.access_certificates(*key, family);
        certificates.extend(of_key(access, *key)?.unwrap_or_default());
    }
    for entry in registry.lock_entries(family)? {
        let (lock, what) = (registry.lock(entry.lock), format_args!("Lock {}", entry.lock));
        let lock = RegistryError::skip_damaged(lock, what)?.flatten();
        certificates.extend(lock.map(|lock| lock.certificate));
    }
    certificates.extend(registry.removed_locks(family)?.into_iter().map(|(_, l)| l.certificate));
    add_certificates(&mut objects, certificates);
    for key in &keys {
        for (statement, entries) in
            of_key(registry.all_statements(*key, family), *key)?.unwrap_or_default()
        {
            let leaves = statement.leaves(&entries);
            if let Err(error) = objects.add_statement(statement.cose, statement.salt_seed, leaves) {
                left_out("statement", &error);
            }
        }
    }
    for revocation in registry.revocations(family)? {
        add_revocation(&mut objects, revocation);
    }
    for key in &keys {
        let confirmations = of_key(registry.signed_confirmations(*key), *key)?;
        for (_, word) in confirmations.unwrap_or_default() {
            // A Key of several families has confirmations of other families' Locks.
            let _ = objects.add_confirmation(word.cose);
        }
    }
    add_removals(registry, family, &mut objects)?;
    for (_, root) in registry.roots(family)? {
        let added = Certificate::parse(&root)
            .map_err(|error| error.to_string())
            .and_then(|root| objects.add_own_root(root).map_err(|error| error.to_string()));
        if let Err(error) = added {
            left_out("root", &error);
        }
    }
    Ok(objects)
}

fn of_key<T>(read: Result<T, RegistryError>, key: Id) -> Result<Option<T>, RegistryError> {
    RegistryError::skip_damaged(read, format_args!("something of Key {key}"))
}

fn add_revocation(objects: &mut SignedObjects, revocation: Revocation) {
    let leaves = vec![(Target::All, Effect::Deny)];
    if let Err(error) = objects.add_statement(revocation.cose, revocation.salt_seed, leaves) {
        left_out("revocation", &error);
    }
}

fn add_removals(registry: &Registry, family: Id, objects: &mut SignedObjects) -> Result<(), Error> {
    for removal in registry.lock_removals(family)? {
        if let Err(error) = objects.add_removal(removal.cose) {
            left_out("removal of a Lock", &error);
        }
    }
    Ok(())
}

/// Logs an object that does not verify. The others are exchanged all the same.
fn left_out(what: &str, error: &dyn std::fmt::Display) {
    tracing::warn!(what, %error, "a signed object is left out of what other stations get");
}

fn add_certificates(objects: &mut SignedObjects, ders: Vec<Vec<u8>>) {
    let parsed: Vec<_> = ders.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
    let unreadable = ders.len() - parsed.len();
    let number = unreadable + objects.add_certificates(parsed);
    if number > 0 {
        left_out("certificate", &format!("{number} do not verify"));
    }
}

fn file_error(error: FileError) -> Error {
    match error {
        FileError::TooLarge => Error::LimitExceeded(error.to_string()),
        FileError::Root(error) => damaged(error),
        FileError::Malformed | FileError::NewerVersion | FileError::OtherFamily => {
            Error::InvalidArgument(error.to_string())
        }
    }
}
