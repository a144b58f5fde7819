//! IssueSoftKey: a Sub Key whose private key lives in software. It was made where it is used; only its
//! certification request comes here.

use keywright_proto::{Id, PublicKey, Role, profile, read_csr};

use super::{
    LockNames, Reply, Station, chains::chain_pem, issuing::Issuing, plugs::new_label,
    rights::NewStatement, rights::no_random, serializations::checked, view::Label,
};
use crate::{
    audit::AuditEvent,
    clock,
    error::Error,
    registry::{
        Batch,
        records::{self, Membership},
    },
    serialization::{random_serial, validity},
    token::Pin,
};

/// What its Model property says: that it is software is shown wherever it is.
pub(super) const MODEL: &str = "Soft Key";
/// It has no token, and so no container.
const NO_CONTAINER: u32 = 0;

impl Station {
    /// IssueSoftKey.
    pub fn issue_soft_key(
        &mut self,
        issuer: Label,
        name: String,
        csr_pem: String,
        locks: LockNames,
        pin: Pin,
        reply: Reply<(Id, String)>,
    ) {
        let prepared = self.prepare_soft_key(&issuer, &name, &csr_pem, &locks);
        let (issuing, key, new, papers) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return reply.answer(self, Err(error)),
        };
        let by = issuing.clone();
        self.sign("soft", issuer, &issuing, pin, papers, move |station, signed| {
            let result =
                signed.and_then(|signed| station.keep_soft_key(&by, &key, name, new, signed));
            reply.answer(station, result);
        });
    }

    fn prepare_soft_key(
        &self,
        issuer: &Label,
        name: &str,
        csr_pem: &str,
        locks: &LockNames,
    ) -> Result<(Issuing, PublicKey, NewStatement, Vec<keywright_proto::Unsigned>), Error> {
        checked(name)?;
        let key = read_csr(csr_pem).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let issuing = self.issuing(issuer)?;
        let (id, family) = (key.id(), issuing.family);
        if let Some(known) = self.registry.key(id)? {
            return Err(Error::InvalidArgument(format!(
                "the key in the request is that of Key \"{}\" already; change its rights, or make a new key",
                known.name
            )));
        }
        let entries = self.entries(family, locks)?;
        let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
        let serial = random_serial().map_err(|_| no_random())?;
        let validity = validity(clock::unix_seconds(), self.config.certificate_years);
        let certificate = profile::end_entity(&key, Role::Soft, own, &serial, validity)
            .map_err(|error| Error::Unsupported(error.to_string()))?;
        let words = self.moment().words(&self.registry, id, family)?;
        let new = self.new_statement(id, family, &words, Some(entries))?;
        let statement = self.paper_on(&issuing, &new, &key)?;
        Ok((issuing, key, new, vec![certificate, statement]))
    }

    fn keep_soft_key(
        &mut self,
        issuing: &Issuing,
        key: &PublicKey,
        name: String,
        new: NewStatement,
        signed: Vec<Vec<u8>>,
    ) -> Result<(Id, String), Error> {
        let Ok([certificate, statement]) = <[Vec<u8>; 2]>::try_from(signed) else {
            return Err(Error::JobLost);
        };
        let (id, family, role) = (key.id(), issuing.family, Role::Soft);
        let issuer = issuing.chain.first().map_or(family, |own| own.public_key().id());
        let mut batch = Batch::new();
        self.put_own_issuer(&mut batch, issuing)?;
        let record = records::Key {
            access_key: key.spki_der().to_vec(),
            label: new_label()?,
            name,
            family,
            role,
            issuing_key: None,
            guid: None,
            serial: String::new(),
            model: MODEL.into(),
            last_seen: clock::unix_seconds(),
            revoked: false,
            puk_tried: false,
        };
        batch.put_key(id, record.clone());
        let container = NO_CONTAINER;
        let membership = Membership { role, certificate: certificate.clone(), issuer, container };
        batch.put_membership(id, family, membership);
        let (locks, _) = new.effects();
        self.put_new(&mut batch, new, statement)?;
        let made = AuditEvent::KeyMade { family, key: id, kind: role, locks, serialization: None };
        self.log(&mut batch, &made);
        self.registry.commit(batch)?;
        self.recall(id, &record);
        let above = issuing.chain.iter().map(|ca| ca.der().to_vec());
        let chain: Vec<_> = [certificate].into_iter().chain(above).collect();
        Ok((id, chain_pem(&chain)?))
    }
}
