//! Delays a suspend (logind) while a Key is being written, and has all tokens probed again after it.

use std::future::poll_fn;

use futures_core::Stream;
use tokio::sync::watch;
use zbus::{Connection, OwnedFd};

use crate::view::Activity;

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Logind {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// Holds a delay inhibitor exactly while a Key is being written, and calls `resumed` after each suspend. Without logind it
/// does nothing. Runs until the connection to the bus breaks.
///
/// # Errors
/// The connection to the bus broke.
pub async fn guard(
    connection: Connection,
    mut activity: watch::Receiver<Activity>,
    resumed: impl Fn(),
) -> zbus::Result<()> {
    let logind = LogindProxy::new(&connection).await?;
    let mut sleeps = logind.receive_prepare_for_sleep().await?;
    // Dropping the descriptor lets the suspend go on.
    let mut inhibitor = None;
    loop {
        tokio::select! {
            changed = activity.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let writing = activity.borrow_and_update().writing;
                if !writing {
                    inhibitor = None;
                } else if inhibitor.is_none() {
                    let taken = logind.inhibit("sleep", "keywrightd", "a Key is being written", "delay");
                    inhibitor = taken.await.inspect_err(|error| {
                        tracing::debug!(%error, "a suspend cannot be held up");
                    }).ok();
                }
            }
            sleep = poll_fn(|context| Pin::new(&mut sleeps).poll_next(context)) => {
                let Some(sleep) = sleep else { return Ok(()) };
                if sleep.args().is_ok_and(|sleep| !sleep.start) {
                    resumed();
                }
            }
        }
    }
}
