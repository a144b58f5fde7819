//! Ways in which the firmware of other tokens differs from this one, each switched on by its name.
//!
//! A habit answers a command before the firmware sees it, or changes the firmware's answer. What a habit has to remember
//! is kept in a file beside the token's memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use clap::ValueEnum;
use iso7816::{Status, command::CommandView};

use crate::aes192::Aes192Key;

const CHANGE_REFERENCE: u8 = 0x24;
const RESET_RETRY_COUNTER: u8 = 0x2C;
const GENERATE: u8 = 0x47;
const AUTHENTICATE: u8 = 0x87;
const GET_DATA: u8 = 0xCB;
const PUT_DATA: u8 = 0xDB;
const GET_METADATA: u8 = 0xF7;
const SET_MANAGEMENT_KEY: u8 = 0xFF;
const PIN: u8 = 0x80;
const PUK: u8 = 0x81;
const MANAGEMENT_KEY: u8 = 0x9B;
const PRINTED: &[u8] = &[0x5F, 0xC1, 0x09];
const KEY_HISTORY: &[u8] = &[0x5F, 0xC1, 0x0C];
/// The third to the last retired container.
const FURTHER_RETIRED: std::ops::RangeInclusive<u8> = 0x0F..=0x20;

/// One way in which another firmware differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Habit {
    /// GET METADATA of an empty slot answers policy and origin; a signature with it 6A86
    MetadataOfEmptySlots,
    /// A chained PUT DATA that is cut leaves its first pieces in the object
    TornWrites,
    /// SET MANAGEMENT KEY does not exist (6D00)
    NoSetManagementKey,
    /// A new PIN must have eight characters (6A80)
    PinOfEight,
    /// A new PIN that counts up, or repeats one character, is refused (6985)
    PinComplexity,
    /// The PUK cannot be changed (6985)
    PukFixed,
    /// GENERATE and PRINTED are refused until PIN, PUK and management key were changed (6985)
    SecretsFirst,
    /// Extended APDUs are refused (6700)
    ShortOnly,
    /// There are two retired containers (6A82)
    FewContainers,
    /// A wrong PIN is answered 630X instead of 63CX
    Tries630x,
    /// A wrong PIN is answered 6300, which tells no tries
    TriesUnsaid,
    /// The factory's management key is of type AES-192, the only one
    Aes192,
    /// The key history says that there is no retired certificate
    KeyHistoryOfZero,
}

/// The habits that are switched on, and what they remember.
pub struct Habits {
    on: BTreeSet<Habit>,
    file: PathBuf,
    memory: Memory,
    /// The pieces of a PUT DATA that came so far.
    pieces: Vec<u8>,
    /// The AES-192 witness that was given out.
    witness: Option<[u8; 16]>,
}

/// What survives a re-plug.
#[derive(Default)]
struct Memory {
    /// Slots with a key that was generated with habits on.
    keys: BTreeSet<u8>,
    /// PIN, PUK and management key that no longer have their factory value.
    changed: BTreeSet<u8>,
    /// What GET DATA answers for a torn object.
    torn: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The AES-192 management key, if it was set.
    management: Option<[u8; 24]>,
}

/// How a habit has the firmware execute a command.
pub type Firmware<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, Status> + 'a;

impl Habits {
    /// Reads what was remembered in a file, which need not exist.
    ///
    /// # Errors
    /// The file cannot be read or was not written by this program.
    pub fn new(on: &[Habit], file: PathBuf) -> io::Result<Self> {
        let memory = match fs::read_to_string(&file) {
            Ok(text) => Memory::parse(&text).ok_or(io::ErrorKind::InvalidData)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => return Err(error),
        };
        let on = on.iter().copied().collect();
        Ok(Self { on, file, memory, pieces: Vec::new(), witness: None })
    }

    fn has(&self, habit: Habit) -> bool {
        self.on.contains(&habit)
    }

    /// Refuses a command for its form.
    pub fn refuses(&self, command: &[u8]) -> Option<Status> {
        let extended = command.get(4) == Some(&0) && command.len() > 5;
        (self.has(Habit::ShortOnly) && extended).then_some(Status::WrongLength)
    }

    /// Notes a piece of a chained command.
    pub fn piece(&mut self, command: CommandView<'_>) {
        if !self.has(Habit::TornWrites) || u8::from(command.instruction()) != PUT_DATA {
            return;
        }
        self.pieces.extend_from_slice(command.data());
        let Some((tag, contents)) = object(&self.pieces) else { return };
        self.memory.torn.insert(tag.into(), contents.into());
        self.keep();
    }

    /// Executes a whole command with the firmware, and as the habits want it.
    ///
    /// # Errors
    /// The status that ends the command.
    pub fn execute(
        &mut self,
        command: CommandView<'_>,
        firmware: &mut Firmware<'_>,
        forward: impl FnOnce() -> Result<Vec<u8>, Status>,
    ) -> Result<Vec<u8>, Status> {
        self.pieces.clear();
        if self.on.is_empty() {
            return forward();
        }
        if let Some(answer) = self.answer_instead(command, firmware) {
            return answer;
        }
        let answer = forward();
        match &answer {
            Ok(_) => self.succeeded(command),
            Err(Status::RemainingRetries(left)) if self.has(Habit::Tries630x) => {
                return Err(Status::from(0x6300 | u16::from(*left)));
            }
            Err(Status::RemainingRetries(_))
                if self.has(Habit::TriesUnsaid) && !command.data().is_empty() =>
            {
                return Err(Status::VerificationFailed);
            }
            Err(_) => {}
        }
        answer
    }

    /// Remembers what a command of the firmware has changed.
    fn succeeded(&mut self, command: CommandView<'_>) {
        match (u8::from(command.instruction()), command.p1, command.p2) {
            (GENERATE, _, slot) => drop(self.memory.keys.insert(slot)),
            (CHANGE_REFERENCE, _, secret) => drop(self.memory.changed.insert(secret)),
            (RESET_RETRY_COUNTER, ..) => drop(self.memory.changed.insert(PIN)),
            (SET_MANAGEMENT_KEY, ..) => drop(self.memory.changed.insert(MANAGEMENT_KEY)),
            (PUT_DATA, ..) => match object(command.data()) {
                Some((tag, _)) => drop(self.memory.torn.remove(tag)),
                None => return,
            },
            _ => return,
        }
        self.keep();
    }

    fn answer_instead(
        &mut self,
        command: CommandView<'_>,
        firmware: &mut Firmware<'_>,
    ) -> Option<Result<Vec<u8>, Status>> {
        let (instruction, p2, data) = (u8::from(command.instruction()), command.p2, command.data());
        let empty = is_key_slot(p2) && !self.memory.keys.contains(&p2);
        let tag = read_tag(data);
        match instruction {
            GET_METADATA if is_key_slot(p2) && self.has(Habit::MetadataOfEmptySlots) => {
                let algorithm: &[u8] = if empty { &[] } else { &[1, 1, 0x11] };
                Some(Ok([algorithm, &[2, 2, 2, 1, 3, 1, u8::from(!empty)]].concat()))
            }
            AUTHENTICATE if empty && self.has(Habit::MetadataOfEmptySlots) => {
                Some(Err(Status::IncorrectP1OrP2Parameter))
            }
            SET_MANAGEMENT_KEY if self.has(Habit::NoSetManagementKey) => {
                Some(Err(Status::InstructionNotSupportedOrInvalid))
            }
            CHANGE_REFERENCE if p2 == PUK && self.has(Habit::PukFixed) => {
                Some(Err(Status::ConditionsOfUseNotSatisfied))
            }
            CHANGE_REFERENCE | RESET_RETRY_COUNTER if p2 == PIN => {
                self.refused_pin(data.get(8..16)?).map(Err)
            }
            GENERATE if data.len() > 2 && self.wants_secrets() => {
                Some(Err(Status::ConditionsOfUseNotSatisfied))
            }
            GET_DATA | PUT_DATA if tag == Some(PRINTED) && self.wants_secrets() => {
                Some(Err(Status::ConditionsOfUseNotSatisfied))
            }
            GET_DATA | PUT_DATA if self.has(Habit::FewContainers) && is_further(tag) => {
                Some(Err(Status::NotFound))
            }
            GET_DATA => {
                if let Some(torn) = self.memory.torn.get(tag?) {
                    return Some(Ok(torn.clone()));
                }
                (tag == Some(KEY_HISTORY) && self.has(Habit::KeyHistoryOfZero))
                    .then(|| Ok(vec![0x53, 8, 0xC1, 1, 0, 0xC2, 1, 0, 0xFE, 0]))
            }
            AUTHENTICATE if p2 == MANAGEMENT_KEY && self.has(Habit::Aes192) => {
                Some(self.authenticate_aes192(command.p1, data, firmware))
            }
            SET_MANAGEMENT_KEY if self.has(Habit::Aes192) => Some(self.set_aes192(data, firmware)),
            _ => None,
        }
    }

    /// Whether PIN, PUK and management key must be changed first.
    fn wants_secrets(&self) -> bool {
        let all = [PIN, PUK, MANAGEMENT_KEY];
        self.has(Habit::SecretsFirst) && !all.iter().all(|one| self.memory.changed.contains(one))
    }

    fn refused_pin(&self, new: &[u8]) -> Option<Status> {
        let digits = new.split(|byte| *byte == 0xFF).next().unwrap_or_default();
        let simple = digits.windows(2).all(|pair| pair[0] == pair[1])
            || digits.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
        if self.has(Habit::PinOfEight) && digits.len() < 8 {
            Some(Status::IncorrectDataParameter)
        } else if self.has(Habit::PinComplexity) && simple {
            Some(Status::ConditionsOfUseNotSatisfied)
        } else {
            None
        }
    }

    /// Mutual authentication with an AES-192 key (SP 800-73-4 part 2, A.1). Below it, the firmware is authenticated with
    /// its own key, which stays the factory's.
    fn authenticate_aes192(
        &mut self,
        algorithm: u8,
        data: &[u8],
        firmware: &mut Firmware<'_>,
    ) -> Result<Vec<u8>, Status> {
        let key = Aes192Key::new(self.memory.management);
        let fields = if algorithm == Aes192Key::ALGORITHM { data } else { &[] };
        match fields {
            [0x7C, 2, 0x80, 0] => {
                let mut witness = [0; 16];
                rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut witness);
                self.witness = Some(witness);
                Ok([&[0x7C, 18, 0x80, 16], &key.encrypt(witness)[..]].concat())
            }
            [0x7C, 36, 0x80, 16, rest @ ..] => {
                let (proof, challenge) = rest.split_at_checked(16).ok_or(Status::WrongLength)?;
                let witness = self.witness.take().ok_or(Status::ConditionsOfUseNotSatisfied)?;
                if proof != witness {
                    return Err(Status::SecurityStatusNotSatisfied);
                }
                let challenge = challenge.strip_prefix(&[0x81, 16]).and_then(|c| c.try_into().ok());
                let answer = key.encrypt(challenge.ok_or(Status::IncorrectDataParameter)?);
                crate::aes192::authenticate_with_factory_key(firmware)?;
                Ok([&[0x7C, 18, 0x82, 16], &answer[..]].concat())
            }
            _ => Err(Status::IncorrectP1OrP2Parameter),
        }
    }

    fn set_aes192(&mut self, data: &[u8], firmware: &mut Firmware<'_>) -> Result<Vec<u8>, Status> {
        // GENERATE without an algorithm tells whether the management key is authenticated.
        if firmware(&[0, GENERATE, 0, 0x9A, 2, 0xAC, 0]) == Err(Status::SecurityStatusNotSatisfied)
        {
            return Err(Status::SecurityStatusNotSatisfied);
        }
        let key = data.strip_prefix(&[Aes192Key::ALGORITHM, MANAGEMENT_KEY, 24]);
        let key = key.and_then(|key| key.try_into().ok()).ok_or(Status::IncorrectDataParameter)?;
        self.memory.management = Some(key);
        self.memory.changed.insert(MANAGEMENT_KEY);
        self.keep();
        Ok(Vec::new())
    }

    /// Writes what is remembered. As with flash memory, nobody could act on a failure.
    fn keep(&self) {
        let half = self.file.with_extension("half");
        let _ = fs::write(&half, self.memory.text()).and_then(|()| fs::rename(&half, &self.file));
    }
}

impl Memory {
    /// One line for each thing: its kind, its name, its value.
    fn text(&self) -> String {
        let keys = self.keys.iter().map(|slot| format!("key {slot:02X} -\n"));
        let changed = self.changed.iter().map(|secret| format!("changed {secret:02X} -\n"));
        let torn = self.torn.iter().map(|(tag, data)| format!("torn {} {}\n", hex(tag), hex(data)));
        let management = self.management.iter().map(|key| format!("management 9B {}\n", hex(key)));
        keys.chain(changed).chain(torn).chain(management).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut memory = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (kind, name, value) = (words.next()?, unhex(words.next()?)?, words.next()?);
            match kind {
                "key" => drop(memory.keys.insert(*name.first()?)),
                "changed" => drop(memory.changed.insert(*name.first()?)),
                "torn" => drop(memory.torn.insert(name, unhex(value)?)),
                "management" => memory.management = unhex(value)?.try_into().ok(),
                _ => return None,
            }
        }
        Some(memory)
    }
}

fn is_key_slot(reference: u8) -> bool {
    matches!(reference, 0x9A | 0x9C..=0x9E | 0x82..=0x95)
}

fn is_further(tag: Option<&[u8]>) -> bool {
    matches!(tag, Some([0x5F, 0xC1, last]) if FURTHER_RETIRED.contains(last))
}

/// The tag that GET DATA and PUT DATA begin with (SP 800-73-4 part 2, 3.1.2).
fn read_tag(data: &[u8]) -> Option<&[u8]> {
    match data {
        [0x5C, length, rest @ ..] => rest.get(..(*length).into()),
        _ => None,
    }
}

/// The tag and the contents, with their own tag and length, of a PUT DATA.
fn object(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let tag = read_tag(data)?;
    Some((tag, &data[2 + tag.len()..]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}
