//! Where the built programs are.

use std::{env, path::PathBuf};

/// A program of this workspace, from the target directory that the calling test was built into.
///
/// Panics when it was not built.
pub fn find(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test> for tests, target/<profile>/<program> for others.
    let built = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    built.unwrap_or_else(|| {
        panic!("{name} is not built beside {}: run `make test`, which builds it", test.display())
    })
}
