//! `lock …`: adds, renames and removes Locks, and carries grants and confirmations by hand.

use std::{fs, io::Write, path::Path};

use keywright_client::{Client, client::LockFilter};

use crate::{
    args::{Issuer, LockCommand},
    failure::Failure,
    key::{report_after_signing, signer},
    lookup,
    output::{Changed, Output},
    terminal,
};

/// Longest PKCS#10 request, in bytes.
const LARGEST_CSR: u64 = 64 * 1024;
/// Longest confirmation, in bytes.
const LARGEST_CONFIRMATION: u64 = 1024;

/// Runs the command.
pub async fn run(
    client: &Client,
    command: LockCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        LockCommand::Add { name, csr, out, issuer } => {
            add(client, &name, &csr, &out, &issuer, output).await
        }
        LockCommand::Grant { key, lock, out } => {
            let keys = lookup::keys(client).await?;
            let key = lookup::find_one(&key, &keys)?;
            let locks = client.list_locks(&LockFilter::default()).await?;
            let lock = lookup::find_one(&lock, &locks)?;
            let grant = client.get_grant(&key.id, &lock.id).await?;
            let mut file = fs::File::create_new(&out).map_err(file_error(&out))?;
            file.write_all(&grant).map_err(file_error(&out))?;
            output.show(&Changed { id: &lock.id, name: &lock.name }, || {
                format!("the grant for Lock {} is in {}", lock.name, out.display())
            })
        }
        LockCommand::Confirm { files } => {
            for path in &files {
                let confirmation = read_small(path, LARGEST_CONFIRMATION)?;
                client.apply_confirmation(&confirmation).await?;
            }
            output.show(&serde_json::json!({ "confirmed": files.len() }), || {
                format!("{} confirmations imported", files.len())
            })
        }
        LockCommand::Remove { id, yes, issuer } => {
            let locks = client.list_locks(&LockFilter::default()).await?;
            let lock = lookup::find_one(&id, &locks)?;
            let question = format!(
                "Remove Lock {} ({})? This cannot be undone, and the Lock keeps admitting the Keys that it admits now.",
                lock.name, lock.id
            );
            terminal::confirm_irreversible(yes, &question, "nothing was removed, as you answered")
                .await?;
            let signer = signer(client, &issuer).await?;
            client.remove_lock(&signer.key.path, &lock.id, &signer.pin).await?;
            report_after_signing(client, &signer.key.path).await;
            output.show(&Changed { id: &lock.id, name: &lock.name }, || {
                format!("Lock {} is removed; it still admits the Keys that it admitted", lock.name)
            })
        }
        LockCommand::Rename { id, name } => {
            let locks = client.list_locks(&LockFilter::default()).await?;
            let lock = lookup::find_one(&id, &locks)?;
            client.rename_lock(&lock.id, &name).await?;
            output.show(&Changed { id: &lock.id, name: &name }, || {
                format!("{} is now called {name}", lock.name)
            })
        }
    }
}

async fn add(
    client: &Client,
    name: &str,
    csr: &Path,
    out: &Path,
    issuer: &Issuer,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = read_csr(csr)?;
    let is_new = !out.exists();
    // Opened before a Key signs, so that the certificate has a place to be written to.
    let mut file =
        fs::File::options().create(true).append(true).open(out).map_err(file_error(out))?;
    if file.metadata().map_err(file_error(out))?.len() > 0 {
        let text = "the file is not empty; choose another one";
        return Err(Failure::Usage(format!("{}: {text}", out.display())));
    }
    let (id, chain) = match sign(client, name, &request, issuer).await {
        Ok(signed) => signed,
        Err(failure) => {
            if is_new {
                // It is empty, and would be in the way of another try.
                let _ = fs::remove_file(out);
            }
            return Err(failure);
        }
    };
    file.write_all(chain.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        Failure::refused(format!(
            "the Lock is added, but its certificate could not be written to {}: {error}; \
             add it again to get its certificate again",
            out.display()
        ))
    })?;
    // A Lock that was added before keeps its name. If the lookup fails, the given name is shown.
    let filter = LockFilter { query: Some(id.clone()), ..LockFilter::default() };
    let locks = client.list_locks(&filter).await.unwrap_or_default();
    let known = locks.iter().find(|lock| lock.id == id);
    let name = known.map_or(name, |lock| &lock.name);
    output.show(&Changed { id: &id, name }, || {
        format!("Lock {name} is added, id {id}; its certificates are in {}", out.display())
    })
}

/// Makes a Key sign the Lock's certificate. Returns the Lock's id and its chain as PEM.
async fn sign(
    client: &Client,
    name: &str,
    request: &str,
    issuer: &Issuer,
) -> Result<(String, String), Failure> {
    let signer = signer(client, issuer).await?;
    let added = client.add_lock(&signer.key.path, name, request, &signer.pin).await?;
    report_after_signing(client, &signer.key.path).await;
    Ok(added)
}

/// Reads a file of at most `largest` bytes.
fn read_small(path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    let length = fs::metadata(path).map_err(file_error(path))?.len();
    if length > largest {
        return Err(Failure::Usage(format!("{}: {length} bytes are too many", path.display())));
    }
    fs::read(path).map_err(file_error(path))
}

fn read_csr(path: &Path) -> Result<String, Failure> {
    let bytes = read_small(path, LARGEST_CSR)?;
    let not_pem = |_| Failure::Usage(format!("{}: this is not a PEM file", path.display()));
    String::from_utf8(bytes).map_err(not_pem)
}

/// Converts a file's I/O error to wrong usage.
pub fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Usage(format!("{}: {error}", path.display()))
}
