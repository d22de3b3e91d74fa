//! A real Redis: what was acknowledged is there after a kill, and it can be paused.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use local_servers::{Lifetime, Redis, accepts_connections, wait_until};

fn command(redis: &Redis, line: &str) -> String {
    let mut stream = TcpStream::connect(redis.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    if first.starts_with('$') && first != "$-1" { lines.next().unwrap().unwrap() } else { first }
}

#[test]
fn data_survives_a_kill_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path(), None).unwrap();
    let (port, pid) = (redis.port(), redis.pid());
    assert_eq!(command(&redis, "SET colour blue"), "+OK");
    redis.kill().unwrap();
    assert!(!accepts_connections(port));
    redis.restart().unwrap();
    assert_eq!(redis.port(), port);
    assert_ne!(redis.pid(), pid);
    assert_eq!(command(&redis, "GET colour"), "blue");
}

#[test]
fn a_paused_redis_is_silent_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path(), None).unwrap();
    redis.pause().unwrap();
    let mut stream = TcpStream::connect(redis.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    assert!(reader.read_line(&mut String::new()).is_err());
    redis.resume().unwrap();
    let mut answer = String::new();
    assert!(wait_until(Duration::from_secs(5), || reader.read_line(&mut answer).is_ok()));
    assert_eq!(answer, "+PONG\r\n");
}

#[test]
fn a_dropped_redis_is_gone_and_a_setting_reaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("appendfsync", "everysec")];
    let redis = Redis::start_with(folder.path(), None, &settings, Lifetime::WithParent).unwrap();
    let port = redis.port();
    assert!(command(&redis, "INFO persistence").contains("# Persistence"));
    drop(redis);
    assert!(!accepts_connections(port));
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = Redis::start(&folder.path().join("first"), None).unwrap();
    let error = Redis::start(&folder.path().join("second"), Some(first.port())).unwrap_err();
    assert!(error.to_string().contains("is in use"), "{error}");
}

#[test]
fn a_setting_that_redis_refuses_is_an_error_that_shows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("no-such-setting", "1")];
    let error = Redis::start_with(folder.path(), None, &settings, Lifetime::WithParent).unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}
