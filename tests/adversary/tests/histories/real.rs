//! Turns numbers into the objects that the product's code takes. Certificates are signed once and kept; statements count as
//! verified, so that a history costs no signature.

use std::{cell::RefCell, collections::BTreeMap, sync::LazyLock};

use keywright_adversary::{Heard, Said, Worth};
use keywright_proto::{
    Certificate, Effect, Facts, Judgement, PublicKey, RevokedIssuer, Role, Standing,
    VerifiedStatement,
    rights::{VersionedEffect, newest},
    tree::{Hash, TreeHead},
};
use sha2::{Digest, Sha256};

use crate::common::{Ca, Key};

type Made<K, V> = RefCell<BTreeMap<K, V>>;

thread_local! {
    static CAS: Made<Vec<u8>, Ca> = RefCell::default();
    static OWN: Made<(Vec<u8>, u8), Vec<Certificate>> = RefCell::default();
}

/// Public keys by number: to make one takes longer than to judge a history.
static PUBLIC: LazyLock<Vec<PublicKey>> =
    LazyLock::new(|| (0..=210).map(|number: u8| Key::new(number.max(1)).public()).collect());

fn issuing(ca: u8) -> Key {
    Key::new(ca + 1)
}

pub fn issuing_key(ca: u8) -> Hash {
    access_key(ca + 1)
}

/// The hash of an access key, or of an issuing key where the number is one's.
pub fn access_key(key: u8) -> Hash {
    PUBLIC[usize::from(key)].hash()
}

fn ca(chain: &[u8]) -> Ca {
    if let Some(known) = CAS.with_borrow(|known| known.get(chain).cloned()) {
        return known;
    }
    let made = match chain {
        [own, above @ ..] if !above.is_empty() => ca(above).backup(issuing(*own), *own + 1),
        _ => Ca::master(issuing(0)),
    };
    CAS.with_borrow_mut(|known| known.insert(chain.to_vec(), made.clone()));
    made
}

fn own(chain: &[u8], key: u8) -> Vec<Certificate> {
    let at = (chain.to_vec(), key);
    if let Some(known) = OWN.with_borrow(|known| known.get(&at).cloned()) {
        return known;
    }
    let role = if chain.len() == 1 { Role::Master } else { Role::Backup };
    let made = ca(chain).issue(&Key::new(key), role, &[key, 1]);
    OWN.with_borrow_mut(|known| known.insert(at, made.clone()));
    made
}

fn verified(said: &Said) -> VerifiedStatement {
    let what = format!("{:?}", (said.signer[0], said.key, said.version, said.allow, said.names));
    let revokes = said
        .names
        .map(|(ca, denials_until)| RevokedIssuer { issuing_key: issuing_key(ca), denials_until });
    VerifiedStatement {
        subject: PUBLIC[usize::from(said.key)].clone(),
        version: said.version,
        tree: TreeHead { size: 1, root: [0; 32] },
        revokes,
        digest: Sha256::digest(what).into(),
        chain: ca(&said.signer).chain,
    }
}

pub fn facts(heard: &[Heard]) -> Facts {
    let mut facts = Facts::new(&PUBLIC[1]);
    for heard in heard {
        match heard {
            Heard::Chain(chain) => facts.learn_chain(&ca(chain).chain),
            Heard::Own(chain, key) => facts.learn_chain(&own(chain, *key)),
            Heard::Said(said) => facts.learn_statement(&verified(said), said.seen),
        };
    }
    facts
}

pub fn admits(judgement: &Judgement, heard: &[Heard], key: u8) -> bool {
    let left = heard.iter().filter_map(|heard| {
        let Heard::Said(said) = heard else { return None };
        let effect = VersionedEffect { version: said.version, effect: Effect::of(said.allow) };
        (said.key == key).then_some(())?;
        judgement.weigh(&issuing_key(said.signer[0]), &access_key(key), effect)
    });
    newest(left).is_some_and(|newest| newest.effect == Effect::Allow)
}

pub const fn worth(standing: Standing) -> Worth {
    match standing {
        Standing::Stands => Worth::Stands,
        Standing::Deposed => Worth::Deposed,
        Standing::Orphaned => Worth::Orphaned,
        Standing::Revoked => Worth::Revoked,
    }
}
