//! What the gateway decides, without doing it: which route a request is, and whether it may be sent again.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::contract::{OWN_ROUTES, OwnRoute, ROUTES, Repeat, Route};

/// Why there is no route.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route has this path.
    NotFound,
    /// A route has this path, with this verb.
    WrongVerb {
        /// The verb that it takes.
        allowed: &'static Method,
    },
}

/// Finds the route of a request among those that services serve.
pub fn find_route(method: &Method, path: &str) -> Result<&'static Route, NoRoute> {
    let Some(route) = ROUTES.iter().find(|route| is_match(route.pattern, path)) else { return Err(NoRoute::NotFound) };
    if route.method == *method { Ok(route) } else { Err(NoRoute::WrongVerb { allowed: &route.method }) }
}

/// Finds the route of a request among those that the gateway answers itself.
pub fn find_own_route(method: &Method, path: &str) -> Result<&'static OwnRoute, NoRoute> {
    let Some(route) = OWN_ROUTES.iter().find(|route| route.path == path) else { return Err(NoRoute::NotFound) };
    if *method == Method::GET { Ok(route) } else { Err(NoRoute::WrongVerb { allowed: &Method::GET }) }
}

/// The text in the path that chooses the replica.
pub fn key<'path>(route: &Route, path: &'path str) -> Option<&'path str> {
    path.split('/').nth(route.key_segment? + 1)
}

/// Parameters match any text that is not empty; what it may hold is for the service to say. Bytes that are no text once
/// the percent-encoding is undone name nothing.
fn is_match(pattern: &str, path: &str) -> bool {
    let mut found = path.split('/');
    let all = pattern.split('/').all(|wanted| match found.next() {
        Some(segment) if wanted.starts_with('{') => {
            !segment.is_empty() && percent_decode_str(segment).decode_utf8().is_ok()
        }
        Some(segment) => segment == wanted,
        None => false,
    });
    all && found.next().is_none()
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The replica answered with this status.
    Answered(u16),
    /// The request did not leave the gateway.
    NeverSent,
    /// The request may have been executed, and there is no answer.
    Unknown,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Hand the answer on.
    Answer,
    /// Ask another replica, then, after a pause, all again until the deadline.
    Repeat,
    /// Ask another replica, but wait for nobody.
    RepeatOnce,
    /// Say that the outcome is unknown.
    GiveUp,
}

/// Decides what follows an attempt.
///
/// A 5xx of a replica tells of this replica only (its store is away, its lanes are not loaded, it drains): what may be
/// repeated is. A 504 is an answer, the service's own "undecided", and a read's 500 would be the same everywhere.
/// With `may_have_begun`, an earlier attempt may have been executed: a 429 of the next replica, "nothing was changed",
/// is true of that replica and not of the request.
pub fn next(repeat: Repeat, attempt: Attempt, may_have_begun: bool) -> Next {
    match (repeat, attempt) {
        (Repeat::Joins, Attempt::Answered(429)) if may_have_begun => Next::Repeat,
        (Repeat::Reads, Attempt::Answered(502 | 503)) | (Repeat::Joins, Attempt::Answered(500 | 502 | 503)) => {
            Next::Repeat
        }
        (_, Attempt::Answered(_)) => Next::Answer,
        (Repeat::Reads | Repeat::Joins, Attempt::NeverSent | Attempt::Unknown) => Next::Repeat,
        (Repeat::IfNeverSent, Attempt::NeverSent) => Next::RepeatOnce,
        (Repeat::IfNeverSent, Attempt::Unknown) => Next::GiveUp,
    }
}

/// Whether a request waits for a replica to come back when none answers.
pub fn waits(repeat: Repeat) -> bool {
    match repeat {
        Repeat::Reads | Repeat::Joins => true,
        Repeat::IfNeverSent => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Service;

    #[test]
    fn every_route_of_the_contract_is_found() {
        let found = |method: &Method, path: &str| {
            let route = find_route(method, path).unwrap_or_else(|error| panic!("{path}: {error:?}"));
            (route.service, key(route, path).map(str::to_owned), route.repeat)
        };
        let some = |text: &str| Some(text.to_owned());
        use Repeat::{IfNeverSent, Joins, Reads};
        use Service::{Orders, Payment, Stock};
        let table = [
            ("POST", "/orders/create/u1", (Orders, None, IfNeverSent)),
            ("GET", "/orders/find/o1", (Orders, some("o1"), Reads)),
            ("POST", "/orders/addItem/o1/i1/2", (Orders, some("o1"), IfNeverSent)),
            ("POST", "/orders/checkout/o1", (Orders, some("o1"), Joins)),
            ("POST", "/orders/batch_init/1/2/3/4", (Orders, None, IfNeverSent)),
            ("POST", "/stock/item/create/5", (Stock, None, IfNeverSent)),
            ("GET", "/stock/find/i1", (Stock, some("i1"), Reads)),
            ("POST", "/stock/add/i1/5", (Stock, some("i1"), IfNeverSent)),
            ("POST", "/stock/subtract/i1/5", (Stock, some("i1"), IfNeverSent)),
            ("POST", "/stock/batch_init/1/2/3", (Stock, None, IfNeverSent)),
            ("POST", "/payment/create_user", (Payment, None, IfNeverSent)),
            ("GET", "/payment/find_user/u1", (Payment, some("u1"), Reads)),
            ("POST", "/payment/add_funds/u1/5", (Payment, some("u1"), IfNeverSent)),
            ("POST", "/payment/pay/u1/5", (Payment, some("u1"), IfNeverSent)),
            ("POST", "/payment/batch_init/1/2", (Payment, None, IfNeverSent)),
        ];
        assert_eq!(table.len(), ROUTES.len());
        for (method, path, expected) in table {
            assert_eq!(found(&method.parse().expect("verb"), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn nothing_else_is_a_route() {
        for path in [
            "/",
            "",
            "/orders",
            "/orders/find",
            "/orders/find/",
            "/orders/find/o1/",
            "/orders/find/o1/x",
            "/orders//o1",
            "/internal/ready",
            "/stock/internal/ready",
            "/metrics",
            "/orders/additem/o/i/1",
            "//orders/find/o1",
            "/orders/find/%FF",
            "/orders/find/%C3",
        ] {
            assert_eq!(find_route(&Method::GET, path), Err(NoRoute::NotFound), "{path}");
        }
        let wrong = find_route(&Method::GET, "/orders/checkout/o1");
        assert_eq!(wrong, Err(NoRoute::WrongVerb { allowed: &Method::POST }));
        assert_eq!(find_route(&Method::HEAD, "/stock/find/i"), Err(NoRoute::WrongVerb { allowed: &Method::GET }));
    }

    #[test]
    fn what_is_repeated_and_what_is_not() {
        let table = [
            (Repeat::Reads, Attempt::Answered(200), Next::Answer),
            (Repeat::Reads, Attempt::Answered(404), Next::Answer),
            (Repeat::Reads, Attempt::Answered(500), Next::Answer),
            (Repeat::Reads, Attempt::Answered(503), Next::Repeat),
            (Repeat::Reads, Attempt::NeverSent, Next::Repeat),
            (Repeat::Reads, Attempt::Unknown, Next::Repeat),
            (Repeat::Joins, Attempt::Answered(200), Next::Answer),
            (Repeat::Joins, Attempt::Answered(402), Next::Answer),
            (Repeat::Joins, Attempt::Answered(429), Next::Answer),
            (Repeat::Joins, Attempt::Answered(504), Next::Answer),
            (Repeat::Joins, Attempt::Answered(500), Next::Repeat),
            (Repeat::Joins, Attempt::Answered(503), Next::Repeat),
            (Repeat::Joins, Attempt::NeverSent, Next::Repeat),
            (Repeat::Joins, Attempt::Unknown, Next::Repeat),
            (Repeat::IfNeverSent, Attempt::Answered(200), Next::Answer),
            (Repeat::IfNeverSent, Attempt::Answered(503), Next::Answer),
            (Repeat::IfNeverSent, Attempt::NeverSent, Next::RepeatOnce),
            (Repeat::IfNeverSent, Attempt::Unknown, Next::GiveUp),
        ];
        for (repeat, attempt, expected) in table {
            assert_eq!(next(repeat, attempt, false), expected, "{repeat:?} {attempt:?}");
            let begun = if attempt == Attempt::Answered(429) { Next::Repeat } else { expected };
            assert_eq!(next(repeat, attempt, true), begun, "{repeat:?} {attempt:?}, perhaps begun");
        }
        assert!(waits(Repeat::Reads) && waits(Repeat::Joins) && !waits(Repeat::IfNeverSent));
    }
}
