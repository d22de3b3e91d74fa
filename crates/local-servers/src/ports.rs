//! Free ports that stay free until the server is there, and after it has been killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;

use crate::wait::{accepts_connections, wait_until};

/// Below the range from which Linux takes ports for outgoing connections (32768 and up), so that the port of a killed
/// server is not taken by a client before the server is back.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 31_999;
/// More tries than any machine that still works should need.
const MAX_TRIES: usize = 1_000;

/// Longest time between fork and exec of a child on a busy machine.
const FORK_TO_EXEC: Duration = Duration::from_secs(2);

/// The ports given out by this process, each with the locked file that tells other processes.
static GIVEN: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());

/// A port of the loopback address that nobody listens on and that no other process has been given by this function.
/// It stays reserved until this process ends.
pub fn free_port() -> anyhow::Result<u16> {
    let folder = reservations()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut given = GIVEN.lock().expect("nothing panics while this lock is held");
    for attempt in 0..MAX_TRIES {
        let port = FIRST_PORT + (RandomState::new().hash_one(attempt) % u64::from(LAST_PORT - FIRST_PORT)) as u16;
        if given.contains_key(&port) {
            continue;
        }
        let path = folder.join(port.to_string());
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port, file);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between {FIRST_PORT} and {LAST_PORT} after {MAX_TRIES} tries")
}

/// A server that finds its port taken ends at once, and whoever has the port might answer in its place.
///
/// Waits a little before it refuses: [`free_port`] listens for a moment to find out, and a child that another thread
/// forks in that moment keeps the listener until its exec.
pub fn refuse_port_in_use(port: u16) -> anyhow::Result<()> {
    let free = wait_until(FORK_TO_EXEC, || !accepts_connections(port));
    anyhow::ensure!(free, "port {port} is in use: stop what uses it or choose another port");
    Ok(())
}

/// One folder per user: a file of another user could not be locked.
fn reservations() -> anyhow::Result<PathBuf> {
    let user = std::fs::metadata("/proc/self").context("find out who this is")?.uid();
    Ok(std::env::temp_dir().join(format!("local-servers-ports-{user}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
