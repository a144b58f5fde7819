//! Compares the daemon with other daemons that wait for devices, in one guest and one run: start time, memory, wake-ups and
//! `systemd-analyze security` exposure. Also measures the time from a plug to the offer.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use keywright_bus_tests::api;
use zbus::{MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::{
    machine::{CONFIG, Machine, connect},
    system::{self, sh},
    vhci,
};

const SERVICES: [&str; 6] = ["keywrightd", "bolt", "fprintd", "upower", "usbguard", "udisks2"];
const STARTS: usize = 15;
const IDLE: Duration = Duration::from_secs(60);
const PLUGS: usize = 15;

/// Runs the parts whose names contain one of these words (none: all): `plug`, `sub-key`, `starts`, `services`.
pub async fn run(words: &[String]) {
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| part.contains(word));
    // usbguard does not start without rules.
    sh("usbguard generate-policy >/etc/usbguard/rules.conf; systemctl stop usbguard");
    // After it is stopped, new devices would stay deauthorized.
    system::run("for hub in /sys/bus/usb/devices/usb*; do echo 1 >$hub/authorized_default; done");
    if wanted("plug") {
        plug_to_offer().await;
    }
    if wanted("sub-key") {
        crate::by_hand::compare().await;
    }
    if wanted("starts") {
        starts();
    }
    if wanted("services") {
        services();
    }
}

fn property(unit: &str, name: &str) -> String {
    system::run(&format!("systemctl show --value --property={name} {unit}")).trim().to_owned()
}

/// Measures start times. The services take turns, so that other load affects all of them alike.
fn starts() {
    let number = |unit: &str, name: &str| property(unit, name).parse::<u64>().unwrap();
    let mut taken: HashMap<&str, Vec<u64>> = HashMap::new();
    for service in [SERVICES; STARTS].concat() {
        let unit = format!("{service}.service");
        sh(&format!("systemctl stop {unit}; systemctl reset-failed {unit}; sync"));
        if sh(&format!("systemctl start {unit}")).status.success() {
            let begun = number(&unit, "InactiveExitTimestampMonotonic");
            let micros = number(&unit, "ActiveEnterTimestampMonotonic") - begun;
            taken.entry(service).or_default().push(micros);
        }
        sh(&format!("systemctl stop {unit}"));
    }
    println!("\n| service | start ms, median of {STARTS} by turns | least | most |");
    println!("| --- | --- | --- | --- |");
    for service in SERVICES {
        let Some(all) = taken.get_mut(service) else {
            println!("| {service} | does not start here | – | – |");
            continue;
        };
        all.sort_unstable();
        let at = |place: usize| Duration::from_micros(all[place]).as_millis();
        println!("| {service} | {} | {} | {} |", at(all.len() / 2), at(0), at(all.len() - 1));
    }
}

fn services() {
    println!("\n| service | PSS MB | switches in {} s idle | exposure |", IDLE.as_secs());
    println!("| --- | --- | --- | --- |");
    for service in SERVICES {
        println!("{}", row(service));
    }
}

fn row(service: &str) -> String {
    let unit = format!("{service}.service");
    let property = |name: &str| property(&unit, name);
    if !sh(&format!("systemctl restart {unit}")).status.success() {
        return format!("| {service} | does not start here | – | – |");
    }
    // Wait until its start is complete.
    thread::sleep(Duration::from_secs(5));
    let process = property("MainPID");
    let pss = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok().and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        kib.split_whitespace().next()?.parse::<f64>().ok()
    });
    // The idle exit is switched off while wake-ups are counted.
    let process = if service == "keywrightd" {
        system::run(&format!("mkdir -p /etc/keywright && echo idle_exit_seconds = 0 >{CONFIG}"));
        system::run(&format!("systemctl restart {unit} && sleep 5"));
        property("MainPID")
    } else {
        process
    };
    let before = switches(&process);
    thread::sleep(IDLE);
    let idle = match (before, switches(&process)) {
        // The process has exited meanwhile.
        (Some(before), Some(after)) => {
            let own = after.own.saturating_sub(before.own);
            match after.store.saturating_sub(before.store) {
                0 => own.to_string(),
                store => format!("{own}, and {store} of sled's threads"),
            }
        }
        _ => "ends by itself".into(),
    };
    let exposure = sh(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
    let exposure = String::from_utf8_lossy(&exposure.stdout).into_owned();
    let exposure = exposure.split_whitespace().find(|word| word.parse::<f64>().is_ok());
    let pss = pss.map_or("–".into(), |kib| format!("{:.1}", kib / 1024.0));
    format!("| {service} | {pss} | {idle} | {} |", exposure.unwrap_or("–"))
}

/// Number of context switches.
struct Switches {
    own: u64,
    /// Of sled's threads, which cannot be turned off.
    store: u64,
}

/// Counts the context switches of all threads of a process.
fn switches(process: &str) -> Option<Switches> {
    let mut switches = Switches { own: 0, store: 0 };
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let thread = thread.ok()?.path();
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let counts = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        let numbers = counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let is_store = fs::read_to_string(thread.join("comm")).ok()?.starts_with("sled-io");
        let count = if is_store { &mut switches.store } else { &mut switches.own };
        *count += numbers.sum::<u64>();
    }
    Some(switches)
}

/// Measures the time from udev's `add` of the CCID interface to the offer's object on the bus, and the token's share of
/// it: its first 4 commands.
async fn plug_to_offer() {
    let (mut machine, master) = Machine::with_master().await;
    let clock = Clock::set();
    let (mut offers, mut tokens) = (Vec::new(), Vec::new());
    for n in 0..PLUGS {
        let connection = connect().await;
        let rule = MatchRule::builder().member("InterfacesAdded").path(api::MANAGER_PATH);
        let rule = rule.build().unwrap();
        let added = MessageStream::for_match_rule(rule, &connection, None).await;
        let mut added = added.unwrap();
        let (events, log) = ("/run/udev-events", format!("/run/commands-{n}"));
        let mut monitor = std::process::Command::new("/bin/sh")
            .args(["-c", &format!("exec stdbuf -oL udevadm monitor --udev --subsystem-match=usb/usb_interface >{events}")])
            .spawn()
            .unwrap();
        // It prints this when it is ready.
        system::run(&format!("until grep -q processing {events}; do sleep 0.05; done"));
        let key = machine.insert(&format!("blank {n}"), &["--log", &log]);
        let offered = loop {
            let message = added.next().await.unwrap().unwrap();
            let (path, _): (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
                message.body().deserialize().unwrap();
            if path.as_str().contains("/serializations/") {
                break clock.now();
            }
        };
        let interface = format!("{}:1.0", vhci::device_name(key.port));
        system::run(&format!("until grep -q 'add .*{interface}' {events}; do sleep 0.05; done"));
        let _ = monitor.kill();
        monitor.wait().unwrap();
        let text = fs::read_to_string(events).unwrap();
        let line = text.lines().find(|line| line.contains(" add ") && line.contains(&interface));
        let seconds =
            line.unwrap().split(['[', ']']).nth(1).unwrap().trim().parse::<f64>().unwrap();
        offers.push(offered - seconds * 1000.0);
        let commands = fs::read_to_string(log).unwrap();
        let micros = commands
            .lines()
            .take(4)
            .filter_map(|line| line.rsplit('\t').next()?.parse::<f64>().ok());
        tokens.push(micros.sum::<f64>() / 1000.0);
        let path = machine.until_shown_in(key.port).await;
        drop(key);
        machine.until_gone(&path).await;
    }
    drop(master);
    println!(
        "\nplug to offer, {PLUGS} times: {} ms, of which the token computed {} ms",
        spread(offers),
        spread(tokens)
    );
}

/// The clock of udevadm's time stamps, in milliseconds, at one moment.
struct Clock(f64, Instant);

impl Clock {
    fn set() -> Self {
        let mut head = [0; 200];
        let length = fs::File::open("/proc/timer_list").unwrap().read(&mut head).unwrap();
        let at = Instant::now();
        let text = String::from_utf8_lossy(&head[..length]).into_owned();
        let nanoseconds = text.split("now at ").nth(1).and_then(|rest| rest.split(' ').next());
        Self(nanoseconds.unwrap().parse::<f64>().unwrap() / 1e6, at)
    }

    fn now(&self) -> f64 {
        self.0 + self.1.elapsed().as_secs_f64() * 1000.0
    }
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 100];
    format!("{:.1} (median; {:.1} to {:.1})", at(50), at(0), at(100))
}
