//! One process from start to end: common settings, signals, exit codes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use telemetry::logs::LineFormat;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use crate::settings::settings_table;
use crate::{clock, health};

/// Exit code for settings that cannot work (sysexits `EX_CONFIG`).
pub const EXIT_BAD_CONFIGURATION: u8 = 78;

/// How long the last spans may take to leave at the end: they are for people, nothing depends on them.
const TELEMETRY_DEADLINE: Duration = Duration::from_secs(2);

/// How long blocking threads (dropping a Kafka client) may take at the very end.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// Open files that a process asks for: five times the connections that a gateway takes by default.
const MAX_OPEN_FILES: u64 = 65_536;

/// The same after the time of day was set back: a client that is silent cannot hand its lanes over.
const DEAF_DRAIN: Duration = Duration::from_secs(5);

/// The clock by which a process waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsBy {
    /// One that nobody sets.
    Monotonic,
    /// The Kafka client's waits end at a time of day, so a process that has one may be silent for as long as that is set back.
    TimeOfDay,
}

/// Settings that every service has.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessArgs {
    /// Name of this replica, unique among its siblings; a random one when empty
    #[arg(long, env = "INSTANCE", default_value = "")]
    pub instance: String,
    /// Address of the REST port; the orchestrator has none
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Address of the admin port (/healthz, /readyz, /metrics)
    #[arg(long, env = "ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Log format: human or json
    #[arg(long, env = "LOG_FORMAT", default_value = "human")]
    pub log_format: String,
    /// Traces that this process begins to record in every second besides what OTEL_TRACES_SAMPLER_ARG draws; with a ratio of 0
    /// none
    #[arg(long, env = "TRACES_MIN_PER_S", default_value_t = telemetry::setup::DEFAULT_MIN_TRACES_PER_S)]
    pub traces_min_per_s: u32,
    /// Seconds that a drain may take after SIGTERM before the process ends anyway
    #[arg(long, env = "DRAIN_DEADLINE_S", default_value_t = 30)]
    pub drain_deadline_s: u64,
    /// Worker threads of the async runtime; 0 is one per core
    #[arg(long, env = "WORKER_THREADS", default_value_t = 0)]
    pub worker_threads: usize,
    /// Count CPU time by stage for ./dev bench --stages (1 = yes); every stage then costs two system calls
    #[arg(long, env = "CPU_STAGES", value_parser = clap::builder::FalseyValueParser::new())]
    pub cpu_stages: bool,
}

impl ProcessArgs {
    /// The name of this replica: the setting, or a random one that stays the same for the life of the process.
    pub fn instance_name(&self) -> String {
        static RANDOM: OnceLock<String> = OnceLock::new();
        if self.instance.is_empty() {
            RANDOM.get_or_init(|| format!("{:08x}", rand::random::<u32>())).clone()
        } else {
            self.instance.clone()
        }
    }

    /// The drain deadline as a duration.
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_secs(self.drain_deadline_s)
    }

    fn lines(&self) -> Result<LineFormat, BadConfiguration> {
        match self.log_format.as_str() {
            "human" => Ok(LineFormat::Human),
            "json" => Ok(LineFormat::Json),
            other => Err(BadConfiguration(format!("LOG_FORMAT must be human or json, not \"{other}\""))),
        }
    }
}

/// Reads the command line and the environment. `--help` and `--version` print and give exit code 0; anything that cannot
/// be read prints one sentence and gives 78. The subcommand `health` asks the running service and gives 0 or 1.
pub fn parse<T: clap::Parser>() -> Result<T, ExitCode> {
    parse_from(std::env::args_os())
}

fn parse_from<T: clap::Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<T, ExitCode> {
    let command = T::command().subcommand(health::command());
    let matches = command.try_get_matches_from(arguments).map_err(|error| not_parsed(&error))?;
    match matches.subcommand() {
        Some((health::NAME, asked)) => Err(health::run(&matches, asked)),
        _ => T::from_arg_matches(&matches).map_err(|error| not_parsed(&error)),
    }
}

fn not_parsed(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        eprintln!("{}", first_line(&error.to_string()));
        ExitCode::from(EXIT_BAD_CONFIGURATION)
    } else {
        let _ = error.print();
        ExitCode::SUCCESS
    }
}

/// Builds the runtime, starts telemetry, runs `run` until it ends or SIGTERM/SIGINT cancels the token and the drain
/// deadline passes, ends telemetry. Exit code 0 after a clean drain, 78 for `BadConfiguration`, 1 otherwise. Where it matters, a
/// time of day that is set back far drains for a moment and gives 1: whoever supervises the process is to start it again.
pub fn main<F, Fut>(service: &'static str, args: &ProcessArgs, waits_by: WaitsBy, run: F) -> ExitCode
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: std::future::Future<Output = anyhow::Result<()>>,
{
    match run_process(service, args, waits_by, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(BadConfiguration(sentence)) = bad_configuration(&error) {
                eprintln!("{service}: {sentence}");
                return ExitCode::from(EXIT_BAD_CONFIGURATION);
            }
            eprintln!("{service}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A token that is cancelled `pause` after `shutdown` is: the time in which a replica says "not me" on
/// `/internal/ready` and still serves what comes, so that the gateway leaves it out before its port closes.
pub fn delayed(shutdown: &CancellationToken, pause: Duration) -> CancellationToken {
    let (shutdown, later) = (shutdown.clone(), CancellationToken::new());
    let delayed = later.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(pause).await;
        later.cancel();
    });
    delayed
}

/// Marks an error as the user's configuration; exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfiguration(pub String);

fn bad_configuration(error: &anyhow::Error) -> Option<&BadConfiguration> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn run_process<F, Fut>(service: &'static str, args: &ProcessArgs, waits_by: WaitsBy, run: F) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: std::future::Future<Output = anyhow::Result<()>>,
{
    raise_file_limit();
    let identity = telemetry::setup::Identity { service, instance: args.instance_name(), lines: args.lines()? };
    let runtime = runtime(args.worker_threads).context("start the async runtime")?;
    let outcome = runtime.block_on(async {
        let telemetry = telemetry::setup::start(&identity, args.traces_min_per_s);
        let telemetry = telemetry.map_err(|error| BadConfiguration(error.to_string()))?;
        if args.cpu_stages {
            telemetry::stages::start();
        }
        let (shutdown, set_back) = (CancellationToken::new(), OnceLock::new());
        let outcome = tokio::select! {
            outcome = run(shutdown.clone()) => outcome,
            outcome = cancel_in_time(&shutdown, args.drain_deadline(), waits_by, &set_back) => outcome,
        };
        let outcome = match set_back.get() {
            Some(by) => clock_failed(*by, outcome),
            None => outcome,
        };
        match &outcome {
            Ok(()) => tracing::info!("ended"),
            // One sentence on stderr is all that bad configuration needs.
            Err(error) if bad_configuration(error).is_some() => {}
            Err(error) => tracing::error!(error = format!("{error:#}"), "ended with an error"),
        }
        shutdown.cancel();
        telemetry.shutdown(TELEMETRY_DEADLINE).await;
        outcome
    });
    runtime.shutdown_timeout(RUNTIME_DEADLINE);
    outcome
}

/// Every connection is an open file, and the soft limit of a login is often 1 024: takes what the hard limit allows, up
/// to [`MAX_OPEN_FILES`]. A limit that cannot be raised is not an error, only fewer connections.
pub fn raise_file_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(MAX_OPEN_FILES);
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        eprintln!("cannot raise the limit of open files from {soft} to {wanted}: {error}");
    }
}

fn runtime(worker_threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if worker_threads > 0 {
        builder.worker_threads(worker_threads);
    }
    builder.enable_all().build()
}

/// How the drain ended says less than why it began.
fn clock_failed(by: Duration, drained: anyhow::Result<()>) -> anyhow::Result<()> {
    let why = format!("the time of day was set back by {} s", by.as_secs());
    drained.and_then(|()| anyhow::bail!("the Kafka client would be silent for as long")).context(why)
}

/// Cancels the token at the first SIGTERM or SIGINT, or when the time of day has been set back, which it notes; returns, with an
/// error, when the drain deadline has passed since or a second signal came.
async fn cancel_in_time(
    shutdown: &CancellationToken,
    drain_deadline: Duration,
    waits_by: WaitsBy,
    set_back: &OnceLock<Duration>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut next_signal = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let (name, drain_deadline) = tokio::select! {
        name = next_signal() => (name, drain_deadline),
        by = clock::set_back(), if waits_by == WaitsBy::TimeOfDay => {
            tracing::error!(by_s = by.as_secs(), "the time of day was set back: this process ends, to be started again");
            set_back.get_or_init(|| by);
            ("clock", drain_deadline.min(DEAF_DRAIN))
        }
    };
    tracing::info!(cause = name, drain_deadline_s = drain_deadline.as_secs(), "draining");
    shutdown.cancel();
    tokio::select! {
        () = tokio::time::sleep(drain_deadline) => {
            anyhow::bail!("the drain did not end within {} s", drain_deadline.as_secs())
        }
        name = next_signal() => anyhow::bail!("a second signal ({name}) ended the drain"),
    }
}

/// clap's error texts have several lines (usage, hints); the first says what is wrong.
fn first_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ProcessArgs {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        ProcessArgs {
            instance: String::new(),
            listen: any_port,
            admin_listen: any_port,
            log_format: "human".to_owned(),
            traces_min_per_s: 0,
            drain_deadline_s: 1,
            worker_threads: 1,
            cpu_stages: false,
        }
    }

    fn code(exit: ExitCode) -> String {
        format!("{exit:?}")
    }

    #[test]
    fn exit_codes_tell_configuration_from_failure() {
        let outcome = |result: fn() -> anyhow::Result<()>| {
            code(main("test", &args(), WaitsBy::TimeOfDay, async move |_| result()))
        };
        assert_eq!(outcome(|| Ok(())), code(ExitCode::SUCCESS));
        assert_eq!(outcome(|| Err(BadConfiguration("no such port".into()).into())), code(ExitCode::from(78)));
        let wrapped = || Err(anyhow::Error::new(BadConfiguration("x".into())).context("read settings"));
        assert_eq!(outcome(wrapped), code(ExitCode::from(78)));
        assert_eq!(outcome(|| anyhow::bail!("broken")), code(ExitCode::FAILURE));
        let bad = ProcessArgs { log_format: "yaml".to_owned(), ..args() };
        assert_eq!(code(main("test", &bad, WaitsBy::Monotonic, async |_| Ok(()))), code(ExitCode::from(78)));
    }

    #[derive(Debug, clap::Parser)]
    struct Service {
        #[command(flatten)]
        process: ProcessArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<Service, String> {
        parse_from(["service"].iter().chain(arguments).map(OsString::from)).map_err(code)
    }

    #[test]
    fn health_is_asked_instead_of_served() {
        let service = parsed(&["--admin-listen", "127.0.0.1:7"]).expect("settings");
        assert_eq!(service.process.admin_listen.port(), 7);
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port");
        let asked = parsed(&["--admin-listen", &nobody.to_string(), "health", "--ready"]);
        assert_eq!(asked.expect_err("asked"), code(ExitCode::FAILURE));
        let nowhere = parsed(&["--admin-listen", "127.0.0.1:0", "health"]);
        assert_eq!(nowhere.expect_err("asked"), code(ExitCode::FAILURE));
        assert_eq!(parsed(&["health", "--red"]).expect_err("unknown"), code(ExitCode::from(78)));
    }

    #[test]
    fn the_random_instance_stays() {
        assert_eq!(args().instance_name(), args().instance_name());
        assert_eq!(ProcessArgs { instance: "a".into(), ..args() }.instance_name(), "a");
    }

    #[test]
    fn an_error_of_clap_becomes_one_sentence() {
        let text = "error: invalid value 'x' for '--listen <LISTEN>': bad\n\nFor more information, try '--help'.\n";
        assert_eq!(first_line(text), "invalid value 'x' for '--listen <LISTEN>': bad");
    }
}
