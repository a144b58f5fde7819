//! Makes a disk image of the payload, which is faster than a copy over the emulated network.

use std::{io, path::Path, process::Command};

/// Size of the disk. It is fixed because a saved guest expects the same size.
const SIZE: &str = "512M";

/// Makes an ext4 image of a directory.
///
/// # Errors
/// The output of `mke2fs` if it fails.
pub fn make_disk(directory: &Path, disk: &Path) -> io::Result<()> {
    let output = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-F", "-d"])
        .arg(directory)
        .arg(disk)
        .arg(SIZE)
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
