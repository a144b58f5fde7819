# Two commands do everything on a bare Debian 12 or 13 with Rust: `make demo` and `make test`.

# What is missing of these is installed. Only names that Debian 12, Debian 13 and Ubuntu 24.04 all have.
BUILD_PACKAGES := gcc libc6-dev pkg-config libudev-dev libusb-1.0-0-dev libpcsclite-dev ca-certificates
# The demo: libclang for the firmware of the virtual Keys, a message bus, openssl, an MQTT broker.
PACKAGES       := $(BUILD_PACKAGES) libclang-dev dbus-daemon openssl mosquitto
# The tests: a mocked udev, a gateway's servers and their clients, a pcscd with a reader that a program can fill, and
# programs that read the file of a Soft Key.
TEST_PACKAGES  := umockdev git openssh-server openssh-client nginx mount pcscd vsmartcard-vpcd openvpn libnss3-tools
# Needed to build and check the packages.
DEB_PACKAGES   := debhelper lintian systemd libxml2-utils

# The daemon for tests has a reader into which virtual Keys are plugged; a packaged daemon has none.
FEATURES := --features keywrightd/virtual-reader,keywright-lockd/virtual-reader
PROGRAMS := -p keywrightd -p keywright-lockd -p keywright-client -p keywright-virtual-key
CARGO    := cargo
ARGS     :=

.PHONY: help demo test test-bus test-others test-faults test-machine machine-image machine-programs soak bench-machine bench deb check-deb docs-xml deps deps-deb deps-machine deps-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: deps ## build everything and play the demo with virtual tokens; ARGS=--interactive lets you answer the questions
	@CARGO="$(CARGO)" tests/demo/build --locked $(PROGRAMS) $(FEATURES)
	@tests/demo/run.sh $(ARGS)

# Every program is built before the first test runs. Tests wait now and then, for a second or for twenty: twice as many run
# at a time as there are processors, and those on a bus with real Keys, which take longest, beside all others.
test: export RUST_TEST_THREADS ?= $(shell expr 2 '*' "$$(nproc)")
test: deps deps-test ## format, lints, and every test, the demo among them
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings
	$(CARGO) test --locked --workspace $(FEATURES) --no-run
	@$(MAKE) --no-print-directory --keep-going -j2 test-bus test-others

test-bus:
	@$(CARGO) test --locked --workspace $(FEATURES) --no-fail-fast --lib --test bus

test-others:
	@$(CARGO) test --locked --workspace $(FEATURES) --no-fail-fast --exclude keywright-bus-tests --bins --test '*'
	@$(CARGO) test --locked --workspace $(FEATURES) --no-fail-fast --doc

test-faults: deps ## play 100,000 histories of an attacker against the trust rules of Lock and station, instead of 2,000
	PROPTEST_CASES=100000 $(CARGO) test --locked -p keywright-adversary

# The packages, the guest and the programs for it are built beside each other: linking a release and unpacking a Debian
# each keep one processor busy.
test-machine: deps deps-deb deps-machine ## the packages on a Debian guest in QEMU: real kernel, udev, systemd, polkit, and Keys on USB; ARGS picks tests
	@$(MAKE) --no-print-directory -j3 check-deb machine-booted
	@tests/machine/run $(ARGS)

soak: deps deb ## the same with 300 plug cycles of two Keys, and nothing else
	@$(CARGO) build --locked -p keywright-machine -p keywright-virtual-key
	@tests/machine/run --cycles 300 cycles

bench-machine: deps deb ## compare the daemon with boltd, fprintd, upower, usbguard and udisks2 in that guest
	@$(CARGO) build --locked --release -p keywright-machine -p keywright-virtual-key
	@$(CARGO) build --locked -p keywright-machine --bin machine
	@tests/machine/run --with bolt,fprintd,upower,usbguard,udisks2 --bench

bench: deps ## measure speed and memory, and print a table; ARGS picks subjects
	$(CARGO) build --locked --release $(PROGRAMS) $(FEATURES)
	$(CARGO) run --locked --release -p keywright-bench -- $(ARGS)

deb: deps-deb ## build the packages keywrightd, keywrightctl and keywright-lockd into target/deb
	@CARGO="$(CARGO)" systemd/make-deb

check-deb: deb ## check the packages without installing them: lintian, systemd-analyze, udev, polkit
	@systemd/check-deb target/deb/*.deb

docs-xml: deps ## write docs/org.keywright1.xml and docs/dbus.md from the live objects
	KEYWRIGHT_WRITE_DOCS=1 $(CARGO) test --locked -p keywrightd introspection

deps: ## install the Debian packages that the build and the demo need (with sudo)
	@tests/install-packages $(PACKAGES)

deps-machine:
	@tests/machine/install-qemu

machine-image:
	@tests/machine/run --prepare

# With the features of the tests, so that nothing is built a second time for them.
machine-programs:
	@$(CARGO) build --locked --workspace $(FEATURES) --bin machine --bin machine-tests --bin virtual-key

machine-booted: machine-image machine-programs
	@tests/machine/run --boot

deps-test:
	@tests/install-packages $(TEST_PACKAGES)

deps-deb:
	@tests/install-packages $(BUILD_PACKAGES) $(DEB_PACKAGES)
