//! The way to a USB token: straight to its interface, or through pcscd where that runs and has it already.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::claim::{self, Claim};
use super::pcsc::PcscTransport;
use super::usb::{Interface, Usb};
use super::{Connector, Transport, TransportError, pcscd};

/// How long a pcscd that runs is given to take up a token that was just plugged in; it needs about 0.2 s.
const TAKING_UP: Duration = Duration::from_secs(2);

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
    interface: Interface,
    /// What a reader's name is likely to contain: the token's USB serial number or its model.
    hint: String,
    route: Route,
    /// pcscd has had its time to take the token up since it was plugged in.
    taken_up: AtomicBool,
}

impl UsbConnector {
    /// Opens the token behind this interface in this way. `hint` is what the name of pcscd's reader is likely to contain:
    /// an order to look in, nothing more.
    pub fn new(usb: Usb, interface: Interface, hint: String, route: Route) -> Self {
        Self { usb, interface, hint, route, taken_up: AtomicBool::new(false) }
    }

    fn ways(&self) -> (bool, bool) {
        self.route.ways(pcscd::is_active(Path::new("/")))
    }
}

impl Connector for UsbConnector {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let (pcscd, direct) = self.ways();
        if pcscd {
            let limits = self.usb.limits(&self.interface)?;
            // Both of us hear of a plug at the same time, and whoever claims the token first keeps the other out.
            let patience = if self.taken_up.swap(true, Ordering::Relaxed) {
                Duration::ZERO
            } else {
                TAKING_UP
            };
            let place = self.interface.place;
            if let Some(shared) = PcscTransport::open(place, &self.hint, limits, patience)? {
                return Ok(Box::new(shared));
            }
        }
        if !direct {
            return Err(TransportError::Unusable(
                "pcscd is not running or does not have it, and `route` allows no other way".into(),
            ));
        }
        Ok(Box::new(self.usb.open(&self.interface)?))
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        let Interface { place, sysfs, .. } = &self.interface;
        let (pcscd, _) = self.ways();
        // pcscd keeps its claim when a program lets go of a token in it, and does not say so; and what nobody has
        // claimed was let go in between, or refused for a reason of its own. So these are tried again after a while all
        // the same, but not at once, and ever more seldom.
        let at_most = (pcscd || !claim::is_claimed(sysfs)).then(|| claim::back_off(attempts));
        let node = claim::node(place.bus, place.device);
        claim::wait_until_free(&node, sysfs, at_most) != Claim::Gone
    }
}

impl Route {
    /// Whether pcscd is asked for the token, and whether it may be claimed where pcscd does not have it.
    fn ways(self, pcscd_is_active: bool) -> (bool, bool) {
        match self {
            Self::Auto => (pcscd_is_active, true),
            Self::Direct => (false, true),
            Self::Pcscd => (pcscd_is_active, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcscd_is_asked_only_while_it_runs() {
        for (route, active, ways) in [
            (Route::Auto, false, (false, true)),
            (Route::Auto, true, (true, true)),
            (Route::Direct, false, (false, true)),
            (Route::Direct, true, (false, true)),
            (Route::Pcscd, false, (false, false)),
            (Route::Pcscd, true, (true, false)),
        ] {
            assert_eq!(route.ways(active), ways, "{route:?}, active: {active}");
        }
    }
}
