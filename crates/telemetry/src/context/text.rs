//! W3C Trace Context as text (<https://www.w3.org/TR/trace-context/>).

use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::TraceContext;

/// Length of `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACEPARENT_BYTES: usize = 55;

/// Longest `tracestate` that is passed on: what the recommendation asks implementations to carry.
const MAX_TRACESTATE_BYTES: usize = 512;

/// Whether the sampled flag is set. Looks at one character; a text that is not well formed is not sampled.
pub(super) fn is_sampled(traceparent: &str) -> bool {
    matches!(
        traceparent.as_bytes().get(TRACEPARENT_BYTES - 1),
        Some(b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f')
    )
}

/// Whether the text has the shape of version 00: it comes from outside and travels on through every store and topic.
pub(super) fn is_well_formed(traceparent: &str) -> bool {
    traceparent.len() == TRACEPARENT_BYTES && traceparent.starts_with("00-") && parts(traceparent).is_some()
}

/// Whether a `tracestate` is short and printable enough to be passed on.
pub(super) fn is_sendable(tracestate: &str) -> bool {
    tracestate.len() <= MAX_TRACESTATE_BYTES && tracestate.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

pub(super) fn to_span_context(context: &TraceContext) -> Option<SpanContext> {
    let (trace, span, flags) = parts(&context.traceparent)?;
    let state = TraceState::from_str(&context.tracestate).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

pub(super) fn to_text(context: &SpanContext) -> TraceContext {
    let traceparent =
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 0x03);
    TraceContext { traceparent, tracestate: context.trace_state().header() }
}

fn parts(traceparent: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let lowercase_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut fields = traceparent.split('-').skip(1);
    let (trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || (trace.len(), span.len(), flags.len()) != (32, 16, 2) {
        return None;
    }
    if ![trace, span, flags].into_iter().all(lowercase_hex) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_survives_the_way_through_text() {
        let context = TraceContext { traceparent: SAMPLED.to_owned(), tracestate: "a=1".to_owned() };
        let parsed = to_span_context(&context).expect("valid");
        assert!(parsed.is_sampled() && parsed.is_remote());
        assert_eq!(to_text(&parsed), context);
    }

    #[test]
    fn only_the_right_shape_is_taken() {
        assert!(is_well_formed(SAMPLED) && is_sampled(SAMPLED));
        assert!(!is_sampled(&SAMPLED.replace("-01", "-00")));
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let uppercase = SAMPLED.to_uppercase();
        let newline = SAMPLED.replace("-01", "\n01");
        for bad in
            ["", "01", zero_trace, zero_span, &uppercase, &newline, &SAMPLED[..54], &SAMPLED.replace("00-0", "ff-0")]
        {
            assert!(!is_well_formed(bad), "{bad}");
        }
        assert!(!is_sendable("a=1\r\nb") && !is_sendable(&"a".repeat(513)));
    }
}
