//! Writes the lists that the host enforces: for sshd, for TLS servers, and for other programs. A list is replaced as
//! a whole, only if it differs, and only when there is room for all of them.

use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64Unpadded, Encoding};
use keywright_proto::{Id, PublicKey, Standing, tree::Hash};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    files::{self, Readers},
    gate::Gate,
    key::{Fingerprints, Key},
};

/// The directory of the lists in the state directory; everybody on the machine may read it.
pub const DIRECTORY: &str = "lists";
/// The list for sshd: a line for each Key with its SSH fingerprint, SSH key and id.
pub const SSH_KEYS: &str = "ssh_keys";
/// The longest list that is read, in bytes.
pub const MAX_LIST: usize = 512 * 1024 * 1024;
const CURVE: &[u8] = b"nistp256";
const ALGORITHM: &str = "ecdsa-sha2-nistp256";

/// The path of the lists.
pub fn directory(state: &Path) -> PathBuf {
    state.join(DIRECTORY)
}

/// Writes every list that differs from the one on the disk, or all of them with `rewrite_all`; returns whether it
/// wrote any.
///
/// # Errors
/// If the disk is full, every old list stays. After another error a new list may be visible without being on the
/// disk: call again with `rewrite_all`.
pub fn write(gate: &Gate, state: &Path, now: u64, rewrite_all: bool) -> Result<bool, Error> {
    let directory = directory(state);
    files::create_directory(&directory, Readers::Everybody).map_err(Error::file(&directory))?;
    let mut keys: Vec<_> = gate.admitted(now).collect();
    keys.sort_by_key(|key| key.subject().id());
    let mut prepared = Vec::new();
    for (name, text) in [
        (SSH_KEYS, ssh_keys(&keys)),
        ("nginx.map", nginx_map(&keys)),
        ("fingerprints.sha256", fingerprints(&keys, |key| hex::encode(key.sha256))),
        ("fingerprints.sha1", fingerprints(&keys, |key| hex::encode(key.sha1))),
        ("ca.pem", gate.authorities()),
        ("keys.json", keys_json(gate, &keys)),
        ("issuers.json", issuers_json(gate)),
    ] {
        let path = directory.join(name);
        if rewrite_all || files::read(&path, MAX_LIST).map_or(true, |old| old != text.as_bytes()) {
            let new = files::prepare(&path, text.as_bytes(), Readers::Everybody);
            prepared.push(new.map_err(Error::file(&path))?);
        }
    }
    let changed = !prepared.is_empty();
    let put = prepared.into_iter().try_for_each(files::Prepared::commit);
    put.and_then(|()| if changed { files::sync_directory(&directory) } else { Ok(()) })
        .map_err(Error::file(&directory))?;
    Ok(changed)
}

/// The public key in SSH's format (RFC 5656, 3.1): algorithm, curve, point.
fn ssh_blob(key: &PublicKey) -> Vec<u8> {
    // A SubjectPublicKeyInfo of 91 bytes ends with the uncompressed point of 65.
    let point = &key.spki_der()[26..];
    let mut blob = Vec::new();
    for part in [ALGORITHM.as_bytes(), CURVE, point] {
        blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend_from_slice(part);
    }
    blob
}

/// The fingerprint in the format of `ssh-keygen -l`: `SHA256:` and base64 without padding.
fn ssh_fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(ssh_blob(key))))
}

fn ssh_keys(keys: &[&Key]) -> String {
    let mut lines: Vec<_> = keys
        .iter()
        .map(|key| {
            let subject = key.subject();
            let blob = Base64::encode_string(&ssh_blob(subject));
            format!("{} {ALGORITHM} {blob} {}\n", ssh_fingerprint(subject), subject.id())
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// For nginx's `map $ssl_client_fingerprint $keywright_key { include …; }`: the Key's id, or an empty string.
fn nginx_map(keys: &[&Key]) -> String {
    let mut text = "default \"\";\n".to_owned();
    for key in keys {
        for certificate in key.certificates() {
            text += &format!("{} {};\n", hex::encode(certificate.sha1), key.subject().id());
        }
    }
    text
}

fn fingerprints(keys: &[&Key], show: impl Fn(&Fingerprints) -> String) -> String {
    let all = keys.iter().flat_map(|key| key.certificates());
    let mut lines: Vec<_> = all.map(|certificate| show(certificate) + "\n").collect();
    lines.sort_unstable();
    lines.concat()
}

fn keys_json(gate: &Gate, keys: &[&Key]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            let certificates = key.certificates().iter().map(|c| hex::encode(c.sha256));
            json!({
                "id": key.subject().id().to_string(),
                "role": key.role().map(|role| role.as_str()),
                "spki_sha256": hex::encode(key.subject().hash()),
                "ssh_fingerprint": ssh_fingerprint(key.subject()),
                "certificates_sha256": certificates.collect::<Vec<_>>(),
            })
        })
        .collect();
    let all = json!({
        "lock": gate.identity().public().id().to_string(),
        "family": gate.membership().root().family().to_string(),
        "keys": keys,
    });
    format!("{all:#}\n")
}

fn issuers_json(gate: &Gate) -> String {
    let id = |hash: &Hash| Id::of_hash(hash).to_string();
    let issuers: Vec<_> = gate
        .issuers()
        .iter()
        .map(|known| {
            let standing = match known.standing {
                Standing::Stands => "stands",
                Standing::Deposed => "deposed",
                Standing::Orphaned => "orphaned",
                Standing::Revoked => "revoked",
            };
            json!({
                "id": id(&known.key),
                "spki_sha256": hex::encode(known.key),
                "standing": standing,
                "depth": known.depth,
                "keys": known.issuer.access_keys.iter().map(id).collect::<Vec<_>>(),
                "certified_by": known.issuer.certified_by.iter().map(id).collect::<Vec<_>>(),
            })
        })
        .collect();
    let all = json!({
        "lock": gate.identity().public().id().to_string(),
        "family": gate.membership().root().family().to_string(),
        "issuers": issuers,
    });
    format!("{all:#}\n")
}
