//! What must hold of the spans of one trace: one connected tree, right names, right parents.

use std::collections::BTreeMap;

use otlp_sink::{Span, SpanKind};

/// The services that a checkout passes.
const SERVICES: [&str; 5] = ["gateway", "order-svc", "orchestrator", "stock-svc", "payment-svc"];

/// The spans of one trace, with a way to a span's parent.
pub struct Tree<'a> {
    pub spans: Vec<&'a Span>,
    by_id: BTreeMap<&'a str, &'a Span>,
}

impl<'a> Tree<'a> {
    /// The trace that a saga's records belong to, as far as it has arrived.
    pub fn of_saga(all: &'a [Span], saga: &str) -> Option<Self> {
        let is_hop = |span: &&Span| {
            span.kind == SpanKind::Consumer && span.attributes.get("saga.id").is_some_and(|id| id == saga)
        };
        Some(Self::of_trace(all, &all.iter().find(is_hop)?.trace))
    }

    /// All spans of a trace that have arrived.
    pub fn of_trace(all: &'a [Span], trace: &str) -> Self {
        let spans: Vec<&Span> = all.iter().filter(|span| span.trace == trace).collect();
        let by_id = spans.iter().map(|span| (span.id.as_str(), *span)).collect();
        Self { spans, by_id }
    }

    /// Spans of this name.
    pub fn count(&self, name: &str) -> usize {
        self.spans.iter().filter(|span| span.name == name).count()
    }

    /// How often each name occurs, for messages.
    pub fn names(&self) -> BTreeMap<(&str, &str), usize> {
        let mut names = BTreeMap::new();
        for span in &self.spans {
            *names.entry((span.service.as_str(), span.name.as_str())).or_default() += 1;
        }
        names
    }

    /// What is wrong with it, if anything.
    pub fn defect(&self) -> Option<String> {
        let roots: Vec<_> = self.spans.iter().filter(|span| span.parent.is_empty()).collect();
        let [root] = roots.as_slice() else { return Some(format!("{} roots", roots.len())) };
        if (root.service.as_str(), root.kind) != ("gateway", SpanKind::Server) {
            return Some(format!("the root is {} of {}", root.name, root.service));
        }
        if let Some(missing) = SERVICES.iter().find(|service| !self.spans.iter().any(|span| span.service == **service))
        {
            return Some(format!("{missing} is missing"));
        }
        self.spans.iter().find_map(|span| self.defect_of(span))
    }

    fn defect_of(&self, span: &Span) -> Option<String> {
        let who = format!("{} of {}", span.name, span.service);
        if span.end_ns < span.start_ns {
            return Some(format!("{who} ends before it begins"));
        }
        if !is_name(span) {
            return Some(format!("{who} is a name that nobody expects of {:?}", span.kind));
        }
        if span.parent.is_empty() {
            return None;
        }
        let Some(parent) = self.by_id.get(span.parent.as_str()) else { return Some(format!("{who} is an orphan")) };
        let why = format!("the parent of {who} is {} of {}", parent.name, parent.service);
        (!is_parent(parent, span)).then_some(why)
    }
}

/// Names of OpenTelemetry's conventions: method and route, operation and topic, command.
fn is_name(span: &Span) -> bool {
    let attribute = |key: &str| span.attributes.get(key).map(String::as_str).unwrap_or_default();
    let expected = match span.kind {
        SpanKind::Server => format!("{} {}", attribute("http.request.method"), attribute("http.route")),
        SpanKind::Client if span.attributes.contains_key("db.system.name") => match span.name.as_str() {
            "MULTI batch" => "MULTI batch".to_owned(),
            _ => attribute("db.operation.name").to_owned(),
        },
        SpanKind::Client => format!("{} {}", attribute("http.request.method"), attribute("url.template")),
        SpanKind::Producer | SpanKind::Consumer => {
            format!("{} {}", attribute("messaging.operation.name"), attribute("messaging.destination.name"))
        }
        SpanKind::Internal => format!("fold {}", attribute("saga.event")),
        SpanKind::Unspecified => return false,
    };
    span.name == expected
}

/// Who may cause what.
fn is_parent(parent: &Span, span: &Span) -> bool {
    let same_service = parent.service == span.service;
    match span.kind {
        SpanKind::Server => parent.kind == SpanKind::Client && !same_service,
        SpanKind::Client if span.name == "MULTI batch" => parent.name == "MULTI" && same_service,
        // A checkpoint holds sagas, and belongs to the trace that each began in.
        SpanKind::Client if span.name == "MULTI" => {
            matches!(parent.kind, SpanKind::Server | SpanKind::Consumer)
                && (same_service || span.service == "orchestrator")
        }
        SpanKind::Client => parent.kind == SpanKind::Server && same_service,
        // What is sent again after a takeover or a timer rejoins the trace where the saga began it.
        SpanKind::Producer => match parent.kind {
            SpanKind::Server => parent.service == "order-svc",
            SpanKind::Internal | SpanKind::Consumer => same_service,
            _ => false,
        },
        SpanKind::Consumer => {
            parent.kind == SpanKind::Producer
                && parent.attributes.get("messaging.destination.name")
                    == span.attributes.get("messaging.destination.name")
                && parent.attributes.get("saga.id") == span.attributes.get("saga.id")
        }
        SpanKind::Internal => parent.kind == SpanKind::Consumer && same_service,
        SpanKind::Unspecified => false,
    }
}
