//! Installs the product.

use std::path::Path;

use crate::system::run;

/// Programs of a debug build, in place of those of the packages: faster to build while one works.
const DEBUG_PROGRAMS: [(&str, &str); 3] = [
    ("keywrightd", "/usr/libexec/keywrightd"),
    ("keywrightctl", "/usr/bin/keywrightctl"),
    ("keywright-lockd", "/usr/libexec/keywright-lockd"),
];

/// Installs the packages of the payload.
pub fn install() {
    run("dpkg --install /payload/packages/*.deb");
    overlay_debug_programs();
}

/// After the packages were installed, and whenever they are again.
pub fn overlay_debug_programs() {
    for (program, path) in DEBUG_PROGRAMS {
        if Path::new("/payload").join(program).exists() {
            run(&format!("cp --remove-destination /payload/{program} {path}"));
        }
    }
}
