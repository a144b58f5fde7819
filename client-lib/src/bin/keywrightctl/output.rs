//! Writes to standard output: text for people, or JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Output of `--json` for a Key or Lock that was made or changed.
#[derive(Serialize)]
pub struct Changed<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Standard output as text or as JSON.
pub struct Output {
    json: bool,
    to: Box<dyn Write>,
}

impl Output {
    /// The process's standard output.
    pub fn stdout(json: bool) -> Self {
        Self::new(json, Box::new(io::stdout().lock()))
    }

    fn new(json: bool, to: Box<dyn Write>) -> Self {
        Self { json, to }
    }

    /// Whether the output is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the value as one line of JSON, or the text that `human` returns.
    pub fn show<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        human: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(value)
                .map_err(|error| Failure::refused(format!("cannot print JSON: {error}")))?;
            self.write(&line)
        } else {
            self.text(&human())
        }
    }

    /// Prints text and a newline. Control characters are replaced: names come from other people, and must not control
    /// the terminal.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(&printable(text))
    }

    /// Prints lines unchanged, for programs.
    pub fn lines(&mut self, lines: &str) -> Result<(), Failure> {
        if lines.is_empty() { Ok(()) } else { self.write(lines) }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(self.to, "{text}{end}").and_then(|()| self.to.flush()).map_err(|error| {
            match error.kind() {
                io::ErrorKind::BrokenPipe => Failure::OutputClosed,
                _ => Failure::refused(format!("cannot write to standard output: {error}")),
            }
        })
    }
}

/// Replaces control characters except newlines.
pub fn printable(text: &str) -> String {
    let replace = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    fn shown(json: bool) -> String {
        let to = Shared::default();
        let mut output = Output::new(json, Box::new(to.clone()));
        output.show(&["a"], || "A \x1b[31mred\tname".into()).unwrap();
        String::from_utf8(to.0.take()).unwrap()
    }

    #[test]
    fn json_is_raw_and_text_has_no_control_characters() {
        assert_eq!(shown(true), "[\"a\"]\n");
        assert_eq!(shown(false), "A \u{fffd}[31mred\u{fffd}name\n");
    }

    #[test]
    fn closed_pipe_is_no_error_but_a_full_disk_is() {
        let fail = |kind| Output::new(false, Box::new(Failing(kind))).text("x").unwrap_err();
        assert!(matches!(fail(io::ErrorKind::BrokenPipe), Failure::OutputClosed));
        assert!(matches!(fail(io::ErrorKind::StorageFull), Failure::Refused { .. }));
    }
}
