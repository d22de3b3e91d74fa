use std::fmt::Write as _;

use super::*;

const CHECKOUT: &str = include_str!("../../../../definitions/checkout.yaml");
const PARALLEL: &str = include_str!("../../../../definitions/checkout-parallel.yaml");

/// A head that is right, so that the steps of a case begin on line 5.
const HEAD: &str = "name: plan\nversion: 1\ndeadline_ms: 1000\nsteps:\n";

fn error_of(text: &str) -> String {
    match Definition::parse("plan.yaml", text) {
        Ok(definition) => panic!("parsed: {definition:?}"),
        Err(error) => error.to_string(),
    }
}

fn step_error(steps: &str) -> String {
    error_of(&format!("{HEAD}{steps}"))
}

#[test]
fn reads_the_definitions_of_the_shop() {
    let checkout = Definition::parse("checkout.yaml", CHECKOUT).expect("is right");
    assert_eq!(checkout.id.to_string(), "checkout v1");
    assert_eq!(checkout.text.as_ref(), CHECKOUT);
    assert_eq!(checkout.hash, DefinitionHash::of(CHECKOUT));
    assert_eq!(checkout.deadline_ms, 20_000);
    assert_eq!(checkout.pivot, None);
    let [reserve, charge] = checkout.steps.as_slice() else {
        panic!("two steps: {:?}", checkout.steps);
    };
    assert_eq!((reserve.operation.as_str(), reserve.participant.as_ref()), ("reserve", "stock"));
    assert_eq!((charge.operation.as_str(), charge.participant.as_ref()), ("charge", "payment"));
    assert!(charge.after.contains(0) && reserve.descendants.contains(1) && reserve.after.is_empty());
    assert_eq!(checkout.check_participants("checkout.yaml", &["stock", "payment"]), Ok(()));

    let parallel = Definition::parse("checkout-parallel.yaml", PARALLEL).expect("is right");
    assert!(parallel.steps.iter().all(|plan| plan.ancestors.is_empty() && plan.kind == StepKind::Compensable));
}

#[test]
fn what_is_left_out_has_a_default() {
    let text = format!(
        "{HEAD}  - {{ name: a, participant: p }}\n  - {{ name: b, participant: p, kind: pivot, after: [a] }}\n"
    );
    let definition = Definition::parse("plan.yaml", &text).expect("is right");
    let [a, b] = definition.steps.as_slice() else { panic!("two steps") };
    assert_eq!((a.kind, a.on_timeout, a.timeout_ms), (StepKind::Compensable, OnTimeout::Undo, DEFAULT_STEP_TIMEOUT_MS));
    assert_eq!((a.operation.as_str(), a.backoff), ("a", DEFAULT_BACKOFF));
    assert_eq!((b.on_timeout, definition.pivot), (OnTimeout::Wait, Some(1)));
}

#[test]
fn ancestors_and_descendants_are_transitive_in_any_order_of_the_text() {
    let text = format!(
        "{HEAD}  - {{ name: c, participant: p, after: [b], uses: [a] }}\n  - {{ name: a, participant: p }}\n  - {{ name: b, participant: p, after: [a] }}\n"
    );
    let definition = Definition::parse("plan.yaml", &text).expect("is right");
    let ancestors: Vec<StepSet> = definition.steps.iter().map(|plan| plan.ancestors).collect();
    assert_eq!(ancestors, [StepSet::from_iter([1, 2]), StepSet::EMPTY, StepSet::from_iter([1])]);
    assert_eq!(definition.steps[1].descendants, StepSet::from_iter([0, 2]));
}

#[test]
fn errors_of_shape_name_file_and_line() {
    for (text, expected) in [
        ("name: plan\nversion: ]\n", "plan.yaml:2: "),
        ("name: plan\nversion: 1\ndeadline_ms: soon\nsteps: []\n", "plan.yaml:3: "),
        ("name: plan\nversion: 1\ncolour: red\n", "plan.yaml:3: "),
        ("name: plan\nversion: 1\nsteps: []\n", "plan.yaml:3: "),
        ("name: plan\nname: plan\n", "plan.yaml:2: "),
        (&format!("{HEAD}  - name: a\n    participant: p\n    after: b\n"), "plan.yaml:7: "),
        (&format!("{HEAD}  - name: a\n    participant: p\n    kind: magic\n"), "plan.yaml:7: "),
        (&format!("{HEAD}  - name: a\n    participant: p\n    retries: 3\n"), "plan.yaml:7: "),
        (&format!("{HEAD}  - name: a\n    kind: pivot\n"), "plan.yaml:6: "),
        ("", "plan.yaml:1: "),
    ] {
        let error = error_of(text);
        assert!(error.starts_with(expected), "{text:?} gives {error:?}, expected {expected:?}");
        assert!(error.len() > expected.len() + 5 && !error.contains('\n'), "{error:?} says little");
    }
}

#[test]
fn errors_of_values_name_file_and_line() {
    let head = |name: &str, version: &str, deadline: &str| {
        error_of(&format!(
            "name: {name}\nversion: {version}\ndeadline_ms: {deadline}\nsteps:\n  - {{ name: a, participant: p }}\n"
        ))
    };
    assert_eq!(
        head("Plan", "1", "1"),
        "plan.yaml:1: `Plan` is no name: 1 to 64 of a-z, 0-9 and `-`, beginning with a letter"
    );
    assert_eq!(head("plan", "0", "1"), "plan.yaml:2: `version` is 0, it must be from 1 to 4294967295");
    assert_eq!(head("plan", "1", "0"), "plan.yaml:3: `deadline_ms` is 0, it must be from 1 to 604800000");
    assert_eq!(
        error_of("name: plan\nversion: 1\ndeadline_ms: 1\nsteps: []\n"),
        "plan.yaml:4: a definition needs at least one step"
    );
    let mut many = String::from(HEAD);
    for step in 0..=MAX_STEPS {
        writeln!(many, "  - {{ name: s{step}, participant: p }}").expect("a string");
    }
    assert_eq!(error_of(&many), "plan.yaml:5: 65 steps, the limit is 64");
    let long = format!("{HEAD}  - {{ name: a, participant: p }}\n#{}", "x".repeat(MAX_TEXT_BYTES));
    assert!(error_of(&long).starts_with("plan.yaml:1: the text has "));
    assert_eq!(
        step_error("  - name: a\n    participant: p\n    timeout_ms: 0\n"),
        "plan.yaml:7: `timeout_ms` is 0, it must be from 1 to 604800000"
    );
    assert_eq!(
        step_error("  - name: a\n    participant: p\n    backoff: { first_ms: 9, max_ms: 8 }\n"),
        "plan.yaml:7: `first_ms` (9) is above `max_ms` (8)"
    );
    assert_eq!(
        step_error("  - name: a\n    participant: a.b\n"),
        "plan.yaml:6: `a.b` is no name: 1 to 64 of a-z, 0-9 and `-`, beginning with a letter"
    );
}

#[test]
fn errors_of_order_name_file_and_line() {
    for (steps, expected) in [
        ("  - { name: a, participant: p }\n  - { name: a, participant: p }\n", "6: step `a` is defined twice"),
        (
            "  - { name: a, participant: p }\n  - name: b\n    participant: p\n    after: [a, x]\n",
            "8: step `b` names `x` in `after`, which is no step of this definition",
        ),
        (
            "  - { name: a, participant: p, uses: [x] }\n",
            "5: step `a` names `x` in `uses`, which is no step of this definition",
        ),
        (
            "  - { name: a, participant: p, after: [b] }\n  - { name: b, participant: p, after: [c] }\n  - { name: c, participant: p, after: [a] }\n",
            "5: step `a` comes after itself",
        ),
        ("  - { name: a, participant: p, after: [a] }\n", "5: step `a` comes after itself"),
        (
            "  - { name: a, participant: p }\n  - { name: b, participant: p, uses: [a] }\n",
            "6: step `b` uses `a`, which does not come before it",
        ),
        (
            "  - { name: a, participant: p, kind: pivot }\n  - { name: b, participant: p, kind: pivot, after: [a] }\n",
            "6: `b` is a second pivot, `a` is one already",
        ),
        (
            "  - { name: a, participant: p, kind: pivot }\n  - { name: b, participant: p }\n",
            "6: compensable step `b` does not come before the pivot `a`",
        ),
        (
            "  - { name: a, participant: p }\n  - { name: b, participant: p, kind: pivot, after: [a] }\n  - { name: c, participant: p, kind: retriable, after: [a] }\n",
            "7: retriable step `c` does not come after the pivot `b`",
        ),
        ("  - { name: a, participant: p, kind: retriable }\n", "5: retriable step `a` needs a pivot before it"),
        (
            "  - name: a\n    participant: p\n    kind: pivot\n    on_timeout: undo\n",
            "8: step `a` is no compensable one, so its `on_timeout` must be `wait`",
        ),
    ] {
        assert_eq!(step_error(steps), format!("plan.yaml:{expected}"));
    }
}

#[test]
fn an_unknown_participant_is_named_with_its_line() {
    let text = format!("{HEAD}  - name: a\n    kind: compensable\n    participant: nobody\n");
    let definition = Definition::parse("plan.yaml", &text).expect("is right");
    let error = definition.check_participants("plan.yaml", &["stock"]).expect_err("nobody is not known");
    assert_eq!(error.to_string(), "plan.yaml:7: step `a` is for participant `nobody`, which is not known");
}

#[test]
fn pauses_double_up_to_the_longest() {
    let backoff = Backoff { first_ms: 100, max_ms: 1_000 };
    let pauses: Vec<u64> = [0, 1, 2, 3, 4, 5, 6, 64, 65, u32::MAX].map(|failures| backoff.pause_ms(failures)).to_vec();
    assert_eq!(pauses, [100, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000, 1_000]);
}
