//! The start of a program's log.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Where the log level is set, in the words of `tracing`: `debug`, `keywrightd=trace`…
const LOG_VARIABLE: &str = "KEYWRIGHT_LOG";

/// Starts the log on standard error, at the level that KEYWRIGHT_LOG sets; at `info` by default. Call it once.
pub fn start_log() {
    // `Targets` knows the words that anybody uses, without the regular expressions of `EnvFilter` and their memory.
    let words = std::env::var(LOG_VARIABLE).ok().and_then(|words| words.parse().ok());
    let filter = words.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let log = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has the time.
        log.with(lines.without_time()).init();
    } else {
        log.with(lines).init();
    }
}
