//! Talking with the person at the terminal: on standard error, so that standard output holds
//! the result alone.

use std::io::{self, IsTerminal, Write};

use keywright_client::{ErrorName, Pin};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{failure::Failure, output::printable};

/// Whether somebody is there to answer.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Says a line.
pub fn say(text: &str) {
    eprintln!("{}", printable(text));
}

/// Says a line that replaces the one before it, where that is possible.
pub fn overwrite_line(text: &str, last: bool) {
    if !io::stderr().is_terminal() {
        return say(text);
    }
    eprint!("\r\x1b[K{}{}", printable(text), if last { "\n" } else { "" });
}

/// Asks for a line. The question runs on a thread of its own, so that the bus is served meanwhile.
pub async fn ask(question: &str) -> Result<String, Failure> {
    eprint!("{}", printable(question));
    // Without a flush error there is nothing to do better; the answer is read either way.
    let _ = io::stderr().flush();
    let line = blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|length| (length > 0).then_some(line))
    })
    .await?;
    line.map(|line| line.trim().to_owned())
        .ok_or_else(|| Failure::refused("no answer; nothing more was done"))
}

/// Asks until the answer is yes or no; an empty one is no.
pub async fn confirm(question: &str) -> Result<bool, Failure> {
    loop {
        match ask(&format!("{question} [y/N] ")).await?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => say("Please answer y or n."),
        }
    }
}

/// Asks whether something is meant that is for good, unless that was said with the command.
pub async fn confirm_irreversible(yes: bool, question: &str, refused: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(Failure::Usage("no terminal to ask at: give --yes".into()));
    }
    if confirm(question).await? {
        return Ok(());
    }
    Err(Failure::named(ErrorName::Cancelled, refused))
}

/// Asks for a secret, without echo.
pub async fn ask_secret(question: &str) -> Result<Pin, Failure> {
    let question = printable(question);
    let answer = blocking(move || {
        let _echo_off = EchoOff::new()?;
        rpassword::prompt_password(question)
    });
    Ok(Pin::from(answer.await?))
}

/// No echo while this lives. rpassword hides what is typed only after it has shown its question:
/// somebody who types fast, or a program, would have the first digits on the screen.
struct EchoOff(Termios);

impl EchoOff {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut without_echo = before.clone();
        without_echo.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &without_echo)?;
        Ok(Self(before))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(question)
        .await
        .map_err(io::Error::other)
        .and_then(|answer| answer)
        .map_err(|error| Failure::refused(format!("cannot ask at this terminal: {error}")))
}
