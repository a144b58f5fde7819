//! `keywright-lockd`: parses the command line and runs one command.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use keywright_base::{files, start_log};
use keywright_lockd::{
    apply, config::Config, error::Error, identity::Identity, membership::Membership, port, run, ssh,
};
use keywright_proto::pem::MAX_PEM;

/// The default configuration file, which may be missing.
const DEFAULT_CONFIG: &str = "/etc/keywright/lockd.toml";

/// The Lock's daemon: judges grants, and writes the lists that this host enforces.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Directory of the Lock's identity and state.
    #[arg(long, default_value = "/var/lib/keywright-lock", value_name = "DIR", global = true)]
    state_dir: PathBuf,
    /// Configuration file [default: /etc/keywright/lockd.toml, if it exists].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: judge grants from the inbox and the link until it is stopped.
    Run,
    /// Print this Lock's PKCS#10 request for `keywrightctl lock add`; the first call creates its key.
    Request,
    /// Take this Lock's certificate and pin its family for good.
    Claim(Claim),
    /// Write this Lock's certificate to a file for `keywrightctl family import`.
    Export {
        /// The file to write; `-` for standard output.
        out: PathBuf,
    },
    /// Judge grants now and print the result of each.
    Apply {
        /// The files with the grants.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// For sshd's AuthorizedKeysCommand: print the line for this key, if it may log in.
    AuthorizedKeys {
        /// `%u`
        user: String,
        /// `%f`
        fingerprint: String,
    },
}

#[derive(Debug, clap::Args)]
struct Claim {
    /// The PEM chain that `keywrightctl lock add` wrote; `-` for standard input.
    #[arg(value_name = "CHAIN", required_unless_present = "key")]
    file: Option<PathBuf>,
    /// Let a Master or Backup Key in a USB port of this machine certify the Lock. Asks for its PIN, or reads it from
    /// standard input.
    #[arg(long, conflicts_with = "file")]
    key: bool,
    /// A file or descriptor (`/dev/fd/3`) with the PIN.
    #[arg(long, value_name = "FILE", requires = "key")]
    pin_file: Option<PathBuf>,
    /// For a Backup Key without a family card: the output of `keywrightctl key certificate`.
    #[arg(long, value_name = "FILE", requires = "key")]
    chain: Option<PathBuf>,
    /// A Unix socket on which virtual card programs connect (vpcd protocol).
    #[cfg(feature = "virtual-reader")]
    #[arg(long, value_name = "SOCKET", requires = "key")]
    virtual_reader: Option<PathBuf>,
}

/// Why a command failed: the message, and the exit status.
struct Failure(String, u8);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::File { .. } | Error::System(_) | Error::OtherFamily(_) => 1,
            Error::NotOurChain(_) => 1,
            Error::Damaged { .. } | Error::Unclaimed | Error::InUse(_) => 2,
        };
        Self(error.to_string(), status)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string(), 1)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    // Huge pages would waste memory in a process this small.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match execute(arguments) {
        Ok(status) => status,
        Err(Failure(text, status)) => {
            eprintln!("keywright-lockd: {text}");
            ExitCode::from(status)
        }
    }
}

fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let state = &arguments.state_dir;
    let config = || match &arguments.config {
        Some(file) => Config::load(file),
        None if Path::new(DEFAULT_CONFIG).exists() => Config::load(Path::new(DEFAULT_CONFIG)),
        None => Ok(Config::default()),
    };
    let config = || config().map_err(|text| Failure(text, 2));
    match &arguments.command {
        Command::Run => match run::run(state, config()?)? {},
        Command::Request => {
            files::create_directory(state, files::Readers::Everybody)
                .map_err(Error::file(state))?;
            print(&Identity::load_or_create(state)?.request()?)?;
        }
        Command::Claim(how) => {
            let membership = claim(state, how)?;
            let (lock, family) =
                (membership.chain()[0].public_key().id(), membership.root().family());
            print(&format!("this Lock is {lock}, of family {family}\n"))?;
        }
        Command::Export { out } => {
            let identity = Identity::load_or_create(state)?;
            let membership = Membership::load(state, identity.public())?.ok_or(Error::Unclaimed)?;
            let signed_objects = membership.signed_objects()?;
            if out == Path::new("-") {
                io::stdout().write_all(&signed_objects)?;
            } else {
                fs::write(out, signed_objects).map_err(Error::file(out))?;
            }
        }
        Command::Apply { files } => {
            let mut refused = false;
            for (file, outcome) in apply::apply(state, config()?, files)? {
                refused |= outcome.is_err();
                match outcome {
                    Ok(text) => print(&format!("{}: {text}\n", file.display()))?,
                    Err(text) => eprintln!("{}: refused: {text}", file.display()),
                }
            }
            return Ok(ExitCode::from(u8::from(refused)));
        }
        Command::AuthorizedKeys { user, fingerprint } => {
            let accounts = config()?.accounts;
            if let Some(line) = ssh::authorized_keys(state, &accounts, user, fingerprint)? {
                print(&line)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn claim(state: &Path, how: &Claim) -> Result<Membership, Failure> {
    files::create_directory(state, files::Readers::Everybody).map_err(Error::file(state))?;
    let identity = Identity::load_or_create(state)?;
    let identity = identity.public();
    let chain = match &how.file {
        Some(file) => read(file)?,
        None => {
            let family = Membership::load(state, identity)?.map(|known| known.root().family());
            let above = how.chain.as_deref().map(read).transpose()?;
            let pin = || port::read_pin(how.pin_file.as_deref());
            #[cfg(feature = "virtual-reader")]
            let port = port::Port { virtual_reader: how.virtual_reader.clone() };
            #[cfg(not(feature = "virtual-reader"))]
            let port = port::Port::default();
            port::certify(&port, identity, family, above.as_deref(), pin)
                .map_err(|error| Failure(error.to_string(), 1))?
        }
    };
    Ok(Membership::claim(state, identity, &chain)?)
}

fn read(path: &Path) -> Result<String, Failure> {
    let limit = MAX_PEM as u64 + 1;
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(limit).read_to_string(&mut text)?;
    } else {
        let file = fs::File::open(path).map_err(Error::file(path))?;
        file.take(limit).read_to_string(&mut text).map_err(Error::file(path))?;
    }
    Ok(text)
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}
