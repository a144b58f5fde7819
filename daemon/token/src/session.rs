//! Runs a job on a token: a session is one named thread that owns the open token from the start of the job to its end.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::{Connector, Token, TokenError};

type Job = Box<dyn FnOnce(&mut Token) + Send>;

/// An open token, owned by a thread. Dropping it releases the token and waits for the thread.
pub struct Session {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts a thread of this name, which opens the token and selects its PIV application. Blocks.
    ///
    /// # Errors
    /// [`TokenError::NoPiv`]; [`TokenError::SessionEnded`] if the thread cannot be started.
    pub fn open(connector: &Arc<dyn Connector>, thread_name: &str) -> Result<Self, TokenError> {
        let connector = Arc::clone(connector);
        let (jobs, queue) = mpsc::channel::<Job>();
        let (report, opened) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || {
                match connector.open().map_err(TokenError::from).and_then(Token::open) {
                    Ok(mut token) => {
                        // If the opener ended, the queue is closed and the loop ends at once.
                        let _ = report.send(Ok(()));
                        queue.iter().for_each(|job| job(&mut token));
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            })
            .map_err(|_| TokenError::SessionEnded)?;
        let session = Session { jobs: Some(jobs), thread: Some(thread) };
        opened.recv().map_err(|_| TokenError::SessionEnded)??;
        Ok(session)
    }

    /// Runs `job` on the token and returns its result. Blocks.
    ///
    /// # Errors
    /// The error of `job`; [`TokenError::SessionEnded`] if this or an earlier job panicked.
    pub fn run<R, F>(&self, job: F) -> Result<R, TokenError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Token) -> Result<R, TokenError> + Send + 'static,
    {
        let (report, done) = mpsc::sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or(TokenError::SessionEnded)?;
        jobs.send(Box::new(move |token| {
            // `run` waits for this in `recv`.
            let _ = report.send(job(token));
        }))
        .map_err(|_| TokenError::SessionEnded)?;
        done.recv().map_err(|_| TokenError::SessionEnded)?
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The thread ends when the queue does.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported to the caller of `run`.
            let _ = thread.join();
        }
    }
}
