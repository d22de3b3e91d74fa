"""What the collector keeps traces by is what the services write: a word that nobody says keeps nothing, silently."""


def words_are_said(sources):
    """Attributes and exact values of the policies stand in the code that makes the spans."""
    for policy in _policies(sources):
        condition = policy.get("string_attribute")
        if condition is None:
            continue
        key = condition["key"]
        # Written as a field of a span (`saga.event = event`) or as a string.
        if f"{key} =" not in sources.spans and f'"{key}"' not in sources.spans:
            yield f"collector, {policy['name']}: no span has the attribute {key}"
        if condition.get("enabled_regex_matching"):
            continue
        for value in condition["values"]:
            if f'"{value}"' not in sources.spans:
                yield f"collector, {policy['name']}: no span says {value}"


def all_else_is_sampled(sources):
    """The last policy decides about what is not unusual, by the trace id."""
    policies = _policies(sources)
    if policies[-1]["type"] != "probabilistic" or not 0 < policies[-1]["probabilistic"]["sampling_percentage"] < 100:
        yield "collector: the rest of the traces is kept whole or not at all"


def _policies(sources):
    return sources.collector["processors"]["tail_sampling"]["policies"]


RULES = (words_are_said, all_else_is_sampled)
