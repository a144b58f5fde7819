//! `key …`: shows or changes one Key.

use keywright_client::{Client, Key, Pin};

use crate::{
    args::{Issuer, KeyCommand},
    failure::Failure,
    listing, lookup,
    output::{Changed, Output},
    secrets, terminal,
};

/// A Key that signs, and its PIN.
pub struct Signer {
    /// The Key.
    pub key: Key,
    /// Its PIN.
    pub pin: Pin,
}

/// Finds the Key that signs, and gets its PIN from the file or the terminal.
pub async fn signer(client: &Client, issuer: &Issuer) -> Result<Signer, Failure> {
    // Read first, so that a bad file is found before the daemon is called.
    let pin = secrets::read_optional(issuer.issuer_pin_file.as_deref())?;
    let key = lookup::issuer(client, issuer.issuer.as_deref()).await?;
    let pin = match pin {
        Some(pin) => pin,
        None => {
            let question = format!("The PIN of {}: ", key.label());
            secrets::file_or_ask(None, &question, "--issuer-pin-file").await?
        }
    };
    Ok(Signer { key, pin })
}

/// Tells the person to unplug a Key that is still authorized after signing (some firmware stays so until it is
/// unplugged), and why the Key does not carry its family's newest card.
pub async fn report_after_signing(client: &Client, path: &str) {
    // The command has succeeded. If this lookup fails, the Key's properties still have it.
    let keys = lookup::keys(client).await.unwrap_or_default();
    let Some(key) = keys.iter().find(|key| key.path == path) else { return };
    if let Some(card) = &key.card {
        terminal::say(&format!(
            "{} does not carry its family's newest card ({}); give other stations a family export, or use the link.",
            key.label(),
            card.text
        ));
    }
    if key.authorized {
        terminal::say(&format!(
            "Unplug {} now: the token stays authorized until it is unplugged.",
            key.label()
        ));
    }
}

/// Runs the command.
pub async fn run(client: &Client, command: KeyCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        KeyCommand::Certificate { id, family } => {
            let key = lookup::key_object(client, &id).await?;
            let chain = client.certificate_chain(&key.path, family.as_deref()).await?;
            output.show(&serde_json::json!({ "chain_pem": chain }), || chain.clone())
        }
        KeyCommand::Rename { id, name } => {
            let key = any_key(client, &id).await?;
            client.rename_key(&key.id, &name).await?;
            output.show(&Changed { id: &key.id, name: &name }, || {
                format!("{} is now called {name}", key.label())
            })
        }
        KeyCommand::Revoke { id, reason, yes, issuer } => {
            revoke(client, &id, &reason, yes, &issuer, output).await
        }
        KeyCommand::Rights { id, add, remove, issuer } => {
            let key = any_key(client, &id).await?;
            if !(add.is_empty() && remove.is_empty()) {
                let add = lookup::lock_ids(client, &add).await?;
                let remove = lookup::lock_ids(client, &remove).await?;
                let signer = signer(client, &issuer).await?;
                let (add, remove) = (as_strs(&add), as_strs(&remove));
                client.change_rights(&signer.key.path, &key.id, &add, &remove, &signer.pin).await?;
            }
            listing::rights(client, &key, output).await
        }
        KeyCommand::Pin { id, old_pin_file, new_pin_file } => {
            let key = lookup::key_object(client, &id).await?;
            let question = format!("The PIN of {}: ", key.label());
            let old =
                secrets::file_or_ask(old_pin_file.as_deref(), &question, "--old-pin-file").await?;
            let new = new_pin(&key, new_pin_file.as_deref()).await?;
            client.change_pin(&key.path, &old, &new).await?;
            done(&key, "has a new PIN", output)
        }
        KeyCommand::Unblock { id, recovery_code_file, new_pin_file } => {
            let key = lookup::key_object(client, &id).await?;
            let question = format!("The recovery code of {}: ", key.label());
            let code = secrets::file_or_ask(
                recovery_code_file.as_deref(),
                &question,
                "--recovery-code-file",
            )
            .await?;
            let new = new_pin(&key, new_pin_file.as_deref()).await?;
            client.unblock_pin(&key.path, &code, &new).await?;
            done(&key, "has a new PIN", output)
        }
    }
}

async fn revoke(
    client: &Client,
    id: &str,
    reason: &str,
    yes: bool,
    issuer: &Issuer,
    output: &mut Output,
) -> Result<(), Failure> {
    let key = any_key(client, id).await?;
    let question = format!("Revoke {} ({})? This cannot be undone.", key.label(), key.id);
    terminal::confirm_irreversible(yes, &question, "nothing was revoked, as you answered").await?;
    let signer = signer(client, issuer).await?;
    client.revoke_key(&signer.key.path, &key.id, reason, &signer.pin).await?;
    done(
        &key,
        "is revoked; each Lock denies it as soon as the Lock receives the revocation",
        output,
    )
}

/// Finds a Key that has an id; it need not be plugged in.
async fn any_key(client: &Client, wanted: &str) -> Result<Key, Failure> {
    let keys = lookup::keys(client).await?;
    Ok(lookup::find_one(wanted, &keys)?.clone())
}

async fn new_pin(key: &Key, file: Option<&std::path::Path>) -> Result<Pin, Failure> {
    let question = format!("The new PIN for {}: ", key.label());
    secrets::file_or_ask_new(file, &question, "--new-pin-file").await
}

fn done(key: &Key, what: &str, output: &mut Output) -> Result<(), Failure> {
    output.show(&Changed { id: &key.id, name: &key.name }, || format!("{} {what}", key.label()))
}

/// Borrows the strings.
pub fn as_strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
