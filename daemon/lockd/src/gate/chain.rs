//! Renews this Lock's certificate over the link, for example after its issuer was revoked. The broker is not trusted:
//! it may replay any certificate that was ever made.

use std::path::Path;

use keywright_proto::statement::PARK_AHEAD_MS;

use super::Gate;
use crate::{
    clock::Now,
    error::{Error, Refusal},
    membership::Membership,
};

impl Gate {
    /// Replaces this Lock's chain and saves it; returns false if it is the present one. The new chain has to lead to
    /// the pinned root by CAs that are not revoked, and has to be newer than the present one unless that is void.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing has changed, on the disk or in memory.
    pub fn take_chain(&mut self, state: &Path, text: &[u8], now: Now) -> Result<bool, Refusal> {
        let no = |why: &str| Err(Refusal::Chain(why.to_owned()));
        let text = std::str::from_utf8(text).map_err(|error| Refusal::Chain(error.to_string()))?;
        let new = match Membership::read(text, self.identity.public()) {
            Ok(new) => new,
            Err(Error::NotOurChain(why)) => return Err(Refusal::Chain(why)),
            Err(error) => return no(&error.to_string()),
        };
        if new == self.membership {
            return Ok(false);
        }
        if new.root().der() != self.root_der() {
            return no("its root is not the one that is pinned");
        }
        // It would win over every later chain, and no server accepts it yet.
        let own = new.chain().first().map_or(0, |own| own.not_before());
        let latest = now.unix.saturating_add(PARK_AHEAD_MS) / 1_000;
        if self.wall_clock(now.unix).is_some() && own > latest {
            return no("it begins in the future");
        }
        // The new chain may contain a CA that is unknown here.
        let mut facts = self.facts.clone();
        facts.learn_chain(new.chain());
        let judgement = facts.judge(self.limits.revoke_delay, now.uptime / 1_000);
        if !new.is_effective(&judgement) {
            return no("a CA that leads to it was revoked");
        }
        if self.membership.is_effective(&judgement) && !new.is_newer_than(&self.membership) {
            return no("it is older than the one that this Lock has");
        }
        new.save(state).map_err(super::not_saved)?;
        self.learn_authorities(new.chain());
        (self.facts, self.judgement, self.membership) = (facts, judgement, new);
        Ok(true)
    }
}
