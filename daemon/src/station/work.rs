//! Runs jobs on threads of their own: each waits for its tokens, runs, and returns its result as a message.

use std::thread;

use keywright_token::hotplug::DeviceId;

use super::{Handle, Station, leases::Start};
use crate::error::Error;

impl Station {
    /// Runs a job on its own thread as soon as its tokens are free and `may` allows it, and passes its result to
    /// `done`.
    pub(super) fn work<R: Send + 'static>(
        &mut self,
        name: String,
        tokens: Vec<DeviceId>,
        may: impl FnOnce(&Self) -> Result<(), Error> + Send + 'static,
        job: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Self, Result<R, Error>) + Send + 'static,
    ) {
        let start: Start = Box::new({
            let tokens = tokens.clone();
            move |station| match may(station) {
                Ok(()) => station.run(name, tokens, job, done),
                Err(error) => {
                    station.leases.release(&tokens);
                    done(station, Err(error));
                }
            }
        });
        self.leases.queue(tokens, start);
        self.start_waiting();
    }

    fn run<R: Send + 'static>(
        &mut self,
        name: String,
        tokens: Vec<DeviceId>,
        job: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Self, Result<R, Error>) + Send + 'static,
    ) {
        let way_home = WayHome {
            station: self.myself.clone(),
            done: Some(Box::new(move |station: &mut Self, result| {
                station.leases.release(&tokens);
                done(station, result);
                station.start_waiting();
            })),
        };
        if let Err(error) = thread::Builder::new().name(name).spawn(move || way_home.bring(job())) {
            tracing::error!(%error, "no thread can be started");
        }
    }

    fn start_waiting(&mut self) {
        while let Some(start) = self.leases.next() {
            start(self);
        }
    }
}

/// Handles the result of a job.
type Done<R> = Box<dyn FnOnce(&mut Station, Result<R, Error>) + Send>;

/// Sends the result of a job to the station. If it is dropped without a result (no thread, a panic), it sends
/// [`Error::JobLost`], so that the tokens are released and the caller gets an answer.
struct WayHome<R: 'static> {
    station: Handle,
    done: Option<Done<R>>,
}

impl<R: Send + 'static> WayHome<R> {
    fn bring(mut self, result: R) {
        if let Some(done) = self.done.take() {
            self.station.tell(move |station| done(station, Ok(result)));
        }
    }
}

impl<R: 'static> Drop for WayHome<R> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.station.tell(move |station| done(station, Err(Error::JobLost)));
        }
    }
}
