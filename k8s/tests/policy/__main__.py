"""python -m policy --repository ROOT RENDERED.yaml…: prints what breaks a rule; exit code 1 if anything does."""

import argparse
import sys

from . import check
from .manifests import Manifests
from .repository import Repository


def main():
    parser = argparse.ArgumentParser(prog="policy")
    parser.add_argument("--repository", required=True)
    parser.add_argument("rendered", nargs="+", help="a rendered overlay, named after it")
    arguments = parser.parse_args()
    repository = Repository(arguments.repository)
    broken = 0
    for path in arguments.rendered:
        manifests = Manifests.read(path)
        for finding in check(manifests, repository):
            print(f"{manifests.overlay}: {finding}")
            broken += 1
    return 1 if broken else 0


sys.exit(main())
