//! What lies in the quarantine, and the way back: records that could not be read, with where they came from and why.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use event_stream::{KafkaSettings, Lane, Outgoing, Publisher, survey};
use proto::Wire as _;
use proto::quarantine::{QUARANTINE, Quarantined};

/// Most records that are looked at.
const MAX_RECORDS: usize = 100_000;
/// Longest reading of the quarantine.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the acknowledgement of a record that is put back.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Headers that go back with a record: the context of its trace, the only ones that the services write.
const HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// What to do with the quarantine.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Action {
    /// One line for each record: its id (TOPIC/PARTITION/OFFSET), its size, and why it is here
    List,
    /// All of one record, its value in hex
    Show {
        /// TOPIC/PARTITION/OFFSET
        id: String,
    },
    /// Put a record back at the end of the lane that it came from, for a program that can read it
    Retry {
        /// TOPIC/PARTITION/OFFSET
        id: String,
    },
}

/// Does it, with the brokers `host:port,…`.
pub(crate) async fn act(brokers: &str, action: Action) -> anyhow::Result<()> {
    let settings = KafkaSettings::new(brokers, "quarantine");
    let found = survey(&settings, QUARANTINE, MAX_RECORDS, READ_DEADLINE).await?;
    if found.is_cut {
        eprintln!("there are more than {MAX_RECORDS} records: only the first ones are looked at");
    }
    let Records { known: records, unknown } = distinct(found.records.iter().map(|(_, record)| &*record.payload));
    match action {
        Action::List => {
            records.iter().for_each(|(id, record)| println!("{id}  {} bytes  {}", record.payload.len(), record.reason));
            println!("{} records", records.len());
            if unknown > 0 {
                println!("{unknown} more are none of ours: somebody else, or a later program, writes to {QUARANTINE}");
            }
        }
        Action::Show { id } => print!("{}", describe(&id, find(&records, &id)?)),
        Action::Retry { id } => {
            let record = find(&records, &id)?;
            put_back(&settings, record).await?;
            println!("{id} is at the end of {}/{} again", record.topic, record.partition);
        }
    }
    Ok(())
}

/// How many records lie in the quarantine of the brokers `host:port,…`, by the topic that they come from; one that was
/// set aside twice counts once.
pub async fn quarantined(brokers: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let found = survey(&KafkaSettings::new(brokers, "quarantine"), QUARANTINE, MAX_RECORDS, READ_DEADLINE).await?;
    ensure!(!found.is_cut, "more than {MAX_RECORDS} records lie in the quarantine");
    let Records { known, unknown } = distinct(found.records.iter().map(|(_, record)| &*record.payload));
    ensure!(unknown == 0, "{unknown} records of the quarantine cannot be read");
    let mut counts = BTreeMap::new();
    for record in known.into_values() {
        *counts.entry(record.topic).or_default() += 1;
    }
    Ok(counts)
}

/// What lies in the quarantine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Records {
    /// By id.
    known: BTreeMap<String, Quarantined>,
    /// How many cannot be read themselves.
    unknown: u64,
}

/// A record that was set aside again after a takeover is there twice, with the same id.
fn distinct<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Records {
    let mut records = Records::default();
    for payload in payloads {
        match Quarantined::decode(payload) {
            Ok(record) => {
                let id = format!("{}/{}/{}", record.topic, record.partition, record.offset);
                records.known.insert(id, record);
            }
            Err(_) => records.unknown += 1,
        }
    }
    records
}

fn find<'a>(records: &'a BTreeMap<String, Quarantined>, id: &str) -> anyhow::Result<&'a Quarantined> {
    let Some(record) = records.get(id) else { bail!("{id} is not in the quarantine; `quarantine list` shows what is") };
    Ok(record)
}

fn describe(id: &str, record: &Quarantined) -> String {
    let mut text = format!("{id}\nreason: {}\n", record.reason);
    for (name, value) in &record.headers {
        text.push_str(&format!("header {name}: {}\n", String::from_utf8_lossy(value)));
    }
    let hex: String = record.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push_str(&format!("value, {} bytes: {hex}\n", record.payload.len()));
    text
}

async fn put_back(settings: &KafkaSettings, record: &Quarantined) -> anyhow::Result<()> {
    ensure!(record.cut_from_bytes == 0, "only its beginning was kept: it cannot go back");
    ensure!(record.topic != QUARANTINE, "a record of the quarantine itself does not go back");
    let header = |name: &'static str| {
        let (_, value) = record.headers.iter().find(|(known, _)| known == name)?;
        Some((name, String::from_utf8_lossy(value).into_owned()))
    };
    let outgoing = Outgoing {
        topic: record.topic.as_str().into(),
        lane: Lane(record.partition),
        payload: record.payload.clone(),
        headers: HEADERS.into_iter().filter_map(header).collect(),
    };
    let publisher = Publisher::new(settings)?;
    let partitions = publisher.partitions(&record.topic).await?.unwrap_or(0);
    ensure!(partitions > record.partition, "{:?} has no partition {}: make it first", record.topic, record.partition);
    let receipt = publisher.send(vec![outgoing]).await?;
    tokio::time::timeout(ACKNOWLEDGED, receipt).await.context("Kafka did not acknowledge the record in time")??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: i64, reason: &str) -> Quarantined {
        let headers = [("traceparent".to_owned(), Bytes::from_static(b"00-x"))];
        Quarantined::new("saga.inbox", 3, offset, reason.to_owned(), &Bytes::from_static(b"\x01\xff"), &headers)
    }

    #[test]
    fn a_record_that_was_set_aside_twice_is_shown_once() {
        let twice = record(7, "no envelope").encode();
        let encoded = [twice.clone(), "rubbish".into(), twice, record(8, "x").encode()];
        let Records { known: records, unknown } = distinct(encoded.iter().map(|bytes| &**bytes));
        assert_eq!(unknown, 1, "what cannot be read itself hides nothing");
        assert_eq!(records.keys().collect::<Vec<_>>(), ["saga.inbox/3/7", "saga.inbox/3/8"]);
        let text = describe("saga.inbox/3/7", find(&records, "saga.inbox/3/7").unwrap());
        assert!(text.contains("no envelope") && text.contains("2 bytes: 01ff") && text.contains("traceparent: 00-x"));
        assert!(find(&records, "saga.inbox/3/9").is_err());
    }
}
