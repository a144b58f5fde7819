//! An issuing key that a thief made below a stolen Backup, and whose own Key nobody knows: it is seen, reported and
//! revocable.

use keywright_proto::{
    Grant,
    pem::{self, to_pem},
    verify_grant,
};

use super::*;
use crate::{
    queries::{self, IssuerRow, Page},
    registry::Origin,
};

const PAGE: Page = Page { after: None, limit: 100 };

impl Bench {
    /// A CA below the Backup.
    fn hidden(&self) -> Ca {
        self.backup.backup(Key::new(3), 3)
    }

    fn with_hidden(&self) -> SignedObjects {
        let mut objects = self.objects();
        objects.add_certificate(self.hidden().certificate().clone()).unwrap();
        objects
    }

    fn issuers(&self, page: Page) -> (Vec<IssuerRow>, String) {
        let moment = self.families.moment();
        queries::issuers(&self.families.registry, self.family(), page, moment).unwrap()
    }

    fn issuer_row(&self, ca: &Ca) -> IssuerRow {
        let id = ca.key.public().id().to_string();
        self.issuers(PAGE).0.into_iter().find(|row| row.0 == id).unwrap()
    }

    /// Which issuing keys the log reports, and how they came.
    fn found(&self) -> Vec<(String, String)> {
        let log = self.families.registry.audit_page(0, 1_000).unwrap();
        let found = log.iter().filter(|event| event.event == "issuer-found");
        let field = |event: &keywright_proto::audit::LoggedEvent, name| {
            event.field(name).unwrap_or_default().to_owned()
        };
        found.map(|event| (field(event, "issuer"), field(event, "by"))).collect()
    }

    fn prepare_issuer_revocation(&self, ca: &Ca) -> Result<Prepared, Error> {
        let id = ca.key.public().id();
        self.families.prepare_revocation(&self.issuer(), &self.issuing(), id, "compromised")
    }
}

#[test]
fn hidden_issuer_is_listed_and_reported_once() {
    let mut bench = Bench::start();
    let (backup, hidden) = (bench.backup.clone(), bench.hidden());
    let (backups, hiddens) = (backup.key.public().id(), hidden.key.public().id());
    assert_eq!(bench.found(), [(backups.to_string(), "import".to_owned())]);
    let objects = bench.with_hidden();
    bench.import(&objects);
    bench.import(&objects);
    assert_eq!(bench.found()[1..], [(hiddens.to_string(), "import".to_owned())]);
    let (_, key, name, depth, by, standing, since, origin) = bench.issuer_row(&hidden);
    assert_eq!((&*key, &*name, depth, &*standing, &*origin), ("", "", 2, "believed", "import"));
    assert_eq!(by, [backups.to_string()]);
    assert!(since > 0);
    let (_, key, _, depth, by, ..) = bench.issuer_row(&backup);
    assert_eq!((key, depth), (id(BACKUP).to_string(), 1));
    assert_eq!(by, [bench.family().to_string()]);
    // Page by page.
    let (mut listed, mut page) = (Vec::new(), Page { after: None, limit: 1 });
    loop {
        let (rows, next) = bench.issuers(page);
        listed.extend(rows);
        match next.parse() {
            Ok(after) => page.after = Some(after),
            Err(_) => break,
        }
    }
    assert_eq!(listed, bench.issuers(PAGE).0);
    assert_eq!(listed.len(), 3);
}

#[test]
fn hidden_issuer_is_revoked_by_its_own_key_at_every_lock() {
    let mut bench = Bench::start();
    bench.add_lock(21);
    let hidden = bench.hidden();
    let issuer = hidden.key.public();
    let objects = bench.with_hidden();
    bench.import(&objects);
    let registry = bench.families.registry.clone();
    assert_eq!(queries::revoked_issuers(&registry, bench.family()).unwrap(), []);
    let plan = plan(bench.prepare_issuer_revocation(&hidden).unwrap());
    bench.keep(plan);
    assert_eq!(bench.issuer_row(&hidden).5, "revoked");
    assert_eq!(queries::revoked_issuers(&registry, bench.family()).unwrap(), [issuer.id()]);
    nothing(bench.prepare_issuer_revocation(&hidden).unwrap());
    // Each Lock gets it, until it confirms.
    let unaware = || queries::unaware_of_revoked_issuer(&registry, issuer.id(), PAGE).unwrap().0;
    assert_eq!(unaware(), [id(21)]);
    let moment = bench.families.moment();
    let grant = queries::grant(&registry, issuer.id(), id(21), moment).unwrap();
    let lock = Key::new(21).public().hash();
    let grant = Grant::decode(&grant).unwrap();
    let verified = verify_grant(&grant.encode(), bench.master.root(), &lock).unwrap();
    assert_eq!((verified.statement.subject, verified.effect), (issuer.clone(), Effect::Deny));
    assert_eq!(verified.statement.revokes.map(|revokes| revokes.issuing_key), Some(issuer.hash()));
    let said = keywright_proto::Confirmation {
        statement: verified.statement.digest,
        effect: Effect::Deny,
        newest_version: 0,
    };
    let confirmation = Key::new(21).sign(said.unsigned(&Key::new(21).public()).unwrap());
    let mut changes = Changes::default();
    let refused = bench.families.apply_confirmations(vec![confirmation], BY, &mut changes).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(unaware(), []);
}

#[test]
fn issuer_of_a_known_key_is_revoked_with_the_key() {
    let bench = Bench::start();
    let refused = bench.prepare_issuer_revocation(&bench.backup).err().unwrap();
    assert!(refused.to_string().contains(&id(BACKUP).to_string()), "{refused}");
    assert!(bench.prepare_issuer_revocation(&bench.master).is_err());
}

#[test]
fn issuer_that_a_lock_believes_is_imported_if_it_verifies() {
    let mut bench = Bench::start();
    let (registry, family) = (bench.families.registry.clone(), bench.family());
    let foreign = Ca::master(Key::new(9)).backup(Key::new(8), 8);
    let pem = |cas: &[&Ca]| {
        let ders = cas.iter().map(|ca| ca.certificate().der().to_vec());
        to_pem(pem::Label::Certificate, ders).unwrap()
    };
    let read = |text: &str| queries::believed_by_lock(&registry, family, text.as_bytes());
    assert!(read(&pem(&[&bench.backup])).unwrap().is_none(), "it is known");
    assert!(read(&pem(&[&foreign])).unwrap().is_none(), "it does not verify");
    assert!(matches!(read("of any text"), Err(Error::InvalidArgument(_))));
    let hidden = bench.hidden();
    let (objects, left_out) = read(&pem(&[&hidden, &bench.backup, &foreign])).unwrap().unwrap();
    assert_eq!(left_out, 1);
    let (by, mut changes) = (Asker(None), Changes::default());
    bench.families.import_from(Origin::Lock, family, &objects, &nobody, by, &mut changes).unwrap();
    let found = (hidden.key.public().id().to_string(), "lock".to_owned());
    assert_eq!(bench.found()[1..], [found]);
    assert_eq!(bench.issuer_row(&hidden).5, "believed");
    assert!(read(&pem(&[&hidden])).unwrap().is_none());
}

/// The records of Keys are damaged, not what was signed: every issuing key is listed, and the revocation comes to the Locks.
#[test]
fn damaged_record_of_a_key_hides_no_issuer_and_keeps_no_revocation_back() {
    let mut bench = Bench::start();
    bench.add_lock(21);
    let hidden = bench.hidden();
    let objects = bench.with_hidden();
    bench.import(&objects);
    let plan = plan(bench.prepare_issuer_revocation(&hidden).unwrap());
    bench.keep(plan);
    bench.keep(super::plan(bench.prepare_revocation(BACKUP, "lost").unwrap()));
    let (registry, family) = (bench.families.registry.clone(), bench.family());
    for number in [MASTER, BACKUP] {
        registry.damage(&[&[0x20], id(number).as_bytes().as_slice()].concat());
    }
    assert!(registry.key(id(BACKUP)).is_err());
    assert_eq!(bench.issuers(PAGE).0.len(), 3);
    let issuer = hidden.key.public().id();
    assert_eq!(queries::revoked_issuers(&registry, family).unwrap(), [issuer]);
    let moment = bench.families.moment();
    queries::grant(&registry, issuer, id(21), moment).unwrap();
}
