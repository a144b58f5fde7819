//! Tests with other programs: pcscd and GnuPG's scdaemon hold the Keys, OpenSC and openssl use them, and tokens that are
//! in use for something else are never changed.

use keywright_bus_tests::{Answers, Objects, certs, client::assert_refused, pins::PIN};

use crate::{
    machine::{CONFIG, MASTER, Machine, Plugged},
    system::{self, UNIT},
    vhci,
};

/// The tags of all PIV objects that there may be, for GET DATA.
fn objects() -> impl Iterator<Item = String> {
    // SP 800-73-4, part 1, table 3: 5FC101 to 5FC123, the discovery object, the group templates; and vendors' own.
    let standard = (0x01..=0x23).map(|last: u8| format!("5FC1{last:02X}"));
    standard.chain(["7E", "7F61", "5FFF00", "5FFF01", "5FFF10", "5FFF11"].map(Into::into))
}
const SELECT: &str = "00:A4:04:00:09:A0:00:00:03:08:00:00:10:00:00";
const MANAGEMENT_KEY: &str = "010203040506070801020304050607080102030405060708";

/// Starts pcscd and waits until it holds a Key; it holds every reader that it lists.
fn start_pcscd() {
    system::run("systemctl start pcscd.service");
    system::run("until opensc-tool --list-readers | grep -q Yes; do sleep 0.1; done");
}

/// Runs a shell line while pcscd runs, then stops pcscd, which releases every Key.
fn with_pcscd(line: &str) -> String {
    start_pcscd();
    let output = system::run(line);
    stop_pcscd();
    output
}

pub(super) fn stop_pcscd() {
    system::run("systemctl stop --quiet pcscd.service pcscd.socket");
}

/// Sends commands to the only Key after a SELECT; returns OpenSC's output.
fn commands(commands: &[String]) -> String {
    let sends: Vec<_> = commands.iter().map(|command| format!("-s {command}")).collect();
    with_pcscd(&format!("opensc-tool -s {SELECT} {}", sends.join(" ")))
}

/// Reads every object that needs no PIN, and the PIN tries left.
fn everything_readable() -> String {
    let get = |tag: String| {
        let bytes: Vec<_> =
            tag.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
        let (length, all) = (bytes.len(), bytes.len() + 2);
        format!("00:CB:3F:FF:{all:02X}:5C:{length:02X}:{}:00", bytes.join(":"))
    };
    let tries = "00:20:00:80".to_owned();
    commands(&objects().map(get).chain([tries]).collect::<Vec<_>>())
}

/// Configures the daemon never to use pcscd.
fn only_direct() {
    system::run(&format!("mkdir -p /etc/keywright && echo \"route = 'direct'\" >{CONFIG}"));
}

pub async fn key_held_by_pcscd_is_busy_until_released() {
    let (mut machine, master) = Machine::with_master().await;
    only_direct();
    system::run(&format!("systemctl restart {UNIT}"));
    let master = machine.until_shown(MASTER, master.key).await;
    machine.until_state(&master.path, "master").await;
    start_pcscd();
    let text = machine.add_lock_while_busy(&master).await;
    assert!(text.contains("pcscd"), "{text}");
    assert_eq!(
        system::run("systemctl is-active pcscd.service").trim(),
        "active",
        "pcscd was not stopped"
    );
    stop_pcscd();
    machine.add_lock(&master, "barn").await;
    machine.until_state(&master.path, "master").await;
}

pub async fn key_held_at_its_plug_is_shown_once_released() {
    let mut machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT} && systemctl mask --quiet --runtime {UNIT}"));
    let master = machine.insert(MASTER, &[]);
    start_pcscd();
    only_direct();
    system::run(&format!("systemctl unmask --quiet --runtime {UNIT}"));
    machine.start_daemon();
    let held = machine.until_shown_in(master.port).await;
    machine.until_state(&held, "unusable").await;
    until_node_is_watched(master.port);
    let blank = machine.insert("blank", &[]);
    stop_pcscd();
    // It is recognised by its certificate, which can be read only now.
    machine.until_present("master").await;
    let master = machine.until_shown(MASTER, master).await;
    let blank = machine.until_shown("blank", blank).await;
    machine.offer(&master, &blank).await;
}

pub async fn key_held_by_gnupg_is_busy_until_released() {
    let (mut machine, master) = Machine::with_master().await;
    stop_pcscd();
    let gpg = "GNUPGHOME=/run/gnupg-of-the-test";
    system::run(&format!("export {gpg}; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME"));
    let scdaemon = system::run(&format!("{gpg} gpg-connect-agent 'scd serialno undefined' /bye"));
    let text = machine.add_lock_while_busy(&master).await;
    assert!(text.contains("another program"), "{text} {scdaemon}");
    system::run(&format!("{gpg} gpgconf --kill scdaemon gpg-agent"));
    system::run("while pidof scdaemon >/dev/null; do sleep 0.05; done");
    machine.add_lock(&master, "barn").await;
    machine.until_state(&master.path, "master").await;
}

/// Makes a Sub Key; the Master is pulled out.
async fn sub_key() -> (Machine, Plugged) {
    let (mut machine, master) = Machine::with_master().await;
    let sub = machine.plug("sub").await;
    machine.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    machine.unplug(master).await;
    (machine, sub)
}

/// Waits until the daemon watches the device node in this port with inotify. Until then it would notice a release only
/// at its next retry.
fn until_node_is_watched(port: usize) {
    let watched = format!(
        "grep -ls \"^inotify .* ino:$(stat --format=%i {} | xargs printf %x) \" /proc/{}/fdinfo/*",
        vhci::node(port),
        system::unit("MainPID"),
    );
    system::run(&format!("until {watched}; do sleep 0.05; done"));
}

pub async fn leftover_management_authorization_is_reported_after_a_job() {
    let (mut machine, master) = Machine::with_master().await;
    let sub = machine.plug("sub").await;
    machine.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    // This firmware drops the management key's authorization only when it loses power.
    assert_eq!(authorizations_seen_by_opensc(), [NOT_AUTHORIZED, AUTHORIZED]);
    let authorized =
        |objects: &Objects, key: &Plugged| Some(objects.key(&key.path)?.get::<bool>("Authorized"));
    assert_eq!(authorized(&machine.watch.objects().await, &master), Some(false));
    assert_eq!(authorized(&machine.watch.objects().await, &sub), Some(true));
    machine.unplug(sub).await;
    let sub = machine.plug("sub").await;
    machine.until_state(&sub.path, "sub").await;
    assert_eq!(authorized(&machine.watch.objects().await, &sub), Some(false));
    assert_eq!(authorizations_seen_by_opensc(), [NOT_AUTHORIZED, NOT_AUTHORIZED]);
    drop(master);
}

/// Status of a GENERATE without an algorithm: the management key is required, or (authorized) the algorithm is missing.
const NOT_AUTHORIZED: &str = "69 82";
const AUTHORIZED: &str = "6A 80";

/// Sends such a GENERATE to two Keys with OpenSC; returns the sorted statuses. Their PINs are not verified.
fn authorizations_seen_by_opensc() -> Vec<String> {
    let asked = format!("-s {SELECT} -s 00:20:00:80 -s 00:47:00:9A:02:AC:00:00");
    let both = "until [ $(opensc-tool --list-readers | grep -c Yes) -eq 2 ]; do sleep 0.1; done";
    let ask = |reader| format!("opensc-tool --reader {reader} {asked}");
    let shown = with_pcscd(&format!("{both}; {}; {}", ask(0), ask(1)));
    let statuses = shown.lines().filter(|line| line.contains("SW1="));
    let statuses: Vec<_> =
        statuses.map(|line| format!("{} {}", &line[16..18], &line[26..28])).collect();
    let mut may = Vec::new();
    for statuses in statuses.chunks(3) {
        let [selected, pin, generated] = statuses else { panic!("{shown}") };
        assert_eq!((&**selected, &**pin), ("90 00", "63 C3"), "{shown}");
        may.push(generated.clone());
    }
    may.sort();
    may
}

pub async fn opensc_and_openssl_use_a_sub_key() {
    let (machine, sub) = sub_key().await;
    let chain = machine.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    let dir = "/run/tools";
    system::run(&format!("rm -rf {dir}; mkdir {dir}"));
    std::fs::write(format!("{dir}/chain"), &chain).unwrap();
    let tool = "pkcs11-tool --module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";
    let listed = with_pcscd(&format!("{tool} --list-objects --type cert"));
    assert!(listed.contains("Certificate"), "{listed}");
    with_pcscd(&format!(
        "cd {dir}; echo something to sign >text; openssl dgst -sha256 -binary text >digest; \
         {tool} --read-object --type cert --id 01 --output-file leaf.der; \
         {tool} --login --pin {PIN} --sign --mechanism ECDSA --id 01 --signature-format openssl \
             --input-file digest --output-file signature"
    ));
    let pem = system::run(&format!("openssl x509 -inform DER -in {dir}/leaf.der"));
    assert_eq!(
        pem.trim(),
        certs::certificates(&chain)[0].trim(),
        "OpenSC reads the Key's certificate"
    );
    let verified = system::run(&format!(
        "cd {dir}; openssl x509 -in chain -noout -pubkey >key; \
         openssl dgst -sha256 -verify key -signature signature text"
    ));
    assert!(verified.contains("Verified OK"), "{verified}");
}

pub async fn web_server_admits_a_sub_key_of_its_family_only() {
    let (mut machine, sub) = sub_key().await;
    let ours = machine.family(&sub.path).await;
    let chain = machine.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    machine.unplug(sub).await;
    let other = machine.plug("other").await;
    machine.until_state(&other.path, "blank").await;
    let job = machine.client.start_master(&other.path, "Other").await;
    machine.finish(&job, &Answers::master("Other")).await;
    let theirs = machine.family(&other.path).await;
    machine.unplug(other).await;

    let dir = "/run/web";
    system::run(&format!("rm -rf {dir}; mkdir {dir}"));
    std::fs::write(format!("{dir}/chain"), &chain).unwrap();
    let manager = machine.client.manager().await;
    for (name, family) in [("ours", ours), ("theirs", theirs)] {
        let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
        std::fs::write(format!("{dir}/{name}.roots"), roots).unwrap();
        std::fs::write(format!("{dir}/{name}.crls"), crls).unwrap();
    }
    system::run(&format!(
        "cd {dir}; openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 \
             -subj /CN=localhost -keyout server.key -out server.pem 2>/dev/null"
    ));
    for (family, accepted) in [("ours", true), ("theirs", false)] {
        let verify =
            "openssl verify -x509_strict -crl_check_all -purpose sslclient -untrusted chain";
        let output = system::sh(&format!(
            "cd {dir}; {verify} -CAfile {family}.roots -CRLfile {family}.crls chain"
        ));
        assert_eq!(output.status.success(), accepted, "{family}: {output:?}");
    }
    let servers = [(4431, "ours"), (4432, "theirs")];
    std::fs::write(format!("{dir}/nginx.conf"), nginx(dir, &servers)).unwrap();
    system::run(&format!("nginx -c {dir}/nginx.conf"));
    let sub = machine.plug("sub").await;
    machine.until_state(&sub.path, "sub").await;
    let get = |port: u32| {
        let engine = "-engine pkcs11 -keyform engine -key 'pkcs11:id=%01;type=private;pin-value=";
        let client =
            format!("openssl s_client -connect localhost:{port} -cert chain {engine}{PIN}'");
        with_pcscd(&format!(
            "cd {dir}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 60 {client} -quiet -ign_eof 2>&1 || true"
        ))
    };
    let (let_in, kept_out) = (get(4431), get(4432));
    system::run(&format!("nginx -c {dir}/nginx.conf -s stop"));
    assert!(let_in.contains("200 OK") && let_in.contains("let in"), "{let_in}");
    assert!(kept_out.contains("400 Bad Request") || kept_out.contains("alert"), "{kept_out}");
    assert!(!kept_out.contains("let in"), "{kept_out}");
}

/// nginx configuration that on each port requires a certificate of a family.
pub(super) fn nginx(dir: &str, servers: &[(u32, &str)]) -> String {
    let server = |(port, family): &(u32, &str)| {
        format!(
            "server {{ listen {port} ssl; ssl_certificate {dir}/server.pem; \
             ssl_certificate_key {dir}/server.key; ssl_client_certificate {dir}/{family}.roots; \
             ssl_crl {dir}/{family}.crls; ssl_verify_client on; ssl_verify_depth 4; \
             location / {{ return 200 'let in'; }} }}\n"
        )
    };
    let servers: String = servers.iter().map(server).collect();
    format!(
        "pid {dir}/pid; error_log {dir}/log; events {{}}\nhttp {{ access_log off;\n{servers}}}\n"
    )
}

/// Arguments for piv-tool that write an object with command chaining (ISO 7816-4, 5.3.3).
fn put_data(tag: [u8; 3], content: &[u8]) -> String {
    let data = [&[0x5C, 3][..], &tag, content].concat();
    let pieces: Vec<_> = data.chunks(0xF0).collect();
    let send = |(n, piece): (usize, &&[u8])| {
        let class = if n + 1 < pieces.len() { 0x10 } else { 0 };
        let length = u8::try_from(piece.len()).unwrap();
        let command = [&[class, 0xDB, 0x3F, 0xFF, length][..], piece].concat();
        let command: Vec<_> = command.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("-s {}", command.join(":"))
    };
    pieces.iter().enumerate().map(send).collect::<Vec<_>>().join(" ")
}

pub async fn foreign_access_token_is_never_changed() {
    assert_never_changed("9A", 0x05).await;
}

pub async fn foreign_signing_token_is_never_changed() {
    assert_never_changed("9C", 0x0A).await;
}

/// Puts a key into this slot and a foreign certificate into its container, runs the daemon through plugs, jobs and
/// restarts, and compares everything readable before and after.
async fn assert_never_changed(slot: &str, container: u8) {
    let mut machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT} && systemctl mask --quiet --runtime {UNIT}"));
    let foreign = machine.insert("foreign", &[]);
    // A key in the slot, and a certificate of an unknown CA.
    let put = put_data([0x5F, 0xC1, container], &certs::foreign_container());
    with_pcscd(&format!(
        "echo {MANAGEMENT_KEY} >/run/key; export PIV_EXT_AUTH_KEY=/run/key; \
         piv-tool -A M:9B:03 -s 00:47:00:{slot}:05:AC:03:80:01:11:00 {put}"
    ));
    let before = everything_readable();
    system::run(&format!("systemctl unmask --quiet --runtime {UNIT}"));
    machine.start_daemon();

    let master = machine.plug(MASTER).await;
    let foreign = machine.until_shown("foreign", foreign).await;
    machine.until_state(&foreign.path, "foreign").await;
    machine.watch.until_decision([&master.path, &foreign.path], "foreign-credentials").await;
    let said = system::run("keywrightctl decisions");
    assert!(said.contains("nothing on it is overwritten"), "{said}");
    for options in [[].into(), [("kind", zbus::Variant::from("sub"))].into()] {
        let manager = machine.client.manager().await;
        let start = manager.start_serialization(&master.path, &foreign.path, options).await;
        assert_refused(start, "ForeignCredentials");
    }
    system::run(&format!("systemctl restart {UNIT}"));
    let device = format!("/sys/bus/usb/devices/{}", vhci::device_name(foreign.key.port));
    let foreign = machine.until_shown("foreign", foreign.key).await;
    system::run(&format!("echo 0 >{device}/authorized"));
    machine.until_gone(&foreign.path).await;
    system::run(&format!("echo 1 >{device}/authorized"));
    machine.until_present("foreign").await;
    let foreign = machine.until_shown("foreign", foreign.key).await;
    machine.unplug(foreign).await;
    let foreign = machine.plug("foreign").await;
    machine.until_state(&foreign.path, "foreign").await;
    let blank = machine.plug("blank").await;
    machine.make(&master, &blank, &Answers::sub("Sub", &[])).await;
    machine.unplug(blank).await;
    machine.unplug(master).await;
    assert_eq!(everything_readable(), before);
}
