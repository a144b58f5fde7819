//! A test double: a transport that expects these commands and returns these responses.

use std::collections::VecDeque;

use super::{Limits, Transport, TransportError};

pub const EXTENDED: Limits = Limits { extended: true, longest_command: 3062 };
pub const SHORT: Limits = Limits { extended: false, longest_command: 261 };

pub type Step = (&'static str, Result<&'static str, TransportError>);

pub struct Scripted {
    steps: VecDeque<Step>,
    limits: Limits,
}

impl Scripted {
    /// Takes commands and responses in hex; spaces are ignored. `..` at the end of a command matches any rest.
    pub fn new(limits: Limits, steps: impl IntoIterator<Item = Step>) -> Self {
        Scripted { steps: steps.into_iter().collect(), limits }
    }

    pub fn boxed(limits: Limits, steps: impl IntoIterator<Item = Step>) -> Box<dyn Transport> {
        Box::new(Self::new(limits, steps))
    }

    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Transport for Scripted {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let (expected, answer) = self.steps.pop_front().expect("an unexpected command");
        let (expected, command) = (expected.replace(' ', ""), hex::encode(command));
        match expected.strip_suffix("..") {
            Some(begin) => assert!(command.starts_with(begin), "{command} instead of {expected}"),
            None => assert_eq!(command, expected),
        }
        answer.map(|answer| hex::decode(answer.replace(' ', "")).unwrap())
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
