"""What rules, dashboard and runbook must keep: each a function from what was read to findings."""

from . import alerts, dashboard, metrics

RULES = (*metrics.RULES, *alerts.RULES, *dashboard.RULES)


def check(sources):
    """Findings of all rules."""
    for rule in RULES:
        yield from rule(sources)
