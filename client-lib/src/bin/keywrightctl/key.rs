//! `key …`: one Key.

use keywright_client::{Client, Key, Pin};
use serde::Serialize;

use crate::{
    args::{Issuer, KeyCommand},
    failure::Failure,
    listing, lookup,
    output::Output,
    secrets, terminal,
};

/// What `--json` prints of something that was done.
#[derive(Serialize)]
struct Done<'a> {
    id: &'a str,
    name: &'a str,
}

/// A Key and the PIN that it signs with.
pub struct Signer {
    /// The Key.
    pub key: Key,
    /// Its PIN.
    pub pin: Pin,
}

/// The Key that signs, and its PIN from the file or the terminal.
pub async fn signer(client: &Client, issuer: &Issuer) -> Result<Signer, Failure> {
    // A bad file is found before the daemon is asked for anything.
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

/// Says where a Key that signed and was written to stays authorized: some firmware does until it is unplugged. And why it
/// does not carry its family's card.
pub async fn report_after_signing(client: &Client, path: &str) {
    // What was asked for is done; where this cannot be looked up, the property still says it.
    let keys = lookup::keys(client).await.unwrap_or_default();
    let Some(key) = keys.iter().find(|key| key.path == path) else { return };
    if let Some(card) = &key.card {
        terminal::say(&format!(
            "{} does not carry its family's newest card ({}); other stations need a family export, or the link.",
            key.label(),
            card.text
        ));
    }
    if key.authorized {
        terminal::say(&format!(
            "Unplug {} now: the token stays authorized until then.",
            key.label()
        ));
    }
}

/// Runs one of the commands.
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
            output.show(&Done { id: &key.id, name: &name }, || {
                format!("{} is called {name} now", key.label())
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
            done(&key, "has its new PIN", output)
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
            done(&key, "has its new PIN", output)
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
    let question = format!("Revoke {} ({})? This is for good.", key.label(), key.id);
    terminal::confirm_irreversible(yes, &question, "not revoked, as you answered").await?;
    let signer = signer(client, issuer).await?;
    client.revoke_key(&signer.key.path, &key.id, reason, &signer.pin).await?;
    done(&key, "is revoked; its rights end as the Locks hear of it", output)
}

/// A Key that need not be plugged in, but has an id.
async fn any_key(client: &Client, wanted: &str) -> Result<Key, Failure> {
    let keys = lookup::keys(client).await?;
    Ok(lookup::find_one(wanted, &keys)?.clone())
}

async fn new_pin(key: &Key, file: Option<&std::path::Path>) -> Result<Pin, Failure> {
    secrets::file_or_ask_new(file, &format!("The new PIN for {}: ", key.label())).await
}

fn done(key: &Key, what: &str, output: &mut Output) -> Result<(), Failure> {
    output.show(&Done { id: &key.id, name: &key.name }, || format!("{} {what}", key.label()))
}

/// What the client takes.
pub fn as_strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
