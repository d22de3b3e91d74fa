//! Every problem that is written down in the sources of the services is in the OpenAPI document, also those that no test
//! brings about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gateway::openapi::document;
use serde_json::Value;

/// Where answers to clients are made.
const SOURCES: [&str; 6] = [
    "order-svc/src",
    "stock-svc/src",
    "payment-svc/src",
    "gateway/src",
    "crates/rest-kit/src",
    "crates/service-kit/src",
];

/// What no operation of the document answers, and why.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("404", "no-such-route", "it is no path of the document"),
    ("405", "wrong-verb", "it is no verb of the document"),
    ("404", "not-found", "the gateway has refused a path that is no text before"),
    ("503", "not-ready", "only a checkout is answered so, and the gateway repeats it until it can say `undecided`"),
];

/// Status and kind of a problem.
type Found = BTreeSet<(String, String)>;

#[test]
fn every_problem_of_the_sources_is_in_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut written = Found::new();
    for folder in SOURCES {
        files(&root.join(folder)).iter().for_each(|file| read(file, &mut written));
    }
    assert!(written.len() > 20, "they are found at all: {written:?}");
    let documented = documented();
    let elsewhere: Found =
        ELSEWHERE.iter().map(|(status, kind, _)| ((*status).to_owned(), (*kind).to_owned())).collect();
    let missing: Vec<_> = written.difference(&documented).filter(|problem| !elsewhere.contains(*problem)).collect();
    assert!(missing.is_empty(), "gateway/src/contract/operations.rs or openapi.rs must name them: {missing:?}");
    let needless: Vec<_> = elsewhere.iter().filter(|problem| !written.contains(*problem)).collect();
    assert!(needless.is_empty(), "nobody answers this any more: {needless:?}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Finds `(409, "some-kind"`, the way in which all of them are written, in front of a file's tests.
fn read(file: &Path, found: &mut Found) {
    if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("tests.rs") {
        return;
    }
    let text = fs::read_to_string(file).expect("a source file");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for after in code.split('(').skip(1) {
        let mut parts = after.splitn(3, [',', '"']).map(str::trim);
        let (Some(status), Some(""), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let kind = rest.split('"').next().unwrap_or_default();
        if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) {
            found.insert((status.to_owned(), kind.to_owned()));
        }
    }
}

fn documented() -> Found {
    let mut found = Found::new();
    for operation in document()["paths"].as_object().into_iter().flatten().flat_map(|(_, verbs)| verbs.as_object()) {
        for (status, answer) in operation.values().filter_map(|operation| operation["responses"].as_object()).flatten()
        {
            let kinds = &answer["content"]["application/problem+json"]["schema"]["properties"]["type"]["enum"];
            let kinds = kinds.as_array().into_iter().flatten().filter_map(Value::as_str);
            let kinds = kinds.filter_map(|kind| kind.strip_prefix("/problems/"));
            found.extend(kinds.map(|kind| (status.clone(), kind.to_owned())));
        }
    }
    found
}
