//! Chooses the route to a USB token: directly to its interface, or through pcscd if that runs and has the token.
//!
//! `docs/living-with-others.md` describes the choice for administrators.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::claim::{self, Claim};
use super::pcsc::PcscTransport;
use super::usb::{Usb, UsbInterface};
use super::{Connector, Transport, TransportError, pcscd};

/// How long a running pcscd gets to claim a token that was just plugged in; it needs about 0.2 s.
const PCSCD_CLAIM_TIMEOUT: Duration = Duration::from_secs(2);

/// The configured route to tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// Chosen for each Key and each job: pcscd if it has the token, else direct.
    #[default]
    Auto,
    /// Always direct. A Key that pcscd holds is busy.
    Direct,
    /// Always through pcscd. Without it, no Key can be used.
    Pcscd,
}

/// Opens one USB token.
#[derive(Debug)]
pub struct UsbConnector {
    usb: Usb,
    interface: UsbInterface,
    /// A text that the reader's name is likely to contain: the token's USB serial number or its model.
    hint: String,
    route: Route,
    /// pcscd had its time to claim the token since the plug.
    pcscd_had_time: AtomicBool,
}

impl UsbConnector {
    /// Creates a connector for the token behind this interface. `hint` is a text that the name of pcscd's reader is likely
    /// to contain; it only decides which reader is probed first.
    pub fn new(usb: Usb, interface: UsbInterface, hint: String, route: Route) -> Self {
        Self { usb, interface, hint, route, pcscd_had_time: AtomicBool::new(false) }
    }

    /// Opens the token through pcscd; `None` if pcscd does not have it.
    fn open_in_pcscd(&self) -> Result<Option<PcscTransport>, TransportError> {
        let limits = self.usb.limits(&self.interface)?;
        // pcscd hears of a plug at the same time, and the program that claims the token first keeps the other out.
        let timeout = if self.pcscd_had_time.swap(true, Ordering::Relaxed) {
            Duration::ZERO
        } else {
            PCSCD_CLAIM_TIMEOUT
        };
        PcscTransport::open(self.interface.address, &self.hint, limits, timeout).or_else(|error| {
            match self.route.error_after_pcscd(error, is_active(), self.interface.sysfs.exists()) {
                Some(error) => {
                    // A restarted pcscd needs time to claim the token again.
                    self.pcscd_had_time
                        .fetch_and(error != TransportError::ServiceGone, Ordering::Relaxed);
                    Err(error)
                }
                None => Ok(None),
            }
        })
    }
}

impl UsbConnector {
    /// Whether the kernel has the device but there is no node to open.
    fn is_without_node(&self) -> bool {
        let UsbInterface { address, sysfs, .. } = &self.interface;
        !claim::node(address.bus, address.device).exists() && sysfs.exists()
    }
}

fn is_active() -> bool {
    pcscd::is_active(Path::new("/"))
}

impl Connector for UsbConnector {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let active = is_active();
        let (pcscd, direct) = self.route.allowed(active);
        if pcscd && let Some(shared) = self.open_in_pcscd()? {
            return Ok(Box::new(shared));
        }
        if !direct {
            return Err(TransportError::Unusable(
                "pcscd is not running or does not have it, and `route` allows no other way".into(),
            ));
        }
        match self.usb.open(&self.interface) {
            Ok(claimed) => Ok(Box::new(claimed)),
            Err(TransportError::Busy { .. }) => {
                Err(TransportError::Busy { holder: self.route.holder(active).into() })
            }
            // An unplugged token has no sysfs entry either.
            Err(TransportError::Gone) if self.is_without_node() => Err(TransportError::Unusable(
                "its device node is not there; plug it in again".into(),
            )),
            Err(error) => Err(error),
        }
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        let UsbInterface { address, sysfs, .. } = &self.interface;
        let (pcscd, _) = self.route.allowed(is_active());
        // pcscd keeps its claim, and does not report it, when one of its clients releases the token. An interface that
        // is not claimed was released in between, or opening failed for another reason. In both cases no event may come,
        // so opening is tried again after a back-off.
        let at_most = (pcscd || !claim::is_claimed(sysfs)).then(|| claim::back_off(attempts));
        let node = claim::node(address.bus, address.device);
        let ended = claim::wait_until_free(&node, sysfs, at_most);
        // pcscd may claim the token now, for example after a restart. No event reports that, so pcscd gets its time after
        // the first wait in any case.
        if pcscd && (ended == Claim::Released || (ended == Claim::Unknown && attempts == 0)) {
            self.pcscd_had_time.store(false, Ordering::Relaxed);
            if ended == Claim::Released && !is_active() {
                std::thread::sleep(claim::back_off(0));
            }
        }
        ended != Claim::Gone
    }
}

impl Route {
    /// Returns whether to try pcscd, and whether to open the token directly if pcscd does not have it.
    fn allowed(self, pcscd_is_active: bool) -> (bool, bool) {
        match self {
            Self::Auto => (pcscd_is_active, true),
            Self::Direct => (false, true),
            Self::Pcscd => (pcscd_is_active, false),
        }
    }

    /// Returns the error to report after opening through pcscd failed, or `None` if the direct route is to be tried.
    ///
    /// A pcscd that ends reports every token as gone; sysfs tells whether the token was really unplugged.
    fn error_after_pcscd(
        self,
        error: TransportError,
        pcscd_is_active: bool,
        is_there: bool,
    ) -> Option<TransportError> {
        let (_, direct) = self.allowed(pcscd_is_active);
        match error {
            TransportError::Gone if !is_there => Some(TransportError::Gone),
            // A restarting pcscd is given the chance to claim the token; the token is probed again later.
            TransportError::Gone | TransportError::ServiceGone if pcscd_is_active || !direct => {
                Some(TransportError::ServiceGone)
            }
            TransportError::Gone | TransportError::ServiceGone => None,
            error => Some(error),
        }
    }

    /// Names the program that holds a token that cannot be claimed. It may be pcscd only if pcscd was not tried.
    fn holder(self, pcscd_is_active: bool) -> &'static str {
        let (asked, _) = self.allowed(pcscd_is_active);
        if pcscd_is_active && !asked { "pcscd or another program" } else { "another program" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcscd_is_asked_only_while_it_runs() {
        for (route, active, allowed) in [
            (Route::Auto, false, (false, true)),
            (Route::Auto, true, (true, true)),
            (Route::Direct, false, (false, true)),
            (Route::Direct, true, (false, true)),
            (Route::Pcscd, false, (false, false)),
            (Route::Pcscd, true, (true, false)),
        ] {
            assert_eq!(route.allowed(active), allowed, "{route:?}, active: {active}");
        }
    }

    #[test]
    fn direct_route_is_used_if_pcscd_ends() {
        use TransportError::{Gone, ServiceGone, Timeout};
        for (route, error, active, is_there, after) in [
            (Route::Auto, ServiceGone, false, true, None),
            (Route::Auto, Gone, false, true, None),
            (Route::Auto, Gone, false, false, Some(Gone)),
            (Route::Auto, Gone, true, false, Some(Gone)),
            // pcscd was restarted already, or is about to end.
            (Route::Auto, ServiceGone, true, true, Some(ServiceGone)),
            (Route::Auto, Gone, true, true, Some(ServiceGone)),
            (Route::Pcscd, ServiceGone, false, true, Some(ServiceGone)),
            (Route::Pcscd, Gone, false, true, Some(ServiceGone)),
            (Route::Auto, Timeout, false, true, Some(Timeout)),
        ] {
            let case = format!("{route:?} {error:?} {active} {is_there}");
            assert_eq!(route.error_after_pcscd(error, active, is_there), after, "{case}");
        }
    }

    #[test]
    fn pcscd_is_named_if_it_may_hold_the_token() {
        for (route, active, holder) in [
            (Route::Auto, false, "another program"),
            (Route::Auto, true, "another program"),
            (Route::Direct, false, "another program"),
            (Route::Direct, true, "pcscd or another program"),
        ] {
            assert_eq!(route.holder(active), holder, "{route:?}, active: {active}");
        }
    }
}
