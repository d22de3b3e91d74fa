//! What each route takes and answers. The bounds are the constants that the services check with.

use service_kit::params::{MAX_AMOUNT, MAX_BATCH_ROWS};

use super::{Operation, Parameter, ParameterKind, Refusal, Shape, Success};

/// Any amount.
const ANY_AMOUNT: ParameterKind = ParameterKind::Whole { min: 0, max: MAX_AMOUNT };

const ORDER_ID: Parameter = Parameter { name: "order_id", meaning: "An order.", kind: ParameterKind::Id };
const ITEM_ID: Parameter = Parameter { name: "item_id", meaning: "An item.", kind: ParameterKind::Id };
const USER_ID: Parameter = Parameter { name: "user_id", meaning: "A user.", kind: ParameterKind::Id };
const AMOUNT: Parameter = Parameter { name: "amount", meaning: "How much.", kind: ANY_AMOUNT };
const QUANTITY: Parameter =
    Parameter { name: "quantity", meaning: "How many.", kind: ParameterKind::Whole { min: 1, max: MAX_AMOUNT } };
const PRICE: Parameter = Parameter { name: "price", meaning: "What one costs.", kind: ANY_AMOUNT };
const N: Parameter = Parameter {
    name: "n",
    meaning: "How many to write: the ids 0 to n - 1.",
    kind: ParameterKind::Whole { min: 0, max: MAX_BATCH_ROWS },
};

const NO_ORDER: Refusal = Refusal { status: 404, kinds: &["order-not-found"], when: "There is no such order." };
const NO_ITEM: Refusal = Refusal { status: 404, kinds: &["item-not-found"], when: "There is no such item." };
const NO_USER: Refusal = Refusal { status: 404, kinds: &["user-not-found"], when: "There is no such user." };
const NOT_A_NUMBER: Refusal =
    Refusal { status: 422, kinds: &["invalid-parameter"], when: "A number is none, or out of its range." };
const BATCH_OFF: Refusal = Refusal { status: 403, kinds: &["batch-init-off"], when: "`batch_init` is switched off." };

/// `POST /orders/create/{user_id}`
pub const CREATE_ORDER: Operation = Operation {
    id: "createOrder",
    summary: "Make an order",
    details: "The order is open and has no lines. Whether the user exists is asked at checkout.",
    parameters: &[USER_ID],
    success: Success::Json(Shape::NewOrder),
    refusals: &[Refusal { status: 404, kinds: &["user-not-found"], when: "No user can have this id." }],
};

/// `GET /orders/find/{order_id}`
pub const FIND_ORDER: Operation = Operation {
    id: "findOrder",
    summary: "Read an order",
    details: "",
    parameters: &[ORDER_ID],
    success: Success::Json(Shape::Order),
    refusals: &[NO_ORDER],
};

/// `POST /orders/addItem/{order_id}/{item_id}/{quantity}`
pub const ADD_ITEM: Operation = Operation {
    id: "addItem",
    summary: "Add a line to an order",
    details: "The price is that of this moment. Two lines with the same item are both listed and added up at checkout.",
    parameters: &[ORDER_ID, ITEM_ID, QUANTITY],
    success: Success::Text("added to order 0 at a price of 5 each\n"),
    refusals: &[
        NO_ORDER,
        NO_ITEM,
        Refusal {
            status: 409,
            kinds: &["order-not-open"],
            when: "The order is being checked out or paid; in the first case `saga_id` names the saga at work.",
        },
        NOT_A_NUMBER,
        Refusal {
            status: 422,
            kinds: &["too-many-lines", "amount-too-large"],
            when: "The order has 1 000 lines, or its sums would be above 2^53 - 1.",
        },
        Refusal { status: 503, kinds: &["stock-unavailable"], when: "The price cannot be asked for." },
    ],
};

/// `POST /orders/checkout/{order_id}`
pub const CHECKOUT: Operation = Operation {
    id: "checkout",
    summary: "Check an order out",
    details: "Answers 200 when the order is paid: stock and credit are taken. A 4xx is final for this attempt: everything \
              that was done is undone, the order is open again and can be edited and checked out anew. A second checkout \
              of the same order joins the first and gets the same answer. An order without lines is paid for nothing.",
    parameters: &[ORDER_ID],
    success: Success::Text("the order is paid, its stock and credit are taken\n"),
    refusals: &[
        Refusal { status: 402, kinds: &["insufficient-credit"], when: "The user has too little credit." },
        Refusal {
            status: 404,
            kinds: &["order-not-found", "item-not-found", "user-not-found"],
            when: "There is no such order, or its user or one of its items does not exist.",
        },
        Refusal {
            status: 409,
            kinds: &[
                "out-of-stock",
                "checkout-timed-out",
                "checkout-cancelled",
                "checkout-invalid",
                "checkout-refused",
            ],
            when: "There is too little of an item, or the checkout ended for the reason that `type` names.",
        },
        Refusal {
            status: 504,
            kinds: &["undecided", "checkout-undecided"],
            when: "Nobody knows yet. A checkout that has begun goes on; `Location` names the order, which shows how it ends.",
        },
    ],
};

/// `POST /orders/batch_init/{n}/{n_items}/{n_users}/{item_price}`
pub const BATCH_ORDERS: Operation = Operation {
    id: "batchInitOrders",
    summary: "Write many orders",
    details: "Each order belongs to a random user below `n_users` and has two lines of one random item below `n_items` \
              each. What was there under these ids is replaced. For load tests.",
    parameters: &[
        N,
        Parameter { name: "n_items", meaning: "Items to choose from; at least 1 unless n is 0.", kind: ANY_AMOUNT },
        Parameter { name: "n_users", meaning: "Users to choose from; at least 1 unless n is 0.", kind: ANY_AMOUNT },
        Parameter {
            name: "item_price",
            meaning: "What one item costs.",
            kind: ParameterKind::Whole { min: 0, max: MAX_AMOUNT / 2 },
        },
    ],
    success: Success::Json(Shape::Message),
    refusals: &[BATCH_OFF, NOT_A_NUMBER],
};

/// `POST /stock/item/create/{price}`
pub const CREATE_ITEM: Operation = Operation {
    id: "createItem",
    summary: "Make an item",
    details: "Its stock is 0.",
    parameters: &[PRICE],
    success: Success::Json(Shape::NewItem),
    refusals: &[NOT_A_NUMBER],
};

/// `GET /stock/find/{item_id}`
pub const FIND_ITEM: Operation = Operation {
    id: "findItem",
    summary: "Read an item",
    details: "",
    parameters: &[ITEM_ID],
    success: Success::Json(Shape::Item),
    refusals: &[NO_ITEM],
};

/// `POST /stock/add/{item_id}/{amount}`
pub const ADD_STOCK: Operation = Operation {
    id: "addStock",
    summary: "Add to the stock of an item",
    details: "",
    parameters: &[ITEM_ID, AMOUNT],
    success: Success::Text("item 0 now has a stock of 10\n"),
    refusals: &[
        NO_ITEM,
        NOT_A_NUMBER,
        Refusal { status: 422, kinds: &["amount-too-large"], when: "The stock would be above 2^53 - 1." },
    ],
};

/// `POST /stock/subtract/{item_id}/{amount}`
pub const SUBTRACT_STOCK: Operation = Operation {
    id: "subtractStock",
    summary: "Take from the stock of an item",
    details: "",
    parameters: &[ITEM_ID, AMOUNT],
    success: Success::Text("item 0 now has a stock of 8\n"),
    refusals: &[
        NO_ITEM,
        Refusal { status: 409, kinds: &["out-of-stock"], when: "The stock would go below zero." },
        NOT_A_NUMBER,
    ],
};

/// `POST /stock/batch_init/{n}/{starting_stock}/{item_price}`
pub const BATCH_ITEMS: Operation = Operation {
    id: "batchInitItems",
    summary: "Write many items",
    details: "What was there under these ids is replaced. For load tests.",
    parameters: &[
        N,
        Parameter { name: "starting_stock", meaning: "The stock of each.", kind: ANY_AMOUNT },
        Parameter { name: "item_price", meaning: "What each costs.", kind: ANY_AMOUNT },
    ],
    success: Success::Json(Shape::Message),
    refusals: &[BATCH_OFF, NOT_A_NUMBER],
};

/// `POST /payment/create_user`
pub const CREATE_USER: Operation = Operation {
    id: "createUser",
    summary: "Make a user",
    details: "The user has a credit of 0.",
    parameters: &[],
    success: Success::Json(Shape::NewUser),
    refusals: &[],
};

/// `GET /payment/find_user/{user_id}`
pub const FIND_USER: Operation = Operation {
    id: "findUser",
    summary: "Read a user",
    details: "",
    parameters: &[USER_ID],
    success: Success::Json(Shape::User),
    refusals: &[NO_USER],
};

/// `POST /payment/add_funds/{user_id}/{amount}`
pub const ADD_FUNDS: Operation = Operation {
    id: "addFunds",
    summary: "Add to the credit of a user",
    details: "",
    parameters: &[USER_ID, AMOUNT],
    success: Success::Text("user 0 now has a credit of 100\n"),
    refusals: &[
        NO_USER,
        NOT_A_NUMBER,
        Refusal { status: 422, kinds: &["amount-too-large"], when: "The credit would be above 2^53 - 1." },
    ],
};

/// `POST /payment/pay/{user_id}/{amount}`
pub const PAY: Operation = Operation {
    id: "pay",
    summary: "Take from the credit of a user",
    details: "",
    parameters: &[USER_ID, AMOUNT],
    success: Success::Text("user 0 now has a credit of 90\n"),
    refusals: &[
        Refusal { status: 402, kinds: &["insufficient-credit"], when: "The credit would go below zero." },
        NO_USER,
        NOT_A_NUMBER,
    ],
};

/// `POST /payment/batch_init/{n}/{starting_money}`
pub const BATCH_USERS: Operation = Operation {
    id: "batchInitUsers",
    summary: "Write many users",
    details: "What was there under these ids is replaced. For load tests.",
    parameters: &[N, Parameter { name: "starting_money", meaning: "The credit of each.", kind: ANY_AMOUNT }],
    success: Success::Json(Shape::Message),
    refusals: &[BATCH_OFF, NOT_A_NUMBER],
};

/// `GET /openapi.json`
pub const DOCUMENT: Operation = Operation {
    id: "openApiDocument",
    summary: "This document",
    details: "Made from the table by which the gateway routes requests.",
    parameters: &[],
    success: Success::Json(Shape::Document),
    refusals: &[],
};

/// `GET /docs`
pub const REFERENCE: Operation = Operation {
    id: "reference",
    summary: "This document for people",
    details: "A page that shows every route and can send requests to it.",
    parameters: &[],
    success: Success::Other("text/html"),
    refusals: &[],
};

/// `GET /docs/style.css`
pub const STYLE: Operation = Operation {
    id: "referenceStyle",
    summary: "The style sheet of the page",
    details: "",
    parameters: &[],
    success: Success::Other("text/css"),
    refusals: &[],
};

/// `GET /docs/script.js`
pub const SCRIPT: Operation = Operation {
    id: "referenceScript",
    summary: "The script of the page",
    details: "",
    parameters: &[],
    success: Success::Other("text/javascript"),
    refusals: &[],
};
