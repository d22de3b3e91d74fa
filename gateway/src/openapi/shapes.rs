//! The JSON bodies as schemas.

use serde_json::{Value, json};
use service_kit::params::MAX_AMOUNT;

use super::schema_named;
use crate::contract::Shape;

impl Shape {
    /// The name of its schema.
    pub fn name(self) -> &'static str {
        match self {
            Shape::NewOrder => "NewOrder",
            Shape::Order => "Order",
            Shape::NewItem => "NewItem",
            Shape::Item => "Item",
            Shape::NewUser => "NewUser",
            Shape::User => "User",
            Shape::Message => "Message",
            Shape::Document => "Document",
        }
    }

    /// Its JSON Schema.
    pub fn schema(self) -> Value {
        match self {
            Shape::NewOrder => object(&json!({ "order_id": schema_named("Id") }), &["order_id"]),
            Shape::Order => order(),
            Shape::NewItem => object(&json!({ "item_id": schema_named("Id") }), &["item_id"]),
            Shape::Item => object(&json!({ "stock": amount(), "price": amount() }), &["stock", "price"]),
            Shape::NewUser => object(&json!({ "user_id": schema_named("Id") }), &["user_id"]),
            Shape::User => {
                object(&json!({ "user_id": schema_named("Id"), "credit": amount() }), &["user_id", "credit"])
            }
            Shape::Message => object(&json!({ "msg": { "type": "string" } }), &["msg"]),
            Shape::Document => object(
                &json!({ "openapi": { "type": "string" }, "info": { "type": "object" }, "paths": { "type": "object" } }),
                &["openapi", "info", "paths"],
            ),
        }
    }
}

fn order() -> Value {
    let attempt = json!({
        "saga_id": saga_id(),
        "outcome": {
            "enum": ["paid", "refused", "timed_out", "invalid", "cancelled"],
            "description": "How the saga ended; all but `paid` mean that everything was undone.",
        },
        "code": { "type": "string", "description": "The refusal in one word." },
        "reason": { "type": "string", "description": "The refusal in a sentence for people." },
    });
    let line = json!({
        "type": "array",
        "description": "The item's id and the quantity.",
        "prefixItems": [schema_named("Id"), amount()],
        "items": false,
        "minItems": 2,
    });
    let properties = json!({
        "order_id": schema_named("Id"),
        "user_id": schema_named("Id"),
        "paid": { "type": "boolean" },
        "items": { "type": "array", "description": "The lines in the order they were added.", "items": line },
        "total_cost": amount(),
        "status": {
            "enum": ["open", "checking_out", "undoing", "paid"],
            "description": "`undoing`: the checkout was refused, and what it took is being given back.",
        },
        "saga_id": saga_id(),
        "attempts": {
            "type": "array",
            "description": "The last sagas of this order that have ended, oldest first.",
            "items": object(&attempt, &["saga_id", "outcome"]),
            "maxItems": 8,
        },
    });
    object(&properties, &["order_id", "user_id", "paid", "items", "total_cost", "status", "attempts"])
}

/// An error answer.
pub(super) fn problem() -> Value {
    let properties = json!({
        "type": { "type": "string", "pattern": "^/problems/[a-z-]+$", "description": "What programs look at." },
        "title": { "type": "string" },
        "status": { "type": "integer", "description": "The HTTP status." },
        "detail": { "type": "string", "description": "A sentence for people." },
        "saga_id": saga_id(),
    });
    object(&properties, &["type", "title", "status", "detail"])
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn amount() -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_AMOUNT })
}

fn saga_id() -> Value {
    json!({ "type": "string", "format": "uuid", "description": "The saga at work, or the last one." })
}
