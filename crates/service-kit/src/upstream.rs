//! The replicas of another service: who they are, who wants requests, and in which order to ask them for a key.

mod fetch;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use crate::client::{MAX_BUFFERED_BYTES, Outgoing, RequestError, UpstreamClient};
use crate::process::BadConfiguration;
pub use fetch::FetchError;

/// Most replicas of one service that are kept in mind; a DNS answer with more is cut off.
pub const MAX_REPLICAS: usize = 64;

/// The replicas of one service. A replica is asked every half second whether it wants requests
/// ([`Upstreams::spawn_probe`]); until its first "yes" it counts as not ready and is only asked when no other is left.
#[derive(Debug)]
pub struct Upstreams {
    name: &'static str,
    sources: Vec<Source>,
    /// What each source was last resolved to, by its place among them.
    resolved: Mutex<BTreeMap<usize, BTreeSet<SocketAddr>>>,
    replicas: RwLock<Arc<Vec<Arc<Replica>>>>,
    turn: AtomicU64,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// An address as it stands.
    Fixed(SocketAddr),
    /// `host:port` whose first address is the replica.
    OneOf(String),
    /// `host:port` whose addresses are the replicas.
    AllOf(String),
}

#[derive(Debug)]
struct Replica {
    address: SocketAddr,
    ready: AtomicBool,
    /// Probes in a row that got no answer in time.
    silent_probes: AtomicU32,
}

impl Replica {
    fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, ready: AtomicBool::new(false), silent_probes: AtomicU32::new(0) })
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

impl Upstreams {
    /// Reads a setting: `host:port,host:port`, or `dns:host:port` for one name whose addresses are the replicas. Names
    /// are resolved by the probe task, again every 2 s.
    pub fn new(name: &'static str, setting: &str) -> Result<Arc<Self>, BadConfiguration> {
        let sources = parse(name, setting)?;
        let fixed = sources.iter().filter_map(|source| match source {
            Source::Fixed(address) => Some(Replica::new(*address)),
            Source::OneOf(_) | Source::AllOf(_) => None,
        });
        let replicas = RwLock::new(Arc::new(fixed.collect()));
        Ok(Arc::new(Self { name, sources, resolved: Mutex::default(), replicas, turn: AtomicU64::new(rand::random()) }))
    }

    /// The name of the service, for logs and metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The replicas in the order in which to ask them for this key: by rendezvous hash, those that are ready first.
    /// Every process that knows the same replicas finds the same order.
    pub fn ranked(&self, key: &str) -> Vec<SocketAddr> {
        self.ordered(hash(key.as_bytes()))
    }

    /// The same for a request without a key: the turns go round.
    pub fn rotated(&self) -> Vec<SocketAddr> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let replicas = self.replicas();
        let mut ready: Vec<_> = replicas.iter().filter(|replica| replica.is_ready()).map(|it| it.address).collect();
        rotate(&mut ready, turn);
        let mut others: Vec<_> = replicas.iter().filter(|replica| !replica.is_ready()).map(|it| it.address).collect();
        rotate(&mut others, turn);
        ready.append(&mut others);
        ready
    }

    /// Whether a replica is ready.
    pub fn is_available(&self) -> bool {
        self.replicas().iter().any(|replica| replica.is_ready())
    }

    /// How many replicas are known and how many of them are ready.
    pub fn counts(&self) -> (usize, usize) {
        let replicas = self.replicas();
        (replicas.len(), replicas.iter().filter(|replica| replica.is_ready()).count())
    }

    /// Tells that a replica refused a connection: it counts as not ready until a probe says otherwise.
    pub fn mark_refused(&self, address: SocketAddr) {
        if let Some(replica) = self.replicas().iter().find(|replica| replica.address == address) {
            self.set_ready(replica, probe::Answer::Refused);
        }
    }

    /// Whether the replica no longer answers its probes: stopped or cut off, unlike one that drains and still answers
    /// what it has taken. A request that may be repeated need not wait for it.
    pub fn is_silent(&self, address: SocketAddr) -> bool {
        let replicas = self.replicas();
        let replica = replicas.iter().find(|replica| replica.address == address);
        replica.is_some_and(|replica| replica.silent_probes.load(Ordering::Relaxed) >= probe::MAX_SILENT_PROBES)
    }

    fn ordered(&self, key_hash: u64) -> Vec<SocketAddr> {
        let replicas = self.replicas();
        if let [only] = replicas.as_slice() {
            return vec![only.address];
        }
        let mut scored: Vec<_> = replicas
            .iter()
            .map(|replica| (!replica.is_ready(), std::cmp::Reverse(score(key_hash, replica.address)), replica.address))
            .collect();
        scored.sort_unstable();
        scored.into_iter().map(|(_, _, address)| address).collect()
    }

    fn replicas(&self) -> Arc<Vec<Arc<Replica>>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn rotate(addresses: &mut [SocketAddr], turn: u64) {
    if !addresses.is_empty() {
        let by = usize::try_from(turn % addresses.len() as u64).unwrap_or(0);
        addresses.rotate_left(by);
    }
}

/// FNV-1a: the same in every process and version, unlike the hashers of the standard library.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The weight of a replica for a key: highest random weight (Thaler and Ravishankar 1998).
fn score(key_hash: u64, address: SocketAddr) -> u64 {
    let address_hash = match address.ip() {
        std::net::IpAddr::V4(ip) => hash(&ip.octets()),
        std::net::IpAddr::V6(ip) => hash(&ip.octets()),
    };
    // The mixer of SplitMix64: neighbours in port or key end far apart.
    let mut mixed = key_hash ^ address_hash.rotate_left(32) ^ (u64::from(address.port()) << 17);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn parse(name: &str, setting: &str) -> Result<Vec<Source>, BadConfiguration> {
    let bad = |entry: &str| {
        BadConfiguration(format!(
            "the upstream setting of {name} must be host:port,host:port or dns:host:port, not \"{entry}\""
        ))
    };
    if let Some(host_port) = setting.trim().strip_prefix("dns:") {
        return if is_host_port(host_port) { Ok(vec![Source::AllOf(host_port.to_owned())]) } else { Err(bad(setting)) };
    }
    let entries: Vec<_> = setting.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.is_empty() || entries.len() > MAX_REPLICAS {
        return Err(bad(setting));
    }
    let read = |entry: &&str| match entry.parse::<SocketAddr>() {
        Ok(address) => Ok(Source::Fixed(address)),
        Err(_) if is_host_port(entry) => Ok(Source::OneOf((*entry).to_owned())),
        Err(_) => Err(bad(entry)),
    };
    entries.iter().map(read).collect()
}

fn is_host_port(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains([':', '/', '@', ' ']);
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
}
