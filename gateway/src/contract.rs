//! The public contract: every route with what it takes and what it answers. Requests are routed by this table, and the
//! OpenAPI document and its page are made from it, so none of them can know a route that another does not.
//!
//! A route without documentation does not compile: [`Route::doc`] is a field like any other,
//!
//! ```compile_fail
//! # use gateway::contract::{Repeat, Route, Service};
//! static UNDOCUMENTED: Route = Route {
//!     method: http::Method::GET,
//!     pattern: "/orders/find/{order_id}",
//!     service: Service::Orders,
//!     key_segment: Some(2),
//!     repeat: Repeat::Reads,
//! };
//! ```
//!
//! and the parameters in its pattern must be those of its documentation, in the same order:
//!
//! ```compile_fail
//! # use gateway::contract::{Repeat, Route, Service, operations};
//! static MISMATCHED: Route = Route {
//!     method: http::Method::GET,
//!     pattern: "/orders/find/{order_id}/{line}",
//!     service: Service::Orders,
//!     key_segment: Some(2),
//!     repeat: Repeat::Reads,
//!     doc: operations::FIND_ORDER,
//! };
//! const _: () = MISMATCHED.doc.assert_fits(MISMATCHED.pattern);
//! ```
//!
//! This one is as it must be:
//!
//! ```
//! # use gateway::contract::{Repeat, Route, Service, operations};
//! static FINE: Route = Route {
//!     method: http::Method::GET,
//!     pattern: "/orders/find/{order_id}",
//!     service: Service::Orders,
//!     key_segment: Some(2),
//!     repeat: Repeat::Reads,
//!     doc: operations::FIND_ORDER,
//! };
//! const _: () = FINE.doc.assert_fits(FINE.pattern);
//! ```

pub mod operations;

use http::Method;

use operations as op;

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

/// One route that a service serves.
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
    /// What it takes and answers.
    pub doc: Operation,
}

/// One route that the gateway answers itself; always a GET without parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnRoute {
    /// Its path.
    pub path: &'static str,
    /// What is behind it.
    pub page: Page,
    /// What it answers.
    pub doc: Operation,
}

/// What the gateway has to show of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The OpenAPI document.
    Document,
    /// The page that renders it.
    Reference,
    /// The page's style sheet.
    Style,
    /// The page's script.
    Script,
}

/// What a route takes and answers, as the OpenAPI document says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// A unique name, which generated clients call their function.
    pub id: &'static str,
    /// A few words.
    pub summary: &'static str,
    /// What one has to know to use it.
    pub details: &'static str,
    /// The parameters of the path, in its order.
    pub parameters: &'static [Parameter],
    /// The body of the 200.
    pub success: Success,
    /// The refusals of this route; those of every route are added by the document.
    pub refusals: &'static [Refusal],
}

/// A parameter of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the pattern.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What it may be.
    pub kind: ParameterKind,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// The name of an order, an item or a user.
    Id,
    /// A whole number.
    Whole {
        /// The smallest that is taken.
        min: u64,
        /// The largest that is taken.
        max: u64,
    },
}

/// The body of a 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// A sentence for people, like this one.
    Text(&'static str),
    /// JSON.
    Json(Shape),
    /// Another media type.
    Other(&'static str),
}

/// The JSON bodies of 200s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// The id of a new order.
    NewOrder,
    /// An order.
    Order,
    /// The id of a new item.
    NewItem,
    /// An item.
    Item,
    /// The id of a new user.
    NewUser,
    /// A user.
    User,
    /// What a `batch_init` says.
    Message,
    /// The OpenAPI document itself.
    Document,
}

/// An answer that is no 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The problem's `type` is `/problems/` and one of these.
    pub kinds: &'static [&'static str],
    /// When it is given.
    pub when: &'static str,
}

/// Every route that a service serves.
pub static ROUTES: [Route; 15] = [
    post("/orders/create/{user_id}", Service::Orders, None, op::CREATE_ORDER),
    get("/orders/find/{order_id}", Service::Orders, 2, op::FIND_ORDER),
    post("/orders/addItem/{order_id}/{item_id}/{quantity}", Service::Orders, Some(2), op::ADD_ITEM),
    Route {
        method: Method::POST,
        pattern: "/orders/checkout/{order_id}",
        service: Service::Orders,
        key_segment: Some(2),
        repeat: Repeat::Joins,
        doc: op::CHECKOUT,
    },
    post("/orders/batch_init/{n}/{n_items}/{n_users}/{item_price}", Service::Orders, None, op::BATCH_ORDERS),
    post("/stock/item/create/{price}", Service::Stock, None, op::CREATE_ITEM),
    get("/stock/find/{item_id}", Service::Stock, 2, op::FIND_ITEM),
    post("/stock/add/{item_id}/{amount}", Service::Stock, Some(2), op::ADD_STOCK),
    post("/stock/subtract/{item_id}/{amount}", Service::Stock, Some(2), op::SUBTRACT_STOCK),
    post("/stock/batch_init/{n}/{starting_stock}/{item_price}", Service::Stock, None, op::BATCH_ITEMS),
    post("/payment/create_user", Service::Payment, None, op::CREATE_USER),
    get("/payment/find_user/{user_id}", Service::Payment, 2, op::FIND_USER),
    post("/payment/add_funds/{user_id}/{amount}", Service::Payment, Some(2), op::ADD_FUNDS),
    post("/payment/pay/{user_id}/{amount}", Service::Payment, Some(2), op::PAY),
    post("/payment/batch_init/{n}/{starting_money}", Service::Payment, None, op::BATCH_USERS),
];

/// Every route that the gateway answers itself.
pub static OWN_ROUTES: [OwnRoute; 4] = [
    OwnRoute { path: "/openapi.json", page: Page::Document, doc: op::DOCUMENT },
    OwnRoute { path: "/docs", page: Page::Reference, doc: op::REFERENCE },
    OwnRoute { path: "/docs/style.css", page: Page::Style, doc: op::STYLE },
    OwnRoute { path: "/docs/script.js", page: Page::Script, doc: op::SCRIPT },
];

const _: () = {
    let mut index = 0;
    while index < ROUTES.len() {
        ROUTES[index].doc.assert_fits(ROUTES[index].pattern);
        index += 1;
    }
    let mut index = 0;
    while index < OWN_ROUTES.len() {
        OWN_ROUTES[index].doc.assert_fits(OWN_ROUTES[index].path);
        index += 1;
    }
};

const fn get(pattern: &'static str, service: Service, key_segment: usize, doc: Operation) -> Route {
    Route { method: Method::GET, pattern, service, key_segment: Some(key_segment), repeat: Repeat::Reads, doc }
}

const fn post(pattern: &'static str, service: Service, key_segment: Option<usize>, doc: Operation) -> Route {
    Route { method: Method::POST, pattern, service, key_segment, repeat: Repeat::IfNeverSent, doc }
}

impl Operation {
    /// Stops the build unless the operation has a name and a summary and its parameters are those of the pattern, in the
    /// same order.
    pub const fn assert_fits(&self, pattern: &str) {
        assert!(!self.id.is_empty() && !self.summary.is_empty(), "a route has no name or no summary");
        let text = pattern.as_bytes();
        let (mut at, mut found) = (0, 0);
        while at < text.len() {
            if text[at] == b'{' {
                assert!(found < self.parameters.len(), "a parameter of a path is not documented");
                let name = self.parameters[found].name.as_bytes();
                assert!(is_at(text, at + 1, name), "a parameter of a path is documented by another name");
                at += name.len();
                found += 1;
            }
            at += 1;
        }
        assert!(found == self.parameters.len(), "a documented parameter is not in the path");
    }
}

/// Whether `name` and a closing brace stand at `start`.
const fn is_at(text: &[u8], start: usize, name: &[u8]) -> bool {
    let mut index = 0;
    while index < name.len() {
        if start + index >= text.len() || text[start + index] != name[index] {
            return false;
        }
        index += 1;
    }
    start + index < text.len() && text[start + index] == b'}'
}
