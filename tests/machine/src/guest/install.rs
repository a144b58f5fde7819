//! Installs the product.

use std::path::Path;

use crate::system::run;

/// Where the payload has Debian packages.
const PACKAGES: &str = "/payload/packages";

/// Installs the packages of the payload; where it has none, the same files by hand.
pub fn install() {
    if Path::new(PACKAGES).exists() {
        run(&format!("dpkg --install {PACKAGES}/*.deb"));
        return;
    }
    for (file, to) in [
        ("keywrightd", "/usr/libexec/"),
        ("keywrightctl", "/usr/bin/"),
        ("systemd/keywrightd.service", "/usr/lib/systemd/system/"),
        ("systemd/70-keywright.rules", "/usr/lib/udev/rules.d/"),
        ("systemd/keywright.sysusers", "/usr/lib/sysusers.d/keywright.conf"),
        ("systemd/org.keywright1.conf", "/usr/share/dbus-1/system.d/"),
        ("systemd/org.keywright1.service", "/usr/share/dbus-1/system-services/"),
        ("systemd/org.keywright1.policy", "/usr/share/polkit-1/actions/"),
    ] {
        run(&format!("mkdir -p $(dirname {to}x) && cp /payload/{file} {to}"));
    }
    run("systemd-sysusers && systemctl daemon-reload && udevadm control --reload");
    run("systemctl reload dbus");
}
