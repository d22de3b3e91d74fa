use super::*;

/// The document has one line per invariant, "- `id`: sentence", in the same order.
#[test]
fn the_document_says_the_same() {
    let document = include_str!("../../../../docs/invariants.md");
    let listed: Vec<&str> = document.lines().filter(|line| line.starts_with("- `")).collect();
    let expected: Vec<String> =
        Invariant::ALL.iter().map(|invariant| format!("- `{}`: {}", invariant.id(), invariant.sentence())).collect();
    assert_eq!(listed, expected);
}
