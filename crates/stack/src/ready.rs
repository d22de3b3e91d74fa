//! Whether a checkout could succeed: what the admin ports say, put together.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::Http;
use crate::plan::Kind;

/// One look at all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Loaded lanes of each consuming service, all its replicas together.
    pub loaded: Vec<(Kind, u64)>,
    /// The same by process.
    pub lanes: BTreeMap<String, u64>,
    /// Replicas that are not ready, with what they say.
    pub unready: Vec<String>,
    /// Lanes that stand still until somebody looks after them, with the reason.
    pub halted: Vec<String>,
}

impl Look {
    /// Whether everything is there.
    pub fn is_complete(&self, partitions: u32) -> bool {
        self.unready.is_empty() && self.loaded.iter().all(|(_, loaded)| *loaded == u64::from(partitions))
    }

    /// What is missing, for people.
    pub fn missing(&self, partitions: u32) -> String {
        let mut parts: Vec<String> = self
            .loaded
            .iter()
            .filter(|(_, loaded)| *loaded != u64::from(partitions))
            .map(|(kind, loaded)| format!("{} has loaded {loaded} of {partitions} lanes", kind.name()))
            .collect();
        parts.extend(self.unready.iter().chain(&self.halted).cloned());
        parts.join("; ")
    }

    fn add(&mut self, name: &str, kind: Kind, answer: Result<(bool, Value), String>) {
        let (is_ready, body) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.unready.push(format!("{name} does not answer ({error})"));
                return;
            }
        };
        if let Some((_, loaded)) = self.loaded.iter_mut().find(|(of, _)| *of == kind) {
            let lanes = body["details"]["lanes"]["loaded"].as_u64().unwrap_or(0);
            *loaded += lanes;
            self.lanes.insert(name.to_owned(), lanes);
        }
        for (lane, reason) in body["details"]["lanes"]["halted"].as_object().into_iter().flatten() {
            self.halted.push(format!("{name}: lane {lane} is halted: {}", reason.as_str().unwrap_or_default()));
        }
        if !is_ready {
            self.unready.push(format!("{name} is not ready: {}", body["details"]));
        }
    }
}

/// Asks the admin port (`host:port`) of every service.
pub async fn look(http: &Http, services: &[(String, Kind, String)]) -> Look {
    let mut look = Look { loaded: Kind::CONSUMERS.map(|kind| (kind, 0)).to_vec(), ..Look::default() };
    look.loaded.retain(|(kind, _)| services.iter().any(|(_, of, _)| of == kind));
    for (name, kind, admin) in services {
        let answer = match http.get(&format!("http://{admin}/readyz")).await {
            Ok(answer) => Ok((answer.status == 200, answer.json().unwrap_or(Value::Null))),
            Err(error) => Err(error.root_cause().to_string()),
        };
        look.add(name, *kind, answer);
    }
    look
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lanes(loaded: u64) -> Value {
        json!({"ready": true, "details": {"lanes": {"owned": loaded, "loaded": loaded, "halted": {}}}})
    }

    fn empty() -> Look {
        Look { loaded: vec![(Kind::OrderSvc, 0)], ..Look::default() }
    }

    #[test]
    fn loaded_lanes_of_replicas_add_up() {
        let mut look = empty();
        look.add("order-svc-1", Kind::OrderSvc, Ok((true, lanes(60))));
        assert!(!look.is_complete(100));
        assert_eq!(look.missing(100), "order-svc has loaded 60 of 100 lanes");
        look.add("order-svc-2", Kind::OrderSvc, Ok((true, lanes(40))));
        assert!(look.is_complete(100));
        assert_eq!(look.lanes, BTreeMap::from([("order-svc-1".to_owned(), 60), ("order-svc-2".to_owned(), 40)]));
    }

    #[test]
    fn a_silent_or_unready_service_is_named() {
        let mut look = empty();
        look.add("order-svc-1", Kind::OrderSvc, Ok((true, lanes(100))));
        look.add("gateway", Kind::Gateway, Err("connection refused".to_owned()));
        assert!(!look.is_complete(100));
        assert_eq!(look.missing(100), "gateway does not answer (connection refused)");
        let mut look = empty();
        look.add(
            "order-svc-1",
            Kind::OrderSvc,
            Ok((false, json!({"details": {"redis": false, "lanes": {"loaded": 100}}}))),
        );
        assert!(!look.is_complete(100));
        assert!(look.missing(100).contains("\"redis\":false"));
    }
    #[test]
    fn a_halted_lane_is_named_with_its_reason() {
        let mut look = empty();
        let details = json!({"details": {"lanes": {"loaded": 99, "halted": {"17": "no position"}}}});
        look.add("order-svc-1", Kind::OrderSvc, Ok((true, details)));
        assert!(!look.is_complete(100));
        let missing = "order-svc has loaded 99 of 100 lanes; order-svc-1: lane 17 is halted: no position";
        assert_eq!(look.missing(100), missing);
    }
}
