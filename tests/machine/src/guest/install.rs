//! Installs the packages under test.

use std::path::Path;

use crate::system::run;

/// Programs of a debug build that replace those of the packages: faster to build during development.
const DEBUG_PROGRAMS: [(&str, &str); 3] = [
    ("keywrightd", "/usr/libexec/keywrightd"),
    ("keywrightctl", "/usr/bin/keywrightctl"),
    ("keywright-lockd", "/usr/libexec/keywright-lockd"),
];

/// Installs the packages of the payload, then the debug programs, if there are any.
pub fn install() {
    run("dpkg --install /payload/packages/*.deb");
    overlay_debug_programs();
}

/// Copies debug programs over the packaged ones; needed after every installation of the packages.
pub fn overlay_debug_programs() {
    for (program, path) in DEBUG_PROGRAMS {
        if Path::new("/payload").join(program).exists() {
            run(&format!("cp --remove-destination /payload/{program} {path}"));
        }
    }
}
