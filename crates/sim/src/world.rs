//! The world of one seed: time, logs, stores, processes, who owns which lane, and everything that is under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{Outgoing, Record, judge_new_lane};
use redis_txn::{Offline, STORE_ID_KEY};
use saga_core::ids::{Lane, SagaId, Starter};
use starter::lanes::Lanes;
use uuid::Uuid;

use crate::clients::Client;
use crate::coverage::Coverage;
use crate::faults::{Fault, Faults, Point};
use crate::inject::Addition;
use crate::log::{Log, Topic};
use crate::mistakes::{Defence, Mistake};
use crate::network::{Delivery, Piece, SimReceipt};
use crate::oracle::{Check, Entry, Oracle, Violation, check_checkpoints};
use crate::plans::{ACCOUNT_PREFIX, ACCOUNTS, GENERATIONS, Ledger, NAMES, PARTICIPANTS};
use crate::rng::{Rng, mix};
use crate::shop::{Shop, new_order};
use crate::store::{SimStore, Watch, Writes};

/// The services: the orchestrator, the participants, the starter. Each has one store.
pub const ORCHESTRATOR: usize = 0;
/// The first participant.
pub const PARTICIPANT: usize = 1;
/// The starter.
pub const STARTER: usize = PARTICIPANT + PARTICIPANTS.len();
/// How many services there are.
pub const SERVICES: usize = STARTER + 1;
/// Processes of each service.
pub const WORKERS: usize = 2;
/// Where log time begins.
pub const START_MS: i64 = 1_000_000;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all choices come from.
    pub seed: u64,
    /// Checkouts, if not as the seed says.
    pub sagas: Option<usize>,
    /// Events before the quiet phase, if not as the seed says.
    pub steps: Option<usize>,
    /// At most so many faults.
    pub faults: usize,
    /// Faults that do not happen.
    pub skip: Vec<usize>,
    /// A mistake that is made.
    pub mistake: Option<Mistake>,
    /// Safety nets that are taken away.
    pub without: Vec<Defence>,
    /// Whether events are written down.
    pub trace: bool,
}

impl Options {
    /// A seed as it is.
    pub fn new(seed: u64) -> Self {
        let (skip, without) = (Vec::new(), Vec::new());
        Self { seed, sagas: None, steps: None, faults: usize::MAX, skip, mistake: None, without, trace: false }
    }
}

/// Why a loop stops.
#[derive(Clone, Debug)]
pub enum Stop {
    /// Its process died.
    Crash,
    /// It loads again.
    Restart(String),
    /// It halts: never expected here.
    Halt(String),
    /// The oracle has seen something.
    Broken(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

/// One process of a service.
pub struct Process {
    /// Which service.
    pub service: usize,
    /// Whether it runs.
    pub up: bool,
    /// When it is started again.
    pub up_at_ms: i64,
    /// How often it was started.
    pub incarnation: u64,
    /// Where its transactions are handed in.
    pub offline: Offline,
    /// A starter's memory.
    pub lanes: Arc<Lanes>,
    /// A starter's requests that wait for a window, by client.
    pub queue: VecDeque<usize>,
    /// A participant's rule.
    pub ledger: Ledger,
    /// A participant cannot decide until then.
    pub sick_until_ms: i64,
    /// Which definitions an orchestrator wants.
    pub generation: usize,
    /// What the attempt at hand does, in order.
    pub attempt: Arc<std::sync::Mutex<Vec<Entry>>>,
}

/// An EXEC that is still on its way.
pub struct LateExec {
    /// At which service's store.
    pub service: usize,
    /// What it watched.
    pub watch: Watch,
    /// What it writes.
    pub writes: Writes,
    /// What it means.
    pub entries: Vec<Entry>,
}

/// Everything.
pub struct World {
    /// What is run.
    pub options: Options,
    /// Who does what next.
    pub rng: Rng,
    /// What goes wrong.
    pub faults: Faults,
    /// What was met.
    pub coverage: Coverage,
    /// What is known of the truth.
    pub oracle: Oracle,
    /// Log time.
    pub now_ms: i64,
    base: Instant,
    /// How many lanes there are.
    pub lanes: usize,
    /// The names of the definitions that are run.
    pub names: Vec<&'static str>,
    /// The topics.
    pub log: Log,
    /// What is under way to the log and back.
    pub network: Vec<Delivery>,
    /// One store per service.
    pub stores: Vec<SimStore>,
    /// EXECs under way.
    pub late: Vec<LateExec>,
    /// By service and worker.
    pub processes: Vec<Process>,
    /// By service and lane: which worker.
    pub owners: Vec<usize>,
    /// By service and lane: the offset that the group has committed.
    committed: Vec<Option<i64>>,
    /// What each participant's accounts held at first.
    pub initial: Vec<Vec<(String, i64)>>,
    /// How many orders there are.
    pub orders: usize,
    /// Who wants something.
    pub clients: Vec<Client>,
    /// The starter's name in ordinals.
    pub starter: Starter,
    /// What happened, if it is written down.
    pub trace: Vec<String>,
    /// REST requests whose answer has not come.
    pub additions: Vec<Addition>,
    ids: u64,
}

impl World {
    /// The world before its first event.
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed, 1);
        let lanes = 1 + rng.below(3);
        let mut names: Vec<&'static str> = NAMES.to_vec();
        while names.len() > 3 {
            let index = rng.below(names.len());
            names.swap_remove(index);
        }
        let faults = Faults::new(options.seed, options.faults, options.skip.clone());
        let store_id = Uuid::from_u128(0x5101);
        let mut world = Self {
            faults,
            coverage: Coverage::default(),
            oracle: Oracle::new(lanes),
            now_ms: START_MS,
            base: Instant::now(),
            lanes,
            names,
            log: Log::new(lanes),
            network: Vec::new(),
            stores: vec![SimStore::default(); SERVICES],
            late: Vec::new(),
            processes: Vec::new(),
            owners: vec![0; SERVICES * lanes],
            committed: vec![None; SERVICES * lanes],
            initial: Vec::new(),
            orders: 0,
            clients: Vec::new(),
            starter: Starter { name: "order".to_owned(), store: store_id },
            trace: Vec::new(),
            additions: Vec::new(),
            ids: 0,
            rng,
            options,
        };
        world.stores[STARTER].set(STORE_ID_KEY, Bytes::from(store_id.to_string()));
        for participant in 0..PARTICIPANTS.len() {
            let mut accounts = Vec::new();
            for account in 0..ACCOUNTS {
                let (key, balance) = (format!("{ACCOUNT_PREFIX}{account}"), world.rng.between(2, 40));
                world.stores[PARTICIPANT + participant].set(&key, balance.to_string().into());
                accounts.push((key, balance));
            }
            world.initial.push(accounts);
        }
        for service in 0..SERVICES {
            for _ in 0..WORKERS {
                let generation = world.rng.below(2);
                world.processes.push(Process::new(service, generation));
            }
        }
        for owner in 0..world.owners.len() {
            world.owners[owner] = world.rng.below(WORKERS);
        }
        world
    }

    /// An instant for those who count in instants.
    pub fn instant(&self) -> Instant {
        self.base + Duration::from_millis((self.now_ms - START_MS).unsigned_abs())
    }

    /// Log time of an instant.
    pub fn log_ms(&self, instant: Instant) -> i64 {
        START_MS + instant.saturating_duration_since(self.base).as_millis() as i64
    }

    /// The beginning of all instants.
    pub fn base(&self) -> Instant {
        self.base
    }

    /// Whether this mistake is made.
    pub fn makes(&self, mistake: Mistake) -> bool {
        self.options.mistake == Some(mistake)
    }

    /// Whether this safety net is taken away.
    pub fn lacks(&self, defence: Defence) -> bool {
        self.options.without.contains(&defence)
    }

    /// A fresh id, the same in every run of the seed.
    pub fn fresh_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(u128::from(mix(self.options.seed)) << 64 | u128::from(self.ids))
    }

    /// A fresh saga id.
    pub fn fresh_saga(&mut self) -> SagaId {
        SagaId(self.fresh_id())
    }

    /// Writes down what happens.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.options.trace {
            let time_ms = self.now_ms - START_MS;
            self.trace.push(format!("{time_ms:>7} {}", text()));
        }
    }

    /// A place at which the process may die.
    pub fn point(&mut self, point: Point) -> Result<(), Stop> {
        *self.coverage.passed.entry(point).or_default() += 1;
        if self.faults.strikes(Fault::Crash, 220) {
            *self.coverage.died.entry(point).or_default() += 1;
            self.note(|| format!("CRASH at: {}", point.text()));
            return Err(Stop::Crash);
        }
        Ok(())
    }

    /// Which process of a service.
    pub fn process(&mut self, service: usize, worker: usize) -> &mut Process {
        &mut self.processes[service * WORKERS + worker]
    }

    /// Who owns a lane.
    pub fn owner(&mut self, service: usize, lane: Lane) -> &mut usize {
        &mut self.owners[service * self.lanes + lane.0 as usize]
    }

    /// A process says where a lane stands; now and then that is what its group commits.
    pub fn stands(&mut self, service: usize, lane: Lane, position: i64) {
        if self.rng.once_in(4) {
            self.committed[service * self.lanes + lane.0 as usize] = Some(position);
        }
    }

    /// Where a lane without a stored position begins; the lane halts if its group has worked on it before.
    pub fn start_of_new_lane(&self, service: usize, lane: Lane) -> Result<i64, Stop> {
        let committed = self.committed[service * self.lanes + lane.0 as usize];
        judge_new_lane(committed, Some(0)).map_err(|fault| Stop::Halt(fault.to_string()))
    }

    /// The rule of the shop, mistakes included.
    pub fn shop(&self) -> Shop {
        Shop { forgetful: self.makes(Mistake::LockOverlooked), credulous: self.makes(Mistake::ResultForAnySaga) }
    }

    /// Puts an open order into the store.
    pub fn add_order(&mut self, number: usize) -> String {
        let order = format!("o{number}");
        self.orders = self.orders.max(number + 1);
        self.stores[STARTER].set(&order_svc::store::order_key(&order), new_order(number));
        order
    }

    /// Appends a record, and lets the oracle look at it.
    pub fn append(&mut self, topic: Topic, lane: Lane, payload: Bytes) -> Check {
        if topic == Topic::Inbox && self.options.mistake.is_some() {
            for payload in crate::mutate::appended(self, lane, payload) {
                self.append_one(topic, lane, payload)?;
            }
            return Ok(());
        }
        self.append_one(topic, lane, payload)
    }

    fn append_one(&mut self, topic: Topic, lane: Lane, payload: Bytes) -> Check {
        let offset = self.log.append(topic, lane, payload, self.now_ms);
        let record = &self.log.read(topic, lane, offset, 1)[0];
        let text = self.options.trace.then(|| crate::describe::record(topic, record));
        let checked = match topic {
            Topic::Inbox => self.oracle.inbox(lane, record, &mut self.coverage),
            Topic::Results => self.oracle.result(&record.payload),
            Topic::Commands(_) => Ok(()),
        };
        self.note(|| format!("{topic}[{lane}]@{offset}: {}", text.unwrap_or_default()));
        checked
    }

    /// Records of a topic from an offset on.
    pub fn read(&self, topic: Topic, lane: Lane, from: i64, limit: usize) -> Vec<Record> {
        self.log.read(topic, lane, from, limit).to_vec()
    }

    /// Sends a batch as a producer does, one piece per partition; what becomes of each is drawn.
    pub fn send(&mut self, records: Vec<Outgoing>) -> Result<SimReceipt, Violation> {
        let mut pieces: Vec<Piece> = Vec::new();
        for record in records {
            let Some(topic) = Topic::named(&record.topic) else { continue };
            match pieces.iter_mut().find(|piece| piece.topic == topic && piece.lane == record.lane) {
                Some(piece) => piece.payloads.push(record.payload),
                None => pieces.push(Piece { topic, lane: record.lane, payloads: vec![record.payload] }),
            }
        }
        let receipt = SimReceipt::new(pieces.len());
        for piece in pieces {
            self.send_piece(piece, receipt.clone())?;
        }
        Ok(receipt)
    }

    fn send_piece(&mut self, piece: Piece, receipt: SimReceipt) -> Check {
        let ignores_loss = self.makes(Mistake::LostDeliveryIgnored);
        let failing =
            if ignores_loss { Delivery::Acknowledge(receipt.clone()) } else { Delivery::Fail(receipt.clone()) };
        if self.faults.strikes(Fault::LostSend, 60) {
            self.note(|| format!("LOST: {} records for {}", piece.payloads.len(), piece.topic));
            self.network.push(failing);
        } else if self.faults.strikes(Fault::LateSend, 80) {
            self.network.push(failing);
            self.network.push(Delivery::Append { piece, receipt: None });
        } else if self.faults.strikes(Fault::LostAck, 80) {
            self.network.push(failing);
            self.deliver_piece(piece)?;
        } else if self.faults.strikes(Fault::DoubledSend, 60) {
            self.deliver_piece(piece.clone())?;
            self.network.push(Delivery::Acknowledge(receipt));
            self.network.push(Delivery::Append { piece, receipt: None });
        } else if self.rng.once_in(4) {
            self.network.push(Delivery::Append { piece, receipt: Some(receipt) });
        } else {
            self.deliver_piece(piece)?;
            self.network.push(Delivery::Acknowledge(receipt));
        }
        Ok(())
    }

    fn deliver_piece(&mut self, piece: Piece) -> Check {
        for payload in piece.payloads {
            self.append(piece.topic, piece.lane, payload)?;
        }
        Ok(())
    }

    /// Something that is under way gets on. False when nothing is.
    pub fn deliver(&mut self) -> Result<bool, Violation> {
        if self.network.is_empty() {
            return Ok(false);
        }
        let index = self.rng.below(self.network.len());
        match self.network.swap_remove(index) {
            Delivery::Append { piece, receipt } => {
                self.deliver_piece(piece)?;
                if let Some(receipt) = receipt {
                    self.network.push(Delivery::Acknowledge(receipt));
                }
            }
            Delivery::Acknowledge(receipt) => receipt.acknowledge(),
            Delivery::Fail(receipt) => receipt.fail(),
        }
        Ok(true)
    }

    /// Carries an EXEC out if nothing that it watched has changed.
    pub fn exec(&mut self, exec: LateExec) -> Result<bool, Violation> {
        let LateExec { service, watch, writes, entries } = exec;
        if !self.stores[service].is_unchanged(&watch) {
            return Ok(false);
        }
        if (PARTICIPANT..STARTER).contains(&service) {
            let participant = service - PARTICIPANT;
            let added = self.oracle.added(participant, &entries)?;
            self.oracle.participant(participant, &self.stores[service], &writes, added)?;
            self.oracle.journal[participant].extend(entries);
        } else if service == STARTER {
            self.oracle.starter(&self.stores[service], &writes)?;
        } else {
            check_checkpoints(&self.stores[service], &writes)?;
        }
        self.stores[service].exec(&watch, &writes);
        Ok(true)
    }

    /// A late EXEC arrives. False when none is under way.
    pub fn arrive_late(&mut self) -> Result<bool, Violation> {
        if self.late.is_empty() {
            return Ok(false);
        }
        let index = self.rng.below(self.late.len());
        let exec = self.late.swap_remove(index);
        let happened = self.exec(exec)?;
        self.coverage.count(if happened { "late EXECs that happened" } else { "late EXECs that aborted" }, 1);
        self.note(|| format!("a late EXEC arrives: happened = {happened}"));
        Ok(true)
    }

    /// The newest generation of definitions.
    pub fn newest(&self) -> usize {
        GENERATIONS - 1
    }
}

impl Process {
    fn new(service: usize, generation: usize) -> Self {
        Self {
            service,
            up: false,
            up_at_ms: 0,
            incarnation: 0,
            offline: Offline::default(),
            lanes: Arc::default(),
            queue: VecDeque::new(),
            ledger: Ledger::default(),
            sick_until_ms: 0,
            generation,
            attempt: Arc::default(),
        }
    }
}
