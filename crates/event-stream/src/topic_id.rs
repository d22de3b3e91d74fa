//! The id that a cluster gives a topic when it is made: a topic that was deleted and made anew has another one.
//!
//! The Rust client has no safe way to ask for it.
//!
//! librdkafka asks the broker that was named as controller, unless it is told another. While that one is down, the question
//! has the client connect to it again and again without a pause (2.12.1: `rd_kafka_admin_worker` asks for a connection at
//! every change of state, and each request for one takes the backoff away), one core for each few clients. So it is told
//! a broker that has just answered, and asks nobody when none does. (A connection that does not know its broker's number yet
//! leaves it to the library.)

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics,
    rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
    rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits,
    rd_kafka_admin_op_t, rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy,
    rd_kafka_event_error, rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    rd_kafka_resp_err_t, rd_kafka_t,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use crate::watermark::c_name;

/// The topic's id as 32 hexadecimal digits; `None` from a broker that gives its topics none. Blocks up to twice the
/// deadline.
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    deadline: Duration,
) -> KafkaResult<Option<String>> {
    let Some(name) = c_name(topic) else { return Err(failed(RDKafkaErrorCode::InvalidTopic)) };
    let broker = client.fetch_metadata(Some(topic), deadline)?.orig_broker_id();
    let deadline_ms = c_int::try_from(deadline.as_millis()).unwrap_or(c_int::MAX);
    let description = Described::ask(client.native_ptr(), broker, &name, deadline_ms)?;
    description.id().map(|id| (id != 0).then(|| format!("{id:032x}")))
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::AdminOp(code)
}

fn check(error: rd_kafka_resp_err_t) -> KafkaResult<()> {
    match error {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(failed(error.into())),
    }
}

/// The answer to the question for one topic; freed with this.
struct Described(*mut rd_kafka_event_t);

impl Described {
    #[allow(
        unsafe_code,
        reason = "the client's own functions, called with a live handle; what they make is destroyed here"
    )]
    fn ask(handle: *mut rd_kafka_t, broker: i32, topic: &std::ffi::CStr, deadline_ms: c_int) -> KafkaResult<Self> {
        let mut names = [topic.as_ptr()];
        // SAFETY: the handle belongs to a client that the caller holds. The library copies the name, and takes no pointer
        // of ours beyond these calls. Queue, options and collection are made here, used here and destroyed here.
        let event = unsafe {
            let queue = rd_kafka_queue_new(handle);
            let options = rd_kafka_AdminOptions_new(handle, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            rd_kafka_AdminOptions_set_request_timeout(options, deadline_ms, ptr::null_mut(), 0);
            rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
            let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd_kafka_DescribeTopics(handle, topics, options, queue);
            let event = rd_kafka_queue_poll(queue, deadline_ms);
            rd_kafka_TopicCollection_destroy(topics);
            rd_kafka_AdminOptions_destroy(options);
            rd_kafka_queue_destroy(queue);
            event
        };
        if event.is_null() { Err(failed(RDKafkaErrorCode::OperationTimedOut)) } else { Ok(Self(event)) }
    }

    #[allow(unsafe_code, reason = "reads what the client's library has answered, for as long as the answer lives")]
    fn id(&self) -> KafkaResult<u128> {
        // SAFETY: the event is not null and lives as long as `self`; all that is read here belongs to it.
        unsafe {
            check(rd_kafka_event_error(self.0))?;
            let result = rd_kafka_event_DescribeTopics_result(self.0);
            let mut count = 0;
            let topics = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if topics.is_null() || count == 0 {
                return Err(failed(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            let topic = *topics;
            check(rd_kafka_error_code(rd_kafka_TopicDescription_error(topic)))?;
            let id = rd_kafka_TopicDescription_topic_id(topic);
            let high = rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            Ok(u128::from(high) << 64 | u128::from(low))
        }
    }
}

impl Drop for Described {
    #[allow(unsafe_code, reason = "gives back what the client's library has answered")]
    fn drop(&mut self) {
        // SAFETY: the event was given to this alone and is destroyed once.
        unsafe { rd_kafka_event_destroy(self.0) }
    }
}
