use super::*;

fn queued() -> Value {
    Value::SimpleString("QUEUED".to_owned())
}

fn error(code: &str) -> Value {
    let error = redis::make_extension_error(code.to_owned(), Some("for a reason".to_owned()));
    Value::ServerError(error.try_into().expect("a server's error"))
}

#[test]
fn reads_the_replies_to_exec() {
    let done = [Value::Okay, queued(), queued(), Value::Array(vec![Value::Okay, Value::Int(1)])];
    assert_eq!(read_exec(&done), Exec::Done);
    assert_eq!(read_exec(&[Value::Okay, queued(), Value::Nil]), Exec::Conflict);
    let full = [Value::Okay, error("OOM"), error("EXECABORT")];
    assert_eq!(read_exec(&full), Exec::Refused("OOM for a reason".to_owned()));
}

#[test]
fn trusts_no_reply_that_proves_nothing() {
    let unclear: [&[Value]; 5] = [
        &[],
        &[error("NOPERM"), Value::Okay, error("ERR")],
        &[Value::Okay, queued(), Value::Array(vec![error("NOPERM")])],
        &[Value::Okay, queued(), error("READONLY")],
        &[Value::Okay, queued(), Value::Okay],
    ];
    for replies in unclear {
        assert!(matches!(read_exec(replies), Exec::Unclear(_)), "{replies:?}");
    }
}
