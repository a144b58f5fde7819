//! When the daemon ends by itself, and when it is watched while it runs.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    station::{Handle, view::Activity},
    supervisor::Supervisor,
};

/// The service manager kills a daemon that says nothing for so long while it talks to a token. It lets a job be taken
/// up again where it was.
const WATCHDOG: Duration = Duration::from_secs(30);

/// Returns when for `patience` nothing has needed the daemon, and nobody called. While it is needed no timer runs.
pub async fn until_idle(
    mut activity: watch::Receiver<Activity>,
    last_call: impl Fn() -> Instant,
    patience: Duration,
) {
    loop {
        if activity.wait_for(|activity| !activity.needed).await.is_err() {
            // The station has ended, which others notice.
            return pending().await;
        }
        let since = Instant::now();
        loop {
            let deadline = since.max(last_call()) + patience;
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                _ = activity.changed() => break,
            }
        }
    }
}

/// Has the daemon watched while it talks to a token: it is alive as long as the station answers and the bus publishes.
pub async fn watch_over(
    supervisor: &Supervisor,
    station: &Handle,
    mut activity: watch::Receiver<Activity>,
) {
    while activity.wait_for(|activity| activity.working).await.is_ok() {
        supervisor.watch(WATCHDOG);
        loop {
            tokio::select! {
                ended = activity.wait_for(|activity| !activity.working) => {
                    if ended.is_err() {
                        return;
                    }
                    break;
                }
                () = sleep(WATCHDOG / 3) => {
                    // A station that has ended does not answer; the whole daemon ends then.
                    let answered = station.ask(|station, reply| reply.answer(station, Ok(())));
                    if answered.await.is_ok() {
                        supervisor.alive();
                    }
                }
            }
        }
        supervisor.unwatch();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{task::spawn, time::advance};

    use super::*;

    const NEEDED: Activity = Activity { needed: true, working: false, writing: false };
    const UNNEEDED: Activity = Activity { needed: false, ..NEEDED };
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Bench {
        activity: watch::Sender<Activity>,
        last_call: Arc<Mutex<Instant>>,
        idle: tokio::task::JoinHandle<()>,
    }

    impl Bench {
        fn new(begin: Activity) -> Self {
            let activity = watch::Sender::new(begin);
            let last_call = Arc::new(Mutex::new(Instant::now()));
            let last = Arc::clone(&last_call);
            let idle =
                spawn(until_idle(activity.subscribe(), move || *last.lock().unwrap(), PATIENCE));
            Self { activity, last_call, idle }
        }

        async fn pass(&self, seconds: u64) -> bool {
            // Lets the task arm its timer first.
            tokio::task::yield_now().await;
            advance(Duration::from_secs(seconds)).await;
            tokio::task::yield_now().await;
            self.idle.is_finished()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_needed_stays() {
        let bench = Bench::new(NEEDED);
        assert!(!bench.pass(100_000).await);
        bench.activity.send_replace(UNNEEDED);
        assert!(!bench.pass(59).await);
        // Somebody came and left.
        bench.activity.send_replace(NEEDED);
        tokio::task::yield_now().await;
        bench.activity.send_replace(UNNEEDED);
        assert!(!bench.pass(59).await);
        assert!(bench.pass(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_puts_the_end_off() {
        let bench = Bench::new(UNNEEDED);
        assert!(!bench.pass(59).await);
        *bench.last_call.lock().unwrap() = Instant::now();
        assert!(!bench.pass(59).await);
        assert!(bench.pass(2).await);
    }
}
