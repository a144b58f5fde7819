//! A second, slow way to decide who is trusted and who is admitted, written from the page "Signers that were revoked" of
//! `docs/formats.md` and not from the code, with loops over everything instead of anything clever. The tests play an
//! adversary against Lock and station and compare both with this.
//!
//! Issuing keys are small numbers, 0 is the Master's. A Key is the number of its access key.

use std::fmt;

/// Something that was verified and kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    /// CA certificates: an issuing key, the one that certified it, and so on up to 0.
    Chain(Vec<u8>),
    /// An issuing key's chain, and the access key that it has certified as its own.
    Own(Vec<u8>, u8),
    /// A statement about a Key at the Lock in question.
    Said(Said),
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(chain) => write!(f, "chain {chain:?}"),
            Self::Own(chain, key) => write!(f, "{chain:?} has {key} for its own"),
            Self::Said(said) => said.fmt(f),
        }
    }
}

/// A statement, of which only the effect at one Lock matters.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    /// The signer's chain.
    pub signer: Vec<u8>,
    /// The Key.
    pub key: u8,
    /// None: a revocation.
    pub version: Option<u64>,
    /// Allow or deny.
    pub allow: bool,
    /// In a revocation: the issuing key that it names, and the version up to which that key's denials stay.
    pub names: Option<(u8, u64)>,
    /// When it was first seen.
    pub seen: u64,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signer, key, version, allow, names, seen } = self;
        match version {
            Some(version) if *allow => write!(f, "{signer:?} allows {key} at {version}"),
            Some(version) => write!(f, "{signer:?} denies {key} at {version}"),
            None => write!(f, "{signer:?} revokes {key}, naming {names:?}, seen {seen}"),
        }
    }
}

/// What an issuing key is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It is trusted.
    Stands,
    /// It was revoked by a junior, after the delay.
    Deposed,
    /// Its issuers were revoked.
    Orphaned,
    /// It was revoked.
    Revoked,
}

/// Everything that is known of a family, at one time.
pub struct Known<'a> {
    heard: &'a [Heard],
    delay: u64,
    now: u64,
    /// Key, worth and depth of each issuing key that was placed.
    placed: Vec<(u8, Worth, Option<usize>)>,
}

impl<'a> Known<'a> {
    /// Judges. `delay` and `now` are in seconds.
    pub fn new(heard: &'a [Heard], delay: u64, now: u64) -> Self {
        let mut known = Self { heard, delay, now, placed: vec![] };
        let mut level = vec![0];
        for depth in 0..4 {
            known.place(&level, depth);
            let mut next = vec![];
            for (issuer, ca) in known.certified() {
                let is_new = known.worth(ca).is_none() && !next.contains(&ca);
                if is_new && level.contains(&issuer) && known.worth(issuer) == Some(Worth::Stands) {
                    next.push(ca);
                }
            }
            level = next;
        }
        known.depose();
        let certified = known.certified();
        for (_, ca) in certified {
            if known.worth(ca).is_none() {
                let is_revoked = known.words_on(ca).iter().any(|said| known.acts(said.signer[0]));
                let worth = if is_revoked { Worth::Revoked } else { Worth::Orphaned };
                known.placed.push((ca, worth, None));
            }
        }
        known
    }

    /// What an issuing key is worth; none where it is not known.
    pub fn worth(&self, ca: u8) -> Option<Worth> {
        self.placed.iter().find(|(placed, ..)| *placed == ca).map(|(_, worth, _)| *worth)
    }

    /// Whether the Lock admits a Key.
    pub fn admits(&self, key: u8) -> bool {
        let mut best = None;
        for said in self.said().filter(|said| said.key == key) {
            if let Some(left) = self.left(said) {
                // A revocation, then the newest, then the denial.
                let rank = (left.is_none(), left, !said.allow);
                if best.is_none_or(|(best, _)| rank > best) {
                    best = Some((rank, said.allow));
                }
            }
        }
        best.is_some_and(|(_, allow)| allow)
    }

    /// The version at which a statement still counts (none: as a revocation), if it does.
    fn left(&self, said: &Said) -> Option<Option<u64>> {
        let signer = said.signer[0];
        let worth = self.worth(signer)?;
        match (worth, said.version) {
            (Worth::Stands | Worth::Deposed, None) => {
                let is_senior = self
                    .owners(said.key)
                    .any(|owner| self.acts(owner) && self.depth(owner) < self.depth(signer));
                (!is_senior || self.is_due(said)).then_some(None)
            }
            (Worth::Stands, version) => Some(version),
            _ if said.allow => None,
            _ if self.owners(said.key).any(|owner| self.worth(owner) == Some(Worth::Stands)) => {
                None
            }
            (_, version) => Some(match (version, self.bound(signer)) {
                (version, None) => version,
                (None, Some(bound)) => Some(bound),
                (Some(version), Some(bound)) => Some(version.min(bound)),
            }),
        }
    }

    /// Up to which version the denials of a key that does not stand stay.
    fn bound(&self, ca: u8) -> Option<u64> {
        if self.worth(ca) != Some(Worth::Orphaned) {
            return self.named_bound(ca);
        }
        // The revoked keys above it, through any number of other orphans.
        let mut above = vec![ca];
        while let Some((issuer, _)) = self.certified().into_iter().find(|(issuer, ca)| {
            let is_out = !self.acts(*issuer) && self.worth(*issuer).is_some();
            let from = above.contains(ca) && self.worth(*ca) == Some(Worth::Orphaned);
            is_out && from && !above.contains(issuer)
        }) {
            above.push(issuer);
        }
        above.retain(|ca| self.worth(*ca) == Some(Worth::Revoked));
        let bounds: Option<Vec<u64>> = above.iter().map(|ca| self.named_bound(*ca)).collect();
        bounds?.into_iter().max()
    }

    /// What the revocations say that revoked it, those of the smallest depth.
    fn named_bound(&self, ca: u8) -> Option<u64> {
        let deposed = self.worth(ca) == Some(Worth::Deposed);
        let mut words = self.words_on(ca);
        words.retain(|said| {
            let (signer, own) = (self.depth(said.signer[0]), self.depth(ca));
            let is_junior = own.is_some() && signer > own;
            let revoked_it = if deposed { is_junior && self.is_due(said) } else { !is_junior };
            self.acts(said.signer[0]) && said.names.is_some() && revoked_it
        });
        let nearest = words.iter().map(|said| self.depth(said.signer[0])).min()?;
        words.retain(|said| self.depth(said.signer[0]) == nearest);
        words.iter().filter_map(|said| Some(said.names?.1)).max()
    }

    fn place(&mut self, level: &[u8], depth: usize) {
        let mut open = vec![];
        let mut fallen = vec![];
        for ca in level {
            let from_above = self
                .words_on(*ca)
                .iter()
                .any(|said| self.worth(said.signer[0]) == Some(Worth::Stands));
            if from_above { fallen.push(*ca) } else { open.push(*ca) }
        }
        let mut standing: Vec<u8> = vec![];
        loop {
            let word_of =
                |ca: u8, by: u8| self.words_on(ca).iter().any(|said| said.signer[0] == by);
            let stands = |ca: u8| !open.iter().any(|by| word_of(ca, *by));
            let Some(next) = open.iter().copied().find(|ca| stands(*ca)) else { break };
            let out: Vec<u8> = open.iter().copied().filter(|ca| word_of(*ca, next)).collect();
            standing.push(next);
            open.retain(|ca| *ca != next && !out.contains(ca));
            fallen.extend(out);
        }
        fallen.extend(open);
        let stand = standing.into_iter().map(|ca| (ca, Worth::Stands, Some(depth)));
        self.placed
            .extend(stand.chain(fallen.into_iter().map(|ca| (ca, Worth::Revoked, Some(depth)))));
    }

    fn depose(&mut self) {
        for depth in (0..4).rev() {
            let mut deposed = vec![];
            for (ca, worth, at) in &self.placed {
                let due = self.words_on(*ca).into_iter().any(|said| {
                    let by = said.signer[0];
                    self.worth(by) == Some(Worth::Stands)
                        && self.depth(by) > *at
                        && self.is_due(said)
                });
                if *at == Some(depth) && *worth == Worth::Stands && due {
                    deposed.push(*ca);
                }
            }
            for (ca, worth, _) in &mut self.placed {
                if deposed.contains(ca) {
                    *worth = Worth::Deposed;
                }
            }
        }
    }

    fn acts(&self, ca: u8) -> bool {
        matches!(self.worth(ca), Some(Worth::Stands | Worth::Deposed))
    }

    fn depth(&self, ca: u8) -> Option<usize> {
        self.placed.iter().find(|(placed, ..)| *placed == ca).and_then(|(.., depth)| *depth)
    }

    fn is_due(&self, said: &Said) -> bool {
        let what = |said: &Said| (said.signer[0], said.key, said.names);
        let same = self.said().filter(|other| other.version.is_none() && what(other) == what(said));
        same.map(|other| other.seen).min().is_some_and(|seen| seen + self.delay <= self.now)
    }

    fn said(&self) -> impl Iterator<Item = &'a Said> {
        self.heard.iter().filter_map(|heard| match heard {
            Heard::Said(said) => Some(said),
            _ => None,
        })
    }

    /// The revocations of an issuing key.
    fn words_on(&self, ca: u8) -> Vec<&'a Said> {
        let on = |said: &&Said| {
            let named = said.names.is_some_and(|(named, _)| named == ca);
            said.version.is_none() && (named || self.owners(said.key).any(|owner| owner == ca))
        };
        self.said().filter(on).collect()
    }

    /// The issuing keys that have certified an access key as their own.
    fn owners(&self, key: u8) -> impl Iterator<Item = u8> {
        self.heard.iter().filter_map(move |heard| match heard {
            Heard::Own(chain, own) if *own == key => Some(chain[0]),
            _ => None,
        })
    }

    /// Issuer and CA of each certificate.
    fn certified(&self) -> Vec<(u8, u8)> {
        let chains = self.heard.iter().map(|heard| match heard {
            Heard::Chain(chain) | Heard::Own(chain, _) => chain,
            Heard::Said(said) => &said.signer,
        });
        chains.flat_map(|chain| chain.windows(2).map(|pair| (pair[1], pair[0]))).collect()
    }
}
