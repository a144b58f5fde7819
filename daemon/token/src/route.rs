//! The way to a USB token: straight to its interface, or through pcscd where that runs and has it already.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::claim::{self, Claim};
use super::pcsc::PcscTransport;
use super::usb::{Usb, UsbInterface};
use super::{Connector, Transport, TransportError, pcscd};

/// How long a pcscd that runs is given to take up a token that was just plugged in; it needs about 0.2 s.
const PCSCD_CLAIM_TIMEOUT: Duration = Duration::from_secs(2);

/// What an administrator chooses; nobody has to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// By what is there, for each Key and each job.
    #[default]
    Auto,
    /// Straight to its interface. A Key that pcscd holds is busy.
    Direct,
    /// Through pcscd only. Without it no Key can be used.
    Pcscd,
}

/// Opens one USB token.
#[derive(Debug)]
pub struct UsbConnector {
    usb: Usb,
    interface: UsbInterface,
    /// What a reader's name is likely to contain: the token's USB serial number or its model.
    hint: String,
    route: Route,
    /// pcscd has had its time to take the token up since it was plugged in.
    pcscd_had_time: AtomicBool,
}

impl UsbConnector {
    /// Opens the token behind this interface in this way. `hint` is what the name of pcscd's reader is likely to contain:
    /// an order to look in, nothing more.
    pub fn new(usb: Usb, interface: UsbInterface, hint: String, route: Route) -> Self {
        Self { usb, interface, hint, route, pcscd_had_time: AtomicBool::new(false) }
    }

    /// The token in pcscd; `None` where pcscd does not have it.
    fn open_in_pcscd(&self) -> Result<Option<PcscTransport>, TransportError> {
        let limits = self.usb.limits(&self.interface)?;
        // Both of us hear of a plug at the same time, and whoever claims the token first keeps the other out.
        let timeout = if self.pcscd_had_time.swap(true, Ordering::Relaxed) {
            Duration::ZERO
        } else {
            PCSCD_CLAIM_TIMEOUT
        };
        PcscTransport::open(self.interface.address, &self.hint, limits, timeout).or_else(|error| {
            match self.route.error_after_pcscd(error, is_active(), self.interface.sysfs.exists()) {
                Some(error) => {
                    // A pcscd that starts anew takes it up anew.
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
    /// The kernel has the device, and nobody can open it.
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
            // One that was pulled out has neither.
            Err(TransportError::Gone) if self.is_without_node() => Err(TransportError::Unusable(
                "its device node is not there; plug it in again".into(),
            )),
            Err(error) => Err(error),
        }
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        let UsbInterface { address, sysfs, .. } = &self.interface;
        let (pcscd, _) = self.route.allowed(is_active());
        // pcscd keeps its claim when a program lets go of a token in it, and does not say so; and what nobody has
        // claimed was let go in between, or refused for a reason of its own. So these are tried again after a while all
        // the same, but not at once, and ever more seldom.
        let at_most = (pcscd || !claim::is_claimed(sysfs)).then(|| claim::back_off(attempts));
        let node = claim::node(address.bus, address.device);
        let ended = claim::wait_until_free(&node, sysfs, at_most);
        // pcscd may take the token up now, and first of all one that has ended to start anew: of that nothing may have told, so
        // it is given its time after the first wait in any case.
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
    /// Whether pcscd is asked for the token, and whether it may be claimed where pcscd does not have it.
    fn allowed(self, pcscd_is_active: bool) -> (bool, bool) {
        match self {
            Self::Auto => (pcscd_is_active, true),
            Self::Direct => (false, true),
            Self::Pcscd => (pcscd_is_active, false),
        }
    }

    /// What comes of it that pcscd could not be asked for the token: an error, or `None` where it does not have it any
    /// more. A pcscd that ends says that every token is gone; whether it was pulled out is for sysfs to tell.
    fn error_after_pcscd(
        self,
        error: TransportError,
        pcscd_is_active: bool,
        is_there: bool,
    ) -> Option<TransportError> {
        let (_, direct) = self.allowed(pcscd_is_active);
        match error {
            TransportError::Gone if !is_there => Some(TransportError::Gone),
            // One that starts anew is not kept out of the token: it is looked at again when that has taken it up.
            TransportError::Gone | TransportError::ServiceGone if pcscd_is_active || !direct => {
                Some(TransportError::ServiceGone)
            }
            TransportError::Gone | TransportError::ServiceGone => None,
            error => Some(error),
        }
    }

    /// Who has claimed a token that cannot be claimed: pcscd only where it was not asked, because it would have said so.
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
            // It was started anew already, or is about to end.
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
