//! Reads what is left: step records and floors, how many keys there are of each kind, how much memory processes hold.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::audit::hex;
use crate::audit::remains::{Ended, KeyCount, Memory, Place, Record};
use crate::collect::Addresses;
use crate::resp::Resp;
use crate::wire::Message;

/// Kinds of keys that there may be one of for each lane.
const PER_LANE: [&str; 4] = ["lane", "starter", "checkpoint", "definitions"];
/// The keys by which a process finds out whether its last transaction happened.
const COMMIT: &str = "commit";

/// Step records, from their keys: `rec:<lane>:<starter>:<sequence>`.
pub(crate) fn records(at: &Addresses) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    for (store, address) in at.participants() {
        for key in Resp::connect(address)?.keys("rec:*")? {
            all.push(record(store, &key).with_context(|| format!("{store}: the key {key}"))?);
        }
    }
    Ok(all)
}

fn record(store: &str, key: &str) -> anyhow::Result<Record> {
    let rest = key.strip_prefix("rec:").context("no step record")?;
    let (lane, rest) = rest.split_once(':').context("no lane")?;
    let (starter, sequence) = rest.rsplit_once(':').context("no sequence")?;
    Ok(Record { place: (store.to_owned(), lane.parse()?, starter.to_owned()), sequence: sequence.parse()? })
}

/// What the participants' lanes say has ended: `saga.v1.ParticipantLane`.
pub(crate) fn floors(at: &Addresses) -> anyhow::Result<BTreeMap<Place, Ended>> {
    let mut all = BTreeMap::new();
    for (store, address) in at.participants() {
        let mut redis = Resp::connect(address)?;
        let keys = redis.keys("lane:*")?;
        let values = redis.values(&keys)?;
        ensure!(values.len() == keys.len(), "{} values for {} lanes", values.len(), keys.len());
        for (key, value) in keys.iter().zip(values) {
            let lane: u32 = key.strip_prefix("lane:").context("no lane")?.parse()?;
            let value = value.with_context(|| format!("{store}: {key} is missing"))?;
            for (starter, ended) in lane_floors(&value).with_context(|| format!("{store}: read {key}"))? {
                all.insert((store.to_owned(), lane, starter), ended);
            }
        }
    }
    Ok(all)
}

fn lane_floors(value: &[u8]) -> anyhow::Result<Vec<(String, Ended)>> {
    let lane = Message::read(value)?;
    ensure!(lane.number(1) == 1, "it has format {}", lane.number(1));
    let floor = |floor: &Message<'_>| {
        let starter = floor.message(1)?.context("a floor of nobody")?;
        let name = format!("{}@{}", starter.text(1)?, hex(starter.bytes(2).context("a starter without a store")?));
        let ended = floor.message(2)?.unwrap_or_default();
        let above = ended.messages(2)?.iter().map(|range| range.number(1)..range.number(2)).collect();
        Ok((name, Ended { below: ended.number(1), above }))
    };
    lane.messages(4)?.iter().map(floor).collect()
}

/// Number of keys of each store and kind.
pub(crate) type Keys = BTreeMap<(&'static str, String), u64>;

/// Counts the keys.
pub(crate) fn keys(at: &Addresses) -> anyhow::Result<Keys> {
    let mut counts = Keys::new();
    for (store, address) in at.stores() {
        for key in Resp::connect(address)?.keys("*")? {
            let kind = key.split(':').next().unwrap_or_default().to_owned();
            *counts.entry((store, kind)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Puts two counts side by side. A process that was killed leaves its commit keys: `killed` were, of each store's services.
pub(crate) fn compare(before: &Keys, after: &Keys, partitions: u32, killed: u64) -> Vec<KeyCount> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let count = |name: &&(&'static str, String)| {
        let of = |counts: &Keys| counts.get(*name).copied().unwrap_or_default();
        let (store, kind) = (name.0.to_owned(), name.1.clone());
        let allowed = match kind.as_str() {
            kind if PER_LANE.contains(&kind) => u64::from(partitions),
            COMMIT => of(before) + killed,
            _ => 0,
        };
        KeyCount { store, kind, before: of(before), after: of(after), allowed }
    };
    names.iter().map(count).collect()
}

/// Resident memory of a process, KiB; for a Redis what it has handed out, since it keeps pages for later.
pub(crate) fn memory_kb(pid: u32, redis: Option<&str>) -> anyhow::Result<u64> {
    if let Some(address) = redis {
        return used_memory_kb(address);
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the memory of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn used_memory_kb(address: &str) -> anyhow::Result<u64> {
    let crate::resp::Reply::Text(info) = Resp::connect(address)?.ask(&["INFO", "memory"])? else {
        anyhow::bail!("INFO is answered without a text")
    };
    let info = String::from_utf8_lossy(&info).into_owned();
    let bytes = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
    Ok(bytes.trim().parse::<u64>()? / 1024)
}

/// Memory by process.
pub(crate) type Memories = BTreeMap<String, u64>;

/// Puts two looks side by side; a process that is in one of them only is left out.
pub(crate) fn compare_memory(before: &Memories, after: &Memories) -> Vec<Memory> {
    let memory = |(process, before_kb): (&String, &u64)| {
        Some(Memory { process: process.clone(), before_kb: *before_kb, after_kb: *after.get(process)? })
    };
    before.iter().filter_map(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_key() {
        let read = record("redis-stock", "rec:17:order@0a0b:42").unwrap();
        let place = ("redis-stock".to_owned(), 17, "order@0a0b".to_owned());
        assert_eq!(read, Record { place, sequence: 42 });
        assert!(record("redis-stock", "rec:17").is_err());
    }

    #[test]
    fn floors_are_read_from_a_lane() {
        // format 1, next 5, floors: starter (order, 0x0a), ended below 3 and 5..6
        let starter = [0x0a, 5, b'o', b'r', b'd', b'e', b'r', 0x12, 1, 0x0a];
        let ended = [0x08, 3, 0x12, 4, 0x08, 5, 0x10, 6];
        let mut floor = vec![0x0a, starter.len() as u8];
        floor.extend(starter);
        floor.extend([0x12, ended.len() as u8]);
        floor.extend(ended);
        let mut lane = vec![0x08, 1, 0x10, 5, 0x22, floor.len() as u8];
        lane.extend(floor);
        let ended = Ended { below: 3, above: std::iter::once(5..6).collect() };
        assert_eq!(lane_floors(&lane).unwrap(), [("order@0a".to_owned(), ended)]);
    }

    #[test]
    fn keys_are_compared_by_kind_and_killed_processes_leave_theirs() {
        let key = |kind: &str| ("redis-stock", kind.to_owned());
        let before = Keys::from([(key("lane"), 40), (key("commit"), 3)]);
        let after = Keys::from([(key("lane"), 90), (key("commit"), 5), (key("rec"), 1)]);
        let all = compare(&before, &after, 100, 2);
        let limits: Vec<(&str, u64, u64)> =
            all.iter().map(|keys| (keys.kind.as_str(), keys.after, keys.allowed)).collect();
        assert_eq!(limits, [("commit", 5, 5), ("lane", 90, 100), ("rec", 1, 0)]);
    }
}
