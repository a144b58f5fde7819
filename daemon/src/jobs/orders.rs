//! Makes the order for a write from the reviewed answers and the registry.

use keywright_base::clock;
use keywright_proto::{Certificate, Id, Kind};
use keywright_rules::decision::Reason;

use super::{Jobs, Serialization};
use crate::{
    error::Error,
    families::{Asker, Families},
    keys::{Key, Keys},
    registry::records::{Intent, IntentCandidate, IntentIssuer, IntentMade, Scope},
    serialization::{
        order::{Order, Side},
        wizard::Who,
        write::issuer_is_done,
    },
};

impl Jobs {
    /// The order for the write. `by` gave the last PIN.
    ///
    /// # Errors
    /// Something has changed since the review, or cannot be read.
    pub fn order(
        &self,
        number: u64,
        keys: &Keys,
        families: &Families,
        by: Asker,
    ) -> Result<Order, Error> {
        let job = self.job(number)?;
        let (key, device) = keys.present_key(&job.candidate)?;
        // Another program used the token while the job waited for it.
        if key.claims.unknown_profile {
            return Err(Error::Pair(Reason::ForeignCredentials));
        }
        let pin = job.pins.candidate.clone().ok_or(Error::PinRequired(Who::Candidate))?;
        let candidate =
            Side { connector: device.connector.clone(), port: device.port.clone(), pin };
        let intent = match &job.intent {
            Some(intent) => intent.clone(),
            None => self.intent(number, job, key, keys, families)?,
        };
        let issuer = match &job.issuer {
            Some(label) if !issuer_is_done(&intent) => {
                let (_, device) = keys.present_key(label)?;
                let pin = job.pins.issuer.clone().ok_or(Error::PinRequired(Who::Issuer))?;
                Some(Side { connector: device.connector.clone(), port: device.port.clone(), pin })
            }
            _ => None,
        };
        let chain = issuer_chain(&intent, keys, families)?;
        let family = intent.family;
        let access_key = intent.made.access_key.as_ref().or(intent.candidate.access_key.as_ref());
        let newest_version = match (access_key, family) {
            (Some(spki), Some(family)) => families.newest_version(Id::of_spki(spki), family)?,
            _ => None,
        };
        let membership = membership(key, &intent, &chain, families)?;
        let renews = match (&membership, key.id, family) {
            (None, Some(id), Some(family)) => {
                let known = families.membership(id, family)?;
                known.map(|own| (own.container, own.certificate))
            }
            _ => None,
        };
        Ok(Order {
            membership,
            renews,
            locks: job.locks.clone(),
            issuer,
            chain,
            candidate,
            guid: key.guid,
            leftover: match key.guid {
                Some(guid) => families.registry().leftover(guid)?.is_some(),
                None => false,
            },
            new_pin: job.pins.candidate_new.clone(),
            recovery_code: job.new_puk.clone(),
            factory_puk: key.details.puk_is_factory,
            puk_tried: families.puk_tried(key.id, key.guid)?,
            newest_version,
            asked_by: by.0,
            certificate_years: self.config.certificate_years,
            crl_years: self.config.crl_years,
            intent,
        })
    }

    fn intent(
        &self,
        number: u64,
        job: &Serialization,
        key: &Key,
        keys: &Keys,
        families: &Families,
    ) -> Result<Intent, Error> {
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        // Since the offer another job may have begun to write one of the Keys.
        for label in job.labels() {
            self.is_free(label, Some(number), keys)?;
        }
        if !self.kinds_for(job.issuer.as_ref(), &job.candidate, keys, families)?.contains(&kind) {
            return Err(Error::InvalidArgument(format!(
                "a {kind} Key cannot be made of {} any more; start anew",
                key.called()
            )));
        }
        let issuer = match &job.issuer {
            None => None,
            Some(label) => {
                let issuer = keys.key(label)?;
                let (Some(access), Some(issuing)) =
                    (issuer.claims.access_key(), issuer.claims.issuing_key())
                else {
                    return Err(Error::Pair(Reason::NotAnIssuer));
                };
                Some(IntentIssuer {
                    label: label.clone(),
                    access_key: access.spki_der().to_vec(),
                    issuing_key: issuing.spki_der().to_vec(),
                    port: issuer.port.clone(),
                })
            }
        };
        let family = match issuer {
            Some(_) => Some(self.issuing_family(number, keys)?),
            None => None,
        };
        let blank = key.claims.access_key().is_none() || key.id.is_none();
        let access_key = key.claims.access_key().filter(|_| !blank);
        Ok(Intent {
            number,
            kind,
            name: job.wizard.name().to_owned(),
            started: clock::unix_seconds(),
            family,
            issuer,
            candidate: IntentCandidate {
                label: job.candidate.clone(),
                access_key: access_key.map(|key| key.spki_der().to_vec()),
                guid_before: key.guid,
                guid: if blank { Some(random_guid()?) } else { None },
                usb_serial: key.usb_serial.clone(),
                port: key.port.clone(),
                model: key.model.clone(),
                serial: key.serial.clone(),
            },
            scope: match kind {
                Kind::Sub => Scope::Listed(u32::try_from(job.locks.len()).unwrap_or(u32::MAX)),
                Kind::Master | Kind::Backup => Scope::All,
            },
            made: IntentMade::default(),
        })
    }
}

/// The issuer's CA certificates, up to a root that is pinned here.
fn issuer_chain(
    intent: &Intent,
    keys: &Keys,
    families: &Families,
) -> Result<Vec<Certificate>, Error> {
    let (Some(by), Some(family)) = (&intent.issuer, intent.family) else {
        return Ok(Vec::new());
    };
    let issuer = keys.get(&by.label);
    let own = issuer.and_then(|key| key.claims.issuing.as_ref());
    families.issuer_chain(family, Id::of_spki(&by.issuing_key), own, &keys.called(&by.label))
}

/// The candidate's access certificate of the issuer's family, if it verifies.
fn membership(
    key: &Key,
    intent: &Intent,
    chain: &[Certificate],
    families: &Families,
) -> Result<Option<Certificate>, Error> {
    match (key.id, intent.family, &intent.candidate.access_key) {
        (Some(id), Some(family), Some(_)) => {
            families.access_certificate(id, family, &key.claims, chain)
        }
        _ => Ok(None),
    }
}

fn random_guid() -> Result<[u8; 16], Error> {
    keywright_token::random_guid()
        .map_err(|_| Error::Unsupported("the system gives no random numbers".into()))
}
