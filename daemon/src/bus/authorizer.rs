//! Decides whether a caller may do something. On the system bus polkit decides; on any other bus only the daemon's own
//! user is allowed. If neither can be asked, the call is denied.

use std::{collections::HashMap, time::Duration};

use tokio::time::timeout;
use zbus::{
    Connection, Variant,
    fdo::DBusProxy,
    message::{Flags, Header},
    names::UniqueName,
};

use crate::caller::Caller;

/// How long polkit may take without a person.
const POLKIT_TIMEOUT: Duration = Duration::from_secs(25);
/// How long polkit may take if it may ask a person for a password.
const INTERACTIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// `CheckAuthorizationFlags`: AllowUserInteraction.
const ALLOW_USER_INTERACTION: u32 = 1;

/// Who decides whether a call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// polkit.
    Polkit,
    /// This user may call everything, others nothing.
    OnlyUser(u32),
}

/// Checks whether the sender of a call is allowed to make it.
#[derive(Debug, Clone)]
pub struct Authorizer {
    connection: Connection,
    policy: Policy,
}

#[zbus::proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    fn check_authorization(
        &self,
        subject: &(&str, HashMap<&str, Variant<'_>>),
        action: &str,
        details: HashMap<&str, &str>,
        flags: u32,
        cancellation: &str,
    ) -> zbus::Result<(bool, bool, HashMap<String, String>)>;
}

impl Authorizer {
    /// Checks callers on this connection.
    pub fn new(connection: &Connection, policy: Policy) -> Self {
        Self { connection: connection.clone(), policy }
    }

    /// Who calls; none if the call has no sender, or its sender has left the bus.
    pub async fn caller(&self, call: &Header<'_>) -> Option<Caller> {
        let sender = call.sender()?;
        match self.user_of(sender).await {
            Ok(uid) => Some(Caller { name: sender.to_string(), uid }),
            Err(error) => {
                tracing::warn!(%sender, %error, "cannot tell whose call this is");
                None
            }
        }
    }

    /// Whether the caller of this call may do this. False if polkit could not be asked.
    pub async fn allows(&self, caller: &Caller, call: &Header<'_>, action: &str) -> bool {
        match (self.policy, call.sender()) {
            (Policy::OnlyUser(uid), _) => caller.uid == uid,
            (Policy::Polkit, Some(sender)) => {
                let interactive = call.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
                self.ask_polkit(sender, action, interactive).await
            }
            (Policy::Polkit, None) => false,
        }
    }

    async fn user_of(&self, sender: &UniqueName<'_>) -> zbus::Result<u32> {
        let bus = DBusProxy::new(&self.connection).await?;
        let uid = timeout(POLKIT_TIMEOUT, bus.get_connection_unix_user(sender.into()));
        Ok(uid.await.map_err(|_| timed_out())??)
    }

    async fn ask_polkit(&self, sender: &UniqueName<'_>, action: &str, interactive: bool) -> bool {
        let (flags, limit) = if interactive {
            (ALLOW_USER_INTERACTION, INTERACTIVE_TIMEOUT)
        } else {
            (0, POLKIT_TIMEOUT)
        };
        let asked = async {
            let authority = AuthorityProxy::new(&self.connection).await?;
            let subject =
                ("system-bus-name", HashMap::from([("name", Variant::from(sender.as_str()))]));
            authority.check_authorization(&subject, action, HashMap::new(), flags, "").await
        };
        match timeout(limit, asked).await.unwrap_or_else(|_| Err(timed_out())) {
            Ok((authorized, _challenge, _details)) => authorized,
            Err(error) => {
                tracing::warn!(%sender, action, %error, "polkit did not answer: denied");
                false
            }
        }
    }
}

fn timed_out() -> zbus::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
