//! Leases of tokens: a token serves one job at a time; the other jobs queue in order.

use std::collections::{BTreeSet, VecDeque};

use keywright_token::hotplug::DeviceId;

use super::Station;

/// Starts a job on the station's thread, once its tokens are free.
pub type Start = Box<dyn FnOnce(&mut Station) + Send>;

/// The leased tokens and the queued jobs.
#[derive(Default)]
pub struct Leases {
    held: BTreeSet<DeviceId>,
    waiting: VecDeque<(Vec<DeviceId>, Start)>,
}

impl Leases {
    /// Puts a job at the end of the queue.
    pub fn queue(&mut self, tokens: Vec<DeviceId>, start: Start) {
        self.waiting.push_back((tokens, start));
    }

    /// Returns the leases of these tokens.
    pub fn release(&mut self, tokens: &[DeviceId]) {
        self.held.retain(|held| !tokens.contains(held));
    }

    /// Whether any token is leased.
    pub fn is_any_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next job whose tokens are all free and not wanted by an earlier job. Leases the tokens to it.
    pub fn next(&mut self) -> Option<Start> {
        let mut wanted = self.held.clone();
        let ready = self.waiting.iter().position(|(tokens, _)| {
            let free = tokens.iter().all(|token| !wanted.contains(token));
            wanted.extend(tokens.iter().cloned());
            free
        })?;
        let (tokens, start) = self.waiting.remove(ready)?;
        self.held.extend(tokens);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(names: &[&str]) -> Vec<DeviceId> {
        names.iter().map(|name| DeviceId((*name).into())).collect()
    }

    #[test]
    fn a_job_waits_for_all_its_tokens_and_nobody_overtakes_on_one() {
        let mut leases = Leases::default();
        for wish in [&["a"][..], &["a", "b"], &["b"], &["c"]] {
            leases.queue(tokens(wish), Box::new(|_| {}));
        }
        assert!(leases.next().is_some(), "a is free");
        assert!(leases.next().is_some(), "c is free; b is promised to the second job");
        assert!(leases.next().is_none());
        leases.release(&tokens(&["a"]));
        assert!(leases.next().is_some(), "a and b");
        assert!(leases.next().is_none());
        leases.release(&tokens(&["a", "b"]));
        assert!(leases.next().is_some(), "b");
        assert!(leases.waiting.is_empty());
    }
}
