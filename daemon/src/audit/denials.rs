//! What was refused, in the log: calls that their callers may not make, and papers that do not verify. So few that nobody
//! can fill a disk with them, or push out what is older: of each user and action (or kind of papers) one an hour, with the
//! number of those refused since the last one.

use std::collections::BTreeMap;

/// How long a user is not named again for the same action, in seconds.
const HOUR: u64 = 3_600;
/// How many users and actions are told apart; all others count together.
const MAX_SOURCES: usize = 32;

/// A user (none: who could not be told) and a polkit action, or a word for what was not believed.
pub type DenialKey = (Option<u32>, String);

/// What was refused recently.
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
    /// Takes up what the log has already: an event of before the daemon was started.
    pub fn written(&mut self, uid: Option<u32>, action: &str, time: u64) {
        let recent = self.recent.entry((uid, action.into())).or_default();
        recent.written = recent.written.max(time);
    }

    /// A call was refused. Answers what is to be written: the user, the action, and how many calls it stands for.
    pub fn refused(
        &mut self,
        uid: Option<u32>,
        action: &str,
        now: u64,
    ) -> Option<(DenialKey, u64)> {
        let who = self.place((uid, action.into()), now);
        let new = !self.recent.contains_key(&who);
        let recent = self.recent.entry(who.clone()).or_default();
        recent.since += 1;
        if !new && !is_over(recent.written, now) {
            return None;
        }
        recent.written = now;
        Some((who, std::mem::take(&mut recent.since)))
    }

    /// Under whom it counts: under nobody where there is no room for another one.
    fn place(&mut self, who: DenialKey, now: u64) -> DenialKey {
        if self.recent.contains_key(&who) {
            return who;
        }
        if self.recent.len() >= MAX_SOURCES {
            self.recent.retain(|_, recent| recent.since > 0 || !is_over(recent.written, now));
        }
        if self.recent.len() < MAX_SOURCES { who } else { (None, String::new()) }
    }
}

/// A clock that was set back does not silence anybody.
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
    fn the_first_is_written_and_then_one_an_hour_with_the_number() {
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
    fn a_restart_brings_no_more_of_them() {
        let mut denials = Denials::default();
        denials.written(Some(7), "a", NOW);
        denials.written(Some(7), "a", NOW - 5);
        assert_eq!(calls(&mut denials, 7, "a", NOW + HOUR - 1), None);
        assert_eq!(calls(&mut denials, 7, "a", NOW + HOUR), Some(2));
    }

    #[test]
    fn a_thousand_users_are_no_more_than_the_limit_an_hour() {
        let mut denials = Denials::default();
        let written =
            (0..1_000).filter_map(|uid| denials.refused(Some(uid), "a", NOW)).collect::<Vec<_>>();
        assert_eq!(written.len(), MAX_SOURCES + 1);
        assert_eq!(written[MAX_SOURCES], ((None, String::new()), 1));
        assert!(denials.recent.len() <= MAX_SOURCES + 1);
        // An hour later those that were silent make room.
        assert_eq!(calls(&mut denials, 999, "a", NOW + HOUR), Some(1));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let mut denials = Denials::default();
        assert_eq!(calls(&mut denials, 7, "a", NOW), Some(1));
        assert_eq!(calls(&mut denials, 7, "a", NOW - 2 * HOUR), Some(1));
    }
}
