//! The OpenAPI document and its page, over real HTTP and against the table that routes requests.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use gateway::Gateway;
use gateway::contract::{OWN_ROUTES, ROUTES};
use gateway::decide::{find_own_route, find_route};
use gateway::openapi::document;
use gateway::settings::Settings;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use service_kit::client::{Outgoing, UpstreamClient};
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);
/// Every value that a parameter may have matches some route; this one is an id and a number.
const SAMPLE: &str = "1";

/// Verb, path and operation of everything in the document.
fn operations() -> Vec<(Method, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().expect("paths");
    let of_path = |(path, verbs): (&'static String, &'static Value)| {
        let verbs = verbs.as_object().expect("verbs");
        let verb = move |(verb, operation): (&String, &'static Value)| {
            (verb.to_ascii_uppercase().parse().expect("a verb"), path.as_str(), operation)
        };
        verbs.iter().map(verb).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// Names between braces, in their order.
fn names(pattern: &str) -> Vec<&str> {
    pattern.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
}

fn sample(pattern: &str) -> String {
    names(pattern).iter().fold(pattern.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), SAMPLE))
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

#[test]
fn every_route_is_in_the_document() {
    let documented: BTreeSet<(String, &str)> =
        operations().into_iter().map(|(verb, path, _)| (verb.to_string(), path)).collect();
    let own = OWN_ROUTES.iter().map(|route| ("GET".to_owned(), route.path));
    let routed: BTreeSet<(String, &str)> =
        ROUTES.iter().map(|route| (route.method.to_string(), route.pattern)).chain(own).collect();
    assert_eq!(routed, documented);
    assert_eq!(routed.len(), ROUTES.len() + OWN_ROUTES.len(), "no route is there twice");
}

#[test]
fn everything_in_the_document_is_routed() {
    for (verb, path, _) in operations() {
        let sample = sample(path);
        let routed = find_route(&verb, &sample).map(|route| route.pattern);
        let own = find_own_route(&verb, &sample).map(|route| route.path);
        assert_eq!(routed.or(own), Ok(path), "{verb} {sample}");
    }
}

#[test]
fn the_document_has_the_structure_of_openapi_3_1() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let tags: BTreeSet<_> =
        document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).map(Value::to_string).collect();
    let mut ids = BTreeSet::new();
    for (verb, path, operation) in operations() {
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{verb} {path}: its id is not unique");
        assert!(tags.contains(&operation["tags"][0].to_string()), "{verb} {path}: its tag is not declared");
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let declared: Vec<_> = in_path.filter_map(|parameter| parameter["name"].as_str()).collect();
        assert_eq!(declared, names(path), "{verb} {path}");
        for parameter in parameters {
            assert_eq!(parameter["required"], parameter["in"] == "path", "{path}");
            assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{parameter}");
        }
        for (status, response) in object(&operation["responses"]) {
            assert!((200..600).contains(&status.parse::<u16>().expect("a status")), "{path}: {status}");
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{path} {status}");
            for (media_type, content) in object(&response["content"]) {
                assert!(content["schema"].is_object(), "{path} {status} {media_type}");
                assert!(status == "200" || media_type == "application/problem+json", "{path} {status} {media_type}");
            }
        }
    }
}

/// Every `$ref` below a value.
fn references<'value>(value: &'value Value, found: &mut Vec<&'value str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let mut found = Vec::new();
    references(document(), &mut found);
    let found: BTreeSet<&str> = found.into_iter().collect();
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("a reference into the document");
        assert!(document().pointer(pointer).is_some_and(Value::is_object), "{reference}");
    }
    let schemas = object(&document()["components"]["schemas"]).keys();
    let schemas: Vec<String> = schemas.map(|name| format!("#/components/schemas/{name}")).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), schemas);
}

#[test]
fn overload_and_doubt_say_what_to_do_next() {
    for route in &ROUTES {
        let operation = &document()["paths"][route.pattern][route.method.as_str().to_ascii_lowercase()];
        let overloaded = &operation["responses"]["429"]["headers"]["Retry-After"];
        assert_eq!(overloaded["required"], true, "{}", route.pattern);
        let undecided = &operation["responses"]["504"];
        assert_eq!(undecided.is_object(), route.pattern.starts_with("/orders/checkout/"), "{}", route.pattern);
        assert!(undecided.is_null() || undecided["headers"]["Location"]["required"] == true);
    }
}

#[test]
fn every_post_takes_an_idempotency_key_and_nothing_else_does() {
    for (verb, path, operation) in operations() {
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let key = parameters.iter().find(|parameter| parameter["name"] == "Idempotency-Key");
        assert_eq!(key.is_some(), verb == Method::POST, "{verb} {path}");
        let answers = &operation["responses"];
        let said = |status: &str, kind: &str| {
            let kinds = answers[status]["content"]["application/problem+json"]["schema"]["properties"]["type"]["enum"]
                .as_array()
                .map(Vec::as_slice);
            kinds.unwrap_or_default().contains(&Value::from(format!("/problems/{kind}")))
        };
        for (status, kind) in [
            ("400", "idempotency-key-invalid"),
            ("422", "idempotency-key-reused"),
            ("429", "too-many-idempotency-keys"),
        ] {
            assert_eq!(said(status, kind), key.is_some(), "{verb} {path}: {kind}");
        }
        let may_be_replayed = |status: &str| answers[status]["headers"]["Idempotent-Replayed"].is_object();
        assert_eq!(may_be_replayed("200"), key.is_some(), "{verb} {path}");
        assert!(!may_be_replayed("429") && !may_be_replayed("503"), "what may change is not kept: {path}");
    }
}

struct Served {
    gateway: Gateway,
    client: UpstreamClient,
    shutdown: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Served {
    async fn start() -> Self {
        let shutdown = CancellationToken::new();
        let settings = Settings::try_parse_from(["gateway"]).expect("settings");
        let gateway = Gateway::start(settings, shutdown.clone()).await.expect("started");
        Self { gateway, client: UpstreamClient::new(), shutdown }
    }

    async fn ask(&self, method: Method, path: &str) -> (u16, HeaderMap, String) {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let outgoing = Outgoing { method, path: path.parse().expect("path"), headers, body };
        let answer = self.client.request(self.gateway.address, &outgoing, WAIT).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).expect("text"))
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let served = Served::start().await;
    let (status, headers, body) = served.ask(Method::GET, "/openapi.json").await;
    assert_eq!((status, &headers["content-type"]), (200, &"application/json".parse().unwrap()));
    assert_eq!(serde_json::from_str::<Value>(&body).expect("json"), *document());
    let (status, headers, body) = served.ask(Method::POST, "/openapi.json").await;
    assert_eq!((status, &headers["allow"]), (405, &"GET".parse().unwrap()));
    assert!(body.contains("/problems/wrong-verb"), "{body}");
}

#[tokio::test]
async fn the_page_shows_every_route_and_loads_nothing_from_elsewhere() {
    let served = Served::start().await;
    let (status, headers, page) = served.ask(Method::GET, "/docs").await;
    assert_eq!((status, &headers["content-type"]), (200, &"text/html; charset=utf-8".parse().unwrap()));
    let policy = headers["content-security-policy"].to_str().expect("text");
    for directive in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
    for (verb, path, operation) in operations() {
        let form = format!("<form data-method=\"{verb}\" data-path=\"{path}\">");
        assert!(page.contains(&form), "{verb} {path}");
        assert!(page.contains(operation["summary"].as_str().expect("a summary")), "{verb} {path}");
    }
    assert!(
        !page.contains("//") && !page.contains("onclick") && !page.contains("style="),
        "only what the policy allows"
    );
    let assets = page.split("href=\"").chain(page.split("src=\"")).skip(1).filter_map(|rest| rest.split('"').next());
    let mut seen = 0;
    for asset in assets.filter(|asset| asset.starts_with('/')) {
        let (status, headers, body) = served.ask(Method::GET, asset).await;
        assert_eq!(status, 200, "{asset}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!body.is_empty(), "{asset}");
        seen += 1;
    }
    assert!(seen >= 3, "the document, the style sheet and the script");
}

#[tokio::test]
async fn what_the_document_does_not_know_is_no_route() {
    let served = Served::start().await;
    for path in ["/docs/", "/docs/other.css", "/openapi.yaml", "/openapi.json/"] {
        assert_eq!(served.ask(Method::GET, path).await.0, 404, "{path}");
    }
}
