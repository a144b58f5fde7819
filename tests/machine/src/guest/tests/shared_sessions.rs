//! Tests of programs that keep a session with a Key through pcscd (NSS as in browsers, GnuPG) before, during and after a
//! job on the same Key.

use std::{
    fs::{self, File},
    io::Write,
    process::{Child, Command, Stdio},
};

use keywright_bus_tests::{Answers, Objects, pins::PIN};
use zbus::OwnedObjectPath;

use super::{
    other_programs::nginx,
    pcscd::{MODULE, PcscdSession},
};
use crate::{
    machine::{MASTER, Machine, Plugged},
    system,
};

const DIR: &str = "/run/browser";
const PORT: u32 = 4431;

/// A web server that requires a certificate of the family, and a client profile of NSS, the library of Firefox and
/// Chromium, with OpenSC's module. The Key's PIN is in a file.
struct Browser {
    nickname: String,
}

impl Browser {
    async fn start(machine: &mut Machine, sub: &Plugged) -> Self {
        let family = machine.family(&sub.path).await;
        let manager = machine.client.manager().await;
        let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
        system::run(&format!("rm -rf {DIR}; mkdir {DIR}"));
        fs::write(format!("{DIR}/ours.roots"), roots).unwrap();
        fs::write(format!("{DIR}/ours.crls"), crls).unwrap();
        fs::write(format!("{DIR}/pin"), PIN).unwrap();
        fs::write(format!("{DIR}/nginx.conf"), nginx(DIR, &[(PORT, "ours")])).unwrap();
        system::run(&format!(
            "cd {DIR}; openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 \
                 -subj /CN=localhost -keyout server.key -out server.pem 2>/dev/null; \
             nginx -c {DIR}/nginx.conf; \
             mkdir profile; certutil -N -d sql:profile --empty-password; \
             certutil -A -d sql:profile -n server -t CT,, -i server.pem; \
             certutil -A -d sql:profile -n family -t CT,, -i ours.roots; \
             modutil -dbdir sql:profile -force -add opensc -libfile {MODULE}"
        ));
        let list = system::run(&format!("cd {DIR}; certutil -L -d sql:profile -h all -f pin"));
        let line = list.lines().find(|line| line.contains(':') && line.contains("u,u,u"));
        let nickname = line.unwrap_or_else(|| panic!("the Key is not there: {list}"));
        let nickname = nickname.trim().trim_end_matches("u,u,u").trim().to_owned();
        Self { nickname }
    }

    /// Opens a connection: its standard input is sent, the server's answer goes to this file.
    fn connect(&self, answer: &str) -> Child {
        let _ = fs::remove_file(format!("{DIR}/{answer}"));
        let line = format!(
            "cd {DIR}; exec timeout 60 tstclnt -4 -h localhost -p {PORT} -d sql:profile -w '{PIN}' -n '{}' >{answer} 2>{answer}.log",
            self.nickname
        );
        Command::new("/bin/sh").args(["-c", &line]).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Loads a page, which the server shows to the family only, on a new connection.
    fn page(&self) {
        let mut connection = self.connect("page");
        write!(connection.stdin.take().unwrap(), "GET / HTTP/1.0\r\n\r\n").unwrap();
        until_said("page", 1);
        end(connection);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        system::sh(&format!("nginx -c {DIR}/nginx.conf -s stop"));
    }
}

/// Ends a connection; the client would wait for more data.
fn end(mut connection: Child) {
    system::run(&format!("kill {}", connection.id()));
    connection.wait().unwrap();
}

/// Waits until the server has answered this connection `times` times.
fn until_said(answer: &str, times: usize) {
    system::run(&format!(
        "for i in $(seq 300); do [ \"$(grep -a -c 'let in' {DIR}/{answer})\" -ge {times} ] && exit 0; sleep 0.1; done; \
         cat {DIR}/{answer} {DIR}/{answer}.log >&2; exit 1"
    ));
}

/// The answers for a Sub Key that was made before, whose PIN is set.
fn again() -> Answers {
    let mut answers = Answers::sub("Sub", &[]);
    answers.pins.candidate = PIN.into();
    answers
}

pub async fn browser_session_survives_a_job() {
    let (mut machine, master) = Machine::with_master().await;
    let session = PcscdSession::start();
    let sub = machine.plug_with("sub", &["--sign-delay-ms", "700"]).await;
    machine.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    machine.unplug(master).await;
    let browser = Browser::start(&mut machine, &sub).await;
    browser.page();

    // An open connection keeps working while its Key is written, and afterwards.
    let mut kept = browser.connect("kept");
    let mut send = kept.stdin.take().unwrap();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    send.write_all(request.as_bytes()).unwrap();
    until_said("kept", 1);

    let master = machine.plug_with(MASTER, &["--sign-delay-ms", "700"]).await;
    machine.until_state(&master.path, "master").await;
    let job = machine.offer(&master, &sub).await;
    answer_up_to_the_write(&mut machine, &job).await;
    machine.until_stage(&job, "certificates").await;
    // A new connection needs the Key, and waits for the end of the job.
    let mut waiting = browser.connect("waiting");
    write!(waiting.stdin.take().unwrap(), "GET / HTTP/1.0\r\n\r\n").unwrap();
    send.write_all(request.as_bytes()).unwrap();
    machine.watch.until_step(&job, "finished").await;
    machine.client.serialization(&job).await.finish().await.unwrap();
    until_said("kept", 2);
    until_said("waiting", 1);
    drop(send);
    for connection in [waiting, kept] {
        end(connection);
    }
    browser.page();
    machine.unplug(master).await;
    session.assert_holds(&sub);
    let sub = replug(&mut machine, sub).await;
    assert_eq!(retries(&mut machine, &sub).await, 3, "no try was lost");
}

/// Answers all steps, including the last PIN, without waiting for the write.
async fn answer_up_to_the_write(machine: &mut Machine, job: &OwnedObjectPath) {
    loop {
        machine.client.answer_until(&mut machine.watch, job, &again(), "pins").await;
        let last =
            machine.watch.objects().await.serialization(job).unwrap().words("PinsNeeded").len()
                == 1;
        machine.client.answer(&machine.watch, job, &again()).await.unwrap();
        if last {
            return;
        }
    }
}

async fn replug(machine: &mut Machine, key: Plugged) -> Plugged {
    let name = key.name.clone();
    machine.unplug(key).await;
    machine.plug(&name).await
}

async fn retries(machine: &mut Machine, key: &Plugged) -> i32 {
    let read = |objects: &Objects| {
        Some(objects.key(&key.path)?.get::<i32>("PinRetries")).filter(|n| *n >= 0)
    };
    machine.watch.until("its tries", read).await
}

/// scdaemon over pcscd holds a token exclusively unless it is configured to share it.
pub async fn gnupg_over_pcscd_holds_or_shares_a_key() {
    let mut machine = Machine::with_absent_master().await;
    let session = PcscdSession::start();
    let master = machine.plug(MASTER).await;
    machine.until_state(&master.path, "master").await;
    session.assert_holds(&master);
    let gpg = "export GNUPGHOME=/run/gnupg-over-pcscd";
    let settings = "disable-ccid\ncard-timeout 1\n";
    let look = "gpg-connect-agent 'scd serialno undefined' /bye";
    let end =
        "gpgconf --kill scdaemon gpg-agent; while pidof scdaemon >/dev/null; do sleep 0.05; done";
    let begin = |more: &str| {
        system::run(&format!("{gpg}; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME"));
        let mut file = File::create("/run/gnupg-over-pcscd/scdaemon.conf").unwrap();
        write!(file, "{settings}{more}").unwrap();
        let said = system::run(&format!("{gpg}; {look}"));
        assert!(said.contains("SERIALNO"), "scdaemon has the token: {said}");
    };

    begin("");
    machine.add_lock_while_busy(&master).await;
    system::run(&format!("{gpg}; {end}"));
    machine.add_lock(&master, "barn").await;

    begin("pcsc-shared\n");
    machine.add_lock(&master, "shed").await;
    // This firmware keeps the management key's authentication, so the daemon has reset the token: scdaemon's first access
    // may only notice the reset.
    let said = system::run(&format!("{gpg}; {look}; {look}"));
    assert!(said.contains("SERIALNO"), "scdaemon still works: {said}");
    system::run(&format!("{gpg}; {end}"));
    session.assert_holds(&master);
    assert_eq!(retries(&mut machine, &master).await, 3, "no try was lost");
}
