//! Something in a process that runs on: a lane's loop, a window, the committer.

use saga_core::ids::Lane;

use crate::committer::{Committer, name};
use crate::orchestrate::OrchestratorLane;
use crate::participate::ParticipantLoop;
use crate::results::ResultsLane;
use crate::window::{Collector, Window};
use crate::world::{ORCHESTRATOR, STARTER, Stop, World};

/// Whether a step got anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It did.
    Something,
    /// There is nothing to do for now.
    Nothing,
    /// The task has ended.
    Ended,
}

/// What runs.
pub enum Loop {
    /// A lane of the inbox.
    Orchestrator(Box<OrchestratorLane>),
    /// A lane of a participant's commands.
    Participant(Box<ParticipantLoop>),
    /// A lane of the results.
    Results(Box<ResultsLane>),
    /// Closes windows.
    Collector(Collector),
    /// A window from its EXEC to the acknowledgement of its starts.
    Window(Box<Window>),
    /// The process's way to the store.
    Committer(Box<Committer>),
}

/// A task of a process.
pub struct Task {
    /// The service.
    pub service: usize,
    /// The worker.
    pub worker: usize,
    /// The lane, for the loops of lanes.
    pub lane: Option<Lane>,
    /// What runs.
    pub body: Loop,
    /// The lane was taken away, and it knows.
    pub revoked: bool,
    /// The lane was taken away; it will know after so many steps.
    pub zombie_steps: Option<u32>,
}

impl Task {
    /// The loop of a lane, from its beginning.
    pub fn lane(service: usize, worker: usize, lane: Lane) -> Self {
        let (revoked, zombie_steps) = (false, None);
        Self { service, worker, lane: Some(lane), body: fresh(service, worker, lane), revoked, zombie_steps }
    }

    /// A task without a lane.
    pub fn other(service: usize, worker: usize, body: Loop) -> Self {
        Self { service, worker, lane: None, body, revoked: false, zombie_steps: None }
    }

    /// How it is called in event lists.
    pub fn name(&self) -> String {
        let lane = self.lane.map(|lane| format!("[{lane}]")).unwrap_or_default();
        format!("{}{lane}", name(self.service, self.worker))
    }

    /// One thing. A loop that must load again begins anew.
    pub fn step(&mut self, world: &mut World) -> Result<Did, Stop> {
        if let Some(steps) = &mut self.zombie_steps {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                self.zombie_steps = None;
                self.revoked = true;
            }
        }
        let revoked = self.revoked;
        let stepped = match &mut self.body {
            Loop::Orchestrator(body) => body.step(world, revoked),
            Loop::Participant(body) => body.step(world, revoked),
            Loop::Results(body) => body.step(world, revoked),
            Loop::Collector(body) => body.step(world),
            Loop::Window(body) => body.step(world),
            Loop::Committer(body) => body.step(world),
        };
        match (stepped, self.lane) {
            (Err(Stop::Restart(why)), Some(lane)) => {
                let name = self.name();
                world.note(|| format!("{name}: restarts: {why}"));
                world.coverage.count("loops restarted", 1);
                self.leave(world);
                if self.revoked {
                    return Ok(Did::Ended);
                }
                self.body = fresh(self.service, self.worker, lane);
                Ok(Did::Something)
            }
            (Ok(Did::Ended), _) => {
                self.leave(world);
                Ok(Did::Ended)
            }
            (stepped, _) => stepped,
        }
    }

    /// When it will have something to do, if nothing else happens.
    pub fn due_ms(&self, world: &World) -> Option<i64> {
        match &self.body {
            Loop::Orchestrator(body) => body.due_ms(world),
            Loop::Participant(body) => body.due_ms(),
            Loop::Results(body) => body.due_ms(),
            Loop::Collector(_) | Loop::Window(_) | Loop::Committer(_) => None,
        }
    }

    /// However a loop ends, the process knows.
    pub fn leave(&self, world: &mut World) {
        if let (Loop::Results(body), Some(lane)) = (&self.body, self.lane) {
            body.leave(world, lane);
        }
    }
}

fn fresh(service: usize, worker: usize, lane: Lane) -> Loop {
    match service {
        ORCHESTRATOR => Loop::Orchestrator(Box::new(OrchestratorLane::new(worker, lane))),
        STARTER => Loop::Results(Box::new(ResultsLane::new(worker, lane))),
        participant => Loop::Participant(Box::new(ParticipantLoop::new(participant, worker, lane))),
    }
}
