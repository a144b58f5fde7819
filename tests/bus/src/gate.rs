//! A Lock written by `docs/formats.md`: it verifies grants with its family's root alone, decides which
//! signers stand, and signs confirmations.

use std::collections::HashMap;

use keywright_proto::{
    Certificate, Confirmation, Effect, Facts, PublicKey, Unsigned, csr,
    pem::{self, Label},
    rights::{VersionedEffect, newest},
    tree::Hash,
    trust::REVOKE_DELAY,
    verify_grant,
};
use p256::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};

use crate::{
    Plugged, Station, certs,
    pins::{self, PIN},
};

/// A Lock in memory.
pub struct Gate {
    /// Its id.
    pub id: String,
    /// Its certificate chain, PEM.
    pub chain: String,
    key: SigningKey,
    public: PublicKey,
    root: Vec<u8>,
    facts: Facts,
    /// For each access key: the signers of its statements, and each statement's effect at this Lock.
    effects: HashMap<Hash, Vec<(Hash, VersionedEffect)>>,
    /// Its clock, in Unix seconds.
    pub now: u64,
}

impl Gate {
    /// Adds a new Lock with this issuer. Its key is derived from the number.
    pub async fn add(station: &Station, issuer: &Plugged, name: &str, number: u8) -> Self {
        let key = SigningKey::from_slice(&[number; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_sec1_point(point.as_bytes()).unwrap();
        let request = Self::request(number);
        let manager = station.client.manager().await;
        let added = manager.add_lock(&issuer.path, name, &request, pins::pipe(PIN)).await;
        let (id, chain) = added.unwrap();
        assert_eq!(id, certs::key_id(&chain));
        let root = pem::from_pem(Label::Certificate, &chain).unwrap().pop().unwrap();
        let facts = Facts::new(Certificate::parse(&root).unwrap().public_key());
        Self { id, chain, key, public, root, facts, effects: HashMap::new(), now: 1_790_000_000 }
    }

    /// The request of the Lock with this number, PEM.
    pub fn request(number: u8) -> String {
        let key = SigningKey::from_slice(&[number; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_sec1_point(point.as_bytes()).unwrap();
        csr::to_pem(&sign(&key, csr::request(&public).unwrap())).unwrap()
    }

    /// Applies a grant and returns the confirmation.
    ///
    /// Panics with the reason if the grant is refused.
    pub fn hear(&mut self, grant: &[u8]) -> Vec<u8> {
        let grant = verify_grant(grant, &self.root, &self.public.hash()).unwrap();
        self.facts.learn_chain(&grant.access_chain);
        self.facts.learn_statement(&grant.statement, self.now);
        let subject = grant.statement.subject.hash();
        let signer = grant.statement.signer().unwrap().hash();
        let said = VersionedEffect { version: grant.statement.version, effect: grant.effect };
        self.effects.entry(subject).or_default().push((signer, said));
        let in_effect = self.in_effect(&subject);
        self.confirm(&Confirmation {
            statement: grant.statement.digest,
            effect: in_effect.map_or(Effect::Deny, |said| said.effect),
            newest_version: in_effect.and_then(|said| said.version).unwrap_or_default(),
        })
    }

    /// The public key that verifies its confirmations.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs this confirmation, be it true or not.
    pub fn confirm(&self, said: &Confirmation) -> Vec<u8> {
        sign(&self.key, said.unsigned(&self.public).unwrap())
    }

    /// Fetches the Key's grant from the station and applies it; returns the confirmation.
    pub async fn fetch(&mut self, station: &Station, key: &str) -> Vec<u8> {
        let grant = station.client.manager().await.get_grant(key, &self.id).await.unwrap();
        self.hear(&grant)
    }

    /// Fetches and applies the Key's grant, and gives the confirmation to the station.
    pub async fn settle(&mut self, station: &Station, key: &str) {
        let confirmation = self.fetch(station, key).await;
        station.client.manager().await.apply_confirmation(&confirmation).await.unwrap();
    }

    /// Whether it admits a Key.
    pub fn admits(&self, key: &str) -> bool {
        let subject = self.effects.keys().find(|hash| key == hex(&hash[..16]));
        let in_effect = subject.and_then(|subject| self.in_effect(subject));
        in_effect.is_some_and(|said| said.effect == Effect::Allow)
    }

    fn in_effect(&self, subject: &Hash) -> Option<VersionedEffect> {
        let judgement = self.facts.judge(REVOKE_DELAY, self.now);
        let effects = self.effects.get(subject)?.iter();
        newest(effects.filter_map(|(signer, said)| judgement.weigh(signer, subject, *said)))
    }
}

fn sign(key: &SigningKey, unsigned: Unsigned) -> Vec<u8> {
    let signature: Signature = key.sign_prehash(&unsigned.digest()).unwrap();
    unsigned.assemble(signature.to_der().as_bytes()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
