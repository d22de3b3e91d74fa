"""python -m observability REPOSITORY QUERIES: prints what breaks a rule, exit code 1 if anything does.

Writes the queries of the dashboard to QUERIES as recording rules, for promtool to parse.
"""

import sys
from pathlib import Path

import yaml

from . import check
from .sources import Sources


def main():
    sources = Sources.read(sys.argv[1])
    queries = [{"record": f"panel:{place}", "expr": expression} for place, (_, expression) in enumerate(sources.queries())]
    Path(sys.argv[2]).write_text(yaml.dump({"groups": [{"name": "dashboard", "rules": queries}]}))
    findings = list(check(sources))
    for finding in findings:
        print(finding)
    return 1 if findings else 0


sys.exit(main())
