//! W3C Trace Context as text (<https://www.w3.org/TR/trace-context/>).

use std::ops::Range;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::TraceContext;

/// Length of `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACEPARENT_BYTES: usize = 55;

/// Where in it the trace's id stands, the span's, and the flags.
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;

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
    let bytes = traceparent.as_bytes();
    let is_id = |place: Range<usize>| {
        let id = &bytes[place];
        id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && id.iter().any(|byte| *byte != b'0')
    };
    let is_flags = |flags: &[u8]| flags.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    bytes.len() == TRACEPARENT_BYTES
        && bytes.starts_with(b"00-")
        && (bytes[35], bytes[52]) == (b'-', b'-')
        && is_id(TRACE)
        && is_id(SPAN)
        && is_flags(&bytes[FLAGS])
}

/// Whether a `tracestate` is short and printable enough to be passed on.
pub(super) fn is_sendable(tracestate: &str) -> bool {
    tracestate.len() <= MAX_TRACESTATE_BYTES && tracestate.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

pub(super) fn to_span_context(context: &TraceContext) -> Option<SpanContext> {
    let text = Some(&*context.traceparent).filter(|text| is_well_formed(text))?;
    let (trace, span) = (TraceId::from_hex(&text[TRACE]).ok()?, SpanId::from_hex(&text[SPAN]).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(&text[FLAGS], 16).ok()?);
    let state = match context.tracestate.as_str() {
        "" => TraceState::NONE,
        state => TraceState::from_str(state).unwrap_or_default(),
    };
    Some(SpanContext::new(trace, span, flags, true, state))
}

pub(super) fn to_text(context: &SpanContext) -> TraceContext {
    let traceparent =
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 0x03);
    TraceContext { traceparent, tracestate: context.trace_state().header() }
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
        let (version, dash) = (SAMPLED.replace("00-0", "ff-0"), SAMPLED.replace("c-b", "cab"));
        let (not_hex, flags) = (SAMPLED.replace("af7", "ag7"), SAMPLED.replace("-01", "-0g"));
        let letters = "é".repeat(28)[..TRACEPARENT_BYTES - 1].to_owned() + "1";
        let long = format!("{SAMPLED}0");
        for bad in [
            "",
            "01",
            zero_trace,
            zero_span,
            &uppercase,
            &newline,
            &SAMPLED[..54],
            &version,
            &dash,
            &not_hex,
            &flags,
            &letters,
            &long,
        ] {
            assert!(!is_well_formed(bad), "{bad}");
            let context = TraceContext { traceparent: bad.to_owned(), tracestate: String::new() };
            assert_eq!(to_span_context(&context), None, "{bad}");
        }
        assert!(!is_sendable("a=1\r\nb") && !is_sendable(&"a".repeat(513)));
    }
}
