//! `audit …`: exports and verifies the log of security-relevant events.

use std::{
    fs,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use keywright_client::{
    Bus, Client,
    audit::{self, VerifiedLog, parse_hash},
};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{args::AuditCommand, failure::Failure, lock::file_error, output::Output, times::local};

/// Runs the command. A file is verified without the daemon.
pub async fn run(bus: &Bus, command: AuditCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        AuditCommand::Export { out: Some(out) } => {
            let client = Client::connect(bus).await?;
            let file = fs::File::create_new(&out).map_err(file_error(&out))?;
            if let Err(error) = client.export_audit(&file).await {
                // Best effort: an incomplete export is of no use.
                let _ = fs::remove_file(&out);
                return Err(error.into());
            }
            file.sync_all().map_err(file_error(&out))?;
            output.show(&serde_json::json!({ "file": out }), || {
                format!("the log is in {}", out.display())
            })
        }
        AuditCommand::Export { out: None } => output.lines(&fetch(bus).await?),
        AuditCommand::Verify { file, expect } => {
            let expected = expect.as_deref().map(parse_expected).transpose()?;
            let lines = match &file {
                Some(file) => read(file)?,
                None => fetch(bus).await?,
            };
            let log = audit::verify(lines.lines(), expected).map_err(|broken| {
                let what =
                    file.as_deref().map_or("the log".into(), |file| file.display().to_string());
                Failure::refused(format!("{what} is not intact: {broken}"))
            })?;
            output.show(&log, || summary(&log))
        }
    }
}

fn parse_expected(hash: &str) -> Result<audit::Hash, Failure> {
    parse_hash(hash).ok_or_else(|| {
        Failure::Usage(
            "--expect takes the 64 hexadecimal digits that `audit verify` printed".into(),
        )
    })
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    if file == Path::new("-") {
        return io::read_to_string(io::stdin()).map_err(file_error(file));
    }
    fs::read_to_string(file).map_err(file_error(file))
}

/// Exports the daemon's log to memory.
async fn fetch(bus: &Bus) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::refused(format!("the log cannot be read: {error}"));
    let memory =
        memfd_create("audit", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut memory = fs::File::from(memory);
    Client::connect(bus).await?.export_audit(&memory).await?;
    let mut lines = String::new();
    memory.rewind().and_then(|()| memory.read_to_string(&mut lines)).map_err(failed)?;
    Ok(lines)
}

fn summary(log: &VerifiedLog) -> String {
    if log.events == 0 {
        return "The log is intact; it has no events yet.".into();
    }
    let mut text = format!(
        "The log is intact: {} events, from {} to {}.\nHash of the newest event: {}\n",
        log.events,
        local(log.from),
        local(log.to),
        log.head
    );
    if log.first > 0 {
        text.push_str(&format!("{} older events were dropped; the log records that.\n", log.first));
    }
    text.push_str(
        "Note this hash elsewhere; with --expect HASH you can later verify that none of these events is missing.",
    );
    text
}
