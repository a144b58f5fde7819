//! Sets up the log.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The environment variable with the log level, in the syntax of `tracing`: `debug`, `keywrightd=trace`…
const LOG_VARIABLE: &str = "KEYWRIGHT_LOG";

/// Starts the log on standard error, at the level in `KEYWRIGHT_LOG`, by default `info`. Call it once.
pub fn start_log() {
    // `Targets` covers the usual filters without the regular expressions of `EnvFilter` and their memory.
    let words = std::env::var(LOG_VARIABLE).ok().and_then(|words| words.parse().ok());
    let filter = words.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let log = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal adds the time.
        log.with(lines.without_time()).init();
    } else {
        log.with(lines).init();
    }
}
