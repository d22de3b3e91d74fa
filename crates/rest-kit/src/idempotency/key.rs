//! The header, and what it stands for.

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use saga_core::ids::SagaId;
use service_kit::params::MAX_IDEMPOTENCY_KEY_CHARACTERS;
use service_kit::problem::Problem;

/// The prefix of all records.
pub(crate) const RECORD_PREFIX: &str = "idem:";

/// The key of one request. Handlers get it as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Where its record is stored.
    pub record: String,
    /// Tells requests apart that share a key, a method and a path: a hash of query and body.
    pub fingerprint: u64,
    /// The hour in which it came, since the Unix epoch.
    pub hour: u64,
    /// What the first request with this key has begun, as far as that was known when this one came.
    pub begun: Begun,
}

/// What a request with the same key has begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was recorded.
    Nothing,
    /// A saga.
    Saga(SagaId),
    /// The store did not say.
    Unknown,
}

impl RequestKey {
    /// Reads the header; `None` without one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(invalid("it was sent twice"));
        }
        let text = value.to_str().map_err(|_| invalid("it has other characters than visible ASCII"))?.trim();
        // The draft of the standard writes it as a string in quotes; many clients send it bare.
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if !(1..=MAX_IDEMPOTENCY_KEY_CHARACTERS).contains(&text.len()) {
            return Err(invalid(&format!("it needs 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters")));
        }
        // A quotation mark that is left over belongs to a string that is none.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return Err(invalid("it has other characters than visible ASCII, or a quotation mark inside"));
        }
        Ok(Some(text.to_owned()))
    }

    /// The key of a request. A path that is spelled otherwise is the same path.
    pub(crate) fn new(method: &Method, path: &str, key: &str, rest: [&[u8]; 2], hour: u64) -> Self {
        let path = percent_decode_str(path).decode_utf8_lossy();
        // The key comes last, because it may contain anything that a path may.
        Self {
            record: format!("{RECORD_PREFIX}{method} {path} {key}"),
            fingerprint: fingerprint(rest),
            hour,
            begun: Begun::Unknown,
        }
    }
}

fn invalid(why: &str) -> Problem {
    Problem::new(400, "idempotency-key-invalid", format!("the header Idempotency-Key cannot be used: {why}"))
}

/// FNV-1a, 64 bits, over the parts and their lengths. It tells honest mistakes apart; nobody gains by a collision but
/// the answer to a request of his own.
fn fingerprint(parts: [&[u8]; 2]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain((part.len() as u64).to_be_bytes()));
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &'static [u8]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_bytes(value).expect("a header value"));
        RequestKey::of(&headers).map_err(|problem| problem.status)
    }

    #[test]
    fn a_path_that_is_spelled_otherwise_has_the_same_key() {
        let of = |path| RequestKey::new(&Method::POST, path, "k", [b"", b""], 1);
        assert_eq!(of("/payment/pay/u1/5"), of("/payment/pay/%75%31/5"));
        assert_ne!(of("/payment/pay/u1/5"), of("/payment/pay/u2/5"));
    }

    #[test]
    fn a_key_is_read_bare_or_in_quotes() {
        assert_eq!(RequestKey::of(&HeaderMap::new()).ok(), Some(None));
        assert_eq!(read(b"8e03978e-40d5"), Ok(Some("8e03978e-40d5".to_owned())));
        assert_eq!(read(b"\"8e03978e-40d5\""), Ok(Some("8e03978e-40d5".to_owned())));
    }

    #[test]
    fn nonsense_is_400() {
        for nonsense in [&b""[..], b"\"\"", b"\"open", b"in\"side", b"two words", b"\xc3\xa9", &[b'x'; 256]] {
            assert_eq!(read(nonsense), Err(400));
        }
        let mut twice = HeaderMap::new();
        twice.append("idempotency-key", HeaderValue::from_static("a"));
        twice.append("idempotency-key", HeaderValue::from_static("b"));
        assert_eq!(RequestKey::of(&twice).map_err(|problem| problem.status), Err(400));
    }

    #[test]
    fn requests_that_differ_have_different_fingerprints() {
        let of = |query: &[u8], body: &[u8]| fingerprint([query, body]);
        assert_eq!(of(b"a=1", b"{}"), of(b"a=1", b"{}"));
        assert_ne!(of(b"a=1", b""), of(b"", b"a=1"));
        assert_ne!(of(b"", b"{}"), of(b"", b"[]"));
    }
}
