//! Runs the administrator's hook after a list has changed: `nginx -s reload` and the like.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("the hook {0} cannot be run: {1}; correct `hook` in lockd.toml")]
    Start(String, std::io::Error),
    /// It ended with a failure status.
    #[error("the hook {0} failed: {1}; its own messages say why")]
    Failed(String, ExitStatus),
    /// It ran too long and was killed.
    #[error(
        "the hook {0} was still running after {1} s and was killed; make it quicker, or raise `hook_seconds` in lockd.toml"
    )]
    TooLong(String, u64),
}

/// Runs the hook, if one is configured, and waits for its end. `KEYWRIGHT_LISTS` holds the path of the lists.
///
/// # Errors
/// The hook failed: whether the host enforces the new lists is unknown.
pub fn run(hook: &[String], seconds: u64, lists: &Path) -> Result<(), HookError> {
    let [program, arguments @ ..] = hook else { return Ok(()) };
    let name = || program.clone();
    let mut child = Command::new(program)
        .args(arguments)
        .env("KEYWRIGHT_LISTS", lists)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| HookError::Start(name(), error))?;
    let status = wait(&mut child, Duration::from_secs(seconds));
    match status.map_err(|error| HookError::Start(name(), error))? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(HookError::Failed(name(), status)),
        None => Err(HookError::TooLong(name(), seconds)),
    }
}

/// Waits for the child's end, and kills it after `limit`; returns `None` then.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn hook_success_failure_and_timeout_are_told_apart() {
        let lists = Path::new("/lists");
        assert!(run(&[], 1, lists).is_ok());
        assert!(run(&hook("test $KEYWRIGHT_LISTS = /lists"), 60, lists).is_ok());
        assert!(matches!(run(&hook("exit 3"), 60, lists), Err(HookError::Failed(..))));
        assert!(matches!(run(&hook("exec sleep 600"), 1, lists), Err(HookError::TooLong(_, 1))));
        let missing = ["/nowhere/hook".to_owned()];
        assert!(matches!(run(&missing, 1, lists), Err(HookError::Start(..))));
    }
}
