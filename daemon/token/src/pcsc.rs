//! Talks to a token through pcscd (PC/SC), which shares it with other programs. One transaction lasts for one job.
//!
//! A thread holds the connection and the transaction, because PC/SC has no timeout for another program's transaction and
//! the job must not block on it.

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

/// How long to wait for another program's transaction to end.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for one command. pcscd itself handles a token's requests for more time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for our transaction to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to list the readers if the list grows meanwhile.
const MAX_LISTINGS: usize = 5;
/// How often to begin a transaction if another program's ends with a reset each time.
const MAX_BEGIN_ATTEMPTS: usize = 5;
/// A response APDU has at most 65,536 bytes and a status word.
const MAX_RESPONSE: usize = 65_538;

/// A token in a PC/SC transaction. Dropping it ends the transaction.
pub struct PcscTransport {
    requests: Option<mpsc::Sender<Request>>,
    ended: mpsc::Receiver<()>,
    limits: Limits,
    reset: bool,
}

/// The readers that jobs of this process hold now.
static READERS_IN_USE: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

enum Request {
    Transmit(Zeroizing<Vec<u8>>, mpsc::SyncSender<Result<Vec<u8>, TransportError>>),
    /// Ends the transaction, with a reset of the token if a PIN or key may still be authenticated.
    End {
        reset: bool,
    },
}

/// Returns whether the reader with this name and address is the token's.
type IsToken<'a> = &'a dyn Fn(&CStr, Option<UsbAddress>) -> bool;
type Opened = Result<bool, TransportError>;

impl PcscTransport {
    /// Connects to the token at this address and begins a transaction, after waiting for another program's to end.
    ///
    /// Returns `None` if pcscd does not have the token and does not get it within `reader_timeout`. `hint` is a text that
    /// the reader's name is likely to contain.
    ///
    /// # Errors
    /// [`TransportError::Busy`] if another program keeps it, or if its reader cannot be determined;
    /// [`TransportError::Unusable`] if polkit denies this program the use of readers.
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
                    // The opener may have timed out.
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
            // When the thread gets the transaction, it finds the channel closed and ends it.
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
                // A late response must not be taken for one to the next command.
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
            // The next opener must find the token free. The timeout is for a pcscd that hangs.
            let _ = self.ended.recv_timeout(END_TIMEOUT);
        }
    }
}

/// Finds the reader, begins a transaction and serves requests until it ends. Reports `false` if pcscd does not have the
/// token.
fn find_and_serve(
    hint: &str,
    is_token: IsToken<'_>,
    reader_timeout: Duration,
    queue: &mpsc::Receiver<Request>,
    report: &mpsc::SyncSender<Opened>,
) -> Result<(), TransportError> {
    let context = match Context::establish(Scope::System) {
        // pcscd ended just now, or its socket does not exist.
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

/// Serves requests in one transaction.
fn serve_in_transaction(
    card: &mut Card,
    reader: &CStr,
    is_token: IsToken<'_>,
    queue: &mpsc::Receiver<Request>,
    report: &mpsc::SyncSender<Opened>,
) -> Result<(), TransportError> {
    let transaction = begin_transaction(card).map_err(failure)?;
    // Another token may have got this reader name since it was probed.
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

/// Begins a transaction, after waiting for another program's to end. If that one ended with a reset, it reconnects,
/// because nothing of ours was lost.
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
    // Other programs keep resetting the token, so it is in use.
    Err(Error::SharingViolation)
}

/// Disconnects without a reset. Dropping the connection would reset the token, which disturbs other programs.
fn disconnect(card: Card) {
    if let Err((_, error)) = card.disconnect(Disposition::LeaveCard) {
        tracing::debug!(%error, "pcscd could not be disconnected");
    }
}

/// Transmits commands until the end of the job; returns whether the token must be reset.
fn serve(transaction: &Transaction<'_>, queue: &mpsc::Receiver<Request>) -> bool {
    let mut buffer = Zeroizing::new(vec![0; MAX_RESPONSE]);
    loop {
        match queue.recv() {
            Ok(Request::Transmit(command, reply)) => {
                let answer = transaction.transmit(&command, &mut buffer);
                // libpcsclite reports a connection that pcscd closed as a security violation. A real one is reported earlier.
                let answer = answer.map_err(|error| match error {
                    Error::SecurityViolation => TransportError::ServiceGone,
                    error => failure(error),
                });
                // The job may have timed out.
                let _ = reply.send(answer.map(<[u8]>::to_vec));
            }
            Ok(Request::End { reset }) => return reset,
            // The job ended during a command, so the token may still be authenticated.
            Err(mpsc::RecvError) => return true,
        }
    }
}

/// Waits until pcscd has a reader for the token; `None` after `reader_timeout`.
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

/// Probes until a value is found, again after each change of the list of readers, for which `wait` waits.
///
/// An older pcscd does not report a change between a probe and the following wait, so the last probe is after the
/// deadline.
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

/// Lists the names of all readers. libpcsclite asks for their length first; a new reader may make the list longer than
/// that, and then it is read again.
fn readers(context: &Context) -> Result<Vec<CString>, TransportError> {
    for _ in 0..MAX_LISTINGS {
        match context.list_readers_owned() {
            Err(Error::InsufficientBuffer) => {}
            listed => return listed.map_err(failure),
        }
    }
    Err(busy())
}

/// Finds the token's reader by its USB address. A reader that another program uses exclusively or in a transaction does not
/// tell its address; it is waited for only if no other reader is the token's.
fn find(
    context: &Context,
    hint: &str,
    is_token: IsToken<'_>,
) -> Result<Option<CString>, TransportError> {
    let mut readers = likeliest_first(readers(context)?, hint);
    // A token is used by one job at a time, so readers of our other jobs have other tokens.
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

/// Reads the address of one reader; with `wait`, after waiting for another program's transaction to end.
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
            // These errors concern pcscd, not the reader.
            error @ (TransportError::ServiceGone | TransportError::Unusable(_)) => Err(error),
            // No card, or one that does not respond. It may be any card, so it must not hide the token.
            _ => {
                tracing::debug!(%error, ?reader, "skipping a reader");
                Ok(ReaderProbe::NotToken)
            }
        },
    }
}

fn lock(ours: &Mutex<BTreeSet<CString>>) -> MutexGuard<'_, BTreeSet<CString>> {
    ours.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the USB address of a reader, if its driver reports it.
fn address_of(card: &Card) -> Option<UsbAddress> {
    let attribute = card.get_attribute_owned(Attribute::ChannelId).ok()?;
    UsbAddress::of_channel_id(&attribute)
}

fn busy() -> TransportError {
    TransportError::Busy { holder: "another program, by way of pcscd".into() }
}

/// Translates an error of PC/SC.
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
        // A pcscd that is about to end may accept a command and not answer it. A silent token gives another error.
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
            // The reader appears without a notification.
            thread::sleep(left);
            seen.set(true);
            Ok(())
        };
        assert_eq!(poll_until(Instant::now() + reader_timeout, probe, wait), Ok(Some("it")));
        // With a deadline that has passed, there is no wait.
        let never = |_| panic!("no wait is expected");
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
