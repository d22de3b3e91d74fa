//! The task that alone owns the private connection and commits batch after batch.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Pipeline, Value};
use service_kit::backoff::Backoff;
use telemetry::stages::{self, Stage};

use crate::args::Settings;
use crate::connection::{Exec, Failure, Private, Server, first_error, is_foreign, pipeline, read_exec, string};
use crate::plan::{Overlay, apply_in_order};
use crate::queue::Shared;
use crate::store::STORE_ID_KEY;
use crate::turn::Turn;
use crate::{events, spans, unknown};

mod desk;
use desk::{Desk, Sent};

/// An idle connection is asked this often whether it still lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often a round trip that takes long looks after requests that have run out of patience.
const TICK: Duration = Duration::from_millis(50);

/// A store that has not answered for so long is not healthy, even if the connection is not yet given up.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(2);

/// First and longest pause while the store is away or refuses.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Unit of the pause after a nil EXEC; it doubles with every nil in a row, up to 2^5.
const CONFLICT_PAUSE_US: u64 = 200;
const CONFLICT_DOUBLINGS: u32 = 5;

/// What the committer is made of.
pub(crate) struct Committer {
    settings: Settings,
    server: Server,
    connection: Option<Private>,
    /// The connection has watches that no EXEC has cleared.
    watching: bool,
    /// One name for all the connections that this committer opens one after the other. That is safe, and keeps the key
    /// from multiplying: the next EXEC is not sent before the outcome of the one before is settled, so at most one EXEC
    /// is ever in doubt, its number is the highest, and the settling write makes it abort if it is late. Two committers
    /// must not share it: one's number would hide the other's.
    commit_key: String,
    /// The number of the last EXEC that was sent.
    number: u64,
    /// The last EXEC was sent and nobody knows what became of it.
    in_doubt: bool,
    desk: Desk,
    overlay: Overlay,
    turn: Turn,
    nils_in_a_row: u32,
    backoff: Backoff,
}

impl Committer {
    pub(crate) fn new(settings: Settings, server: Server, connection: Private, shared: Arc<Shared>) -> Self {
        static COMMITTERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let ordinal = COMMITTERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        shared.set_healthy();
        Self {
            commit_key: format!("commit:{}:{ordinal}", settings.process),
            desk: Desk::new(shared, &settings),
            turn: Turn::new(settings.conflicts_before_turn),
            settings,
            server,
            connection: Some(connection),
            watching: false,
            number: 0,
            in_doubt: false,
            overlay: Overlay::default(),
            nils_in_a_row: 0,
            backoff: Backoff::new(PAUSE.0, PAUSE.1),
        }
    }

    /// Works until the queues are closed and empty.
    pub(crate) async fn run(mut self) {
        let _end = EndOnDrop(Arc::clone(&self.desk.shared));
        while self.next_batch().await.is_continue() {
            if self.ready().await.is_break() {
                continue;
            }
            if let Some(cause) = self.server.trust().doubt() {
                self.pause_refused(&cause).await;
                continue;
            }
            match self.attempt().await {
                Ok(()) => {}
                Err(Failure::Lost(cause) | Failure::Denied(cause)) => self.lose(&cause),
                Err(Failure::Refused(cause) | Failure::Replaced(cause)) => self.pause_refused(&cause).await,
            }
        }
        if let (Some(connection), false) = (&mut self.connection, self.in_doubt) {
            let _ = unknown::forget(connection, &self.commit_key).await;
        }
    }

    /// Fills the batch; waits if there is nothing to do. Breaks when nothing will come any more.
    async fn next_batch(&mut self) -> ControlFlow<()> {
        loop {
            // What is in the batch was in the EXEC in doubt: nothing may join it before that is settled, as it would share
            // the outcome of an EXEC that it was no part of.
            if self.in_doubt && !self.desk.is_abandoned() {
                return ControlFlow::Continue(());
            }
            if self.desk.fill() {
                return ControlFlow::Continue(());
            }
            if self.desk.shared.is_finished() {
                return ControlFlow::Break(());
            }
            tokio::select! {
                () = self.desk.shared.arrival() => {}
                () = tokio::time::sleep(HEARTBEAT) => {
                    let mut commands = pipeline();
                    commands.cmd("PING");
                    match self.ask(&commands, Sent::No).await {
                        Err(Failure::Lost(cause) | Failure::Denied(cause)) => self.lose(&cause),
                        Err(Failure::Refused(_) | Failure::Replaced(_)) => {}
                        Ok(replies) => match first_error(&replies) {
                            Ok(()) => self.desk.shared.set_healthy(),
                            // `-LOADING` and the like: it is there, but of no use.
                            Err(cause) => self.desk.shared.set_unhealthy(&cause.to_string()),
                        },
                    }
                    if self.connection.is_none() {
                        let _ = self.ready().await;
                    }
                }
            }
        }
    }

    /// Sees to it that there is a connection and that no EXEC is in doubt. Breaks when there is nothing left to do it
    /// for.
    async fn ready(&mut self) -> ControlFlow<()> {
        let mut told_denied = false;
        while self.connection.is_none() || self.in_doubt {
            let sent = if self.in_doubt { Sent::Yes } else { Sent::No };
            if let Err(cause) = self.reconnect(sent).await {
                self.connection = None;
                if matches!(cause, Failure::Denied(_)) && !std::mem::replace(&mut told_denied, true) {
                    tracing::warn!(%cause, "the store denies access");
                }
                tracing::debug!(address = %self.settings.address, %cause, "the store is away");
                let pause = self.backoff.pause();
                self.desk.patiently(sent, tokio::time::sleep(pause)).await;
                if self.desk.is_abandoned() {
                    return ControlFlow::Break(());
                }
            }
        }
        self.desk.sweep();
        if self.desk.batch.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    async fn reconnect(&mut self, sent: Sent) -> Result<(), Failure> {
        if self.connection.is_none() {
            let opened = self.server.open_private();
            self.connection = Some(self.desk.patiently(sent, opened).await?);
            self.watching = false;
            events::connected();
        }
        if let (Some(connection), true) = (&mut self.connection, self.in_doubt) {
            let settling = unknown::settle(connection, &self.commit_key, self.number);
            let happened = self.desk.patiently(sent, settling).await?;
            self.in_doubt = false;
            events::settled(self.number, happened);
            if happened {
                self.commit();
            }
        }
        self.desk.shared.set_healthy();
        self.backoff.reset();
        Ok(())
    }

    /// One optimistic transaction with the batch at hand. What is left in the batch afterwards is run again.
    async fn attempt(&mut self) -> Result<(), Failure> {
        if let (Some(connection), true) = (&mut self.connection, self.turn.is_due()) {
            let taking = self.turn.take(connection, &self.settings.process);
            self.desk.patiently(Sent::No, taking).await?;
            if self.turn.held().is_some() {
                // Nobody else is at it: a small batch would only waste the turn.
                self.desk.widen();
            }
        }
        self.overlay.clear();
        self.desk.batch.iter_mut().for_each(|entry| entry.want(&mut self.overlay));
        loop {
            self.read().await?;
            if self.apply() {
                break;
            }
            self.desk.batch.iter().for_each(|entry| entry.want_asked(&mut self.overlay));
        }
        self.desk.sweep();
        if self.desk.batch.is_empty() {
            return Ok(());
        }
        let Some(commands) = self.write_commands() else {
            // Nothing to write. MGET was one atomic look at all keys, so it needs no EXEC to confirm it.
            self.commit();
            return Ok(());
        };
        self.exec(&commands).await
    }

    /// False when keys have to be read first.
    fn apply(&mut self) -> bool {
        let _scope = stages::enter(Stage::Apply);
        apply_in_order(&mut self.overlay, &mut self.desk.batch)
    }

    /// WATCH, MGET and a count, in one round trip.
    ///
    /// MGET shows a hash, set or list as missing. EXISTS over the same keys counts those too: only if the counts differ
    /// is `TYPE` asked, and that is hardly ever. Measured with Redis 7.0: EXISTS costs half of what MGET costs (0.15 µs
    /// per key) and no round trip, while nearly every batch makes new keys, so asking for the type of each would add a
    /// round trip to nearly every batch. What happens between the commands of this pipeline is caught by WATCH.
    async fn read(&mut self) -> Result<(), Failure> {
        let mut commands = pipeline();
        if self.watching {
            commands.cmd("UNWATCH");
        }
        commands.cmd("WATCH").arg(&self.commit_key);
        self.overlay.watched().for_each(|key| {
            commands.arg(key);
        });
        let wanted = self.overlay.wanted().count();
        if wanted > 0 {
            for command in ["MGET", "EXISTS"] {
                commands.cmd(command);
                self.overlay.wanted().for_each(|key| {
                    commands.arg(key);
                });
            }
        }
        // After MGET: if this is the data set that we know, then so was what MGET saw.
        commands.cmd("GET").arg(STORE_ID_KEY);
        self.watching = true;
        let mut replies = self.ask(&commands, Sent::No).await?;
        first_error(&replies)?;
        self.server.trust().check_id(replies.pop())?;
        if wanted == 0 {
            self.overlay.put_read([]);
            return Ok(());
        }
        let (Some(Value::Int(existing)), Some(Value::Array(values))) = (replies.pop(), replies.pop()) else {
            return Err(Failure::Lost("replies of another shape to MGET and EXISTS".to_owned()));
        };
        let present = self.overlay.put_read(values.into_iter().map(string));
        if usize::try_from(existing) != Ok(present) { self.find_foreign().await } else { Ok(()) }
    }

    /// Which of the keys that seemed to be missing are of another type.
    async fn find_foreign(&mut self) -> Result<(), Failure> {
        let mut commands = pipeline();
        let missing: Vec<String> = self.overlay.missing().map(str::to_owned).collect();
        for key in &missing {
            commands.cmd("TYPE").arg(key);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let replies = self.ask(&commands, Sent::No).await?;
        first_error(&replies)?;
        for (key, reply) in missing.iter().zip(replies) {
            // A string has come into being since MGET: then EXEC will abort.
            if is_foreign(&reply) {
                self.overlay.mark_foreign(key);
            }
        }
        Ok(())
    }

    /// MULTI, MSET, UNLINK, EXEC; `None` when nothing has changed.
    fn write_commands(&mut self) -> Option<Pipeline> {
        if !self.overlay.has_changes() {
            return None;
        }
        let mut commands = pipeline();
        commands.cmd("MULTI");
        // The commit number is part of the MSET and not a command beside it: one is not there without the other.
        commands.cmd("MSET").arg(&self.commit_key).arg(unknown::commit_value(self.number + 1));
        for (key, value) in self.overlay.writes() {
            if let Some(value) = value {
                commands.arg(key).arg(value.as_ref());
            }
        }
        let mut gone = self.overlay.writes().filter_map(|(key, value)| value.is_none().then_some(key)).peekable();
        let turn = self.turn.held();
        if gone.peek().is_some() || turn.is_some() {
            commands.cmd("UNLINK");
            gone.chain(turn).for_each(|key| {
                commands.arg(key);
            });
        }
        commands.cmd("EXEC");
        Some(commands)
    }

    async fn exec(&mut self, commands: &Pipeline) -> Result<(), Failure> {
        self.number += 1;
        self.in_doubt = true;
        let transactions = self.desk.batch.len();
        // Without MULTI and EXEC.
        let span = spans::exec(self.desk.shared.server(), commands.len().saturating_sub(2), &mut self.desk.batch);
        let start = Instant::now();
        let replies = match self.ask(commands, Sent::Yes).await {
            Ok(replies) => replies,
            Err(failure) => {
                events::not_executed("unknown", transactions);
                span.failed("unknown");
                return Err(failure);
            }
        };
        let exec = read_exec(&replies);
        self.in_doubt = matches!(exec, Exec::Unclear(_));
        self.watching = false;
        match exec {
            Exec::Done => {
                events::executed(transactions, start.elapsed());
                span.answered("done");
                self.commit();
                self.nils_in_a_row = 0;
                self.turn.committed();
                self.desk.committed();
                Ok(())
            }
            Exec::Conflict => {
                events::not_executed("conflict", transactions);
                span.answered("conflict");
                self.conflicted().await;
                Ok(())
            }
            Exec::Refused(cause) => {
                events::not_executed("refused", transactions);
                span.failed("refused");
                Err(Failure::Refused(cause))
            }
            Exec::Unclear(cause) => {
                events::not_executed("unknown", transactions);
                span.failed("unknown");
                tracing::error!(%cause, "replies to an EXEC that prove nothing");
                Err(Failure::Lost(cause))
            }
        }
    }

    /// A watched key was touched: a smaller batch, after a pause.
    async fn conflicted(&mut self) {
        self.nils_in_a_row += 1;
        self.turn.conflicted(self.nils_in_a_row);
        self.desk.conflicted();
        let most = CONFLICT_PAUSE_US << self.nils_in_a_row.min(CONFLICT_DOUBLINGS);
        let pause = Duration::from_micros(rand::random_range(0..most));
        self.desk.patiently(Sent::No, tokio::time::sleep(pause)).await;
    }

    /// Answers the batch with its outcomes.
    fn commit(&mut self) {
        self.backoff.reset();
        self.desk.shared.set_healthy();
        self.desk.commit();
    }

    async fn ask(&mut self, commands: &Pipeline, sent: Sent) -> Result<Vec<Value>, Failure> {
        match &mut self.connection {
            Some(connection) => self.desk.patiently(sent, connection.ask(commands)).await,
            None => Err(Failure::Lost("not connected".to_owned())),
        }
    }

    fn lose(&mut self, cause: &str) {
        self.connection = None;
        tracing::debug!(address = %self.settings.address, %cause, in_doubt = self.in_doubt, "connection lost");
        self.desk.shared.set_unhealthy(cause);
    }

    /// Redis is there but does not take writes now (full, loading, a replica, …): what it refused has not happened.
    async fn pause_refused(&mut self, cause: &str) {
        self.desk.shared.set_unhealthy(cause);
        let pause = self.backoff.pause();
        self.desk.patiently(Sent::No, tokio::time::sleep(pause)).await;
    }
}

/// However the task ends (also by a panic, or with its runtime), nobody goes on waiting for it.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
