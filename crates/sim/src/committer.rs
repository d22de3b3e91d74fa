//! The committer of one process: the real batches over a simulated store, one EXEC at a time. The outcome of an EXEC whose
//! reply was lost is settled by a write, as `redis-txn` does it. (The loop around the batches is modelled here.)

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::Wire;
use redis_txn::Batch;
use saga_core::participant::ParticipantLane;

use crate::faults::{Fault, Point};
use crate::mistakes::Mistake;
use crate::store::{Watch, Writes};
use crate::task::Did;
use crate::world::{LateExec, PARTICIPANT, STARTER, Stop, World};

/// Most transactions in one EXEC.
const MAX_BATCH: usize = 5;

enum Stage {
    Idle,
    Retry(Batch),
    Read {
        batch: Batch,
        watch: Watch,
        writes: Writes,
    },
    InDoubt {
        batch: Batch,
        writes: Writes,
    },
    Settled {
        batch: Batch,
        happened: bool,
    },
    /// A mistake: what was held back for a second EXEC.
    Second {
        batch: Batch,
        writes: Writes,
    },
}

/// Where a committer stands.
pub struct Committer {
    service: usize,
    worker: usize,
    commit_key: String,
    number: u64,
    stage: Stage,
}

impl Committer {
    /// The committer of a process that has just been started.
    pub fn new(service: usize, worker: usize, incarnation: u64) -> Self {
        let commit_key = format!("commit:{service}-{worker}:{incarnation}");
        Self { service, worker, commit_key, number: 0, stage: Stage::Idle }
    }

    /// One thing.
    pub fn step(&mut self, world: &mut World) -> Result<Did, Stop> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => {
                let offline = world.process(self.service, self.worker).offline.clone();
                if offline.waiting() == 0 {
                    return Ok(Did::Nothing);
                }
                let batch = offline.batch(1 + world.rng.below(MAX_BATCH));
                self.read(batch, world)
            }
            Stage::Retry(batch) => self.read(batch, world),
            Stage::Read { batch, watch, writes } => self.exec(batch, watch, writes, world),
            Stage::InDoubt { batch, writes } => self.settle(batch, &writes, world),
            Stage::Settled { batch, happened: true } => {
                batch.commit();
                Ok(Did::Something)
            }
            Stage::Settled { batch, happened: false } => self.read(batch, world),
            Stage::Second { batch, writes } => {
                let (service, watch, entries) = (self.service, Watch::default(), Vec::new());
                world.exec(LateExec { service, watch, writes, entries })?;
                batch.commit();
                Ok(Did::Something)
            }
        }
    }

    /// WATCH and MGET, and the transactions applied to what was read.
    fn read(&mut self, mut batch: Batch, world: &mut World) -> Result<Did, Stop> {
        let mood =
            if world.process(self.service, self.worker).sick_until_ms > world.now_ms { world.rng.next() } else { 0 };
        let process = world.process(self.service, self.worker);
        process.ledger.mood.store(mood, std::sync::atomic::Ordering::Relaxed);
        let attempt = process.attempt.clone();
        attempt.lock().expect("one thread").clear();
        let store = &world.stores[self.service];
        batch.apply(|key| store.get(key).cloned());
        let watched: BTreeSet<&str> = batch.watched().chain([self.commit_key.as_str()]).collect();
        let mut watch = store.watch(watched);
        if world.makes(Mistake::ItemsNotWatched) {
            watch = watch.without(|key| key.starts_with(crate::plans::ACCOUNT_PREFIX));
        }
        let Some(writes) = batch.writes() else {
            batch.commit();
            return Ok(Did::Something);
        };
        self.stage = Stage::Read { batch, watch, writes };
        world.point(Point::CommitterRead)?;
        Ok(Did::Something)
    }

    fn exec(&mut self, batch: Batch, watch: Watch, mut writes: Writes, world: &mut World) -> Result<Did, Stop> {
        self.number += 1;
        writes.insert(0, (self.commit_key.clone(), Some(Bytes::from(self.number.to_string()))));
        let second = self.held_back(&mut writes, world);
        let entries = world.process(self.service, self.worker).attempt.lock().expect("one thread").clone();
        let exec = LateExec { service: self.service, watch, writes: writes.clone(), entries };
        world.coverage.count("EXECs", 1);
        if world.faults.strikes(Fault::ExecLostReply, 90) {
            world.exec(exec)?;
            return self.doubt(batch, writes, world);
        }
        if world.faults.strikes(Fault::ExecNeverArrived, 120) {
            return self.doubt(batch, writes, world);
        }
        if world.faults.strikes(Fault::ExecLate, 90) {
            world.late.push(exec);
            return self.doubt(batch, writes, world);
        }
        if world.exec(exec)? {
            world.note(|| format!("{}: EXEC {}", name(self.service, self.worker), keys(&writes)));
            self.stage = match second {
                Some(writes) => Stage::Second { batch, writes },
                None => Stage::Settled { batch, happened: true },
            };
            world.point(Point::CommitterDone)?;
            return Ok(Did::Something);
        }
        world.coverage.count("EXECs that aborted", 1);
        let mut batch = batch;
        let keep = (batch.len() / 2).max(1);
        world.process(self.service, self.worker).offline.put_back(&mut batch, keep);
        self.stage = Stage::Retry(batch);
        Ok(Did::Something)
    }

    fn doubt(&mut self, batch: Batch, writes: Writes, world: &mut World) -> Result<Did, Stop> {
        world.note(|| format!("{}: EXEC, OUTCOME UNKNOWN", name(self.service, self.worker)));
        self.stage = Stage::InDoubt { batch, writes };
        world.point(Point::CommitterInDoubt)?;
        Ok(Did::Something)
    }

    /// Appends a mark to the commit key, which makes an EXEC that is still on its way abort, and reads it.
    fn settle(&mut self, batch: Batch, writes: &Writes, world: &mut World) -> Result<Did, Stop> {
        if world.makes(Mistake::DoubtSettledByReading) && (PARTICIPANT..STARTER).contains(&self.service) {
            let happened = writes.iter().all(|(key, value)| stands_there(key, value.as_ref(), world, self.service));
            self.stage = Stage::Settled { batch, happened };
            return Ok(Did::Something);
        }
        if world.makes(Mistake::CheckoutDoubtByReading) && self.service == STARTER {
            // Whoever asked is told "not started"; the EXEC may still arrive.
            let pending = writes.iter().filter(|(key, _)| key.starts_with("pending:"));
            for (key, value) in pending {
                if world.stores[STARTER].get(key).is_none()
                    && let Some(Ok(entry)) = value.as_ref().map(|bytes| saga_core::starter::PendingStart::decode(bytes))
                {
                    world.oracle.denied.insert(entry.start.saga);
                }
            }
            let denied = writes.iter().any(|(key, _)| key.starts_with("pending:"));
            self.stage = if denied { Stage::Idle } else { Stage::Retry(batch) };
            return Ok(Did::Something);
        }
        let store = &mut world.stores[self.service];
        let found = store.get(&self.commit_key).cloned().unwrap_or_default();
        let number = std::str::from_utf8(&found).ok().and_then(|text| text.trim_end_matches('?').parse().ok());
        store.set(&self.commit_key, Bytes::from([found.as_ref(), b"?"].concat()));
        let happened = number == Some(self.number);
        world.note(|| format!("{}: unknown EXEC settled, happened = {happened}", name(self.service, self.worker)));
        self.stage = Stage::Settled { batch, happened };
        world.point(Point::CommitterSettled)?;
        Ok(Did::Something)
    }

    /// Mistakes that split what belongs into one EXEC.
    fn held_back(&self, writes: &mut Writes, world: &World) -> Option<Writes> {
        let later: fn(&str) -> bool = match self.service {
            STARTER if world.makes(Mistake::PendingInSecondExec) => |key| key.starts_with("pending:"),
            service if (PARTICIPANT..STARTER).contains(&service) && world.makes(Mistake::OffsetBeforeEffect) => {
                |key| key.starts_with("rec:") || key.starts_with(crate::plans::ACCOUNT_PREFIX)
            }
            _ => return None,
        };
        let (second, first): (Writes, Writes) = writes.drain(..).partition(|(key, _)| later(key));
        *writes = first;
        (!second.is_empty()).then_some(second)
    }
}

fn stands_there(key: &str, value: Option<&Bytes>, world: &World, service: usize) -> bool {
    if !key.starts_with("lane:") {
        return true;
    }
    let next =
        |bytes: Option<&Bytes>| bytes.and_then(|bytes| ParticipantLane::decode(bytes).ok()).map(|lane| lane.next);
    next(world.stores[service].get(key)) == next(value)
}

/// How a process is called in event lists.
pub fn name(service: usize, worker: usize) -> String {
    let service = match service {
        crate::world::ORCHESTRATOR => "orchestrator",
        STARTER => "order",
        participant => crate::plans::PARTICIPANTS[participant - PARTICIPANT],
    };
    format!("{service}-{worker}")
}

fn keys(writes: &Writes) -> String {
    let keys = writes.iter().filter(|(key, _)| !key.starts_with("commit:"));
    keys.map(|(key, value)| format!("{}{key}", if value.is_some() { "" } else { "-" })).collect::<Vec<_>>().join(" ")
}
