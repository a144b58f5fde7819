//! `family …`: shows, prints, exports and imports what a family has signed; revokes an issuing key without a Key.

use std::{collections::BTreeSet, fs, path::Path};

use keywright_client::{Client, ErrorName, IssuerRow, WaitingRow};
use serde::Serialize;

use crate::{
    args::{FamilyCommand, Issuer},
    failure::Failure,
    key::signer,
    lock::file_error,
    lookup,
    lookup::short,
    output::Output,
    table::Table,
    terminal,
    times::local,
};

/// Output of `family bundle --json`.
#[derive(Serialize)]
struct Bundle<'a> {
    roots_pem: &'a str,
    crls_pem: &'a str,
}

/// Output of `family show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    family: &'a str,
    issuers: &'a [IssuerRow],
    waiting: &'a [WaitingRow],
}

/// Runs the command.
pub async fn run(
    client: &Client,
    command: FamilyCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        FamilyCommand::Show { id } => show(client, id.as_deref(), output).await,
        FamilyCommand::RevokeIssuer { id, reason, yes, issuer } => {
            revoke_issuer(client, &id, &reason, yes, &issuer, output).await
        }
        FamilyCommand::Bundle { id, roots, crls } => {
            let family = family(client, id.as_deref()).await?;
            let (roots_pem, crls_pem) = client.family_bundle(&family).await?;
            if let (Some(roots), Some(crls)) = (&roots, &crls) {
                fs::write(roots, &roots_pem).map_err(file_error(roots))?;
                fs::write(crls, &crls_pem).map_err(file_error(crls))?;
            }
            let bundle = Bundle { roots_pem: &roots_pem, crls_pem: &crls_pem };
            output.show(&bundle, || match (&roots, &crls) {
                (Some(roots), Some(crls)) => {
                    format!("the roots are in {}, the CRLs in {}", roots.display(), crls.display())
                }
                _ => format!("{roots_pem}{crls_pem}"),
            })
        }
        FamilyCommand::Export { file, family: id } => {
            let family = family(client, id.as_deref()).await?;
            export(client, &family, &file).await?;
            output.show(&serde_json::json!({ "family": family }), || {
                format!("family {family} is exported to {}", file.display())
            })
        }
        FamilyCommand::Import { file } => {
            let input = fs::File::open(&file).map_err(file_error(&file))?;
            let merged = client.import_family(&input).await?;
            output.show(&serde_json::json!({ "merged": merged }), || {
                format!("{merged} new objects imported")
            })
        }
    }
}

async fn show(client: &Client, id: Option<&str>, output: &mut Output) -> Result<(), Failure> {
    let family = family(client, id).await?;
    let issuers = client.list_issuers(&family).await?;
    let waiting = client.list_waiting(&family).await?;
    let keys = lookup::keys(client).await?;
    output.show(&Shown { family: &family, issuers: &issuers, waiting: &waiting }, || {
        let shown = issuers_table(&issuers);
        if waiting.is_empty() {
            return format!("{shown}\nNo signatures are pending in family {family}.");
        }
        let mut table = Table::new(["PENDING", "FOR", "ID", "SIGNED BY"]);
        for row in &waiting {
            let what = match row.what.as_str() {
                "crl-entry" => "CRL entry",
                "certificate" => "new certificate",
                "ca-certificate" => "new CA certificate",
                "statement" => "re-issued rights",
                other => other,
            };
            let signer = keys.iter().find(|key| key.id == row.signer);
            let signer = match (signer, row.signer.as_str()) {
                (Some(key), _) => key.label(),
                (None, "") => "any Master or Backup Key".into(),
                (None, id) => short(id),
            };
            let name =
                if row.id.is_empty() { "a cancelled job".to_owned() } else { row.name.clone() };
            table.row([what.into(), name, short(&row.id), signer]);
        }
        format!("{shown}\n{table}")
    })
}

/// Formats who can sign for a family.
fn issuers_table(issuers: &[IssuerRow]) -> String {
    let mut table =
        Table::new(["ISSUING KEY", "OF", "STANDING", "DEPTH", "CERTIFIED BY", "SINCE", "CAME BY"]);
    for row in issuers {
        let key = if row.key_id.is_empty() { "an unknown Key" } else { &row.key_name };
        let depth = if row.depth < 0 { String::new() } else { row.depth.to_string() };
        let by: Vec<_> = row.certified_by.iter().map(|id| short(id)).collect();
        let since = if row.since == 0 { String::new() } else { local(row.since) };
        table.row([
            short(&row.id),
            key.into(),
            row.standing.clone(),
            depth,
            by.join(" "),
            since,
            row.origin.clone(),
        ]);
    }
    let unknown = issuers.iter().any(|row| row.key_id.is_empty() && row.standing == "believed");
    let advice = "If nobody made the unknown Key, revoke it: keywrightctl family revoke-issuer\n";
    format!("{table}{}", if unknown { advice } else { "" })
}

async fn revoke_issuer(
    client: &Client,
    id: &str,
    reason: &str,
    yes: bool,
    issuer: &Issuer,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for family in families(client).await? {
        let issuers = client.list_issuers(&family).await?;
        found.extend(issuers.into_iter().filter(|row| id.len() >= 4 && row.id.starts_with(id)));
    }
    found.dedup_by(|one, other| one.id == other.id);
    let row = match found.as_slice() {
        [row] => row,
        [] => {
            return Err(Failure::named(
                ErrorName::NotFound,
                "there is no such issuing key; `keywrightctl family show` lists them",
            ));
        }
        _ => return Err(Failure::refused("several issuing keys match; give more digits")),
    };
    if !row.key_id.is_empty() {
        return Err(Failure::named(
            ErrorName::InvalidArgument,
            format!("it is the issuing key of {}; use `keywrightctl key revoke`", row.key_name),
        ));
    }
    let question = format!("Revoke the issuing key {}? This cannot be undone.", row.id);
    terminal::confirm_irreversible(yes, &question, "nothing was revoked, as you answered").await?;
    let signer = signer(client, issuer).await?;
    client.revoke_key(&signer.key.path, &row.id, reason, &signer.pin).await?;
    output.show(&serde_json::json!({ "id": row.id }), || {
        format!(
            "{} is revoked; each Lock denies what it signed as soon as the Lock receives the revocation",
            row.id
        )
    })
}

async fn families(client: &Client) -> Result<BTreeSet<String>, Failure> {
    let keys = lookup::keys(client).await?;
    Ok(keys.iter().flat_map(|key| &key.memberships).map(|m| m.family.clone()).collect())
}

async fn export(client: &Client, family: &str, file: &Path) -> Result<(), Failure> {
    let out = fs::File::create_new(file).map_err(file_error(file))?;
    let result = client.export_family(family, &out).await;
    if result.is_err() {
        // Best effort: an incomplete export is of no use.
        let _ = fs::remove_file(file);
    }
    Ok(result?)
}

/// Finds a family: by its id, at least 4 leading digits of its id, or one of its Keys; default: the only one.
pub async fn family(client: &Client, wanted: Option<&str>) -> Result<String, Failure> {
    let keys = lookup::keys(client).await?;
    let of = |key: &keywright_client::Key| {
        key.memberships.iter().map(|m| m.family.clone()).collect::<Vec<_>>()
    };
    let families: BTreeSet<String> = match wanted {
        None => keys.iter().flat_map(of).collect(),
        Some(wanted) => {
            let begins = |family: &String| wanted.len() >= 4 && family.starts_with(wanted);
            let direct: BTreeSet<String> = keys.iter().flat_map(of).filter(begins).collect();
            if direct.is_empty() {
                of(lookup::find_one(wanted, &keys)?).into_iter().collect()
            } else {
                direct
            }
        }
    };
    let mut families: Vec<String> = families.into_iter().collect();
    match (families.pop(), families.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Failure::named(
            ErrorName::NotFound,
            "no family is known here; make a Master Key with `keywrightctl wizard`",
        )),
        (Some(last), false) => {
            families.push(last);
            let text = "several families match; give more digits of the id:";
            Err(Failure::refused(format!("{text}\n  {}", families.join("\n  "))))
        }
    }
}
