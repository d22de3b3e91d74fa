"""Every alert says how urgent it is, has its entry in the runbook, and was seen to fire and to be silent; every alarm is explained."""

import re

_ENTRY = re.compile(r"^### (\w+)$", re.MULTILINE)


def alerts_say_what_to_do(sources):
    """A known severity, a summary, and the link to the entry of that name."""
    entries = _ENTRY.findall(sources.runbook)
    alerts = sources.rules("alert")
    for alert in alerts:
        name, annotations = alert["alert"], alert.get("annotations", {})
        if alert.get("labels", {}).get("severity") not in ("page", "ticket"):
            yield f"alert {name}: its severity is neither page nor ticket"
        if not annotations.get("summary"):
            yield f"alert {name}: has no summary"
        if annotations.get("runbook_url") != f"docs/runbook.md#{name.lower()}":
            yield f"alert {name}: its runbook_url is not docs/runbook.md#{name.lower()}"
        if entries.count(name) != 1:
            yield f"alert {name}: {entries.count(name)} entries in docs/runbook.md"
    for entry in set(entries) - {alert["alert"] for alert in alerts}:
        yield f"runbook: {entry} is no alert"


def alarms_are_explained(sources):
    """The runbook has a word for each alarm of the programs."""
    for alarm in sorted(sources.alarms):
        if f"`{alarm}`" not in sources.runbook:
            yield f"alarm {alarm}: not in docs/runbook.md"


def alerts_are_tested(sources):
    """Each alert fires in some test, and is silent in some."""
    tests = [it for test in sources.tests for it in test["alert_rule_test"]]
    for alert in sources.rules("alert"):
        own = [it["exp_alerts"] for it in tests if it["alertname"] == alert["alert"]]
        if not any(own):
            yield f"alert {alert['alert']}: no test in which it fires"
        if all(own):
            yield f"alert {alert['alert']}: no test in which it is silent"


RULES = (alerts_say_what_to_do, alarms_are_explained, alerts_are_tested)
