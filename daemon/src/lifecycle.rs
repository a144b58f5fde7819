//! Ends the idle daemon, applies delayed revocations when their delay is over, and runs the service manager's watchdog.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{station::Handle, supervisor::Supervisor, view::Activity};

/// Watchdog timeout while the daemon talks to a token. After a kill and a restart an interrupted job can be resumed.
const WATCHDOG: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns when for `patience` nothing has needed the daemon, no call has come in and no call was waiting. A call may
/// wait for a person whom polkit asks for a password. While the daemon is needed no timer runs.
pub async fn until_idle(
    mut activity: watch::Receiver<Activity>,
    mut waiting: watch::Receiver<usize>,
    last_call: impl Fn() -> Instant,
    patience: Duration,
) {
    loop {
        let unneeded = activity.wait_for(|activity| !activity.needed).await.is_ok();
        if !unneeded || waiting.wait_for(|calls| *calls == 0).await.is_err() {
            // The station has ended. Other tasks report that.
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
                _ = waiting.changed() => break,
            }
        }
    }
}

/// Applies delayed revocations when their delay is over. Delays are in uptime (`uptime`, in seconds), which goes on during
/// a suspend, and which has to be saved now and then: so it is looked at every hour while a revocation waits, and never
/// otherwise.
pub async fn act_after_delays(
    station: Handle,
    mut activity: watch::Receiver<Activity>,
    uptime: impl Fn() -> u64,
) {
    while activity.wait_for(|activity| activity.judges_at.is_some()).await.is_ok() {
        let Some(at) = activity.borrow_and_update().judges_at else { continue };
        let left = at.saturating_sub(uptime());
        if left > 0 {
            let _ = timeout(Duration::from_secs(left).min(HOUR), activity.changed()).await;
            station.tell(|station| station.keep_uptime());
            continue;
        }
        let judged = station.ask(|station, reply| {
            station.settle_all_revocations();
            reply.answer(station, Ok(()));
        });
        // The station has ended. Other tasks report that.
        if judged.await.is_err() {
            return;
        }
        // The station reports the next time a moment later, or not at all if the registry could not be read.
        let _ = timeout(HOUR, activity.changed()).await;
    }
}

/// Runs the watchdog while the daemon talks to a token: the daemon is alive as long as the station answers.
pub async fn run_watchdog(
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
                    // If the station has ended it does not answer, and the whole daemon stops.
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

    const NEEDED: Activity =
        Activity { needed: true, working: false, writing: false, judges_at: None };
    const UNNEEDED: Activity = Activity { needed: false, ..NEEDED };
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Bench {
        activity: watch::Sender<Activity>,
        waiting: watch::Sender<usize>,
        last_call: Arc<Mutex<Instant>>,
        idle: tokio::task::JoinHandle<()>,
    }

    impl Bench {
        fn new(begin: Activity) -> Self {
            let activity = watch::Sender::new(begin);
            let last_call = Arc::new(Mutex::new(Instant::now()));
            let waiting = watch::Sender::new(0);
            let last = Arc::clone(&last_call);
            let idle = spawn(until_idle(
                activity.subscribe(),
                waiting.subscribe(),
                move || *last.lock().unwrap(),
                PATIENCE,
            ));
            Self { activity, waiting, last_call, idle }
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

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_a_person_puts_the_end_off() {
        let bench = Bench::new(UNNEEDED);
        assert!(!bench.pass(1).await);
        *bench.last_call.lock().unwrap() = Instant::now();
        bench.waiting.send_replace(1);
        assert!(!bench.pass(110).await, "a password is typed");
        // Another call comes and goes meanwhile.
        bench.waiting.send_replace(2);
        assert!(!bench.pass(1).await);
        bench.waiting.send_replace(1);
        assert!(!bench.pass(100).await);
        bench.waiting.send_replace(0);
        assert!(!bench.pass(59).await);
        assert!(bench.pass(2).await);
    }
}
