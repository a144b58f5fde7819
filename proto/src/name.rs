//! Names of Keys and Locks: labels that people give at a station.

/// The longest name, in characters (Unicode scalar values).
pub const MAX_CHARS: usize = 100;
/// The longest name, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or only white space.
    #[error("a name needs at least one visible character")]
    Blank,
    /// Over [`MAX_CHARS`] or [`MAX_BYTES`].
    #[error("a name has at most {MAX_CHARS} characters and {MAX_BYTES} bytes; give a shorter one")]
    TooLong,
    /// A control character, or one that changes the direction of the text around it.
    #[error("a name must not contain the character U+{:04X}", u32::from(*.0))]
    Forbidden(char),
}

/// Checks the name of a Key or a Lock.
///
/// # Errors
/// Says what is wrong with it; the first forbidden character is named.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_BYTES || name.chars().count() > MAX_CHARS {
        return Err(NameError::TooLong);
    }
    if let Some(forbidden) = name.chars().find(|c| is_forbidden(*c)) {
        return Err(NameError::Forbidden(forbidden));
    }
    if name.chars().all(char::is_whitespace) {
        return Err(NameError::Blank);
    }
    Ok(())
}

/// Control characters, line and paragraph separators, and the directional formatting characters of
/// UAX #9: with those a name could be made to look like another one.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_labels_of_people() {
        for good in ["a", "Anna's spare Key", "Büro 2", "鍵", &"x".repeat(100), &"é".repeat(100)]
        {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        use NameError::*;
        for (bad, error) in [
            ("", Blank),
            (" \u{a0}\u{3000}", Blank),
            (&"x".repeat(101), TooLong),
            (&"x".repeat(300), TooLong),
            (&"鍵".repeat(86), TooLong),
            ("a\nb", Forbidden('\n')),
            ("a\0", Forbidden('\0')),
            ("\u{85}", Forbidden('\u{85}')),
            ("a\u{202e}b", Forbidden('\u{202e}')),
            ("a\u{2066}b", Forbidden('\u{2066}')),
            ("a\u{2028}b", Forbidden('\u{2028}')),
        ] {
            assert_eq!(check_name(bad), Err(error), "{bad:?}");
        }
    }
}
