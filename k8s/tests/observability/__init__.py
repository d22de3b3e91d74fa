"""What rules, dashboard, runbook and collector must keep: each a function from what was read to findings."""

from . import alerts, collector, dashboard, metrics

RULES = (*metrics.RULES, *alerts.RULES, *dashboard.RULES, *collector.RULES)


def check(sources):
    """Findings of all rules."""
    for rule in RULES:
        yield from rule(sources)
