//! Tests of a gateway and a station on one machine, installed from their packages: mosquitto carries the grants, and sshd
//! and nginx admit the Keys on the Lock's lists, with the private key on a token behind OpenSC.

use std::fs;

use keywright_bus_tests::{
    Answers, Objects,
    broker::Broker,
    certs,
    pins::{self, PIN},
};
use tempfile::TempDir;

use super::pcscd::{MODULE, PcscdSession};
use crate::{
    machine::{CONFIG, Machine, Plugged},
    system::{self, UNIT},
};

const STATE: &str = "/var/lib/keywright-lock";
const LOCK_CONFIG: &str = "/etc/keywright/lockd.toml";
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config.d/keywright.conf";
const DROP_IN: &str = "/run/systemd/system/keywrightd.service.d";
const DIR: &str = "/run/gateway";
const PORT: u32 = 4443;

/// A gateway: `keywright-lockd` in a family, with its servers. Removed when dropped.
struct Gateway {
    id: String,
    /// The broker's directory.
    _directory: TempDir,
    _broker: Broker,
}

impl Gateway {
    /// Starts a Lock that the Master has certified and that is linked to the station.
    async fn start(machine: &mut Machine, master: &Plugged) -> Self {
        system::run(&format!(
            "systemctl stop keywright-lockd; rm -rf {STATE}/* {LOCK_CONFIG} {DIR}; mkdir {DIR}"
        ));
        system::run("systemctl start keywright-lockd");
        system::run(&format!("until [ -s {STATE}/request.pem ]; do sleep 0.1; done"));
        let request = fs::read_to_string(format!("{STATE}/request.pem")).unwrap();
        let manager = machine.client.manager().await;
        let (id, chain) =
            manager.add_lock(&master.path, "gate", &request, pins::pipe(PIN)).await.unwrap();
        fs::write(format!("{DIR}/gate.pem"), &chain).unwrap();
        system::run(&format!("keywright-lockd claim {DIR}/gate.pem"));

        let directory = tempfile::Builder::new().prefix("broker-").tempdir_in("/run").unwrap();
        let broker = Broker::start(directory.path(), &certs::certificates(&chain).pop().unwrap());
        let (certificate, key) = broker.station();
        // The daemons read these files as their own users.
        let (path, ca) = (directory.path().display(), broker.ca());
        system::run(&format!(
            "chmod 755 {path} {path}/broker; chown keywright {}; chmod 644 {} {}",
            key.display(),
            certificate.display(),
            ca.display()
        ));
        let link = format!("[link]\nbroker = '{}'\nca = '{}'\n", broker.address(), ca.display());
        system::run(&format!("mkdir -p /etc/keywright {DROP_IN}"));
        fs::write(
            CONFIG,
            format!("{link}certificate = '{}'\nkey = '{}'\n", certificate.display(), key.display()),
        )
        .unwrap();
        // As docs/lock.md describes for the link.
        fs::write(
            format!("{DROP_IN}/link.conf"),
            "[Service]\nRestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6\nIPAddressAllow=127.0.0.1\n",
        )
        .unwrap();
        Self::serve();
        let hook = "hook = ['/usr/local/sbin/keywright-lock-nginx', 'wait']";
        fs::write(LOCK_CONFIG, format!("{hook}\n[[account]]\nname = 'alice'\n{link}")).unwrap();
        system::run(&format!("systemctl daemon-reload; systemctl restart keywright-lockd {UNIT}"));
        Self { id, _directory: directory, _broker: broker }
    }

    /// Configures sshd and nginx as docs/lock.md describes, except for the account of the tests' own login.
    fn serve() {
        fs::write(
            SSHD_CONFIG,
            "Match User alice\n AuthorizedKeysCommand /usr/libexec/keywright-lockd authorized-keys %u %f\n \
             AuthorizedKeysCommandUser keywright-lock\n AuthorizedKeysFile none\n",
        )
        .unwrap();
        system::run("systemctl reload ssh");
        let config = format!(
            "pid /run/nginx.pid; error_log {DIR}/log; events {{}}\n\
             http {{ access_log off; map_hash_bucket_size 128;\n\
             map $ssl_client_fingerprint $keywright_key {{ include {STATE}/lists/nginx.map; }}\n\
             server {{ listen 127.0.0.1:{PORT} ssl; ssl_certificate {STATE}/chain.pem;\n\
             ssl_certificate_key {STATE}/identity.key; ssl_client_certificate {STATE}/lists/ca.pem;\n\
             ssl_verify_client on; ssl_verify_depth 5;\n\
             location / {{ if ($keywright_key = \"\") {{ return 403; }} return 200 'let in'; }} }} }}\n"
        );
        fs::write(format!("{DIR}/nginx.conf"), config).unwrap();
        system::run(&format!(
            "systemctl restart keywright-lockd; until [ -s {STATE}/lists/nginx.map ]; do sleep 0.1; done; \
             nginx -c {DIR}/nginx.conf"
        ));
        // The commands from docs/lock.md that put new lists in force.
        system::run(
            "cd /usr/share/doc/keywright-lockd/examples\n\
             install -m 755 keywright-lock-nginx /usr/local/sbin/\n\
             install -m 644 keywright-lock-changed.* /etc/systemd/system/\n\
             systemd-analyze verify keywright-lock-changed.path keywright-lock-changed.service\n\
             systemctl daemon-reload && systemctl enable --now keywright-lock-changed.path",
        );
    }

    /// Whether sshd admits the only token that is plugged in.
    fn admits_by_ssh(&self) -> bool {
        let askpass = system::askpass(PIN);
        let said = system::sh(&format!(
            "export DISPLAY=:0 SSH_ASKPASS={askpass} SSH_ASKPASS_REQUIRE=force; \
             ssh -F none -I {MODULE} -o IdentityAgent=none -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o NumberOfPasswordPrompts=0 alice@localhost echo inside </dev/null 2>&1"
        ));
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(text.contains("inside") != text.contains("Permission denied"), "{text}");
        text.contains("inside")
    }

    /// Whether the web server admits the only token that is plugged in.
    fn admits_by_tls(&self, chain: &str) -> bool {
        fs::write(format!("{DIR}/chain"), chain).unwrap();
        let key = format!(
            "-engine pkcs11 -keyform engine -key 'pkcs11:id=%01;type=private;pin-value={PIN}'"
        );
        let said = system::run(&format!(
            "cd {DIR}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:{PORT} \
             -cert chain -cert_chain chain {key} -quiet -ign_eof 2>&1 || true"
        ));
        assert!(said.contains("let in") != said.contains("403 Forbidden"), "{said}");
        said.contains("let in")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        system::sh(&format!(
            "systemctl disable --now keywright-lock-changed.path; nginx -c {DIR}/nginx.conf -s stop"
        ));
        system::sh(
            "rm -f /usr/local/sbin/keywright-lock-nginx /etc/systemd/system/keywright-lock-changed.*",
        );
        system::sh(&format!(
            "rm -rf {SSHD_CONFIG} {LOCK_CONFIG} {CONFIG} {DROP_IN}; systemctl reload ssh"
        ));
        system::sh(&format!(
            "systemctl daemon-reload; systemctl stop keywright-lockd {UNIT}; rm -rf {STATE}/*"
        ));
    }
}

/// Waits until exactly this many Locks admit the Key and none is pending.
async fn until_confirmed(machine: &mut Machine, key: &Plugged, locks: u32) {
    let confirmed = |objects: &Objects| {
        let key = objects.key(&key.path)?;
        (key.get::<u32>("Locks") == locks && key.get::<u32>("PendingLocks") == 0).then_some(())
    };
    machine.watch.until(&format!("confirmed by {locks}"), confirmed).await;
}

pub async fn gateway_admits_a_granted_key_until_it_is_revoked() {
    let mut machine = Machine::start().await;
    let _desktop = PcscdSession::start();
    let master = machine.plug("master").await;
    machine.until_state(&master.path, "blank").await;
    let job = machine.client.start_master(&master.path, "Master").await;
    machine.finish(&job, &Answers::master("Master")).await;
    machine.until_state(&master.path, "master").await;
    let gateway = Gateway::start(&mut machine, &master).await;
    let master = machine.until_shown("master", master.key).await;
    machine.until_state(&master.path, "master").await;
    // Another Lock, which never answers.
    let (barn, _) = machine.add_lock(&master, "barn").await;

    let bob = machine.plug("bob").await;
    machine.make(&master, &bob, &Answers::sub("Bob", &[&gateway.id])).await;
    let eve = machine.plug("eve").await;
    machine.make(&master, &eve, &Answers::sub("Eve", &[&barn])).await;
    // The link does this without anybody's help.
    until_confirmed(&mut machine, &bob, 1).await;
    let chain = machine.client.key(&bob.path).await.get_certificate_chain("").await.unwrap();
    let eves = machine.client.key(&eve.path).await.get_certificate_chain("").await.unwrap();
    machine.unplug(master).await;
    machine.unplug(bob).await;
    assert!(!gateway.admits_by_ssh(), "eve has a right elsewhere only");
    assert!(!gateway.admits_by_tls(&eves), "eve has a right elsewhere only");
    machine.unplug(eve).await;
    let bob = machine.plug("bob").await;
    machine.until_state(&bob.path, "sub").await;
    assert!(gateway.admits_by_ssh(), "bob has the right");
    assert!(gateway.admits_by_tls(&chain), "bob has the right");

    let master = machine.plug("master").await;
    machine.until_state(&master.path, "master").await;
    let id = machine.watch.objects().await.key(&bob.path).unwrap().text("Id");
    let manager = machine.client.manager().await;
    manager.revoke_key(&master.path, &id, "lost", pins::pipe(PIN)).await.unwrap();
    until_confirmed(&mut machine, &bob, 0).await;
    machine.unplug(master).await;
    assert!(!gateway.admits_by_ssh(), "bob is revoked");
    assert!(!gateway.admits_by_tls(&chain), "bob is revoked");
}

/// A gateway without a station nearby: no call, and no file carried to it.
pub async fn key_in_the_gateways_own_port_claims_the_lock() {
    let (machine, master) = Machine::with_master().await;
    let export = format!("{DIR}/gate.export");
    system::run(&format!(
        "systemctl stop keywright-lockd; rm -rf {STATE}/* {LOCK_CONFIG} {DIR}; mkdir {DIR}"
    ));
    fs::write(format!("{DIR}/pin"), PIN).unwrap();
    system::run(&format!("keywright-lockd claim --key --pin-file {DIR}/pin"));
    system::run(&format!("keywright-lockd export {export}; keywrightctl family import {export}"));
    let manager = machine.client.manager().await;
    let (locks, _) = manager.list_locks([].into(), "", 10).await.unwrap();
    assert_eq!(locks.len(), 2, "the existing Lock and this one: {locks:?}");
    let owners = system::run(&format!("find {STATE} ! -user keywright-lock"));
    assert_eq!(owners, "", "the daemon owns all files");
    system::run("systemctl start keywright-lockd; systemctl is-active keywright-lockd");
    system::run(&format!("systemctl stop keywright-lockd; rm -rf {STATE}/* {DIR}"));
    drop(master);
}
