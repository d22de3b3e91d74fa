"""Each rule finds the mistake that it is there for: one is planted at a time into what keeps all rules."""

import copy
import os
import unittest
from functools import cache

from observability import RULES, check
from observability.sources import Sources


@cache
def original():
    return Sources.read(os.environ["REPOSITORY"])


def alert(sources, name):
    return next(rule for rule in sources.rules("alert") if rule["alert"] == name)


def panel(sources, title):
    return next(it for it in sources.dashboard["panels"] if it["title"] == title)


def query(sources, title, expression):
    panel(sources, title)["targets"][0]["expr"] = expression


def forget_tests(sources, name, fires):
    for test in sources.tests:
        test["alert_rule_test"] = [
            it for it in test["alert_rule_test"] if it["alertname"] != name or bool(it["exp_alerts"]) != fires
        ]


def policy(sources, name):
    policies = sources.collector["processors"]["tail_sampling"]["policies"]
    return next(it for it in policies if it["name"] == name)


# What is spoilt, and a part of what must be said about it.
PLANTED = [
    (lambda it: it.metrics.pop("saga_attention"), "alert SagaNeedsAttention: saga_attention is not in docs/metrics.md"),
    (lambda it: it.metrics.pop("saga_open_by_age"), "panel Open sagas by age: saga_open_by_age is not in"),
    (lambda it: it.metrics.pop("saga_redis_aof_rewriting"), "runbook: saga_redis_aof_rewriting is not in"),
    (lambda it: it.tests[0]["input_series"].append({"series": "saga_gone{}"}), "saga_gone is not in"),
    (lambda it: alert(it, "RedisFull").update(expr="service:saga_redis_memory:rate > 0.95"), "saga_redis_memory:rate is not"),
    (lambda it: alert(it, "RedisSlow").update(expr="saga_open_bucket > 1"), "saga_open_bucket is not in docs/metrics.md"),
    (lambda it: alert(it, "RequestsShed").update(expr='saga_starter_requests_total{outcome="shed"} > 0'),
     "saga_starter_requests_total has no label outcome"),
    (lambda it: query(it, "Checkout, from head to answer", 'rate(saga_gateway_duration_seconds_bucket{path="/orders/{id}"}[5m])'),
     "saga_gateway_duration_seconds has no label path"),
    (lambda it: it.tests[0]["input_series"].append({"series": 'saga_attention{cause="x"}'}), "saga_attention has no label cause"),
    (lambda it: alert(it, "LaneBehind").update(expr="max by (partition) (saga_stream_lane_lag) > 1000"), "has the label partition"),
    (lambda it: query(it, "Open sagas by age", "sum(rate(saga_open_by_age[5m]))"), "is a gauge and has no rate"),
    (lambda it: alert(it, "LaneHalted")["labels"].update(severity="high"), "its severity is neither page nor ticket"),
    (lambda it: alert(it, "LaneHalted")["annotations"].pop("summary"), "LaneHalted: has no summary"),
    (lambda it: alert(it, "LaneHalted")["annotations"].update(runbook_url="docs/runbook.md#halted"), "its runbook_url is not"),
    (lambda it: setattr(it, "runbook", it.runbook.replace("### LaneHalted\n", "")), "LaneHalted: 0 entries in docs/runbook.md"),
    (lambda it: setattr(it, "runbook", it.runbook + "\n### LaneLost\n"), "runbook: LaneLost is no alert"),
    (lambda it: setattr(it, "runbook", it.runbook.replace("`undo-object-gone`", "")), "alarm undo-object-gone: not in"),
    (lambda it: it.alarms.add("halted-by-magic"), "alarm halted-by-magic: not in docs/runbook.md"),
    (lambda it: forget_tests(it, "KafkaAway", fires=True), "KafkaAway: no test in which it fires"),
    (lambda it: forget_tests(it, "KafkaAway", fires=False), "KafkaAway: no test in which it is silent"),
    (lambda it: panel(it, "What is stuck?").update(title="Stuck"), "no panels for the question What is stuck?"),
    (lambda it: panel(it, "Errors of ours").update(id=panel(it, "Requests")["id"]), "shares its id"),
    (lambda it: panel(it, "Errors of ours")["gridPos"].update(x=2), "lies on Errors of ours"),
    (lambda it: panel(it, "Alerts")["gridPos"].update(w=8), "Alerts: is wider than the grid"),
    (lambda it: panel(it, "Alerts").pop("description"), "Alerts: has no description"),
    (lambda it: panel(it, "Alerts")["targets"][0].update(datasource={"type": "prometheus", "uid": "x"}), "another source"),
    (lambda it: query(it, "Requests", "sum(rate(saga_gateway_requests_total[5m]))"), "shows other namespaces"),
    (lambda it: policy(it, "stuck")["string_attribute"].update(key="saga.evnt"), "stuck: no span has the attribute saga.evnt"),
    (lambda it: policy(it, "refused")["string_attribute"]["values"].append("refuse"), "refused: no span says refuse"),
    (lambda it: policy(it, "rest")["probabilistic"].update(sampling_percentage=100), "kept whole or not at all"),
]


class ObservabilityTest(unittest.TestCase):
    def test_the_repository_keeps_the_rules(self):
        self.assertEqual(list(check(original())), [])

    def test_planted_mistakes_are_found(self):
        broken = set()
        for plant, expected in PLANTED:
            with self.subTest(expected=expected):
                sources = copy.deepcopy(original())
                plant(sources)
                findings = {rule: list(rule(sources)) for rule in RULES}
                everything = [finding for found in findings.values() for finding in found]
                self.assertTrue(any(expected in finding for finding in everything), everything)
                broken |= {rule for rule, found in findings.items() if any(expected in it for it in found)}
        self.assertEqual({rule.__name__ for rule in set(RULES) - broken}, set(), "rules that no planted mistake broke")


if __name__ == "__main__":
    unittest.main()
