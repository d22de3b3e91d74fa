//! Waiting for a condition with a deadline.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a condition: short against the start of a server, long against the cost of a look.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// A connection to this machine is there at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Looks at `condition` until it is true; false when the deadline has passed first.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Whether something listens on this port of the loopback address.
pub fn accepts_connections(port: u16) -> bool {
    connect(port).is_ok()
}

pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}
