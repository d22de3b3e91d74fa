"""What the repository says about its services: their settings with defaults, topics, metrics, definitions."""

import re
from functools import cache
from pathlib import Path

_SETTING = re.compile(r"^\| `--[a-z0-9-]+` \| `([A-Z0-9_]+)` \| (?:`(.*)`)? ?\|", re.MULTILINE)
_TELEMETRY_VARIABLE = re.compile(r'"((?:OTEL_[A-Z_]+)|RUST_LOG)"')


class Repository:
    def __init__(self, root):
        self.root = Path(root)

    @cache
    def text(self, path):
        return (self.root / path).read_text()

    @cache
    def settings(self, service):
        """Environment variables of a service with their defaults, as its page in docs/settings lists them."""
        found = dict(_SETTING.findall(self.text(f"docs/settings/{service}.md")))
        if not found:
            raise SystemExit(f"policy: docs/settings/{service}.md has no settings that this program can read")
        return found

    def default(self, service, name):
        return self.settings(service)[name]

    @cache
    def telemetry_variables(self):
        """Standard variables that every service reads and no page lists."""
        sources = (self.root / "crates/telemetry/src").rglob("*.rs")
        return {name for source in sources for name in _TELEMETRY_VARIABLE.findall(source.read_text())}

    def knows(self, service, name):
        return name in self.settings(service) or name in self.telemetry_variables()

    @cache
    def topics(self):
        """Names of all topics, from the program that makes them."""
        sources = (self.root / "crates/stack/src").rglob("*.rs")
        for source in sources:
            names = re.search(r"\[([^\]]*\"saga\.inbox\"[^\]]*)\]", source.read_text())
            if names:
                return set(re.findall(r'"([a-z.]+)"', names.group(1)))
        raise SystemExit("policy: the names of the topics are no longer in crates/stack/src; mend this rule")

    @cache
    def metrics(self):
        return set(re.findall(r"^\| `([a-z0-9_]+)` \|", self.text("docs/metrics.md"), re.MULTILINE))

    def definitions(self):
        return {path.name: path.read_text() for path in (self.root / "definitions").glob("*.y*ml")}
