//! What runs, written down so that `down`, `status` and `logs` find it; and the end of what runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use local_servers::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::plan::Kind;

/// A service drains for at most 30 s before it ends by itself.
const SERVICE_DEADLINE: Duration = Duration::from_secs(35);
/// Redis ends at once, Kafka closes its log segments.
const SERVER_DEADLINE: Duration = Duration::from_secs(15);
/// SIGKILL needs no consent.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// One process of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its name, unique in the stack.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did: tells it from a later process with the same id.
    pub started_ticks: u64,
    /// `host:port` that it serves.
    pub address: String,
    /// `host:port` of `/readyz` and `/metrics`; services only.
    pub admin_address: Option<String>,
    /// Its log.
    pub log_file: PathBuf,
}

impl ProcessInfo {
    /// Whether this very process still runs.
    pub fn is_running(&self) -> bool {
        running_since(self.pid) == Some(self.started_ticks)
    }

    fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end between the look and the signal; that is what is wanted.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }
}

/// The program that watches over a foreground stack and ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started_ticks: u64,
}

impl Supervisor {
    /// This process.
    pub fn this_process() -> Option<Self> {
        let pid = std::process::id();
        running_since(pid).map(|started_ticks| Self { pid, started_ticks })
    }

    /// Asks it to end its stack and itself; false if it is gone already or does not obey.
    pub fn end(&self) -> bool {
        let is_running = || running_since(self.pid) == Some(self.started_ticks);
        is_running()
            && kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).is_ok()
            && wait_until(SERVICE_DEADLINE + SERVER_DEADLINE + KILL_DEADLINE, || !is_running())
    }
}

/// A stack that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StackState {
    /// Where the shop is, `http://host:port`.
    pub gateway_url: String,
    /// Partitions of every topic.
    pub partitions: u32,
    /// How many of each service.
    pub replicas: u32,
    /// Who watches over it, if it runs in the foreground.
    pub supervisor: Option<Supervisor>,
    /// All processes, in the order they were started.
    pub processes: Vec<ProcessInfo>,
}

impl StackState {
    /// The state of the stack in `dir`, if there is one.
    pub fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = file(dir);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes it down.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, new) = (file(dir), dir.join("state.json.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Forgets it.
    pub fn remove(dir: &Path) -> anyhow::Result<()> {
        let path = file(dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether any of its processes runs.
    pub fn is_running(&self) -> bool {
        self.processes.iter().any(ProcessInfo::is_running)
    }

    /// Ends all processes: the services first, so that they can drain, then the servers. Says which had to be killed.
    pub fn end(&self) -> Vec<String> {
        let is_server = |process: &&ProcessInfo| matches!(process.kind, Kind::Kafka | Kind::Redis);
        let (servers, services): (Vec<_>, Vec<_>) = self.processes.iter().partition(is_server);
        let mut killed = end_together(&services, SERVICE_DEADLINE);
        killed.extend(end_together(&servers, SERVER_DEADLINE));
        killed
    }
}

fn end_together(processes: &[&ProcessInfo], deadline: Duration) -> Vec<String> {
    for process in processes {
        process.signal(Signal::SIGTERM);
        // A paused process cannot hear SIGTERM.
        process.signal(Signal::SIGCONT);
    }
    wait_until(deadline, || !processes.iter().any(|process| process.is_running()));
    let stubborn: Vec<_> = processes.iter().filter(|process| process.is_running()).collect();
    for process in &stubborn {
        process.signal(Signal::SIGKILL);
    }
    wait_until(KILL_DEADLINE, || !stubborn.iter().any(|process| process.is_running()));
    stubborn.iter().map(|process| process.name.clone()).collect()
}

/// When a process started, in clock ticks since the machine did; nothing if it is gone or a zombie.
pub fn running_since(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessInfo {
        let pid = std::process::id();
        ProcessInfo {
            name: "test".to_owned(),
            kind: Kind::Gateway,
            pid,
            started_ticks: running_since(pid).unwrap(),
            address: "127.0.0.1:1".to_owned(),
            admin_address: None,
            log_file: PathBuf::from("test.log"),
        }
    }

    fn empty() -> StackState {
        let gateway_url = "http://127.0.0.1:8000".to_owned();
        StackState { gateway_url, partitions: 3, replicas: 1, supervisor: None, processes: Vec::new() }
    }

    #[test]
    fn a_process_with_the_same_id_but_another_start_is_not_the_same() {
        let process = own();
        assert!(process.is_running());
        assert!(!ProcessInfo { started_ticks: process.started_ticks + 1, ..process }.is_running());
    }

    #[test]
    fn ending_another_process_with_the_same_id_leaves_it_alone() {
        let process = ProcessInfo { started_ticks: 0, ..own() };
        let state = StackState { processes: vec![process], ..empty() };
        assert!(state.end().is_empty());
    }

    #[test]
    fn state_is_written_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(StackState::load(folder.path()).unwrap().is_none());
        let state = StackState { processes: vec![own()], ..empty() };
        state.save(folder.path()).unwrap();
        assert_eq!(StackState::load(folder.path()).unwrap().unwrap().processes, state.processes);
        StackState::remove(folder.path()).unwrap();
        StackState::remove(folder.path()).unwrap();
        assert!(StackState::load(folder.path()).unwrap().is_none());
    }
}
