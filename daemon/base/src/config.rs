//! Configuration files.

/// Says in one line what is wrong in a configuration file with this `text`, and where: the parser's own message draws the
/// place over several lines.
pub fn toml_error_in_one_line(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', ", "))
}
