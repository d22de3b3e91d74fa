//! A Redis with a password: let in with it, also after a lost connection; kept out in one clear sentence; never shown.

mod support;

use std::error::Error as _;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis_txn::{ConnectError, Password, Settings, Store};
use service_kit::process::BadConfiguration;
use support::{Add, Server, connect, counter, in_time, settings, until};

/// Pause between two looks into a log that grows.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

const CANARY: &str = "canary-7f3e-open-sesame";

fn with(server: &Server, password: Password) -> Settings {
    Settings { password, ..settings(&server.redis.address(), "test") }
}

/// Sets the password of a running server; the connection that does it stays logged in.
async fn set_password(connection: &mut redis::aio::MultiplexedConnection, password: &str) {
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(password).exec_async(connection).await.unwrap();
}

/// Closes all connections but this one.
async fn cut_off(connection: &mut redis::aio::MultiplexedConnection) {
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_logs_in_also_those_that_replace_a_lost_one() {
    let server = Server::start();
    let mut foreign = server.foreign().await;
    set_password(&mut foreign, CANARY).await;
    let store = connect(with(&server, Password::new(CANARY))).await;
    store.check(false).await.unwrap();
    for before in 0..3 {
        assert_eq!(in_time(store.lane_queue(1).run(Add::one("a"))).await.unwrap(), [before]);
        assert_eq!(counter(&store, "a").await, before + 1);
        let rows = [("bulk".to_owned(), "1".into())];
        assert_eq!(store.bulk_set(rows.into_iter()).await.unwrap(), 1);
        cut_off(&mut foreign).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_does_not_fit_is_bad_configuration_at_once() {
    let server = Server::start();
    let refusal = async |password: Password| {
        let begin = Instant::now();
        let Err(error) = Store::connect(with(&server, password)).await else { panic!("let in") };
        assert!(begin.elapsed() < Duration::from_secs(10), "it was tried again and again");
        assert!(matches!(error, ConnectError::Denied(_)), "{error:?}");
        let cause = error.source().and_then(|cause| cause.downcast_ref::<BadConfiguration>());
        cause.expect("the process ends with exit code 78").to_string()
    };
    assert!(refusal(Password::new(CANARY)).await.contains("has no password"));
    set_password(&mut server.foreign().await, CANARY).await;
    assert!(refusal(Password::new("wrong")).await.contains("refuses the password in REDIS_PASSWORD_FILE"));
    assert!(refusal(Password::default()).await.contains("asks for a password: set REDIS_PASSWORD_FILE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_shuts_the_store_out_until_it_fits_again() {
    let server = Server::start();
    let mut foreign = server.foreign().await;
    set_password(&mut foreign, CANARY).await;
    let store = connect(with(&server, Password::new(CANARY))).await;
    set_password(&mut foreign, "another").await;
    cut_off(&mut foreign).await;
    until(|| !store.is_healthy()).await;
    let waiting = tokio::spawn(store.lane_queue(1).run(Add::one("a")));
    set_password(&mut foreign, CANARY).await;
    assert_eq!(in_time(waiting).await.unwrap().unwrap(), [0]);
}

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_and_no_error_shows_the_password() {
    let log = Log::default();
    let writer = log.clone();
    let everything =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // For all threads, so what the tests beside this one log is looked at too: `tracing` asks a subscriber of one thread
    // about a line once, and may do so on a thread that has none.
    tracing::subscriber::set_global_default(everything).unwrap();
    let server = Server::start();
    let mut foreign = server.foreign().await;
    let refused = Store::connect(with(&server, Password::new(CANARY))).await.err().expect("it has no password");
    tracing::info!(error = ?refused, settings = ?with(&server, Password::new(CANARY)), "as somebody might log it");
    set_password(&mut foreign, CANARY).await;
    let _store = connect(with(&server, Password::new(CANARY))).await;
    set_password(&mut foreign, "another").await;
    cut_off(&mut foreign).await;
    let denied = || String::from_utf8_lossy(&log.0.lock().unwrap()).contains("the store denies access");
    in_time(async {
        while !denied() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    })
    .await;
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("as somebody might log it") && text.contains("Password(…)"), "{text}");
    assert!(!text.contains(CANARY), "{text}");
}
