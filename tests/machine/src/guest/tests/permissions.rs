//! Tests of the polkit defaults: each of the four actions, for the active session, an inactive one, ssh, an account
//! without a session, and root. Every answer comes at once.

use keywright_bus_tests::api;

use crate::{machine::Machine, system, vhci};

/// One call for each action, on objects that do not exist: an allowed caller gets another error, and nothing changes.
const CALLS: [(&str, &str); 4] = [
    ("inspect", "ListKeys 'a{sv}su' 0 '' 10"),
    ("serialize", "StartSerialization 'ooa{sv}' / /org/keywright1/keys/nobody 0"),
    ("manage-keys", "RenameKey ss 00000000000000000000000000000000 x"),
    ("manage-locks", "RenameLock ss 00000000000000000000000000000000 x"),
];
const DENIED: &str = "you are not allowed to do this";
/// Limit for each answer, in seconds. A call that waits for polkit in vain takes 25 s; a restarted polkit needs some
/// seconds under emulation.
const AT_ONCE: u32 = 15;

/// Reads the allowed actions from the script's output.
fn allowed(output: &str) -> Vec<&'static str> {
    let answers: Vec<_> = output.split("--- ").skip(1).collect();
    assert_eq!(answers.len(), CALLS.len(), "each call was answered:\n{output}");
    let pairs = CALLS.iter().zip(answers);
    let may = pairs.filter(|(_, answer)| !answer.contains(DENIED));
    may.map(|((action, _), answer)| {
        let known = ["Call failed: ", "a(sssst)s "].iter().any(|text| answer.contains(text));
        assert!(known, "{answer}");
        *action
    })
    .collect()
}

/// Writes a script that makes each call; returns its command.
fn script() -> String {
    let call = format!(
        "timeout {AT_ONCE} busctl call org.keywright1 /org/keywright1 org.keywright1.Manager"
    );
    let lines = CALLS.map(|(_, arguments)| format!("echo '--- '; {call} {arguments} 2>&1"));
    let path = "/run/calls";
    std::fs::write(path, lines.join("\n") + "\nexit 0\n").unwrap();
    system::run(&format!("chmod 755 {path}"));
    format!("/bin/sh {path}")
}

/// Runs a shell line that makes the calls; returns its output.
fn at_once(line: &str) -> String {
    String::from_utf8_lossy(&system::sh(line).stdout).into_owned()
}

/// Runs a script in a session of a user on a virtual terminal, as a display manager starts one.
fn on_terminal(user: &str, terminal: u32, script: &str) -> String {
    let out = format!("/run/said-by-{user}");
    let properties = [
        format!("User={user}"),
        "PAMName=login".into(),
        format!("TTYPath=/dev/tty{terminal}"),
        "StandardInput=tty-force".into(),
        format!("StandardOutput=truncate:{out}"),
    ];
    let properties = properties.map(|property| format!("--property={property}")).join(" ");
    system::run(&format!("systemd-run --quiet --wait --collect {properties} {script}"));
    std::fs::read_to_string(out).unwrap()
}

pub async fn root_may_do_everything() {
    let _machine = Machine::start().await;
    let may = allowed(&at_once(&script()));
    assert_eq!(may, ["inspect", "serialize", "manage-keys", "manage-locks"]);
}

pub async fn active_session_may_do_everything_and_inactive_only_inspect() {
    let _machine = Machine::start().await;
    system::sh("systemctl stop getty@tty1");
    let script = script();
    let active = on_terminal("alice", 1, &script);
    assert_eq!(allowed(&active), ["inspect", "serialize", "manage-keys", "manage-locks"]);
    // Terminal 1 stays the active one.
    assert_eq!(allowed(&on_terminal("bob", 2, &script)), ["inspect"]);
}

pub async fn ssh_user_may_only_inspect() {
    let _machine = Machine::start().await;
    system::run("rm -f /run/alice-key*; ssh-keygen -q -t ed25519 -N '' -f /run/alice-key");
    system::run("install -d -o alice -m 700 ~alice/.ssh");
    system::run("install -o alice -m 600 /run/alice-key.pub ~alice/.ssh/authorized_keys");
    let ssh =
        "ssh -q -i /run/alice-key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    let output = at_once(&format!("{ssh} alice@localhost {}", script()));
    assert_eq!(allowed(&output), ["inspect"]);
}

pub async fn account_without_a_session_has_the_rights_of_a_polkit_rule() {
    let _machine = Machine::start().await;
    let kiosk = format!("runuser -u kiosk -- {}", script());
    assert_eq!(allowed(&at_once(&kiosk)), ["inspect"]);
    let rules = "/etc/polkit-1/rules.d/50-keywright-kiosk.rules";
    // As docs/installing.md describes.
    let example = "/usr/share/doc/keywrightd/examples/50-keywright-kiosk.rules";
    system::run(&format!("install -m 644 {example} /etc/polkit-1/rules.d/"));
    system::run("systemctl restart polkit");
    let may = allowed(&at_once(&kiosk));
    let others = allowed(&at_once(&kiosk.replace("kiosk", "bob")));
    system::run(&format!("rm {rules} && systemctl restart polkit"));
    assert_eq!(may, ["inspect", "serialize"]);
    assert_eq!(others, ["inspect"], "the rule is for one account");
}

/// A rule as distributions have it for readers: an access list entry for the active session, and a group.
const DESKTOP_RULE: &str = r#"SUBSYSTEM=="usb", ENV{ID_USB_INTERFACES}=="*:0b????:*", TAG+="uaccess", GROUP="plugdev", MODE="0664""#;

pub async fn active_session_keeps_access_to_the_device_node() {
    let mut machine = Machine::start().await;
    system::sh("systemctl stop getty@tty1; getent group plugdev || groupadd --system plugdev");
    system::run("mkdir -p /run/udev/rules.d");
    std::fs::write("/run/udev/rules.d/69-desktop.rules", DESKTOP_RULE).unwrap();
    system::run("udevadm control --reload");
    let key = machine.plug("1").await;
    machine.until_state(&key.path, "blank").await;
    let node = vhci::node(key.key.port);
    let shown = system::run(&format!("stat --format='%U %G %a' {node}"));
    let path = "/run/opens";
    // logind writes the access list when the session becomes active.
    let tries =
        "for n in $(seq 300); do (: <>$node) 2>/dev/null && echo opened && break; sleep 0.1; done";
    std::fs::write(path, format!("node={node}\n{tries}\nexit 0\n")).unwrap();
    let alice = on_terminal("alice", 1, &format!("/bin/sh {path}"));
    let bob = system::run(&format!("runuser -u bob -- /bin/sh {path}"));
    system::run("rm /run/udev/rules.d/69-desktop.rules; udevadm control --reload");
    assert_eq!(shown.trim(), "keywright plugdev 664");
    assert_eq!(alice.trim(), "opened");
    assert_eq!(bob, "", "other users cannot open it");
}

pub async fn other_users_cannot_own_the_bus_name() {
    let _machine = Machine::start().await;
    system::run("systemctl stop keywrightd");
    let bus = "org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus";
    let request = format!("busctl call {bus} RequestName su org.keywright1 4 2>&1");
    for user in ["alice", "root"] {
        let output = at_once(&format!("runuser -u {user} -- {request}"));
        assert!(output.contains("Access denied"), "{user}: {output}");
    }
}

pub async fn unpublished_interfaces_are_denied() {
    let machine = Machine::start().await;
    let connection = machine.client.connection();
    let call = async |interface: &'static str, method: &'static str| {
        let call = connection.call_method(
            Some(api::NAME),
            api::MANAGER_PATH,
            Some(interface),
            method,
            &(),
        );
        call.await.err().map(|error| error.to_string())
    };
    assert_eq!(call("org.freedesktop.DBus.Peer", "Ping").await, None);
    for (interface, method) in
        [("org.freedesktop.DBus.Debug.Stats", "GetStats"), ("org.keywright1.Other", "List")]
    {
        let refused = call(interface, method).await.expect("it is refused, to root too");
        assert!(refused.contains("AccessDenied"), "{interface}: {refused}");
    }
}
