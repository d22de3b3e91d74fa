//! Moves records between Kafka and lane loops: ownership, fetching, publishing, topic checks. Of what services are
//! made of, the only crate that names the Kafka client.
//!
//! Deliberately not in it: what the bytes mean, and where positions are stored.

mod brokers;
mod client_log;
mod consumer;
mod error;
mod fetch_client;
mod fetcher;
mod fetchers;
mod fetching;
mod ground;
mod inbox;
mod inquiry;
mod lane;
mod lanes;
mod member;
mod patience;
mod publisher;
mod record;
mod settings;
mod silence;
mod survey;
mod topic_id;
mod topics;
mod watermark;

pub use consumer::Consumer;
pub use error::{HaltReason, LaneFault, PublishError, StreamError};
pub use ground::Ground;
pub use inquiry::{check_past, judge_new_lane};
pub use lane::{LaneEvent, LaneRunner, LaneStatus, OwnedLane};
pub use publisher::{Publisher, Receipt};
pub use record::{MAX_PAYLOAD_BYTES, Outgoing, Record};
pub use saga_core::ids::Lane;
pub use settings::{GroupProtocol, KafkaArgs, KafkaSettings};
pub use survey::{Survey, survey};
pub use topics::{TopicSpec, TopicStorage, check_topics, ensure_topics, make_topics, topic_id, wait_for_brokers};
