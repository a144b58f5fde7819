//! `doctor`: collects facts about this machine, runs the checks on them, and prints what to fix.

use std::{collections::HashMap, path::Path};

use keywright_client::{Bus, Client, bus};
use zbus::{
    Connection, OwnedObjectPath,
    fdo::{DBusProxy, PropertiesProxy},
    names::InterfaceName,
};

use crate::{
    checks::{CHECKS, Facts, Finding, Health, Unit},
    failure::Failure,
    installed,
    output::Output,
    usb,
};

/// Runs every check. Exit status 1 if one fails.
pub async fn run(bus: &Bus, output: &mut Output) -> Result<(), Failure> {
    let facts = facts(bus).await;
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
    output.show(&findings, || text(&findings))?;
    if findings.iter().any(|finding| finding.result == Health::Fail) {
        return Err(Failure::AlreadyReported);
    }
    Ok(())
}

async fn facts(bus: &Bus) -> Facts {
    let mut facts = Facts::default();
    // Only the daemon on the system bus is the installed one.
    if *bus == Bus::System {
        let root = Path::new("/");
        facts.installed = Some(installed::inspect(root));
        facts.tokens = Some(usb::tokens(root));
    }
    let client = match Client::connect(bus).await {
        Ok(client) => client,
        Err(error) => {
            facts.bus = Some(Err(error.to_string()));
            return facts;
        }
    };
    facts.bus = Some(Ok(()));
    facts.activatable = activatable(client.connection()).await.unwrap_or_default();
    facts.version = Some(client.version().await.map_err(|error| error.to_string()));
    // On other buses the daemon does not use polkit: it serves its own user only.
    if *bus == Bus::System {
        let actions = actions(client.connection()).await;
        facts.polkit = Some(actions.map_err(|error| error.to_string()));
        facts.unit = unit(client.connection()).await.ok();
    }
    // Another call would wait half a minute for a daemon that does not start.
    if matches!(facts.version, Some(Ok(_))) {
        facts.state = client.state().await.ok();
        facts.lost_registry = client.lost_registry().await.ok().flatten();
    }
    facts
}

async fn activatable(connection: &Connection) -> zbus::Result<bool> {
    let names = DBusProxy::new(connection).await?.list_activatable_names().await?;
    Ok(names.iter().any(|name| name.as_str() == bus::NAME))
}

/// Returns the state of the daemon's unit from systemd.
async fn unit(connection: &Connection) -> zbus::Result<Unit> {
    const SYSTEMD: &str = "org.freedesktop.systemd1";
    let loaded = connection
        .call_method(
            Some(SYSTEMD),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "LoadUnit",
            &"keywrightd.service",
        )
        .await?;
    let path: OwnedObjectPath = loaded.body().deserialize()?;
    let unit = PropertiesProxy::builder(connection).destination(SYSTEMD).path(path).build().await?;
    let interface = InterfaceName::try_from("org.freedesktop.systemd1.Unit")?;
    let property = async |name| -> zbus::Result<String> {
        String::try_from(unit.get(interface.clone(), name).await?)
    };
    Ok(Unit { load: property("LoadState").await?, active: property("ActiveState").await? })
}

/// An action in polkit's `EnumerateActions`: id, description, message, vendor, vendor URL, icon, the
/// three defaults, annotations.
type Action =
    (String, String, String, String, String, String, u32, u32, u32, HashMap<String, String>);

async fn actions(connection: &Connection) -> zbus::Result<Vec<String>> {
    let reply = connection
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "EnumerateActions",
            &"",
        )
        .await?;
    let actions: Vec<Action> = reply.body().deserialize()?;
    Ok(actions.into_iter().map(|action| action.0).collect())
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.result {
            Health::Ok => "ok  ",
            Health::Warn => "warn",
            Health::Fail => "FAIL",
        };
        text.push_str(&format!("{word}  {}\n", finding.text));
        if !finding.fix.is_empty() {
            text.push_str(&format!("      -> {}\n", finding.fix));
        }
    }
    text
}
