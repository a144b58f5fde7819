//! Limits how many refusals are logged: calls without authorization, and signed objects that do not verify.
//!
//! Of each user and action at most one an hour is logged, with the number of refusals since the last one. So nobody
//! can fill the disk with them or push older events out of the log.

use std::collections::BTreeMap;

/// How long the same user and action are not logged again, in seconds.
const HOUR: u64 = 3_600;
/// How many users and actions are counted separately. All others are counted together.
const MAX_SOURCES: usize = 32;

/// What is counted separately: a user, if known, and a polkit action or a word for what did not verify.
pub type DenialKey = (Option<u32>, String);

/// Counts refusals and decides which are logged.
#[derive(Debug, Default)]
pub struct Denials {
    recent: BTreeMap<DenialKey, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    written: u64,
    since: u64,
}

impl Denials {
    /// Takes an event into account that an earlier run of the daemon logged.
    pub fn written(&mut self, uid: Option<u32>, action: &str, time: u64) {
        let recent = self.recent.entry((uid, action.into())).or_default();
        recent.written = recent.written.max(time);
    }

    /// Counts a refusal. Returns what to log, if anything: the user, the action, and how many refusals it stands for.
    pub fn refused(
        &mut self,
        uid: Option<u32>,
        action: &str,
        now: u64,
    ) -> Option<(DenialKey, u64)> {
        let who = self.counted_as((uid, action.into()), now);
        let new = !self.recent.contains_key(&who);
        let recent = self.recent.entry(who.clone()).or_default();
        recent.since += 1;
        if !new && !is_over(recent.written, now) {
            return None;
        }
        recent.written = now;
        Some((who, std::mem::take(&mut recent.since)))
    }

    /// The key under which a refusal is counted; the common one if too many are counted separately.
    fn counted_as(&mut self, who: DenialKey, now: u64) -> DenialKey {
        if self.recent.contains_key(&who) {
            return who;
        }
        if self.recent.len() >= MAX_SOURCES {
            self.recent.retain(|_, recent| recent.since > 0 || !is_over(recent.written, now));
        }
        if self.recent.len() < MAX_SOURCES { who } else { (None, String::new()) }
    }
}

/// Also if the clock was set back by an hour: nothing may stay unlogged because of that.
fn is_over(written: u64, now: u64) -> bool {
    now.abs_diff(written) >= HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn calls(denials: &mut Denials, uid: u32, action: &str, now: u64) -> Option<u64> {
        denials.refused(Some(uid), action, now).map(|(_, calls)| calls)
    }

    #[test]
    fn one_refusal_an_hour_is_logged_with_the_count() {
        let mut denials = Denials::default();
        assert_eq!(calls(&mut denials, 7, "a", NOW), Some(1));
        for second in 1..HOUR {
            assert_eq!(calls(&mut denials, 7, "a", NOW + second), None);
        }
        assert_eq!(calls(&mut denials, 7, "b", NOW + 1), Some(1), "another action");
        assert_eq!(calls(&mut denials, 8, "a", NOW + 1), Some(1), "another user");
        assert_eq!(calls(&mut denials, 7, "a", NOW + HOUR), Some(HOUR));
        assert_eq!(calls(&mut denials, 7, "a", NOW + 2 * HOUR), Some(1));
    }

    #[test]
    fn restart_logs_no_additional_refusals() {
        let mut denials = Denials::default();
        denials.written(Some(7), "a", NOW);
        denials.written(Some(7), "a", NOW - 5);
        assert_eq!(calls(&mut denials, 7, "a", NOW + HOUR - 1), None);
        assert_eq!(calls(&mut denials, 7, "a", NOW + HOUR), Some(2));
    }

    #[test]
    fn number_of_logged_users_an_hour_is_limited() {
        let mut denials = Denials::default();
        let written =
            (0..1_000).filter_map(|uid| denials.refused(Some(uid), "a", NOW)).collect::<Vec<_>>();
        assert_eq!(written.len(), MAX_SOURCES + 1);
        assert_eq!(written[MAX_SOURCES], ((None, String::new()), 1));
        assert!(denials.recent.len() <= MAX_SOURCES + 1);
        // An hour later, entries without a new refusal are dropped.
        assert_eq!(calls(&mut denials, 999, "a", NOW + HOUR), Some(1));
    }

    #[test]
    fn refusals_are_logged_after_the_clock_is_set_back() {
        let mut denials = Denials::default();
        assert_eq!(calls(&mut denials, 7, "a", NOW), Some(1));
        assert_eq!(calls(&mut denials, 7, "a", NOW - 2 * HOUR), Some(1));
    }
}
