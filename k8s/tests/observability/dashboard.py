"""The dashboard answers its four questions, and can be drawn."""

import itertools

QUESTIONS = ("Is it healthy?", "How fast is it?", "What is stuck?", "Which lane lags?")
# Columns of Grafana's grid.
_WIDTH = 24


def questions_are_answered(sources):
    """A row for each question, with panels in it."""
    rows = {}
    for panel in sources.dashboard["panels"]:
        if panel["type"] == "row":
            row = rows.setdefault(panel["title"], [])
        else:
            row.append(panel)
    for question in QUESTIONS:
        if not rows.get(question):
            yield f"dashboard: no panels for the question {question}"


def panels_can_be_drawn(sources):
    """Own ids, room on the grid, the chosen Prometheus, a description and a query in every panel."""
    panels = sources.dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    for panel in panels:
        if ids.count(panel["id"]) != 1:
            yield f"panel {panel['title']}: shares its id"
    for one, other in itertools.combinations(panels, 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"panel {one['title']}: lies on {other['title']}"
    for panel in sources.panels():
        place = panel["gridPos"]
        if place["x"] + place["w"] > _WIDTH:
            yield f"panel {panel['title']}: is wider than the grid"
        if not panel.get("description") or not panel.get("targets"):
            yield f"panel {panel['title']}: has no description or no query"
        for part in (panel, *panel["targets"]):
            if part["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"panel {panel['title']}: asks another source than the chosen one"
        for target in panel["targets"]:
            if 'namespace=~"$namespace"' not in target["expr"]:
                yield f"panel {panel['title']}: shows other namespaces than the chosen one"


def _overlap(one, other):
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


RULES = (questions_are_answered, panels_can_be_drawn)
