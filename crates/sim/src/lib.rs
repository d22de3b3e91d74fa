//! A deterministic simulation: the real decisions of orchestrator, participants and starter over a simulated log and
//! simulated stores, with everything going wrong that can, and a plain model that says what must come of it.
//!
//! Real: the fold and its states, [`orchestrator::lane_core`] with emitter, outbox, schedules and checkpoints, the
//! participants' [`participant::Progress`] and [`participant::execute`], the starter's transactions and lane table, the
//! committer's batches, orders. Modelled: in which order the loops call them, the committer's loop.
//!
//! Deliberately not in it: Kafka, Redis, HTTP, real time, threads.

pub mod campaign;
pub mod clients;
pub mod committer;
pub mod coverage;
pub mod describe;
pub mod faults;
pub mod hunt;
pub mod inject;
pub mod ledger;
pub mod log;
pub mod mistakes;
pub mod model;
pub mod mutate;
pub mod network;
pub mod oracle;
pub mod orchestrate;
pub mod participate;
pub mod plans;
pub mod results;
pub mod rng;
pub mod run;
pub mod shop;
pub mod show;
pub mod shrink;
pub mod slips;
pub mod stale;
pub mod store;
pub mod task;
pub mod unguarded;
pub mod window;
pub mod world;
