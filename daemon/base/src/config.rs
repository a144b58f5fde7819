//! Configuration files.

/// A one-line message for an error in a configuration file with this `text`, with its line number. The parser's own
/// message takes several lines.
pub fn toml_error_in_one_line(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', ", "))
}
