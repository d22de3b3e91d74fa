//! Where a partition's log ends, as the client knows it from its last fetch. Nothing is asked of a broker.

use std::ffi::CString;

use rdkafka::bindings::{rd_kafka_get_watermark_offsets, rd_kafka_resp_err_t};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use saga_core::ids::Lane;

/// The topic's name as the client's library takes it; `None` for a name that no topic can have.
pub(crate) fn c_name(topic: &str) -> Option<CString> {
    CString::new(topic).ok()
}

/// The offset after the last record of an assigned lane; `None` before the first fetch.
///
/// The Rust client has no safe way to read what it has at hand; its `fetch_watermarks` asks the broker and blocks.
#[allow(
    unsafe_code,
    reason = "the client's own function, called with a live handle, a C string and places for the result"
)]
pub(crate) fn log_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &CString, lane: Lane) -> Option<i64> {
    let (mut low, mut high) = (0, -1);
    // SAFETY: the handle lives as long as `consumer`; the library reads the name and writes the two numbers before it
    // returns, and keeps none of the pointers.
    let error = unsafe {
        rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            lane.0.cast_signed(),
            &raw mut low,
            &raw mut high,
        )
    };
    (error == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
