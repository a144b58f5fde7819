//! Asks and informs the person at the terminal, on standard error: standard output has the result only.

use std::io::{self, IsTerminal, Write};

use keywright_client::{ErrorName, Pin};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{failure::Failure, output::printable};

/// Whether standard input is a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Prints a line.
pub fn say(text: &str) {
    eprintln!("{}", printable(text));
}

/// Prints a line over the previous one if standard error is a terminal. `last` ends the line.
pub fn overwrite_line(text: &str, last: bool) {
    if !io::stderr().is_terminal() {
        return say(text);
    }
    eprint!("\r\x1b[K{}{}", printable(text), if last { "\n" } else { "" });
}

/// Asks for a line. Reads it on another thread, so that the bus connection is served meanwhile.
pub async fn ask(question: &str) -> Result<String, Failure> {
    eprint!("{}", printable(question));
    // A failed flush changes nothing: the answer is read anyway.
    let _ = io::stderr().flush();
    let line = blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|length| (length > 0).then_some(line))
    })
    .await?;
    line.map(|line| line.trim().to_owned())
        .ok_or_else(|| Failure::refused("no answer was given; nothing more was done"))
}

/// Asks until the answer is yes or no. An empty answer is no.
pub async fn confirm(question: &str) -> Result<bool, Failure> {
    loop {
        match ask(&format!("{question} [y/N] ")).await?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => say("Please answer y or n."),
        }
    }
}

/// Asks for confirmation of something that cannot be undone, unless `yes` is set.
///
/// # Errors
/// Cancelled with the text `refused` if the answer is no.
pub async fn confirm_irreversible(yes: bool, question: &str, refused: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(Failure::Usage("there is no terminal to ask at; give --yes".into()));
    }
    if confirm(question).await? {
        return Ok(());
    }
    Err(Failure::named(ErrorName::Cancelled, refused))
}

/// Asks for a secret without echo.
pub async fn ask_secret(question: &str) -> Result<Pin, Failure> {
    let question = printable(question);
    let answer = blocking(move || {
        let _echo_off = EchoOff::new()?;
        rpassword::prompt_password(question)
    });
    Ok(Pin::from(answer.await?))
}

/// Turns the terminal's echo off until it is dropped. rpassword does so only after it has printed its question, so
/// that digits typed early would be shown.
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
        // Fails only if the terminal is gone.
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
