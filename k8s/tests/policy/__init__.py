"""Rules that every rendered overlay must keep: each a function from the manifests to findings."""

import inspect

from . import network, running, security, settings

RULES = (*security.RULES, *running.RULES, *network.RULES, *settings.RULES)


def apply(rule, manifests, repository):
    """Findings of one rule."""
    takes_repository = len(inspect.signature(rule).parameters) == 2
    return rule(manifests, repository) if takes_repository else rule(manifests)


def check(manifests, repository):
    """Findings of all rules."""
    for rule in RULES:
        yield from apply(rule, manifests, repository)
