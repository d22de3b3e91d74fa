"""Everything that names metrics, read once: rules, their tests, dashboard, runbook, and the page of all metrics."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

# | `saga_open_by_age` | `saga.open.by_age` | gauge | age | … |
_METRIC = re.compile(r"^\| `([a-z0-9_]+)` \| [^|]+ \| (\w+) \| ([^|]*) \|", re.MULTILINE)
# Where spans get their attributes and words.
_SPANS = ("crates/telemetry/src/context/*.rs", "orchestrator/src/hop.rs", "orchestrator/src/summary.rs", "crates/starter/src/apply.rs")
# Where programs name an alarm, and why a lane halts.
_ALARM = re.compile(r'alarm = "([a-z-]+)"|"alarm", "([a-z-]+)"|\.note\("([a-z-]+)"|\bAlarm::\w+[^=]*=> \("([a-z-]+)"')
_HALT = re.compile(r'Self::\w+(?:\(_\)| \{ \.\. \}) => "([a-z-]+)"')
# What Grafana puts in before it asks.
_VARIABLES = {"$namespace": ".*", "$__rate_interval": "5m"}


@dataclass
class Metric:
    """One line of docs/metrics.md."""

    kind: str
    labels: set


@dataclass
class Sources:
    """All that is checked, and may be spoilt by a test."""

    metrics: dict
    groups: list
    tests: list
    dashboard: dict
    runbook: str
    collector: dict
    spans: str
    alarms: set

    @classmethod
    def read(cls, root):
        root = Path(root)
        metrics = {
            name: Metric(kind, {label.strip() for label in labels.split(",") if label.strip()})
            for name, kind, labels in _METRIC.findall((root / "docs/metrics.md").read_text())
        }
        if not metrics:
            raise SystemExit("observability: docs/metrics.md has no metrics that this program can read")
        return cls(
            metrics,
            yaml.safe_load((root / "k8s/observability/alerts.yml").read_text())["groups"],
            yaml.safe_load((root / "k8s/tests/observability/alerts_test.yml").read_text())["tests"],
            json.loads((root / "k8s/observability/dashboard.json").read_text()),
            (root / "docs/runbook.md").read_text(),
            yaml.safe_load((root / "k8s/observability/otel-collector.yml").read_text()),
            "".join(path.read_text() for pattern in _SPANS for path in sorted(root.glob(pattern))),
            _alarms(root),
        )

    def rules(self, kind):
        """The `alert`s or the `record`s."""
        return [rule for group in self.groups for rule in group["rules"] if kind in rule]

    def panels(self):
        return [panel for panel in self.dashboard["panels"] if panel["type"] != "row"]

    def queries(self):
        """(panel, expression) of the dashboard, as Prometheus will see them."""
        for panel in self.panels():
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in _VARIABLES.items():
                    expression = expression.replace(variable, value)
                yield panel["title"], expression

    def expressions(self):
        """(where, expression) of everything that asks Prometheus."""
        for rule in self.rules("record"):
            yield rule["record"], rule["expr"]
        for rule in self.rules("alert"):
            yield f"alert {rule['alert']}", rule["expr"]
        for title, expression in self.queries():
            yield f"panel {title}", expression


def _alarms(root):
    """The words of every alarm and of every reason for a halt."""
    sources = (path for pattern in ("*/src/**/*.rs", "crates/*/src/**/*.rs") for path in root.glob(pattern))
    found = [match for path in sources for match in _ALARM.findall(path.read_text())]
    halts = _HALT.findall((root / "crates/event-stream/src/error.rs").read_text())
    if not found or not halts:
        raise SystemExit("observability: no alarms that this program can find in the sources")
    return {word for match in found for word in match if word} | set(halts)
