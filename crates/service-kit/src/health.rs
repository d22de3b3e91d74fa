//! The subcommand `health` of every service: asks the admin port of the same container. An image then needs no shell and
//! no HTTP client for its health check.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Name of the subcommand.
pub(crate) const NAME: &str = "health";

/// For the whole question: a service that does not answer its own machine within this is not well.
const DEADLINE: Duration = Duration::from_secs(2);

/// Most of an answer that is read, bytes: `/readyz` of a service with 100 halted lanes has some 10 kB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Most of an answer that is printed, characters: what a container engine keeps of a check's output is no more.
const MAX_LINE_CHARS: usize = 1_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// `/healthz`: does the process answer?
    Alive,
    /// `/readyz`: does it want requests?
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Alive => "/healthz",
            Self::Ready => "/readyz",
        }
    }
}

/// The subcommand, for the command line of a service.
pub(crate) fn command() -> Command {
    let ready = Arg::new("ready").long("ready").action(ArgAction::SetTrue);
    Command::new(NAME)
        .about("Ask this service's admin port whether it is alive: one line, exit code 0 or 1")
        .arg(ready.help("Ask whether it is ready for requests"))
}

/// Asks and prints one line; `service` are the matches of the whole command line, `asked` those of the subcommand.
pub(crate) fn run(service: &ArgMatches, asked: &ArgMatches) -> ExitCode {
    let question = if asked.get_flag("ready") { Question::Ready } else { Question::Alive };
    let admin_listen = service.try_get_one::<SocketAddr>("admin_listen").ok().flatten();
    let answer = match admin_listen.and_then(|address| reachable(*address)) {
        Some(address) => ask(address, question, DEADLINE),
        None => Err("ADMIN_LISTEN must name a port to be asked".to_owned()),
    };
    match answer {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            println!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// Where a process that listens on this address can be reached from its own machine.
fn reachable(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (listen.port() != 0).then(|| SocketAddr::new(ip, listen.port()))
}

/// The line to print: `Ok` when the answer was 200.
fn ask(address: SocketAddr, question: Question, deadline: Duration) -> Result<String, String> {
    let path = question.path();
    let answer = exchange(address, path, Instant::now() + deadline).map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let mut line: String = format!("{path}: {status} {}", body.trim()).replace(['\r', '\n'], " ");
    if let Some((end, _)) = line.char_indices().nth(MAX_LINE_CHARS) {
        line.truncate(end);
    }
    if status == "200" { Ok(line) } else { Err(line) }
}

/// One request and its whole answer, as text.
fn exchange(address: SocketAddr, path: &str, end: Instant) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, left(end)?)?;
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < MAX_ANSWER_BYTES {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The time until the deadline.
fn left(end: Instant) -> std::io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio_util::sync::CancellationToken;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn ask_off_the_runtime(address: SocketAddr, question: Question) -> Result<String, String> {
        tokio::task::spawn_blocking(move || ask(address, question, PATIENCE)).await.expect("asked")
    }

    #[tokio::test]
    async fn the_answer_is_that_of_the_admin_port() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let router = crate::admin::router(Arc::new(move || crate::admin::Readiness {
            ready: asked.load(Ordering::Relaxed),
            details: serde_json::json!({"redis": false}),
        }));
        tokio::spawn(crate::http::serve(listener, router, crate::http::Limits::default(), CancellationToken::new()));
        let alive = ask_off_the_runtime(address, Question::Alive).await;
        assert_eq!(alive, Ok("/healthz: 200 ok".to_owned()));
        let unready = ask_off_the_runtime(address, Question::Ready).await;
        assert_eq!(unready, Err(r#"/readyz: 503 {"ready":false,"details":{"redis":false}}"#.to_owned()));
        ready.store(true, Ordering::Relaxed);
        assert!(ask_off_the_runtime(address, Question::Ready).await.is_ok());
    }

    #[test]
    fn nobody_there_and_silence_are_failures_within_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let begin = Instant::now();
        let silent = ask(address, Question::Alive, Duration::from_millis(50)).expect_err("nobody answers");
        assert!(silent.starts_with(&address.to_string()), "{silent}");
        assert!(begin.elapsed() < PATIENCE);
        drop(listener);
        assert!(ask(address, Question::Alive, PATIENCE).is_err(), "nobody listens");
    }

    #[test]
    fn every_address_is_asked_on_this_machine() {
        let asked = |listen: &str| reachable(listen.parse().expect("address")).map(|address| address.to_string());
        assert_eq!(asked("0.0.0.0:9090").as_deref(), Some("127.0.0.1:9090"));
        assert_eq!(asked("[::]:9090").as_deref(), Some("[::1]:9090"));
        assert_eq!(asked("10.0.0.7:9090").as_deref(), Some("10.0.0.7:9090"));
        assert_eq!(asked("127.0.0.1:0"), None);
    }
}
