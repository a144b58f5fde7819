//! Checks with a monitor on the bus that each method returns only errors that the committed description names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use tokio::task::AbortHandle;
use zbus::{Connection, Message, MessageStream, message::Type};

const DESCRIPTION: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/org.keywright1.xml"));
const PREFIX: &str = "org.keywright1.Error.";
/// Errors that any method may return (`docs/dbus.md`).
const ALWAYS: [&str; 2] = ["Interrupted", "LimitExceeded"];

/// `interface.method`, and the errors that its description names.
type Named = BTreeMap<String, BTreeSet<String>>;

/// Watches the bus of a station. If a passing test drops it, it panics if an error was not described.
pub struct ErrorMonitor {
    undescribed: Arc<Mutex<BTreeSet<String>>>,
    task: AbortHandle,
}

impl ErrorMonitor {
    /// Watches from now on; the connection can be used for nothing else.
    pub async fn start(connection: Connection) -> Self {
        let mut messages = MessageStream::from(&connection);
        let (driver, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        let monitoring = Some("org.freedesktop.DBus.Monitoring");
        let everything = (Vec::<&str>::new(), 0_u32);
        let become_monitor =
            connection.call_method(Some(driver), path, monitoring, "BecomeMonitor", &everything);
        become_monitor.await.unwrap();
        let undescribed = Arc::<Mutex<BTreeSet<String>>>::default();
        let (found, named) = (undescribed.clone(), errors(DESCRIPTION));
        let task = tokio::spawn(async move {
            let mut calls = HashMap::new();
            while let Some(Ok(message)) = messages.next().await {
                if let Some(refusal) = undescribed_by(&named, &mut calls, &message) {
                    found.lock().unwrap().insert(refusal);
                }
            }
        });
        Self { undescribed, task: task.abort_handle() }
    }
}

impl Drop for ErrorMonitor {
    fn drop(&mut self) {
        self.task.abort();
        let undescribed = self.undescribed.lock().unwrap();
        if !std::thread::panicking() {
            assert!(undescribed.is_empty(), "docs/org.keywright1.xml lacks: {undescribed:?}");
        }
    }
}

/// The method and the error, if this message is an error of the daemon that the method's description lacks.
fn undescribed_by(
    named: &Named,
    calls: &mut HashMap<(String, u32), String>,
    message: &Message,
) -> Option<String> {
    let header = message.header();
    if message.message_type() == Type::MethodCall {
        let method = format!("{}.{}", header.interface()?, header.member()?);
        calls.insert((header.sender()?.to_string(), header.primary().serial_num().get()), method);
        return None;
    }
    let caller = (header.destination()?.to_string(), header.reply_serial()?.get());
    let method = calls.remove(&caller)?;
    let error = header.error_name()?.strip_prefix(PREFIX)?.to_owned();
    let is_named = named.get(&method).is_some_and(|errors| errors.contains(&error));
    (!is_named && !ALWAYS.contains(&error.as_str())).then(|| format!("{method}: {error}"))
}

/// Reads the description, which has one element a line, and each comment before its element.
fn errors(description: &str) -> Named {
    let (mut named, mut interface, mut comment) = (Named::new(), String::new(), String::new());
    for line in description.lines().map(str::trim) {
        let name = || line.split('"').nth(1).unwrap_or_default();
        if line.starts_with("<!--") {
            comment.clear();
        } else if line.starts_with("<interface ") {
            interface = name().to_owned();
        } else if line.starts_with("<method ") {
            let list = comment.split_once("Errors:").map(|(_, list)| list).unwrap_or_default();
            let words = list.split([',', '.', ' ']).filter(|word| !word.is_empty());
            named.insert(format!("{interface}.{}", name()), words.map(str::to_owned).collect());
        } else {
            comment.push_str(line);
            comment.push(' ');
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_read() {
        let named = errors(DESCRIPTION);
        let cancel = &named["org.keywright1.Serialization.Cancel"];
        assert!(cancel.contains("NotOwner") && !cancel.contains("PinInvalid"), "{cancel:?}");
        assert!(named.values().all(|errors| errors.contains("NotAuthorized")), "{named:?}");
    }

    #[test]
    fn a_refusal_that_is_not_named_is_noticed() {
        let (named, mut calls) = (errors(DESCRIPTION), HashMap::new());
        let mut refused = |error: &str| {
            let call = Message::method_call("/org/keywright1", "ListKeys")
                .sender(":1.7")
                .interface("org.keywright1.Manager")
                .build(&())
                .unwrap();
            assert_eq!(undescribed_by(&named, &mut calls, &call), None);
            let reply = Message::error(&call.header(), format!("{PREFIX}{error}"));
            undescribed_by(&named, &mut calls, &reply.build(&"").unwrap())
        };
        assert_eq!(refused("InvalidArgument"), None);
        assert_eq!(refused("Interrupted"), None);
        let lacks = "org.keywright1.Manager.ListKeys: PinInvalid";
        assert_eq!(refused("PinInvalid").as_deref(), Some(lacks));
    }
}
