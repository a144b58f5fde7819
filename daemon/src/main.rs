//! `keywrightd`: parses its arguments, starts the parts of the daemon, and waits for the end.

use std::{
    future::pending,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use keywright_base::start_log;
#[cfg(feature = "virtual-reader")]
use keywright_token::hotplug::{PlugEvent, VirtualReader};
use keywright_token::hotplug::{Sink, StartError, UdevSource};
use keywrightd::{
    bus::{Bus, Service, ServiceError, sleep},
    config::{Config, ConfigError},
    journal::{self, Journal},
    lifecycle,
    link::{self, LinkError},
    registry::{Registry, RegistryError},
    station::{Handle, Station},
    supervisor::Supervisor,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::{spawn, spawn_blocking},
};

/// The configuration file that is read if no other is given. It may be missing.
const DEFAULT_CONFIG: &str = "/etc/keywright/keywrightd.toml";
/// Exit status if the idle daemon was needed again while it stopped. The systemd unit then restarts it.
const NEEDED_AGAIN: u8 = 75;

/// Makes Backup and Sub Keys from PIV security tokens.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The bus: system, session, or a D-Bus address.
    #[arg(long, default_value = "system", value_name = "BUS")]
    bus: Bus,
    /// Where the registry is kept.
    #[arg(long, default_value = "/var/lib/keywright", value_name = "DIR")]
    state_dir: PathBuf,
    /// The configuration file [default: /etc/keywright/keywrightd.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A Unix socket on which card programs plug themselves in (vpcd protocol).
    #[cfg(feature = "virtual-reader")]
    #[arg(long, value_name = "SOCKET")]
    virtual_reader: Option<PathBuf>,
}

/// Why the daemon stops with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{} is not a state directory of keywrightd: it holds other files; give another one", .0.display())]
    StateDirectory(PathBuf),
    #[error(transparent)]
    Hotplug(#[from] StartError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("plugs cannot be heard of any more: {0}; start the daemon again")]
    Deaf(#[source] io::Error),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Failure {
    /// 2 for wrong arguments or settings, 1 for a failure at run time.
    fn status(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Hotplug(StartError::Monitor(_))
            | Self::Deaf(_)
            | Self::System(_)
            | Self::Service(_) => 1,
            Self::Config(_)
            | Self::Registry(_)
            | Self::StateDirectory(_)
            | Self::Link(_)
            | Self::Hotplug(_) => 2,
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    // sled allocates large tables and touches little of them. With huge pages all of them would be resident: 24 MB more.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // The files that the daemon writes are readable by its own user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Failure::from).and_then(|runtime| {
        let ended = runtime.block_on(run(arguments));
        // Do not wait for queries that still read.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("keywrightd: {failure}");
            failure.status()
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let supervisor = Supervisor::from_environment();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = match &arguments.config {
        Some(file) => Config::load(file)?,
        None if Path::new(DEFAULT_CONFIG).exists() => Config::load(Path::new(DEFAULT_CONFIG))?,
        None => Config::default(),
    };
    // Only the service manager on the system bus starts the daemon again when it is needed.
    let restarted = supervisor.is_there() && arguments.bus == Bus::System;
    // A linked daemon never exits when idle: a Lock may send a message at any time.
    let linked = config.link.clone();
    let idle_exit = config.idle_exit(restarted).filter(|_| linked.is_none());
    let route = config.route;
    let (bus, state_dir) = (arguments.bus, arguments.state_dir);
    // Each of these waits for I/O; together they take half the time.
    let (opened, connected) =
        tokio::join!(spawn_blocking(move || open_registry(&state_dir)), bus.connect());
    let registry = opened.map_err(io::Error::other)??;
    let connection = connected?;
    if let Err(lost) = registry.check_nothing_is_lost() {
        tracing::error!("nothing is signed or offered: {lost}");
    }
    publish_events(&registry);
    let delay = config.revoke_delay();
    let (station, outputs) = Station::start(registry.clone(), config)?;
    let teller = station.clone();
    let sink: Sink = Arc::new(move |event| teller.tell(move |station| station.hotplug(event)));
    let plugs = Arc::clone(&sink);
    let (tell_deaf, deaf) = oneshot::channel();
    let deafened = move |error| {
        // The receiver is gone only while the daemon stops.
        let _ = tell_deaf.send(error);
    };
    let (listening, opened) = tokio::join!(
        spawn_blocking(move || UdevSource::start(plugs, route, deafened)),
        Service::open(bus, connection, station.clone(), registry.clone(), delay, outputs)
    );
    let mut service = opened?;
    if let Some(config) = &linked {
        link::start(config, registry.clone(), delay, station.clone())?;
    }
    #[cfg(feature = "virtual-reader")]
    let _reader =
        arguments.virtual_reader.map(|socket| start_reader(&socket, &sink)).transpose()?;
    let source = Arc::new(listening.map_err(io::Error::other)??);
    service.claim_name().await?;
    supervisor.ready();
    let again = Arc::clone(&source);
    let resumed = move || {
        let source = Arc::clone(&again);
        spawn_blocking(move || source.rescan());
    };
    let guard = sleep::guard(service.connection().clone(), service.activity(), resumed);
    spawn(async move {
        if let Err(error) = guard.await {
            tracing::warn!(%error, "a suspend does not wait for a Key that is being written");
        }
    });
    let uptime = move || registry.uptime();
    spawn(lifecycle::act_after_delays(station.clone(), service.activity(), uptime));
    let (calls, activity) = (service.calls(), service.activity());
    let watched = lifecycle::run_watchdog(&supervisor, &station, service.activity());
    let idle = async {
        match idle_exit {
            Some(patience) => {
                let waiting = station.waiting();
                lifecycle::until_idle(activity.clone(), waiting, || calls.last(), patience).await;
            }
            None => pending().await,
        }
    };
    tokio::select! {
        ended = service.run() => match ended? {},
        // The watchdog ends only if the station has ended.
        () = watched => return Err(ServiceError::StationEnded.into()),
        // Without the hotplug thread the daemon would run and never show a Key. A panicked thread sends no error.
        error = deaf => {
            return Err(Failure::Deaf(error.unwrap_or_else(|_| io::ErrorKind::BrokenPipe.into())));
        }
        () = idle => return end_idle(&supervisor, &mut service, source, &station).await,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    service.release_name().await;
    Ok(ExitCode::SUCCESS)
}

/// Stops the idle daemon without losing a plug or a call. First the service manager learns that a start request means a
/// new process; then the bus name is released and the calls that came before are answered; then the plugged-in tokens
/// are enumerated once more, because a plug reported before all this was reported to this process only.
async fn end_idle(
    supervisor: &Supervisor,
    service: &mut Service,
    source: Arc<UdevSource>,
    station: &Handle,
) -> Result<ExitCode, Failure> {
    tracing::info!("nobody needs this daemon now; a plug or a call starts it again");
    supervisor.stopping();
    service.retire().await?;
    let activity = service.activity();
    let rescanned = async {
        // A rescan does not panic, and its events are in the station's mailbox before this question.
        let _ = spawn_blocking(move || source.rescan()).await;
        station.ask(|station, reply| reply.answer(station, Ok(()))).await
    };
    tokio::select! {
        ended = service.run() => match ended? {},
        _ = rescanned => {}
    }
    let needed = activity.borrow().needed;
    Ok(if needed { ExitCode::from(NEEDED_AGAIN) } else { ExitCode::SUCCESS })
}

/// Opens the registry in the state directory, which may be missing or empty.
fn open_registry(state_dir: &Path) -> Result<Registry, Failure> {
    let mut names = state_dir.read_dir().into_iter().flatten().flatten().peekable();
    let ours = |name: std::ffi::OsString| name.to_string_lossy().starts_with("registry");
    if names.peek().is_some() && !names.any(|entry| ours(entry.file_name())) {
        return Err(Failure::StateDirectory(state_dir.into()));
    }
    Ok(Registry::open(&state_dir.join("registry"))?)
}

/// Starts the virtual reader. It reports only plugs and unplugs; that everything present at the start has been reported
/// is for udev alone to say.
#[cfg(feature = "virtual-reader")]
fn start_reader(socket: &Path, sink: &Sink) -> Result<VirtualReader, StartError> {
    let sink = Arc::clone(sink);
    let plugs = move |event| {
        if !matches!(event, PlugEvent::Settled) {
            sink(event);
        }
    };
    VirtualReader::start(socket, Arc::new(plugs))
}

/// Publishes audit events: to the journal with fields of their own if the daemon's messages go to the journal;
/// otherwise, or if the journal refuses one, as an ordinary log message.
fn publish_events(registry: &Registry) {
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| Journal::connect(Path::new(journal::SOCKET)).ok());
    registry.watch_audit_events(move |events| {
        for event in events {
            let written = journal.as_ref().is_some_and(|journal| journal.write(event).is_ok());
            if !written {
                tracing::info!(position = event.position, "logged: {}", journal::text(event));
            }
        }
    });
}
