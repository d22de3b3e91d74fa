"""Metrics and labels that rules, dashboard and runbook name are those of docs/metrics.md."""

import re

# Labels that scraping sets, that PromQL itself knows, and those of an alert.
_OUTER_LABELS = {"namespace", "service", "pod", "instance", "le", "alertstate", "alertname"}
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*(?:\{[^}]*\}[^}]*)*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_QUOTED = re.compile(r'"[^"]*"')
_GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)")
_NAME = re.compile(r"\bsaga_[a-z0-9_]+|\b[a-z]+:[a-z0-9_]+:[a-z0-9_]+")
_RATED = re.compile(r"\b(?:rate|increase)\(\s*([a-z0-9_]+)")


def base(name, metrics):
    """The metric of which a name is a part, as of a histogram's buckets; None for none."""
    if name in metrics:
        return name
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if stem in metrics and metrics[stem].kind == "histogram" and stem != name else None


def metrics_exist(sources):
    """Every name is a metric of docs/metrics.md, or one that alerts.yml records."""
    recorded = {rule["record"] for rule in sources.rules("record")}
    places = [*sources.expressions(), *(("runbook", text) for text in re.findall(r"`([^`]*)`", sources.runbook))]
    places += [(f"test {test['name']}", series["series"]) for test in sources.tests for series in test["input_series"]]
    for where, text in places:
        for name in _NAME.findall(_QUOTED.sub('""', text)):
            if name not in recorded and base(name, sources.metrics) is None:
                yield f"{where}: {name} is not in docs/metrics.md"


def labels_exist(sources):
    """A selector asks for labels that its metric has."""
    places = [*sources.expressions()]
    places += [(f"test {test['name']}", series["series"]) for test in sources.tests for series in test["input_series"]]
    for where, text in places:
        for name, selector in _SELECTOR.findall(text):
            known = base(name, sources.metrics)
            if known is None:
                continue
            for label in _LABEL.findall(selector):
                if label not in sources.metrics[known].labels | _OUTER_LABELS:
                    yield f"{where}: {known} has no label {label}"


def groupings_exist(sources):
    """What is added up by or without a label asks for one that a metric of the expression has."""
    for where, text in sources.expressions():
        names = {base(name, sources.metrics) for name in _NAME.findall(_QUOTED.sub('""', text))} - {None}
        labels = _OUTER_LABELS.union(*(sources.metrics[name].labels for name in names))
        for _, list_ in _GROUPING.findall(_QUOTED.sub('""', text)):
            for label in list_.replace(" ", "").split(","):
                if label and label not in labels:
                    yield f"{where}: no metric in it has the label {label}"


def gauges_have_no_rate(sources):
    """A rate of a gauge means nothing."""
    for where, text in sources.expressions():
        for name in _RATED.findall(text):
            known = base(name, sources.metrics)
            if known and sources.metrics[known].kind == "gauge":
                yield f"{where}: {name} is a gauge and has no rate"


RULES = (metrics_exist, labels_exist, groupings_exist, gauges_have_no_rate)
