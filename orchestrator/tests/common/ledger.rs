//! Participants that answer at once, but for what is held back, and do nothing twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use event_stream::{Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher};
use proto::Wire;
use saga_core::ids::{CommandId, Direction, Ordinal};
use saga_core::record::{Command, CommandRecord, InboxEvent, Outcome, Refusal, Reply};

use super::{INBOX, PATIENCE, Stack};

/// Whether the first step of this saga is answered only when the test lets it go.
pub fn is_held(ordinal: &Ordinal) -> bool {
    ordinal.sequence % 2 == 1
}

/// Whether it is this command that is not answered at once.
pub fn holds(command: &Command) -> bool {
    (command.id.step.as_str(), command.id.direction) == ("reserve", Direction::Action) && is_held(&command.ordinal)
}

/// Whether the last step of this saga is refused.
pub fn is_refused(ordinal: &Ordinal) -> bool {
    ordinal.sequence % 4 >= 2
}

/// What the participants have heard and done.
#[derive(Default)]
pub struct Books {
    /// As they were heard first.
    pub commands: BTreeMap<CommandId, Command>,
    /// Commands that came again and said something else.
    pub changed: Vec<Command>,
    /// What was really done, in order.
    pub effects: Vec<CommandId>,
    /// Not answered yet.
    pub held: BTreeMap<CommandId, Command>,
    answers: BTreeMap<CommandId, Outcome>,
}

impl Books {
    fn hear(&mut self, command: Command) -> Option<Reply> {
        let first = self.commands.entry(command.id.clone()).or_insert_with(|| command.clone());
        if *first != command {
            self.changed.push(command.clone());
        }
        if holds(&command) && !self.answers.contains_key(&command.id) {
            self.held.insert(command.id.clone(), command);
            return None;
        }
        Some(self.answer(&command))
    }

    fn answer(&mut self, command: &Command) -> Reply {
        let outcome = self.answers.get(&command.id).cloned().unwrap_or_else(|| self.execute(command));
        self.answers.insert(command.id.clone(), outcome.clone());
        Reply { id: command.id.clone(), ordinal: command.ordinal.clone(), outcome }
    }

    fn execute(&mut self, command: &Command) -> Outcome {
        let other = |direction| CommandId { direction, ..command.id.clone() };
        match command.id.direction {
            Direction::Action if self.answers.contains_key(&other(Direction::Undo)) => Outcome::Cancelled,
            Direction::Action if command.id.step == "charge" && is_refused(&command.ordinal) => {
                Outcome::Refused(Refusal { code: "no-credit".to_owned(), reason: "no".to_owned() })
            }
            Direction::Action => {
                self.effects.push(command.id.clone());
                Outcome::Applied { output: Bytes::from_static(b"done") }
            }
            Direction::Undo => {
                if let Some(Outcome::Applied { .. }) = self.answers.get(&other(Direction::Action)) {
                    self.effects.push(command.id.clone());
                }
                Outcome::Undone
            }
        }
    }
}

/// The participants of all definitions, each a member of a group of its own.
pub struct Participants {
    ledger: Ledger,
    consumers: Vec<Consumer>,
}

#[derive(Clone)]
struct Ledger {
    books: Arc<Mutex<Books>>,
    publisher: Publisher,
}

impl Participants {
    pub fn start(stack: &Stack) -> Self {
        let ledger = Ledger { books: Arc::default(), publisher: stack.publisher.clone() };
        // This test is about the lanes of orchestrators: those of participants stay where they are.
        let settings = KafkaSettings { session_timeout: PATIENCE, ..stack.settings.clone() };
        let consumer = |topic: &str| {
            Consumer::start(&settings, &format!("participant-{topic}"), topic, Arc::new(ledger.clone())).unwrap()
        };
        let consumers = ["stock.commands", "payment.commands"].map(consumer).into();
        Self { ledger, consumers }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.ledger.books())
    }

    /// Answers everything that was held until now.
    pub async fn let_go(&self) {
        let replies = self.with(|books| {
            let held: Vec<Command> = std::mem::take(&mut books.held).into_values().collect();
            held.iter().map(|command| books.answer(command)).collect()
        });
        self.ledger.send(replies).await;
    }

    pub async fn end(self) -> Books {
        for consumer in self.consumers {
            consumer.shutdown(PATIENCE).await;
        }
        std::mem::take(&mut self.ledger.books())
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    async fn send(&self, replies: Vec<Reply>) {
        if replies.is_empty() {
            return;
        }
        let record = |reply: Reply| Outgoing {
            topic: INBOX.into(),
            lane: Lane(reply.ordinal.lane.0),
            payload: InboxEvent::Reply(reply).encode(),
            headers: Vec::new(),
        };
        self.publisher.send(replies.into_iter().map(record).collect()).await.unwrap().await.unwrap();
    }
}

impl LaneRunner for Ledger {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    let commands =
                        records.iter().filter_map(|record| match CommandRecord::decode(&record.payload).unwrap() {
                            CommandRecord::Command(command) => Some(command),
                            CommandRecord::Floor(_) => None,
                        });
                    let commands: Vec<Command> = commands.collect();
                    let replies = {
                        let mut books = self.books();
                        commands.into_iter().filter_map(|command| books.hear(command)).collect()
                    };
                    self.send(replies).await;
                }
                LaneEvent::End | LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}
