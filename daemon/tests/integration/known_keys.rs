//! A station shows those of its known Keys that it saw last.

use std::{collections::BTreeSet, sync::Arc, thread};

use keywright_proto::{
    Certificate, Id, PublicKey, Role, Unsigned,
    profile::{self, Validity},
};
use keywright_token::{
    Connector, Limits, Transport, TransportError,
    hotplug::{Device, DeviceId, PlugEvent},
};
use keywrightd::{
    config::Config,
    outbox::Output,
    registry::{
        Batch, Registry,
        records::{Key, Membership},
    },
    station::Station,
};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePublicKey,
};

/// How many absent Keys a station shows at most.
const SHOWN: usize = 1000;

/// A token that holds an access certificate and nothing else.
#[derive(Clone)]
struct Token(Vec<u8>);

impl Connector for Token {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transport for Token {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let access = command.windows(3).any(|tag| tag == [0x5F, 0xC1, 0x05]);
        Ok(match command[1] {
            0xA4 => vec![0x90, 0],
            0xCB if access => [&self.0[..], &[0x90, 0]].concat(),
            _ => vec![0x6A, 0x82],
        })
    }

    fn limits(&self) -> Limits {
        Limits { extended: true, longest_command: 3072 }
    }
}

fn public(key: &SigningKey) -> PublicKey {
    let der = key.verifying_key().to_public_key_der().unwrap();
    PublicKey::from_spki_der(der.as_bytes()).unwrap()
}

/// The access certificate of a Sub Key, and its key.
fn sub_key() -> (Vec<u8>, PublicKey) {
    let validity = Validity { not_before: 1_700_000_000, not_after: 2_000_000_000 };
    let [issuing, access] = [1, 2].map(|seed| SigningKey::from_slice(&[seed; 32]).unwrap());
    let sign = |unsigned: Unsigned| {
        let signature: DerSignature = issuing.sign_prehash(&unsigned.digest()).unwrap();
        unsigned.assemble(signature.as_bytes()).unwrap()
    };
    let ca = sign(profile::master_ca(&public(&issuing), &[1], validity).unwrap());
    let (ca, key) = (Certificate::parse(&ca).unwrap(), public(&access));
    (sign(profile::end_entity(&key, Role::Sub, &ca, &[2], validity).unwrap()), key)
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length as &[u8], value].concat()
}

fn put(batch: &mut Batch, id: Id, access_key: &[u8], label: String, last_seen: u64) {
    let family = Id::from_bytes([7; 16]);
    let key = Key {
        access_key: access_key.to_vec(),
        label,
        name: String::new(),
        family,
        guid: None,
        serial: String::new(),
        model: String::new(),
        last_seen,
        puk_tried: false,
    };
    let membership = Membership::new(Role::Sub, vec![1], b"issuer", 0);
    batch.put_key(id, key).put_membership(id, family, membership);
}

#[test]
fn at_most_a_thousand_absent_keys_are_shown() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::open(&state.path().join("registry")).unwrap();
    let (certificate, key) = sub_key();
    let mut batch = Batch::new();
    put(&mut batch, key.id(), key.spki_der(), "longest".into(), 1);
    for number in 0..SHOWN as u64 {
        let id = Id::from_bytes((u128::from(number)).to_be_bytes());
        put(&mut batch, id, &[], format!("n{number}"), 100 + number);
    }
    registry.commit(batch).unwrap();

    let (station, mut outputs) = Station::start(registry, Config::default()).unwrap();
    let mut shown = BTreeSet::new();
    let mut until = |last: &dyn Fn(&Output) -> bool| {
        while let Some(output) = outputs.blocking_recv() {
            match &output {
                Output::Key(label, _) => _ = shown.insert(label.clone()),
                Output::KeyGone(label) => _ = shown.remove(label),
                _ => {}
            }
            if last(&output) {
                break;
            }
        }
        shown.clone()
    };
    let start = until(&|output| matches!(output, Output::Ready));
    assert!(start.len() == SHOWN && !start.contains("longest"));

    let container = [tlv(0x70, &certificate), tlv(0x71, &[0]), tlv(0xFE, &[])].concat();
    let id = DeviceId("test#1".into());
    let device = Device {
        id: id.clone(),
        port: "test".into(),
        model: "Test".into(),
        usb_serial: None,
        connector: Arc::new(Token(tlv(0x53, &container))),
    };
    station.tell(|station| {
        station.hotplug(PlugEvent::Settled);
        station.hotplug(PlugEvent::Plugged(device));
    });
    let plugged =
        until(&|o| matches!(o, Output::Key(label, view) if label == "longest" && view.present));
    assert_eq!(plugged.len(), SHOWN + 1);

    station.tell(move |station| station.hotplug(PlugEvent::Unplugged(id)));
    // Its reply is sent after all earlier outputs.
    let asking = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(station.ask(|s, reply| s.selected_locks(0, None, 1, reply)))
    });
    let gone = until(&|output| matches!(output, Output::Reply(_)));
    assert!(gone.len() == SHOWN && gone.contains("longest") && !gone.contains("n0"));
    assert!(asking.join().unwrap().is_err());
}
