//! What the Kafka clients have to say, on the levels of this system: a client recovers by itself, so nothing of it
//! pages a person.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Lines that the library writes. Its severe ones are about connections, which it makes again.
pub(crate) fn line(client: &'static str, level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(client, facility, text, "Kafka client");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::debug!(client, facility, text, "Kafka client"),
        _ => tracing::trace!(client, facility, text, "Kafka client"),
    }
}

/// Errors that belong to no record.
pub(crate) fn error(client: &'static str, error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // The end of a partition is news, not an error; a lost offset is dealt with by its lane.
        Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) => {}
        _ => tracing::debug!(client, %error, reason, "Kafka client"),
    }
}
