//! A token through pcscd (PC/SC): shared with other programs, one transaction for one job.
//!
//! A thread of its own holds the connection and the transaction, for two reasons: PC/SC lets nobody say how long to
//! wait for another program's transaction, and what waits must not be the job.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pcsc::{
    Attribute, Card, Context, Disposition, Error, PNP_NOTIFICATION, Protocols, ReaderState, Scope,
    ShareMode, State, Transaction,
};
use zeroize::Zeroizing;

use super::pcsc_reader::{ReaderMatch, ReaderProbe, UsbAddress, likeliest_first, match_readers};
use super::{Limits, Transport, TransportError};

/// How long another program's transaction is waited for.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one command may take; pcscd itself asks the token whether it needs more time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a transaction is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the readers are listed anew where the list grew meanwhile.
const MAX_LISTINGS: usize = 5;
/// How often a transaction is begun anew where the one before it was ended with a reset.
const MAX_BEGIN_ATTEMPTS: usize = 5;
/// A response APDU has at most 65,536 bytes and a status word.
const MAX_RESPONSE: usize = 65_538;

/// A token in a transaction. Dropping it ends the transaction.
pub struct PcscTransport {
    requests: Option<mpsc::Sender<Request>>,
    ended: mpsc::Receiver<()>,
    limits: Limits,
    reset: bool,
}

/// The readers that jobs of ours have right now.
static READERS_IN_USE: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

enum Request {
    Transmit(Zeroizing<Vec<u8>>, mpsc::SyncSender<Result<Vec<u8>, TransportError>>),
    /// With a reset of the token, where something may have stayed authorized.
    End {
        reset: bool,
    },
}

/// Whether a reader of this name at this address is the token's.
type IsToken<'a> = &'a dyn Fn(&CStr, Option<UsbAddress>) -> bool;
type Opened = Result<bool, TransportError>;

impl PcscTransport {
    /// Opens the token at this address and waits until no other program is in the middle of something with it; `None`
    /// where pcscd does not have it, and has not taken it up within `reader_timeout`. `hint` is what its reader's name is likely
    /// to contain.
    ///
    /// # Errors
    /// [`TransportError::Busy`] where another program keeps it, or where it is not sure which reader is its;
    /// [`TransportError::Unusable`] where pcscd lets this program use no reader.
    pub fn open(
        address: UsbAddress,
        hint: &str,
        limits: Limits,
        reader_timeout: Duration,
    ) -> Result<Option<Self>, TransportError> {
        Self::start([TRANSACTION_TIMEOUT, reader_timeout], hint, limits, move |_, found| {
            found == Some(address)
        })
    }

    pub(super) fn start(
        [transaction_timeout, reader_timeout]: [Duration; 2],
        hint: &str,
        limits: Limits,
        is_token: impl Fn(&CStr, Option<UsbAddress>) -> bool + Send + 'static,
    ) -> Result<Option<Self>, TransportError> {
        let hint = hint.to_owned();
        let (requests, queue) = mpsc::channel();
        let (report, opened) = mpsc::sync_channel::<Opened>(1);
        let (ending, ended) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("pcsc".into())
            .spawn(move || {
                if let Err(error) =
                    find_and_serve(&hint, &is_token, reader_timeout, &queue, &report)
                {
                    // Where the opener does not wait any more nobody needs to know.
                    let _ = report.send(Err(error));
                }
                let _ = ending.send(());
            })
            .map_err(|error| TransportError::Protocol(format!("no thread: {error}")))?;
        let transport = PcscTransport { requests: Some(requests), ended, limits, reset: false };
        match opened.recv_timeout(transaction_timeout + reader_timeout) {
            Ok(Ok(true)) => Ok(Some(transport)),
            Ok(Ok(false)) => Ok(None),
            Ok(Err(error)) => Err(error),
            // The thread sees that nobody listens as soon as it is its turn, and lets go.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(busy()),
        }
    }
}

impl Transport for PcscTransport {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Request::Transmit(Zeroizing::new(command.to_vec()), reply);
        let requests = self.requests.as_ref().ok_or(TransportError::Timeout)?;
        requests.send(request).map_err(|_| TransportError::Gone)?;
        match answer.recv_timeout(COMMAND_TIMEOUT) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(TransportError::Gone),
            Err(RecvTimeoutError::Timeout) => {
                // Its late answer must not be taken for the next command's.
                self.requests = None;
                Err(TransportError::Timeout)
            }
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn may_stay_authorized(&mut self, authorized: bool) {
        self.reset = authorized;
    }
}

impl Drop for PcscTransport {
    fn drop(&mut self) {
        if let Some(requests) = self.requests.take()
            && requests.send(Request::End { reset: self.reset }).is_ok()
        {
            // Whoever opens the token next must find it free; a pcscd that hangs is not waited for.
            let _ = self.ended.recv_timeout(END_TIMEOUT);
        }
    }
}

/// Finds the reader, begins a transaction, and serves requests until the end. `false` is reported where pcscd does not
/// have the token.
fn find_and_serve(
    hint: &str,
    is_token: IsToken<'_>,
    reader_timeout: Duration,
    queue: &mpsc::Receiver<Request>,
    report: &mpsc::SyncSender<Opened>,
) -> Result<(), TransportError> {
    let context = match Context::establish(Scope::System) {
        // It ended just now, or its socket is not there.
        Err(Error::NoService | Error::ServiceStopped) => {
            let _ = report.send(Ok(false));
            return Ok(());
        }
        context => context.map_err(failure)?,
    };
    let Some(reader) = wait_for_reader(&context, hint, is_token, reader_timeout)? else {
        let _ = report.send(Ok(false));
        return Ok(());
    };
    let reader = reader.as_c_str();
    let mut card = context.connect(reader, ShareMode::Shared, Protocols::ANY).map_err(failure)?;
    let served = serve_in_transaction(&mut card, reader, is_token, queue, report);
    disconnect(card);
    served
}

/// One transaction, from before the first command to after the last.
fn serve_in_transaction(
    card: &mut Card,
    reader: &CStr,
    is_token: IsToken<'_>,
    queue: &mpsc::Receiver<Request>,
    report: &mpsc::SyncSender<Opened>,
) -> Result<(), TransportError> {
    let transaction = begin_transaction(card).map_err(failure)?;
    // The name may have passed to another token since it was looked at.
    if !is_token(reader, address_of(&transaction)) {
        return Err(TransportError::Gone);
    }
    lock(&READERS_IN_USE).insert(reader.to_owned());
    let reset = report.send(Ok(true)).is_ok() && serve(&transaction, queue);
    lock(&READERS_IN_USE).remove(reader);
    let end = if reset { Disposition::ResetCard } else { Disposition::LeaveCard };
    if let Err((_, error)) = transaction.end(end) {
        tracing::debug!(%error, "a transaction could not be ended");
    }
    Ok(())
}

/// Waits until no other program is in the middle of something, and keeps the token from then on. One that ended with a
/// reset is no trouble of ours: nothing was begun yet, so it is connected anew.
pub(super) fn begin_transaction(mut card: &mut Card) -> Result<Transaction<'_>, Error> {
    for _ in 0..MAX_BEGIN_ATTEMPTS {
        match card.transaction2() {
            Ok(transaction) => return Ok(transaction),
            Err((connected, Error::ResetCard)) => {
                connected.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::LeaveCard)?;
                card = connected;
            }
            Err((_, error)) => return Err(error),
        }
    }
    // Somebody resets it again and again: it is in use.
    Err(Error::SharingViolation)
}

/// Lets go without a reset: dropping a connection would reset the token under the other programs.
fn disconnect(card: Card) {
    if let Err((_, error)) = card.disconnect(Disposition::LeaveCard) {
        tracing::debug!(%error, "pcscd could not be disconnected");
    }
}

/// Passes commands on until the end; says whether the token has to be reset.
fn serve(transaction: &Transaction<'_>, queue: &mpsc::Receiver<Request>) -> bool {
    let mut buffer = Zeroizing::new(vec![0; MAX_RESPONSE]);
    loop {
        match queue.recv() {
            Ok(Request::Transmit(command, reply)) => {
                let answer = transaction.transmit(&command, &mut buffer);
                // The library takes a closed connection for a refusal; whoever was refused is not here.
                let answer = answer.map_err(|error| match error {
                    Error::SecurityViolation => TransportError::ServiceGone,
                    error => failure(error),
                });
                // A job that does not wait any more has noticed already.
                let _ = reply.send(answer.map(<[u8]>::to_vec));
            }
            Ok(Request::End { reset }) => return reset,
            // The job is gone in the middle of a command: assume the worst.
            Err(mpsc::RecvError) => return true,
        }
    }
}

/// The reader of the token, where pcscd has it or takes it up within `reader_timeout`.
fn wait_for_reader(
    context: &Context,
    hint: &str,
    is_token: IsToken<'_>,
    reader_timeout: Duration,
) -> Result<Option<CString>, TransportError> {
    let mut readers = [ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE)];
    let wait = |left| match context.get_status_change(left, &mut readers) {
        Ok(()) => {
            readers[0].sync_current_state();
            Ok(())
        }
        Err(Error::Timeout) => Ok(()),
        Err(error) => Err(failure(error)),
    };
    poll_until(Instant::now() + reader_timeout, || find(context, hint, is_token), wait)
}

/// Looks, and probes again after each reader that comes or goes: those of other tokens may wait first. `wait` waits for the
/// next; what waits between a look and this wait an older pcscd does not tell, so it is looked once more at the end.
fn poll_until<T>(
    deadline: Instant,
    mut probe: impl FnMut() -> Result<Option<T>, TransportError>,
    mut wait: impl FnMut(Duration) -> Result<(), TransportError>,
) -> Result<Option<T>, TransportError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let found = probe()?;
        if found.is_some() || left.is_zero() {
            return Ok(found);
        }
        wait(left)?;
    }
}

/// The names of all readers. pcscd is asked first for their length and then for them; a reader that comes in between makes
/// the second answer longer than the first had said.
fn readers(context: &Context) -> Result<Vec<CString>, TransportError> {
    for _ in 0..MAX_LISTINGS {
        match context.list_readers_owned() {
            Err(Error::InsufficientBuffer) => {}
            listed => return listed.map_err(failure),
        }
    }
    Err(busy())
}

/// The reader of the token, asked of each by its address on the bus. One that another program is in the middle of something
/// with does not answer: it is waited for only where no other is the token's.
fn find(
    context: &Context,
    hint: &str,
    is_token: IsToken<'_>,
) -> Result<Option<CString>, TransportError> {
    let mut readers = likeliest_first(readers(context)?, hint);
    // A token is in one job at a time: what another job of ours has is another token.
    let ours = lock(&READERS_IN_USE).clone();
    readers.retain(|reader| !ours.contains(reader));
    let mut seen = Vec::new();
    for reader in &readers {
        seen.push(probe(context, reader, is_token, false)?);
    }
    if !seen.contains(&ReaderProbe::Token) {
        for (reader, seen) in
            readers.iter().zip(&mut seen).filter(|(_, seen)| **seen == ReaderProbe::Exclusive)
        {
            *seen = probe(context, reader, is_token, true)?;
        }
    }
    match match_readers(&seen) {
        ReaderMatch::Found(position) => Ok(readers.into_iter().nth(position)),
        ReaderMatch::NotFound => Ok(None),
        ReaderMatch::Ambiguous(why) => Err(TransportError::Busy { holder: why.into() }),
    }
}

/// Asks one reader where it is; `wait` for the end of another program's transaction.
fn probe(
    context: &Context,
    reader: &CStr,
    is_token: IsToken<'_>,
    wait: bool,
) -> Result<ReaderProbe, TransportError> {
    let card = context.connect(reader, ShareMode::Shared, Protocols::ANY);
    let address = card.and_then(|mut card| {
        let address = match card.get_attribute_owned(Attribute::ChannelId) {
            Err(Error::SharingViolation) if wait => {
                begin_transaction(&mut card).map(|alone| address_of(&alone))
            }
            Err(Error::SharingViolation) => Err(Error::SharingViolation),
            attribute => Ok(attribute.ok().and_then(|id| UsbAddress::of_channel_id(&id))),
        };
        disconnect(card);
        address
    });
    match address {
        Ok(address) if is_token(reader, address) => Ok(ReaderProbe::Token),
        Ok(_) => Ok(ReaderProbe::NotToken),
        Err(Error::SharingViolation) => Ok(ReaderProbe::Exclusive),
        Err(error) => match failure(error) {
            // Said of pcscd, and so of every reader.
            error @ (TransportError::ServiceGone | TransportError::Unusable(_)) => Err(error),
            // Nothing is in it, or nothing that can be talked to. It may be any card at all, and keeps nobody from the token.
            _ => {
                tracing::debug!(%error, ?reader, "a reader is passed over");
                Ok(ReaderProbe::NotToken)
            }
        },
    }
}

fn lock(ours: &Mutex<BTreeSet<CString>>) -> MutexGuard<'_, BTreeSet<CString>> {
    ours.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a reader is on the bus, where its driver says so.
fn address_of(card: &Card) -> Option<UsbAddress> {
    let attribute = card.get_attribute_owned(Attribute::ChannelId).ok()?;
    UsbAddress::of_channel_id(&attribute)
}

fn busy() -> TransportError {
    TransportError::Busy { holder: "another program, by way of pcscd".into() }
}

/// What PC/SC calls an error, in the words of this house.
fn failure(error: Error) -> TransportError {
    match error {
        Error::ResetCard => TransportError::Reset,
        Error::RemovedCard
        | Error::NoSmartcard
        | Error::UnpoweredCard
        | Error::UnresponsiveCard
        | Error::UnknownReader
        | Error::ReaderUnavailable
        | Error::InvalidHandle => TransportError::Gone,
        // A pcscd that is about to end may take a question and not answer it; a token that is silent is another error.
        Error::NoService
        | Error::ServiceStopped
        | Error::Shutdown
        | Error::CommError
        | Error::Timeout => TransportError::ServiceGone,
        Error::SharingViolation => busy(),
        Error::NotTransacted => TransportError::Protocol("pcscd cannot reach it".into()),
        Error::SecurityViolation | Error::NoAccess => TransportError::Unusable(
            "pcscd lets this program use no reader; install the rule file for polkit that comes with it".into(),
        ),
        error => TransportError::Protocol(format!("PC/SC: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_probed_until_the_token_is_found() {
        let (mut probes, mut waits) = (0, 0);
        let probe = || {
            probes += 1;
            Ok((probes == 4).then_some("it"))
        };
        let wait = |_| {
            waits += 1;
            Ok(())
        };
        let deadline = Instant::now() + Duration::from_secs(600);
        assert_eq!(poll_until(deadline, probe, wait), Ok(Some("it")));
        assert_eq!((probes, waits), (4, 3));
    }

    #[test]
    fn unannounced_reader_is_found_at_the_deadline() {
        let mut waited = false;
        let reader_timeout = Duration::from_millis(500);
        let seen = std::cell::Cell::new(false);
        let probe = || Ok(seen.get().then_some("it"));
        let wait = |left| {
            assert!(!std::mem::replace(&mut waited, true) && left <= reader_timeout);
            // It comes, and nothing tells.
            thread::sleep(left);
            seen.set(true);
            Ok(())
        };
        assert_eq!(poll_until(Instant::now() + reader_timeout, probe, wait), Ok(Some("it")));
        // Where pcscd has had its time already it is not waited for.
        let never = |_| panic!("nobody waits");
        assert_eq!(poll_until::<()>(Instant::now(), || Ok(None), never), Ok(None));
    }

    #[test]
    fn ended_pcscd_ends_the_wait() {
        let deadline = Instant::now() + Duration::from_secs(600);
        let ends = |_| Err(TransportError::ServiceGone);
        let ended = poll_until::<()>(deadline, || Ok(None), ends);
        assert_eq!(ended, Err(TransportError::ServiceGone));
    }
}
