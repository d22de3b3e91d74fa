//! What the gateway decides, without doing it: which route a request is, and whether it may be sent again.

use http::Method;

/// A service behind the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// order-svc.
    Orders,
    /// stock-svc.
    Stock,
    /// payment-svc.
    Payment,
}

/// When a request may be sent again to another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It reads: as often as wanted.
    Reads,
    /// A checkout: a second one of the same order joins the first.
    Joins,
    /// It acts each time it is executed: only when it was certainly never sent.
    IfNeverSent,
}

/// One route of the public contract.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// Verb.
    pub method: Method,
    /// Path with its parameters, for spans and metrics.
    pub pattern: &'static str,
    /// Who serves it.
    pub service: Service,
    /// Segment of the path (0 is the first) whose text chooses the replica; without one the turns go round.
    pub key_segment: Option<usize>,
    /// When it may be repeated.
    pub repeat: Repeat,
}

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

/// Every route of the public contract.
pub static ROUTES: [Route; 15] = [
    post("/orders/create/{user_id}", Service::Orders, None),
    get("/orders/find/{order_id}", Service::Orders, 2),
    post("/orders/addItem/{order_id}/{item_id}/{quantity}", Service::Orders, Some(2)),
    Route {
        method: Method::POST,
        pattern: "/orders/checkout/{order_id}",
        service: Service::Orders,
        key_segment: Some(2),
        repeat: Repeat::Joins,
    },
    post("/orders/batch_init/{n}/{n_items}/{n_users}/{item_price}", Service::Orders, None),
    post("/stock/item/create/{price}", Service::Stock, None),
    get("/stock/find/{item_id}", Service::Stock, 2),
    post("/stock/add/{item_id}/{amount}", Service::Stock, Some(2)),
    post("/stock/subtract/{item_id}/{amount}", Service::Stock, Some(2)),
    post("/stock/batch_init/{n}/{starting_stock}/{item_price}", Service::Stock, None),
    post("/payment/create_user", Service::Payment, None),
    get("/payment/find_user/{user_id}", Service::Payment, 2),
    post("/payment/add_funds/{user_id}/{amount}", Service::Payment, Some(2)),
    post("/payment/pay/{user_id}/{amount}", Service::Payment, Some(2)),
    post("/payment/batch_init/{n}/{starting_money}", Service::Payment, None),
];

const fn get(pattern: &'static str, service: Service, key_segment: usize) -> Route {
    Route { method: Method::GET, pattern, service, key_segment: Some(key_segment), repeat: Repeat::Reads }
}

const fn post(pattern: &'static str, service: Service, key_segment: Option<usize>) -> Route {
    Route { method: Method::POST, pattern, service, key_segment, repeat: Repeat::IfNeverSent }
}

/// Finds the route of a request.
pub fn find_route(method: &Method, path: &str) -> Result<&'static Route, NoRoute> {
    let Some(route) = ROUTES.iter().find(|route| is_match(route.pattern, path)) else { return Err(NoRoute::NotFound) };
    if route.method == *method { Ok(route) } else { Err(NoRoute::WrongVerb { allowed: &route.method }) }
}

/// The text in the path that chooses the replica.
pub fn key<'path>(route: &Route, path: &'path str) -> Option<&'path str> {
    path.split('/').nth(route.key_segment? + 1)
}

/// Parameters match any text that is not empty; what it may hold is for the service to say.
fn is_match(pattern: &str, path: &str) -> bool {
    let mut found = path.split('/');
    let all = pattern.split('/').all(|wanted| match found.next() {
        Some(segment) if wanted.starts_with('{') => !segment.is_empty(),
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
pub fn next(repeat: Repeat, attempt: Attempt) -> Next {
    match (repeat, attempt) {
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
            assert_eq!(next(repeat, attempt), expected, "{repeat:?} {attempt:?}");
        }
        assert!(waits(Repeat::Reads) && waits(Repeat::Joins) && !waits(Repeat::IfNeverSent));
    }
}
