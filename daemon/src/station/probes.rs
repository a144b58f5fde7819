//! Probes tokens: what each one is, then its details; and again after a temporary failure.

use std::{sync::mpsc, thread, time::Duration};

use keywright_rules::decision::Plugged;
use keywright_rules::presence;
use keywright_token::hotplug::{Device, DeviceId};
use keywright_token::{CardSlot, Details, Identity, Session, TokenError, TransportError};

use super::{Handle, Station};
use crate::{
    keys::{Identified, left_early},
    registry::Registry,
    view::Trouble,
};

/// How long offers wait for a token to be identified. A working token needs a twentieth of this; a running pcscd gets
/// half of it to take the token up.
const SILENT: Duration = Duration::from_secs(4);

impl Station {
    pub(super) fn plugged(&mut self, device: Device) {
        let plugged = self.keys.plugged();
        tracing::debug!(?device, "plugged in");
        self.probe(device, plugged, 0);
    }

    /// Probes a token. `attempts` is the number of probes that failed temporarily before.
    fn probe(&mut self, device: Device, plugged: Plugged, attempts: u32) {
        self.keys.probe_begins(&device.id);
        let (connector, id) = (device.connector.clone(), device.id.clone());
        let (early, registry) = (self.myself.clone(), self.families.registry().clone());
        let (shown, read, again) = (device.clone(), device.id.clone(), device.clone());
        let job = move || -> Result<Details, TokenError> {
            let patience = Patience::start(&early, &shown);
            let session = Session::open(&connector, &format!("token-{}", shown.port));
            let identity = session
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|session| identify(session, &registry));
            drop(patience);
            // The offer does not wait for the details.
            let failed = identity.as_ref().err().cloned();
            let blank = identity.as_ref().is_ok_and(|identity| {
                identity.access_certificate.is_none() && identity.issuing_certificate.is_none()
            });
            early.tell(move |station| station.identified(shown, plugged, attempts, identity));
            match failed {
                Some(error) => Err(error),
                None => session?.run(move |token| token.read_details(blank)),
            }
        };
        let name = format!("plug-{}", device.port);
        self.work(
            name,
            vec![id],
            |_| Ok(()),
            job,
            move |station, details| match details {
                Ok(Ok(details)) => station.keys.detailed(&read, details, &station.families),
                Ok(Err(error)) => station.not_detailed(again, plugged, attempts, &error),
                // The job was lost without an answer, so the probe ends here.
                Err(_) => drop(station.keys.probe_ends(&read)),
            },
        );
    }

    /// Applies the identity of a token.
    fn identified(
        &mut self,
        device: Device,
        plugged: Plugged,
        attempts: u32,
        identity: Result<Identity, TokenError>,
    ) {
        let Self { keys, jobs, families, .. } = self;
        let interrupted =
            |claims: &_, guid| jobs.interrupted_candidate(&device, claims, guid, families);
        let probe_again =
            match keys.identified(&device, plugged, attempts, identity, families, interrupted) {
                Identified::Nothing => false,
                Identified::ProbeAgain => true,
                Identified::Shown { label, before, is_new_plug, probe_again } => {
                    if let Some(before) = before {
                        keys.touch(&before);
                        keys.forget_if_unknown(&before, jobs.involve(&before), families);
                    }
                    if is_new_plug {
                        jobs.forget_history_of(&label);
                        jobs.key_came(&label, keys, families);
                    }
                    probe_again
                }
            };
        if probe_again {
            self.wait_until_free(device, plugged, attempts);
        }
    }

    /// Probes a token again after a temporary failure.
    fn wait_until_free(&mut self, device: Device, plugged: Plugged, attempts: u32) {
        let connector = device.connector.clone();
        self.work(
            format!("busy-{}", device.port),
            Vec::new(),
            |_| Ok(()),
            move || connector.wait_until_free(attempts),
            move |station, freed| {
                let waits = station.keys.stop_waiting(&device.id);
                let is_shown = station.keys.by_device(&device.id).is_some();
                if matches!(freed, Ok(true)) && (waits || is_shown) {
                    tracing::debug!(?device, "probed again");
                    station.probe(device, plugged, attempts.saturating_add(1));
                } else if waits && !is_shown {
                    left_early(&device.id);
                }
            },
        );
    }

    /// The details of a token could not be read. If it was not identified either, [`Self::identified`] has handled
    /// that, and another probe may be waiting already: leave that one alone.
    fn not_detailed(
        &mut self,
        device: Device,
        plugged: Plugged,
        attempts: u32,
        error: &TokenError,
    ) {
        if !self.keys.is_usable(&device.id) {
            return;
        }
        // Most often the token was unplugged, and the kernel is about to report that.
        let is_gone = matches!(error, TokenError::Transport(TransportError::Gone));
        if !is_gone {
            tracing::warn!(?device, %error, "a token did not tell the state of its PIN");
        }
        if is_gone || Trouble::of(error).passes {
            self.wait_until_free(device, plugged, attempts);
        }
    }

    pub(super) fn unplugged(&mut self, device: &DeviceId) {
        let Self { keys, jobs, families, .. } = self;
        let Some(label) = keys.unplugged(device) else { return };
        jobs.key_left(&label, keys, families);
        keys.forget_if_unknown(&label, jobs.involve(&label), families);
        keys.forget_the_longest_absent(|label| jobs.involve(label));
    }
}

/// Reads the identity of a token, and the family's card if it is an issuer's of whose family no Lock is known here: one
/// command more, which no known Key has to wait for.
fn identify(session: &Session, registry: &Registry) -> Result<Identity, TokenError> {
    let mut identity = session.run(|token| token.read_identity())?;
    let claims = presence::claims(&identity);
    let (Some((family, _)), Some(_)) = (claims.family, claims.issuing) else { return Ok(identity) };
    if registry.family(family).is_ok_and(|known| known.is_none_or(|known| known.locks == 0)) {
        match session.run(|token| token.read_card()) {
            Ok(CardSlot::Card(card)) => identity.card = Some(card),
            Ok(CardSlot::Empty | CardSlot::Other) => {}
            Err(error @ TokenError::Transport(TransportError::Gone)) => return Err(error),
            Err(error) => tracing::warn!(%error, "a family card cannot be read"),
        }
    }
    Ok(identity)
}

/// Waits on a thread of its own while a token is identified. Reports a token that is silent for long, so that it delays
/// nobody's offer. Ends when it is dropped.
struct Patience {
    _answered: mpsc::Sender<()>,
}

impl Patience {
    fn start(station: &Handle, device: &Device) -> Self {
        let (answered, silent) = mpsc::channel();
        let (station, device) = (station.clone(), device.clone());
        let wait = move || {
            if silent.recv_timeout(SILENT) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::debug!(?device, "a token is silent; it is no longer waited for");
                station.tell(move |station| {
                    station.keys.is_silent(&device.id);
                });
            }
        };
        // Without this thread, offers wait until the read times out.
        let _ = thread::Builder::new().name("patience".into()).spawn(wait);
        Self { _answered: answered }
    }
}
