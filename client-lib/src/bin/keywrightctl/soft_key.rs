//! `soft-key create`: makes a Sub Key whose private key is in a PKCS#12 file.
//!
//! The key pair is generated here, on the machine where it is used; the daemon receives only its certification request.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use keywright_client::{Client, Pin};
use keywright_proto::{
    PublicKey, csr,
    pem::{self, Label},
};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use p256::{
    SecretKey,
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePrivateKey,
};
use zeroize::Zeroizing;

use crate::{
    args::SoftKeyCommand,
    failure::Failure,
    key::signer,
    lock::file_error,
    lookup,
    output::{Changed, Output},
    secrets,
};

/// Shortest password for a file with a private key, in bytes.
const MIN_PASSWORD_LEN: usize = 8;

/// Runs the command.
pub async fn run(
    client: &Client,
    command: SoftKeyCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let SoftKeyCommand::Create { name, locks, out, password_file, issuer } = command;
    let locks = lookup::lock_ids(client, &locks).await?;
    let password = secrets::file_or_ask_new(
        password_file.as_deref(),
        &format!("A password for {}: ", out.display()),
        "--password-file",
    )
    .await?;
    let password = password_text(&password)?;
    let key = new_key()?;
    let request = request(&key)?;
    let signer = signer(client, &issuer).await?;
    // Created before a Key signs, so that the certificate has a place to be written to.
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&out)
        .map_err(file_error(&out))?;
    let locks: Vec<&str> = locks.iter().map(String::as_str).collect();
    let made = client.issue_soft_key(&signer.key.path, &name, &request, &locks, &signer.pin).await;
    let (id, chain) = match made {
        Ok(made) => made,
        Err(error) => {
            // It is empty.
            let _ = fs::remove_file(&out);
            return Err(error.into());
        }
    };
    let written = pkcs12(&name, &key, &chain, password).and_then(|bytes| {
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(write_failed(&out))
    });
    if let Err(failure) = written {
        let _ = fs::remove_file(&out);
        return Err(failure);
    }
    output.show(&Changed { id: &id, name: &name }, || {
        format!("Soft Key {name} is made, id {id}; it is in {}", out.display())
    })
}

fn write_failed(out: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| {
        Failure::refused(format!(
            "the Soft Key is made, but could not be written to {}: {error}; revoke it and make another",
            out.display()
        ))
    }
}

fn password_text(password: &Pin) -> Result<&str, Failure> {
    let text = std::str::from_utf8(password.as_bytes()).ok();
    text.filter(|text| text.len() >= MIN_PASSWORD_LEN).ok_or_else(|| {
        Failure::Usage(format!(
            "the password is too short; use at least {MIN_PASSWORD_LEN} characters of text"
        ))
    })
}

fn make_failed(error: impl std::fmt::Display) -> Failure {
    Failure::refused(format!("cannot make the Soft Key: {error}"))
}

fn new_key() -> Result<SecretKey, Failure> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(make_failed)?;
        // Fails once in 2^32 times.
        if let Ok(key) = SecretKey::from_slice(&*bytes) {
            return Ok(key);
        }
    }
}

fn request(key: &SecretKey) -> Result<String, Failure> {
    let signing = SigningKey::from(key.clone());
    let point = signing.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_sec1_point(point.as_bytes()).map_err(make_failed)?;
    let unsigned = csr::request(&public).map_err(make_failed)?;
    let signature: Signature = signing.sign_prehash(&unsigned.digest()).map_err(make_failed)?;
    let signed = unsigned.assemble(signature.to_der().as_bytes()).map_err(make_failed)?;
    csr::to_pem(&signed).map_err(make_failed)
}

/// Encodes the PKCS#12 file with AES-256 and SHA-256, which openssl 1.1 and later, browsers and OpenVPN read.
fn pkcs12(
    name: &str,
    key: &SecretKey,
    chain: &str,
    password: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let ders = pem::from_pem(Label::Certificate, chain).map_err(make_failed)?;
    let certificates = ders.iter().map(|der| Certificate::from_der(der));
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(make_failed)?;
    let der = key.to_pkcs8_der().map_err(make_failed)?;
    let private = PrivateKey::from_der(der.as_bytes()).map_err(make_failed)?;
    let chain = PrivateKeyChain::new("1", private, certificates);
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(password).write().map(Zeroizing::new).map_err(make_failed)
}
