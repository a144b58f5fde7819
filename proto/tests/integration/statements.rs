//! Statements, grants and confirmations: which verify, and which do not.

use crate::common::{Ca, Key, cose_signed_anew, ders, leaf};
use coset::{CoseSign1, HeaderBuilder, iana};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use keywright_proto::{
    Certificate, Confirmation, Effect, Grant, Leaf, RevokedIssuer, Role, Statement, Target, Tree,
    chain::ChainError,
    confirmation::ConfirmationError,
    denials_until,
    grant::GrantError,
    is_parked, next_version,
    statement::{MAX_STATEMENT, StatementError, VERSION_LIMIT},
    tree::{BadSize, NotIncluded, TreeHead, salt},
    verify_grant, verify_statement,
};
use sha2::Sha256;

const ALLOW_ALL: (Target, Effect) = (Target::All, Effect::Allow);

fn lock(number: u8) -> [u8; 32] {
    Key::new(number).public().hash()
}

fn leaves(locks: std::ops::Range<u8>) -> Vec<Leaf> {
    locks.map(|number| leaf(Target::Lock(lock(number)), Effect::Allow)).collect()
}

#[test]
fn every_lock_of_a_statement_verifies_its_own_leaf_only() {
    let subject = Key::new(30);
    for depth in 1..=4 {
        let ca = Ca::at_depth(depth);
        let leaves = leaves(100..107);
        for index in 0..7 {
            let grant = ca.grant(&subject, Some(5), &leaves, index, &[]).encode();
            let own = lock(100 + index as u8);
            let verified = verify_grant(&grant, ca.root(), &own).unwrap();
            assert_eq!(verified.effect, Effect::Allow);
            assert_eq!(verified.target, Target::Lock(own));
            assert_eq!(verified.statement.subject, subject.public());
            assert_eq!(verified.statement.version, Some(5));
            assert_eq!(verified.statement.signer(), Some(&ca.key.public()));
            assert_eq!(verified.statement.chain, ca.chain);
            assert_eq!(verify_grant(&grant, ca.root(), &lock(99)), Err(GrantError::OtherLock));
        }
    }
}

#[test]
fn leaf_outside_the_signed_tree_is_refused() {
    let ca = Ca::at_depth(1);
    let good = ca.grant(&Key::new(30), Some(5), &leaves(100..107), 3, &[]);
    let verify = |change: &dyn Fn(&mut Grant)| {
        let mut grant = good.clone();
        change(&mut grant);
        verify_grant(&grant.encode(), ca.root(), &lock(103)).map(drop)
    };
    assert_eq!(verify(&|_| ()), Ok(()));
    let not_included = Err(GrantError::NotIncluded(NotIncluded));
    assert_eq!(verify(&|grant| grant.leaf.effect = Effect::Deny), not_included);
    assert_eq!(verify(&|grant| grant.leaf.target = Target::All), not_included);
    assert_eq!(verify(&|grant| grant.leaf.salt[0] ^= 1), not_included);
    assert_eq!(verify(&|grant| grant.index = 2), not_included);
    assert_eq!(verify(&|grant| grant.index = u64::MAX), not_included);
    assert_eq!(verify(&|grant| grant.path[0][0] ^= 1), not_included);
    assert_eq!(verify(&|grant| grant.path.truncate(2)), not_included);
    assert_eq!(verify(&|grant| grant.path.push([0; 32])), not_included);
    assert_eq!(verify(&|grant| grant.path = vec![[0; 32]; 21]), Err(GrantError::Malformed));
    let chain = ders(&ca.chain);
    assert_eq!(verify(&|grant| grant.access_chain = chain.clone()), Err(GrantError::OtherKey));
}

#[test]
fn grant_carries_no_access_certificate_but_the_subjects_own() {
    let (ca, key) = (Ca::at_depth(2), Key::new(30));
    let verify = |effect, chain: &[Certificate]| {
        let leaves = [leaf(Target::Lock(lock(100)), effect)];
        let grant = ca.grant(&key, Some(5), &leaves, 0, chain).encode();
        verify_grant(&grant, ca.root(), &lock(100)).map(|grant| grant.access_chain)
    };
    for role in [Role::Sub, Role::Soft] {
        let own = ca.issue(&key, role, &[7]);
        assert_eq!(verify(Effect::Allow, &own), Ok(own.clone()));
        assert_eq!(verify(Effect::Deny, &own), Err(GrantError::Malformed));
    }
    let others = ca.issue(&Key::new(31), Role::Sub, &[7]);
    assert_eq!(verify(Effect::Allow, &others), Err(GrantError::OtherKey));
    let lock = ca.issue(&key, Role::Lock, &[7]);
    assert_eq!(verify(Effect::Allow, &lock), Err(GrantError::OtherKey));
    let foreign = Ca::master(Key::new(77)).issue(&key, Role::Sub, &[7]);
    assert!(matches!(verify(Effect::Allow, &foreign), Err(GrantError::Statement(_))));
}

/// However many certificates the access chain shares with the chain of the statement's signer: the others are verified.
#[test]
fn an_access_certificate_is_verified_whoever_signed_the_statement() {
    let key = Key::new(30);
    let leaves = [leaf(Target::Lock(lock(100)), Effect::Allow)];
    for (signer, issuer) in (1..=4).flat_map(|signer| (1..=4).map(move |issuer| (signer, issuer))) {
        let (ca, by) = (Ca::at_depth(signer), Ca::at_depth(issuer));
        let own = by.issue(&key, Role::Sub, &[7]);
        let good = ca.grant(&key, Some(5), &leaves, 0, &own);
        let verify = |grant: &Grant| verify_grant(&grant.encode(), ca.root(), &lock(100));
        assert_eq!(verify(&good).unwrap().access_chain, own, "{signer} {issuer}");
        for at in 0..own.len() {
            let mut forged = good.clone();
            // The end of its signature.
            *forged.access_chain[at].last_mut().unwrap() ^= 1;
            let is_root = at + 1 == own.len();
            let wrong = if is_root { ChainError::NotPinned } else { ChainError::BadSignature(at) };
            let expected = Err(GrantError::Statement(StatementError::Chain(wrong)));
            assert_eq!(verify(&forged), expected, "{signer} {issuer} {at}");
        }
        let mut rootless = good.clone();
        rootless.access_chain.pop();
        let expected = Err(GrantError::Statement(StatementError::Chain(ChainError::NotPinned)));
        assert_eq!(verify(&rootless), expected, "{signer} {issuer}");
    }
}

/// Everybody who might be allowed everywhere, and whether he is.
#[test]
fn only_a_master_or_backup_is_allowed_everywhere() {
    let master = Ca::at_depth(1);
    let backup = Ca::at_depth(2);
    let third = Ca::at_depth(3);
    let key = Key::new(30);
    let other = Ca::master(Key::new(77));
    let not_an_issuer = Err(GrantError::NotAnIssuer);
    let other_key = Err(GrantError::OtherKey);
    let wrong_chain = |error| Err(GrantError::Statement(StatementError::Chain(error)));
    for (what, signer, access_chain, expected) in [
        ("a Master", &master, master.issue(&key, Role::Master, &[2]), Ok(())),
        ("a Backup", &master, backup.issue(&key, Role::Backup, &[2]), Ok(())),
        ("a Backup of a Backup", &backup, third.issue(&key, Role::Backup, &[2]), Ok(())),
        ("a Sub Key", &master, master.issue(&key, Role::Sub, &[2]), not_an_issuer.clone()),
        (
            "a Sub Key of a Backup",
            &master,
            backup.issue(&key, Role::Sub, &[2]),
            not_an_issuer.clone(),
        ),
        ("a Lock", &master, master.issue(&key, Role::Lock, &[2]), other_key.clone()),
        (
            "a Backup without CA",
            &master,
            master.issue(&key, Role::Backup, &[2]),
            wrong_chain(ChainError::Role),
        ),
        (
            "a second Master",
            &master,
            backup.issue(&key, Role::Master, &[2]),
            wrong_chain(ChainError::Role),
        ),
        ("a CA", &master, backup.chain.clone(), other_key.clone()),
        ("nobody", &master, vec![], not_an_issuer),
        ("another Key", &master, backup.issue(&Key::new(31), Role::Backup, &[2]), other_key),
        (
            "a Master of another family",
            &master,
            other.issue(&key, Role::Master, &[2]),
            wrong_chain(ChainError::NotPinned),
        ),
    ] {
        let all = [leaf(ALLOW_ALL.0, ALLOW_ALL.1)];
        let grant = signer.grant(&key, Some(1), &all, 0, &access_chain).encode();
        let verified = verify_grant(&grant, master.root(), &lock(1)).map(|grant| {
            assert_eq!((grant.target, grant.effect), ALLOW_ALL);
        });
        assert_eq!(verified, expected, "{what}");
    }
}

#[test]
fn a_revocation_denies_everywhere_and_nothing_else() {
    let ca = Ca::at_depth(2);
    let key = Key::new(30);
    let deny_all = leaf(Target::All, Effect::Deny);
    let verify = |leaves: &[Leaf], version| {
        let grant = ca.grant(&key, version, leaves, 0, &[]).encode();
        verify_grant(&grant, ca.root(), &lock(100)).map(|grant| grant.effect)
    };
    assert_eq!(verify(&[deny_all], None), Ok(Effect::Deny));
    assert_eq!(verify(&[deny_all], Some(3)), Ok(Effect::Deny));
    let bad = Err(GrantError::BadRevocation);
    assert_eq!(verify(&leaves(100..101), None), bad);
    assert_eq!(verify(&[deny_all, deny_all], None), bad);
    assert_eq!(verify(&[leaf(ALLOW_ALL.0, ALLOW_ALL.1)], None), bad);
}

/// Only revocations name an issuing key.
#[test]
fn the_revocation_of_an_issuer_names_its_issuing_key() {
    let ca = Ca::at_depth(2);
    let (key, revokes) = (Key::new(30), RevokedIssuer { issuing_key: [7; 32], denials_until: 9 });
    let grant = ca.revocation(&key, Some(revokes));
    let verified = verify_grant(&grant.encode(), ca.root(), &lock(100)).unwrap();
    assert_eq!(verified.statement.revokes, Some(revokes));
    assert_eq!((verified.target, verified.effect), (Target::All, Effect::Deny));
    let subject = key.public();
    let tree = TreeHead { size: 1, root: [0; 32] };
    let make = |version, denials_until| {
        let revokes = Some(RevokedIssuer { denials_until, ..revokes });
        Statement { subject: &subject, version, tree, revokes }.unsigned(&ca.chain).map(drop)
    };
    assert_eq!(make(None, VERSION_LIMIT - 1), Ok(()));
    assert_eq!(make(None, VERSION_LIMIT), Err(StatementError::OutOfBounds));
    assert_eq!(make(Some(1), 9), Err(StatementError::OutOfBounds));
}

#[test]
fn denials_until_ignores_implausible_versions() {
    let (now, year) = (1_790_000_000_000, 366 * 86_400_000);
    for (known, until) in [
        (&[][..], now),
        (&[5, now - 1], now),
        (&[now + year, 7], now + year),
        (&[now + year + 1, now + 3], now + 3),
    ] {
        assert_eq!(denials_until(known.iter().copied(), now), until, "{known:?}");
        assert!(next_version(Some(until), now).is_ok());
    }
    assert!(next_version(Some(denials_until([], u64::MAX)), 0).is_ok());
}

#[test]
fn a_lock_with_a_clock_parks_versions_from_the_future() {
    let (now, day) = (1_790_000_000_000, 86_400_000);
    for (version, now, parked) in [
        (now + day, Some(now), false),
        (now + day + 1, Some(now), true),
        (VERSION_LIMIT - 1, None, false),
        (5, Some(now), false),
        (VERSION_LIMIT - 1, Some(u64::MAX), false),
    ] {
        assert_eq!(is_parked(version, now), parked, "{version} {now:?}");
    }
}

#[test]
fn only_a_ca_below_the_pinned_root_makes_statements() {
    let ca = Ca::at_depth(2);
    let subject = Key::new(30);
    let tree = Tree::new(leaves(100..103)).unwrap();
    let good = ca.statement(&subject, Some(1), &tree);
    assert!(verify_statement(&good, ca.root()).is_ok());
    let other = Ca::master(Key::new(77));
    let not_pinned = StatementError::Chain(ChainError::NotPinned);
    assert_eq!(verify_statement(&good, other.root()), Err(not_pinned));
    // A Sub Key has no CA certificate to put first.
    let sub_chain = ca.issue(&subject, Role::Sub, &[5]);
    let subject = subject.public();
    let statement =
        Statement { subject: &subject, version: Some(1), tree: tree.head(), revokes: None };
    assert_eq!(statement.unsigned(&sub_chain).unwrap_err(), StatementError::NotACa);
    assert_eq!(statement.unsigned(&[]).unwrap_err(), StatementError::Chain(ChainError::Empty));
    // A thief's signature does not get in.
    let unsigned = statement.unsigned(&ca.chain).unwrap();
    let signature = Key::new(66).sign_digest(&unsigned.digest());
    assert!(unsigned.assemble(&signature).is_err());
}

/// What a dishonest issuer could sign.
#[test]
fn signed_statement_in_a_wrong_format_is_refused() {
    let ca = Ca::at_depth(2);
    let tree = Tree::new(leaves(100..103)).unwrap();
    let good = ca.statement(&Key::new(30), Some(5), &tree);
    let verify = |change: &dyn Fn(&mut CoseSign1)| {
        verify_statement(&cose_signed_anew(&good, &ca.key, change), ca.root()).map(drop)
    };
    assert_eq!(verify(&|_| ()), Ok(()));
    let replace = |from: &[u8], to: &[u8]| {
        verify(&|message| {
            let payload = message.payload.as_mut().unwrap();
            let at = payload.windows(from.len()).position(|bytes| bytes == from).unwrap();
            payload.splice(at..at + from.len(), to.iter().copied());
        })
    };
    let malformed = Err(StatementError::Malformed);
    let family = Key::new(1).public().hash();
    assert_eq!(replace(&family, &[0; 32]), Err(StatementError::OtherFamily));
    // Version 5, then size 3, then the root.
    let end = [3, 5, 4, 3, 5, 0x58, 0x20];
    assert_eq!(replace(&end, &[3, 5, 4, 4, 5, 0x58, 0x20]), Ok(()));
    assert_eq!(replace(&end, &[3, 5, 4, 0, 5, 0x58, 0x20]), Err(StatementError::OutOfBounds));
    let limit = [3, 0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0, 4, 3, 5, 0x58, 0x20];
    assert_eq!(replace(&end, &limit), Err(StatementError::OutOfBounds));
    assert_eq!(replace(&end, &[3, 0x18, 5, 4, 3, 5, 0x58, 0x20]), malformed);
    assert_eq!(replace(&end, &[4, 3, 3, 5, 5, 0x58, 0x20]), malformed);
    assert_eq!(replace(&end, &[3, 5, 4, 3, 6, 0x58, 0x20]), malformed);
    assert_eq!(replace(&[0xa5], &[0xa4]), malformed);
    assert_eq!(verify(&|message| message.payload.as_mut().unwrap().push(0)), malformed);
    assert_eq!(verify(&|message| message.payload = None), malformed);
    let extra = HeaderBuilder::new().key_id(vec![1]).build();
    assert_eq!(verify(&|message| message.unprotected = extra.clone()), malformed);
    assert_eq!(verify(&|message| message.protected.header.key_id = vec![1]), malformed);
    let es384 = Some(coset::Algorithm::Assigned(iana::Algorithm::ES384));
    assert_eq!(verify(&|message| message.protected.header.alg = es384.clone()), malformed);
    assert_eq!(verify(&|message| message.protected.header.content_type = None), malformed);
    let empty = StatementError::Chain(ChainError::Empty);
    assert_eq!(verify(&|message| message.protected.header.rest.clear()), Err(empty));
    // The chain of an access key, which signs for itself.
    let sub = Key::new(31);
    let sub_chain = ders(&ca.issue(&sub, Role::Sub, &[5]));
    let by_sub = cose_signed_anew(&good, &sub, |message| {
        let chain = sub_chain.iter().cloned().map(coset::cbor::Value::Bytes).collect();
        message.protected.header.rest[0].1 = coset::cbor::Value::Array(chain);
    });
    assert_eq!(verify_statement(&by_sub, ca.root()), Err(StatementError::NotACa));
    let stolen_chain = cose_signed_anew(&good, &sub, |_| ());
    assert_eq!(verify_statement(&stolen_chain, ca.root()), Err(StatementError::BadSignature));
}

#[test]
fn statements_keep_their_bounds() {
    let ca = Ca::at_depth(1);
    let subject = Key::new(30).public();
    let make = |version, size| {
        let tree = TreeHead { size, root: [0; 32] };
        Statement { subject: &subject, version, tree, revokes: None }.unsigned(&ca.chain).map(drop)
    };
    assert_eq!(make(Some(VERSION_LIMIT - 1), 1 << 20), Ok(()));
    let out = Err(StatementError::OutOfBounds);
    assert_eq!(make(Some(VERSION_LIMIT), 1), out);
    assert_eq!(make(None, 0), out);
    assert_eq!(make(None, (1 << 20) + 1), out);
    let long = vec![0; MAX_STATEMENT + 1];
    assert_eq!(verify_statement(&long, ca.root()), Err(StatementError::Malformed));
}

#[test]
fn a_statement_of_the_longest_chain_fits_a_record() {
    let ca = Ca::at_depth(4);
    let tree = Tree::new(leaves(100..103)).unwrap();
    let length = ca.statement(&Key::new(30), Some(1 << 52), &tree).len();
    assert!(length < 4096, "{length} bytes");
}

#[test]
fn next_version_is_above_known_versions_and_the_clock() {
    for (newest, now, next) in [
        (None, 0, Ok(0)),
        (None, 1_790_000_000_000, Ok(1_790_000_000_000)),
        (Some(5), 3, Ok(6)),
        (Some(5), 6, Ok(6)),
        (Some(5), 9, Ok(9)),
        (Some(VERSION_LIMIT - 2), 0, Ok(VERSION_LIMIT - 1)),
        (Some(VERSION_LIMIT - 1), 0, Err(StatementError::NoVersionLeft)),
        (Some(u64::MAX), 0, Err(StatementError::NoVersionLeft)),
        (None, VERSION_LIMIT, Err(StatementError::NoVersionLeft)),
    ] {
        assert_eq!(next_version(newest, now), next, "{newest:?} {now}");
    }
}

#[test]
fn trees_are_those_of_rfc_9162() {
    for size in (1..70).chain([255, 256, 257, 1000]) {
        let leaves: Vec<_> = (0..size)
            .map(|n: u64| {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&n.to_be_bytes());
                leaf(Target::Lock(hash), Effect::Allow)
            })
            .collect();
        let tree = Tree::new(leaves.iter().copied()).unwrap();
        let mut reference = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        leaves.iter().for_each(|leaf| reference.push(leaf.encode()));
        assert_eq!(tree.head().root[..], reference.root().as_bytes()[..]);
        assert_eq!(tree.head().size, size);
        for index in (0..size).step_by(7).chain([size - 1]) {
            let path = tree.path(index).unwrap();
            let expected = reference.prove_inclusion(index as usize);
            assert_eq!(path.concat(), expected.as_bytes());
            assert_eq!(tree.head().verify(&leaves[index as usize], index, &path), Ok(()));
        }
        assert_eq!(tree.path(size), None);
    }
}

#[test]
fn a_tree_has_a_leaf_and_not_too_many() {
    assert_eq!(Tree::new([]).unwrap_err(), BadSize);
    let one = leaf(Target::All, Effect::Deny);
    assert_eq!(Tree::new(std::iter::repeat_n(one, (1 << 20) + 1)).unwrap_err(), BadSize);
    let huge = TreeHead { size: u64::MAX, root: [0; 32] };
    assert_eq!(huge.verify(&one, 0, &[]), Err(NotIncluded));
    assert_eq!(TreeHead { size: 0, root: [0; 32] }.verify(&one, 0, &[]), Err(NotIncluded));
}

#[test]
fn a_leaf_has_one_encoding() {
    for leaf in [leaf(Target::All, Effect::Deny), leaf(Target::Lock([1; 32]), Effect::Allow)] {
        let good = leaf.encode();
        assert_eq!(Leaf::decode(&good), Some(leaf));
        let changed = |at: std::ops::Range<usize>, to: &[u8]| {
            let mut bytes = good.clone();
            bytes.splice(at, to.iter().copied());
            Leaf::decode(&bytes)
        };
        assert_eq!(changed(0..1, &[0x98, 3]), None, "a long length");
        assert_eq!(changed(1..2, &[0x58, 16]), None, "a long length");
        assert_eq!(changed(0..1, &[0x84]), None, "four entries");
        assert_eq!(changed(1..3, &[0x4f]), None, "a short salt");
        assert_eq!(changed(good.len()..good.len(), &[0]), None, "a byte too many");
        assert_eq!(changed(good.len() - 1..good.len(), &[1]), None, "no bool");
        assert_eq!(changed(18..good.len() - 1, b"\x61?"), None, "another target");
        assert_eq!(changed(18..good.len() - 1, &[0x41, 1]), None, "a short hash");
    }
}

#[test]
fn salts_differ_by_seed_and_target() {
    let targets = [Target::All, Target::Lock([0; 32]), Target::Lock([1; 32])];
    let mut salts: Vec<_> = targets
        .iter()
        .flat_map(|target| [salt(&[1; 32], target), salt(&[2; 32], target)])
        .collect();
    assert_eq!(salts[0], salt(&[1; 32], &Target::All));
    salts.sort_unstable();
    salts.dedup();
    assert_eq!(salts.len(), 6);
}

#[test]
fn confirmation_verifies_under_its_lock_only() {
    let lock = Key::new(100);
    let said = Confirmation {
        statement: [7; 32],
        effect: Effect::Allow,
        newest_version: VERSION_LIMIT - 1,
    };
    let bytes = lock.sign(said.unsigned(&lock.public()).unwrap());
    assert_eq!(Confirmation::verify(&bytes, &lock.public()), Ok(said));
    assert_eq!(Confirmation::claimed_lock(&bytes), Ok(lock.public().hash()));
    let other = Key::new(101).public();
    assert_eq!(Confirmation::verify(&bytes, &other), Err(ConfirmationError::OtherLock));
    let beyond = Confirmation { newest_version: VERSION_LIMIT, ..said };
    assert_eq!(beyond.unsigned(&other).unwrap_err(), ConfirmationError::Malformed);
    let changed = |change: &dyn Fn(&mut CoseSign1)| {
        Confirmation::verify(&cose_signed_anew(&bytes, &lock, change), &lock.public())
    };
    assert_eq!(changed(&|_| ()), Ok(said));
    let malformed = Err(ConfirmationError::Malformed);
    assert_eq!(changed(&|message| message.payload.as_mut().unwrap().push(0)), malformed);
    // The map's length in a longer form.
    let longer = |message: &mut CoseSign1| {
        message.payload.as_mut().unwrap().splice(0..1, [0xb8, 4]);
    };
    assert_eq!(changed(&longer), malformed);
    let with_chain = |message: &mut CoseSign1| {
        message
            .protected
            .header
            .rest
            .push((coset::Label::Int(33), coset::cbor::Value::Bytes(vec![1])));
    };
    assert_eq!(changed(&with_chain), malformed);
    // Signed by an issuing key instead: as a statement it is none, as a confirmation it is not the
    // Lock's.
    let unsigned = said.unsigned(&lock.public()).unwrap();
    assert!(unsigned.clone().assemble(&Key::new(1).sign_digest(&unsigned.digest())).is_err());
    let ca = Ca::at_depth(1);
    assert_eq!(verify_statement(&bytes, ca.root()), Err(StatementError::Malformed));
    let tree = Tree::new([leaf(Target::All, Effect::Deny)]).unwrap();
    let statement = ca.statement(&lock, Some(1), &tree);
    let confused = Confirmation::verify(&statement, &ca.key.public());
    assert_eq!(confused, Err(ConfirmationError::Malformed));
}
