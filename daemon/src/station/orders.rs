//! What a write is given: put together from what was reviewed and what is known.

use keywright_proto::{Certificate, Id, Kind};

use super::{Station, keys::Key, serializations::Serialization};
use crate::{
    clock,
    decision::Reason,
    error::Error,
    registry::records::{Intent, IntentCandidate, IntentIssuer, IntentMade, Scope},
    serialization::{
        order::{Order, Side},
        wizard::Who,
        write::issuer_is_done,
    },
};

impl Station {
    /// Everything that the write needs, from what was reviewed and what is known.
    pub(super) fn order(&mut self, number: u64) -> Result<Order, Error> {
        let job = self
            .serializations
            .get(&number)
            .ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        let (key, device) = self.present_key(&job.candidate)?;
        // Somebody used the token while the job waited for it.
        if key.claims.alien {
            return Err(Error::Pair(Reason::ForeignCredentials));
        }
        let pin = job.pins.candidate.clone().ok_or(Error::PinRequired(Who::Candidate))?;
        let candidate =
            Side { connector: device.connector.clone(), port: device.port.clone(), pin };
        let intent = match &job.intent {
            Some(intent) => intent.clone(),
            None => self.intent(number, job, key)?,
        };
        let issuer = match &job.issuer {
            Some(label) if !issuer_is_done(&intent) => {
                let (_, device) = self.present_key(label)?;
                let pin = job.pins.issuer.clone().ok_or(Error::PinRequired(Who::Issuer))?;
                Some(Side { connector: device.connector.clone(), port: device.port.clone(), pin })
            }
            _ => None,
        };
        let chain = self.issuer_chain(&intent)?;
        let family = intent.family;
        let access_key = intent.made.access_key.as_ref().or(intent.candidate.access_key.as_ref());
        let newest_version = match (access_key, family) {
            (Some(spki), Some(family)) => self.newest_version(Id::of_spki(spki), family)?,
            _ => None,
        };
        let membership = self.membership(key, &intent, &chain)?;
        let renews = match (&membership, key.id, family) {
            (None, Some(id), Some(family)) => {
                let known = self.registry.memberships(id)?.into_iter();
                let mut known = known.filter(|(of, _)| *of == family).map(|(_, own)| own);
                known.next().map(|own| (own.container, own.certificate))
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
                Some(guid) => self.registry.leftover(guid)?.is_some(),
                None => false,
            },
            new_pin: job.pins.candidate_new.clone(),
            recovery_code: job.new_puk.clone(),
            factory_puk: key.details.puk_is_factory,
            puk_tried: self.puk_tried(key)?,
            newest_version,
            asked_by: self.asked_by,
            certificate_years: self.config.certificate_years,
            crl_years: self.config.crl_years,
            intent,
        })
    }

    pub(super) fn intent(
        &self,
        number: u64,
        job: &Serialization,
        key: &Key,
    ) -> Result<Intent, Error> {
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        // Since the offer another job may have made something of one of them.
        for label in job.issuer.iter().chain([&job.candidate]) {
            self.is_free(label, Some(number))?;
        }
        if !self.kinds_for(job.issuer.as_ref(), &job.candidate)?.contains(&kind) {
            return Err(Error::InvalidArgument(format!(
                "a {kind} Key cannot be made of {} any more; start anew",
                key.called()
            )));
        }
        let issuer = match &job.issuer {
            None => None,
            Some(label) => {
                let issuer = self.key(label)?;
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
            Some(_) => Some(self.issuing_family(number)?),
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

    /// The issuer's CA certificates; it counts only under a root that is pinned here.
    fn issuer_chain(&self, intent: &Intent) -> Result<Vec<Certificate>, Error> {
        let (Some(by), Some(family)) = (&intent.issuer, intent.family) else {
            return Ok(Vec::new());
        };
        let own = Id::of_spki(&by.issuing_key);
        if !self.stands(family, own)? {
            return Err(Error::Orphaned(self.key(&by.label)?.called()));
        }
        if let Some(issuer) = self.registry.issuer(own)? {
            return issuer
                .chain
                .iter()
                .map(|der| Certificate::parse(der))
                .collect::<Result<_, _>>()
                .map_err(|_| Error::Unverified(family));
        }
        let own = self.key(&by.label)?.claims.issuing.clone().ok_or(Error::Unverified(family))?;
        match self.chain_of(&own, family)? {
            (chain, false) => Ok(chain),
            (_, true) => Err(Error::Unverified(family)),
        }
    }

    /// The access certificate that the candidate has of the issuer's family, if it is a real one.
    pub(super) fn membership(
        &self,
        key: &Key,
        intent: &Intent,
        chain: &[Certificate],
    ) -> Result<Option<Certificate>, Error> {
        let (Some(id), Some(family)) = (key.id, intent.family) else { return Ok(None) };
        if intent.candidate.access_key.is_none() {
            return Ok(None);
        }
        let known = self.registry.memberships(id)?.into_iter().find(|(of, _)| *of == family);
        if let Some((_, membership)) = known {
            // What a revoked issuer certified is certified anew.
            let stands = self.stands(family, membership.issuer)?;
            return Ok(Certificate::parse(&membership.certificate).ok().filter(|_| stands));
        }
        // Made at another station: its own certificate counts if this issuer signed it.
        let Some(access) = &key.claims.access else { return Ok(None) };
        let mut full = vec![access.clone()];
        full.extend_from_slice(chain);
        let root = chain.last().map(Certificate::der).unwrap_or_default();
        let proven = keywright_proto::verify_chain(&full, root, None);
        Ok((proven == Ok(family)).then(|| access.clone()))
    }
}

fn random_guid() -> Result<[u8; 16], Error> {
    crate::token::random_guid()
        .map_err(|_| Error::Unsupported("the system gives no random numbers".into()))
}
