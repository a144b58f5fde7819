//! A soft Key is a PKCS#12 file; openssl, NSS and OpenVPN read it, and a server accepts it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use keywright_bus_tests::{Plugged, Station, certs, command::Ran, pins::PIN, port};

const PASSWORD: &str = "correct horse";

/// A station with a Lock called gate, whose key is in the file `gate.key` and whose chain in `chain`.
async fn station() -> (Station, Plugged) {
    let mut station = Station::start().await;
    station.write("pin", &format!("{PIN}\n"));
    station.write("password", PASSWORD);
    let master = station.plug("master").await;
    station.make_master(&master, "Root").await;
    let request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let subject = ["-subj", "/CN=gate", "-keyout", "@gate.key", "-out", "@csr"];
    run(&station, "openssl", &[&request[..], &subject].concat());
    let add = ["lock", "add", "gate", "--csr", "@csr", "--out", "@chain"];
    station.ctl(&[&add[..], &["--issuer-pin-file", "@pin"]].concat()).await.done();
    (station, master)
}

async fn create(station: &Station, password: &str) -> Ran {
    let fixed = ["--json", "soft-key", "create", "Phone", "--lock", "gate", "--out", "@p12"];
    let secrets = ["--password-file", password, "--issuer-pin-file", "@pin"];
    station.ctl(&[&fixed[..], &secrets].concat()).await
}

/// A program; an argument `@file` stands for a file of the station's directory.
fn command(station: &Station, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for argument in arguments {
        match argument.strip_prefix('@') {
            Some(file) => command.arg(station.file(file)),
            None => command.arg(argument),
        };
    }
    command
}

fn run(station: &Station, program: &str, arguments: &[&str]) -> String {
    let output = command(station, program, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// keywrightctl generates the key pair; key and certificates in the file match.
#[tokio::test]
async fn openssl_reads_a_soft_key() {
    let (station, _master) = station().await;
    station.write("short", "horse");
    assert_eq!(create(&station, "@short").await.status, 2);
    let made = create(&station, "@password").await.json();
    let mode = fs::metadata(station.file("p12")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(create(&station, "@password").await.status, 2, "nothing is overwritten");

    let secret = format!("pass:{PASSWORD}");
    let read = |what: &[&str]| {
        let fixed = ["pkcs12", "-in", "@p12", "-passin", &secret];
        run(&station, "openssl", &[&fixed, what].concat())
    };
    let leaf = read(&["-clcerts", "-nokeys"]);
    assert_eq!(made["id"], certs::key_id(&leaf));
    assert!(read(&["-cacerts", "-nokeys"]).contains("BEGIN CERTIFICATE"));
    let key = read(&["-nocerts", "-nodes"]);
    station.write("key", &key[key.find("-----BEGIN").unwrap()..]);
    let public = run(&station, "openssl", &["pkey", "-pubout", "-in", "@key"]);
    assert_eq!(public, certs::show(&leaf[leaf.find("-----BEGIN").unwrap()..], &["-pubkey"]));
    let rights = station.ctl(&["--json", "locks", "--key", "Phone"]).await.json();
    assert!(rights.to_string().contains("pending"), "{rights}");
}

/// Firefox, Thunderbird and Chromium keep their certificates in NSS.
#[tokio::test]
async fn nss_imports_a_soft_key() {
    let (station, _master) = station().await;
    let made = create(&station, "@password").await.json();
    let name = format!("CN=Keywright soft {}", made["id"].as_str().unwrap());
    fs::create_dir(station.file("nss")).unwrap();
    run(&station, "certutil", &["-N", "-d", "@nss", "--empty-password"]);
    let import = ["-i", "@p12", "-d", "@nss", "-w", "@password", "-K", ""];
    run(&station, "pk12util", &import);
    // `u`: it has the private key.
    let listed = run(&station, "certutil", &["-L", "-d", "@nss"]);
    assert!(listed.lines().any(|l| l.starts_with(&name) && l.ends_with("u,u,u")), "{listed}");

    // The family's root is trusted for clients, as a person would tick it.
    let bundle = station.ctl(&["--json", "family", "bundle"]).await.json();
    station.write("roots", bundle["roots_pem"].as_str().unwrap());
    let trust = ["-A", "-d", "@nss", "-n", "family", "-t", "TC,,", "-a", "-i", "@roots"];
    run(&station, "certutil", &trust);
    let valid = run(&station, "certutil", &["-V", "-d", "@nss", "-n", &name, "-u", "C", "-e"]);
    assert!(valid.contains("certificate is valid"), "{valid}");
}

/// Killed when dropped.
struct Vpn(Child);

impl Vpn {
    fn start(station: &Station, arguments: &[&str]) -> Self {
        let mut command = command(station, "/usr/sbin/openvpn", arguments);
        // Without a network device: the test is about authentication.
        command.args(["--dev", "null", "--verb", "3", "--reneg-sec", "0"]);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Its output up to a line with this text.
    fn until(&mut self, last: &str) -> String {
        let mut said = String::new();
        let mut out = BufReader::new(self.0.stdout.as_mut().unwrap());
        while !said.contains(last) {
            assert!(out.read_line(&mut said).unwrap() > 0, "{last} did not come: {said}");
        }
        said
    }
}

impl Drop for Vpn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Lock's own certificate is the server's; each verifies the other by the family's root.
#[tokio::test]
async fn openvpn_accepts_a_soft_key() {
    let (station, _master) = station().await;
    let made = create(&station, "@password").await.json();
    let id = made["id"].as_str().unwrap();
    let bundle = station.ctl(&["--json", "family", "bundle"]).await.json();
    station.write("roots", bundle["roots_pem"].as_str().unwrap());
    station.write("crls", bundle["crls_pem"].as_str().unwrap());
    let port = port::free().to_string();

    let own = ["--cert", "@chain", "--key", "@gate.key", "--crl-verify", "@crls"];
    let server = ["--tls-server", "--dh", "none", "--proto", "tcp-server", "--local", "127.0.0.1"];
    let rest = ["--lport", &port, "--ca", "@roots", "--remote-cert-tls", "client"];
    let mut server = Vpn::start(&station, &[&server[..], &own, &rest].concat());
    server.until("Listening for incoming TCP connection");
    let client = ["--tls-client", "--proto", "tcp-client", "--nobind", "--remote", "127.0.0.1"];
    let own = [&*port, "--pkcs12", "@p12", "--askpass", "@password", "--ca", "@roots"];
    let rest = ["--remote-cert-tls", "server"];
    let mut client = Vpn::start(&station, &[&client[..], &own, &rest].concat());
    let said = server.until("Peer Connection Initiated");
    assert!(said.contains(&format!("VERIFY OK: depth=0, CN=Keywright soft {id}")), "{said}");
    let said = client.until("Peer Connection Initiated");
    assert!(said.contains("VERIFY OK: depth=0, CN=Keywright lock "), "{said}");
}
