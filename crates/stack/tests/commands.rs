//! The commands of the program `stack`, on real servers without services.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use stack::StackState;

fn stack(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stack")).args(args).arg("--dir").arg(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends what a failed test leaves behind.
struct Down<'dir>(&'dir Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if let Ok(Some(state)) = StackState::load(self.0) {
            state.end();
        }
    }
}

#[test]
fn up_goes_on_in_the_background_until_down() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let _down = Down(dir);
    let up = stack(dir, &["up", "--servers-only", "--partitions", "3"]);
    assert!(up.status.success(), "{}", text(&up.stderr));
    assert!(text(&up.stdout).contains("redis-order"));

    let again = stack(dir, &["up", "--servers-only"]);
    assert!(again.status.success());
    assert!(text(&again.stdout).contains("It is running already"));

    let status: Value = serde_json::from_slice(&stack(dir, &["status", "--json"]).stdout).unwrap();
    let processes = status["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 5);
    assert!(processes.iter().all(|process| process["running"] == true && process["pid"].is_u64()), "{status}");

    let brokers = processes.iter().find(|process| process["name"] == "kafka").unwrap()["address"].as_str().unwrap();
    let topics = |partitions| stack(dir, &["topics", "--brokers", brokers, "--partitions", partitions]);
    let fitting = topics("3");
    assert!(fitting.status.success(), "{}", text(&fitting.stderr));
    assert!(text(&fitting.stdout).starts_with("3 partitions each, 1 copies on 1 brokers"), "{}", text(&fitting.stdout));
    let differing = topics("4");
    assert!(!differing.status.success());
    assert!(text(&differing.stderr).contains("saga.inbox has 3 partitions, not 4"), "{}", text(&differing.stderr));

    assert!(text(&stack(dir, &["logs", "redis-st"]).stdout).contains("Ready to accept connections"));
    let unknown = stack(dir, &["logs", "nobody"]);
    assert!(text(&unknown.stderr).contains("there is no nobody; there are redis-orchestrator"));

    let state = StackState::load(dir).unwrap().unwrap();
    assert!(stack(dir, &["down"]).status.success());
    assert!(!state.is_running());
    assert!(text(&stack(dir, &["down"]).stdout).contains("Nothing is running"));
    assert!(!stack(dir, &["status"]).status.success());
}

#[test]
fn other_partitions_than_those_of_the_data_are_refused_unless_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let _down = Down(dir);
    assert!(stack(dir, &["up", "--servers-only", "--partitions", "3"]).status.success());
    assert!(stack(dir, &["down"]).status.success());
    let other = stack(dir, &["up", "--servers-only", "--partitions", "4"]);
    assert!(!other.status.success());
    assert!(text(&other.stderr).contains("--fresh"), "{}", text(&other.stderr));
    let fresh = stack(dir, &["up", "--servers-only", "--partitions", "4", "--fresh"]);
    assert!(fresh.status.success(), "{}", text(&fresh.stderr));
    assert!(stack(dir, &["down"]).status.success());
}

#[test]
fn a_gateway_port_in_use_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let up = stack(folder.path(), &["up", "--port", &port]);
    assert!(!up.status.success());
    let words = text(&up.stderr);
    assert!(words.contains(&format!("port {port} is in use")) && words.contains("--port"), "{words}");
}
