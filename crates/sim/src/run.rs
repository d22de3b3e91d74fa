//! One seed from its first event to the comparison of every store with the plain model.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_stream::Record;
use saga_core::ids::Lane;

use crate::clients::{self, Client, ClientState};
use crate::committer::Committer;
use crate::coverage::{Coverage, FORGETFUL_ORDERS};
use crate::faults::Fault;
use crate::inject;
use crate::log::Topic;
use crate::model;
use crate::oracle::{Violation, must};
use crate::plans::plan;
use crate::shop::Request;
use crate::task::{Did, Loop, Task};
use crate::window::Collector;
use crate::world::{ORCHESTRATOR, Options, SERVICES, STARTER, Stop, WORKERS, World};

/// Faults that every seed has at least.
pub const MIN_FAULTS: u64 = 10;
/// Events after which a seed with too few faults goes on without more of them.
const MAX_NOISE_STEPS: usize = 60_000;
/// Steps of the quiet phase: far above what is ever needed, so that only a saga that cannot end reaches it.
const MAX_QUIET_STEPS: usize = 400_000;
/// Log time of the quiet phase, likewise.
const MAX_QUIET_MS: i64 = 3_600_000;
/// Log time that the world is watched on after everything has ended: checkpoints, floors and *replied* are written.
const CALM_MS: i64 = 20_000;
/// Records that are appended again after the end.
const AFTERSHOCKS: usize = 12;
/// Sagas of a seed whose clients never give up.
const STUBBORN_SAGAS: usize = 40;
/// What such a client cannot pay: account and amount.
const BEYOND_MEANS: &[u8] = b"0 1000000";

/// How a seed ended.
#[derive(Debug)]
pub struct Report {
    /// What went wrong, if anything.
    pub violation: Option<Violation>,
    /// What was met.
    pub coverage: Coverage,
    /// Faults that happened, by number.
    pub happened: Vec<usize>,
    /// Checkouts of the seed.
    pub sagas: usize,
    /// Events before the quiet phase.
    pub steps: usize,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
}

/// Runs one seed.
pub fn run(options: &Options) -> Report {
    let mut run = Run::new(options.clone());
    let violation = run.whole().err();
    let mut world = run.world;
    for (fault, count) in &world.faults.counts {
        *world.coverage.faults.entry(*fault).or_default() += count;
    }
    Report {
        violation,
        coverage: world.coverage,
        happened: world.faults.happened,
        sagas: run.sagas,
        steps: run.steps,
        trace: world.trace,
    }
}

/// Runs one seed to its end and hands out what its inboxes hold, lane by lane.
pub fn inboxes(options: &Options) -> Result<Vec<Vec<Record>>, Violation> {
    let mut run = Run::new(options.clone());
    run.whole()?;
    Ok(run.lanes().map(|lane| run.world.log.partition(Topic::Inbox, lane).to_vec()).collect())
}

struct Run {
    world: World,
    tasks: Vec<Task>,
    sagas: usize,
    steps: usize,
    /// How seldom a client that was refused asks again.
    asks_again_once_in: u32,
}

impl Run {
    fn new(options: Options) -> Self {
        let mut world = World::new(options);
        // Most seeds are small, a few are large.
        let most = if world.rng.once_in(12) { 50 } else { 14 };
        let drawn = 5 + world.rng.below(most - 4);
        // In some seeds clients insist, many of them on one order; in a few of these nearly all of them, and never give up, so that
        // it forgets what became of its first sagas.
        let is_insistent = world.options.seed.is_multiple_of(16);
        let is_stubborn = world.options.seed % 256 == 240;
        let sagas = world.options.sagas.unwrap_or(if is_stubborn { STUBBORN_SAGAS } else { drawn });
        for number in 0..sagas {
            let order = world.add_order(number);
            let name = world.names[world.rng.below(world.names.len())];
            let mut own = Request { order, plan: plan(name, &mut world.rng) };
            if is_stubborn && number == 0 {
                own.plan.inputs.insert("charge".to_owned(), Bytes::from_static(BEYOND_MEANS));
            }
            let first = world.clients.first().filter(|_| is_insistent && (number % 2 == 1 || is_stubborn));
            let request = first.map_or(own, |first| first.request.clone());
            let offered = world.fresh_saga();
            world.clients.push(Client { request, worker: 0, offered, state: ClientState::Idle });
            // Now and then two clients want the same order.
            if world.rng.once_in(6) {
                let twin = world.clients[world.clients.len() - 1].clone();
                world.clients.push(twin);
            }
        }
        let steps = world.options.steps.unwrap_or(sagas * if is_stubborn { 500 } else { 110 });
        let asks_again_once_in = if is_stubborn {
            1
        } else if is_insistent {
            2
        } else {
            30
        };
        Self { world, tasks: Vec::new(), sagas, steps, asks_again_once_in }
    }

    fn whole(&mut self) -> Result<(), Violation> {
        for service in 0..SERVICES {
            for worker in 0..WORKERS {
                self.start_process(service, worker);
            }
        }
        self.noise()?;
        self.quiet()?;
        self.check_end()?;
        for _ in 0..AFTERSHOCKS {
            inject::record_again(&mut self.world)?;
        }
        self.quiet()?;
        self.check_end()?;
        let mut sagas: BTreeMap<&str, usize> = BTreeMap::new();
        self.world.oracle.started.iter().for_each(|started| *sagas.entry(&started.order).or_default() += 1);
        let forgetful = sagas.values().filter(|count| **count > model::REMEMBERED).count();
        self.world.coverage.count(FORGETFUL_ORDERS, forgetful as u64);
        Ok(())
    }

    /// Everything goes wrong.
    fn noise(&mut self) -> Result<(), Violation> {
        let mut step = 0;
        let upgrade = self.steps / 2;
        let limited = self.world.options.steps.is_some() || self.world.options.faults < usize::MAX;
        let enough = |run: &Self| limited || run.world.faults.total() >= MIN_FAULTS;
        while step < self.steps || !(enough(self) || step > MAX_NOISE_STEPS) {
            step += 1;
            if step == upgrade {
                self.upgrade();
            }
            self.event()?;
        }
        Ok(())
    }

    /// One thing happens.
    fn event(&mut self) -> Result<(), Violation> {
        let kind = self.world.rng.below(100);
        match kind {
            0..=67 => {
                if !self.tasks.is_empty() {
                    let index = self.world.rng.below(self.tasks.len());
                    self.step_task(index)?;
                }
            }
            68..=83 => {
                self.world.deliver()?;
            }
            84..=86 => {
                self.world.now_ms += self.world.rng.between(0, 40);
            }
            87..=89 => {
                self.world.arrive_late()?;
                inject::answer_additions(&mut self.world)?;
            }
            90..=93 => self.client()?,
            94 => inject::add(&mut self.world),
            95..=96 => self.restart_processes(),
            _ => {
                inject::something(&mut self.world)?;
                self.rebalance();
            }
        }
        Ok(())
    }

    fn client(&mut self) -> Result<(), Violation> {
        let index = self.world.rng.below(self.world.clients.len());
        if self.world.clients.is_empty() {
            return Ok(());
        }
        match self.world.clients[index].state {
            ClientState::Idle => {
                let worker = self.world.rng.below(WORKERS);
                if self.world.process(STARTER, worker).up {
                    clients::ask(&mut self.world, index, worker);
                }
            }
            ClientState::Polling(_) => {
                clients::poll(&mut self.world, index)?;
            }
            // Whoever was refused may try again with the same order.
            ClientState::Done if self.world.rng.once_in(self.asks_again_once_in) => {
                self.world.clients[index].state = ClientState::Idle
            }
            ClientState::Done | ClientState::Waiting { .. } => {}
        }
        Ok(())
    }

    fn step_task(&mut self, index: usize) -> Result<Did, Violation> {
        let task = &mut self.tasks[index];
        match task.step(&mut self.world) {
            Ok(Did::Ended) => {
                self.tasks.swap_remove(index);
                Ok(Did::Ended)
            }
            Ok(did) => {
                if let Loop::Collector(collector) = &mut self.tasks[index].body
                    && let Some(window) = collector.closed.take()
                {
                    self.tasks.push(*window);
                }
                Ok(did)
            }
            Err(Stop::Crash) => {
                let (service, worker) = (task.service, task.worker);
                self.crash(service, worker);
                Ok(Did::Something)
            }
            Err(Stop::Restart(why) | Stop::Halt(why)) => {
                let detail = format!("{}: {why}", self.tasks[index].name());
                Err(Violation { name: "lane-halted", detail })
            }
            Err(Stop::Broken(violation)) => Err(violation),
        }
    }

    /// A process dies with all that it holds in memory. What it has sent is still on its way.
    fn crash(&mut self, service: usize, worker: usize) {
        self.tasks.retain(|task| (task.service, task.worker) != (service, worker));
        let pause_ms = self.world.rng.between(5, 500);
        let up_at_ms = self.world.now_ms + pause_ms;
        let process = self.world.process(service, worker);
        process.up = false;
        process.up_at_ms = up_at_ms;
        process.offline = redis_txn::Offline::default();
        process.lanes = std::sync::Arc::default();
        process.queue.clear();
        if service == STARTER {
            for client in self.world.clients.iter_mut().filter(|client| client.worker == worker) {
                if let ClientState::Waiting { .. } = client.state {
                    client.state = ClientState::Idle;
                }
            }
        }
        // The group notices at once, or only when the process is back.
        if self.world.rng.once_in(2) {
            for lane in self.lanes() {
                if *self.world.owner(service, lane) == worker {
                    self.hand_over(service, lane, 1 - worker, None);
                }
            }
        }
    }

    fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        (0..self.world.lanes as u32).map(Lane)
    }

    fn restart_processes(&mut self) {
        for service in 0..SERVICES {
            for worker in 0..WORKERS {
                let now_ms = self.world.now_ms;
                let quiet = self.world.faults.is_quiet();
                let process = self.world.process(service, worker);
                if !process.up && (quiet || process.up_at_ms <= now_ms) {
                    self.start_process(service, worker);
                }
            }
        }
    }

    fn start_process(&mut self, service: usize, worker: usize) {
        let newest = self.world.newest();
        let upgrade = self.world.rng.once_in(3);
        let process = self.world.process(service, worker);
        process.up = true;
        process.incarnation += 1;
        if service == ORCHESTRATOR && upgrade {
            process.generation = (process.generation + 1).min(newest);
        }
        let committer = Committer::new(service, worker, process.incarnation);
        self.tasks.push(Task::other(service, worker, Loop::Committer(Box::new(committer))));
        if service == STARTER {
            self.tasks.push(Task::other(service, worker, Loop::Collector(Collector::new(worker))));
        }
        for lane in self.lanes() {
            if *self.world.owner(service, lane) == worker {
                self.tasks.push(Task::lane(service, worker, lane));
            }
        }
    }

    fn rebalance(&mut self) {
        let once_in = 14;
        let zombie = self.world.faults.strikes(Fault::Zombie, once_in);
        if !zombie && !self.world.faults.strikes(Fault::Rebalance, once_in) {
            return;
        }
        let service = self.world.rng.below(SERVICES);
        let lane = Lane(self.world.rng.below(self.world.lanes) as u32);
        let to = 1 - *self.world.owner(service, lane);
        let steps = zombie.then(|| 3 + self.world.rng.below(60) as u32);
        self.hand_over(service, lane, to, steps);
    }

    /// A lane changes its owner; the former one knows at once, or after so many steps.
    fn hand_over(&mut self, service: usize, lane: Lane, to: usize, zombie_steps: Option<u32>) {
        *self.world.owner(service, lane) = to;
        self.world.note(|| format!("{}[{lane}] is given to {to}", crate::committer::name(service, 9)));
        let mut dropped = Vec::new();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if task.service != service || task.lane != Some(lane) {
                continue;
            }
            if task.worker == to {
                // It comes back before it has let go: the old loop ends first.
                dropped.push(index);
            } else if zombie_steps.is_some() {
                task.zombie_steps = zombie_steps;
            } else {
                task.revoked = true;
            }
        }
        for index in dropped.into_iter().rev() {
            let task = self.tasks.swap_remove(index);
            task.leave(&mut self.world);
        }
        if self.world.process(service, to).up {
            self.tasks.push(Task::lane(service, to, lane));
        }
    }

    /// Faults have ended, every lane has one owner; everything must end.
    fn quiet(&mut self) -> Result<(), Violation> {
        if !self.world.faults.is_quiet() {
            self.world.faults.end();
            self.world.note(|| "QUIET from here on".to_owned());
            self.settle_down();
        }
        let begin_ms = self.world.now_ms;
        let mut calm_since = None;
        for _ in 0..MAX_QUIET_STEPS {
            if self.round()? {
                calm_since = None;
                continue;
            }
            let now_ms = self.world.now_ms;
            if self.has_ended() {
                let since = *calm_since.get_or_insert(now_ms);
                if now_ms >= since + CALM_MS {
                    return Ok(());
                }
            }
            let due = self.tasks.iter().filter_map(|task| task.due_ms(&self.world)).min();
            let limit = if calm_since.is_some() { now_ms + 1_000 } else { now_ms + 60_000 };
            self.world.now_ms = due.unwrap_or(limit).clamp(now_ms + 1, limit);
            must(self.world.now_ms - begin_ms < MAX_QUIET_MS, "stuck", || self.what_is_open())?;
        }
        Err(Violation { name: "stuck", detail: self.what_is_open() })
    }

    /// From now on the newest definitions are wanted. This happens while faults go on: an orchestrator that starts says
    /// everything again, which would heal what has been lost.
    fn upgrade(&mut self) {
        let newest = self.world.newest();
        for worker in 0..WORKERS {
            self.crash(ORCHESTRATOR, worker);
            self.world.process(ORCHESTRATOR, worker).generation = newest;
            self.start_process(ORCHESTRATOR, worker);
        }
    }

    /// Zombies are told, crashed processes come back.
    fn settle_down(&mut self) {
        for process in &mut self.world.processes {
            process.sick_until_ms = 0;
        }
        for task in &mut self.tasks {
            if task.zombie_steps.take().is_some() {
                task.revoked = true;
            }
        }
        self.restart_processes();
    }

    /// Everybody does what there is to do. False if there was nothing.
    fn round(&mut self) -> Result<bool, Violation> {
        let mut any = false;
        while self.world.deliver()? {
            any = true;
        }
        while self.world.arrive_late()? {
            any = true;
        }
        let mut index = 0;
        while index < self.tasks.len() {
            match self.step_task(index)? {
                Did::Something => {
                    any = true;
                    index += 1;
                }
                Did::Nothing => index += 1,
                Did::Ended => any = true,
            }
        }
        any |= inject::answer_additions(&mut self.world)?;
        for client in 0..self.world.clients.len() {
            any |= clients::poll(&mut self.world, client)?;
        }
        Ok(any)
    }

    fn has_ended(&self) -> bool {
        let world = &self.world;
        let idle = self.lanes().all(|lane| {
            world.oracle.now(lane).is_none_or(|state| state.sagas().is_empty() && state.parked().is_empty())
        });
        let pending = world.stores[STARTER].with_prefix("pending:").next().is_some();
        let waiting = world
            .clients
            .iter()
            .any(|client| matches!(client.state, ClientState::Waiting { .. } | ClientState::Polling(_)));
        idle && !pending && !waiting
    }

    fn what_is_open(&self) -> String {
        let world = &self.world;
        let states = self.lanes().filter_map(|lane| world.oracle.now(lane));
        let open: Vec<String> = states
            .flat_map(|state| state.sagas().values())
            .map(|saga| format!("{} {:?} {:?}", saga.id, saga.phase, saga.steps))
            .collect();
        let pending: Vec<&str> = world.stores[STARTER].with_prefix("pending:").map(|(key, _)| key).collect();
        let clients: Vec<_> = world.clients.iter().map(|client| (client.worker, client.state)).collect();
        let parked: usize =
            self.lanes().filter_map(|lane| world.oracle.now(lane)).map(|state| state.parked().len()).sum();
        let due: Vec<_> = self.tasks.iter().map(|task| (task.name(), task.due_ms(world))).collect();
        format!(
            "open {open:?}, parked {parked}, pending {pending:?}, clients {clients:?}, at {} due {due:?}",
            world.now_ms
        )
    }

    fn check_end(&mut self) -> Result<(), Violation> {
        model::check(&self.world)
    }
}
