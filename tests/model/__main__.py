"""Search the protocol: python -m tests.model [--long] [WORD ...], a word being a part of a case's name.

Prints each verdict, the states explored, and the shortest way to every violation that was not expected. Exit
status 0 where every verdict is the expected one. The long search takes about a quarter of an hour and 1 GB.
"""

import argparse
import sys
import time

from tests.model.cases import LONG, SHORT, Case
from tests.model.invariants import INVARIANTS
from tests.model.mutants import MUTANTS
from tests.model.search import Verdict, search

MOST_STATES = 2_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--long", action="store_true", help="search the large worlds too")
    parser.add_argument("--paths", action="store_true", help="print the way to each violation")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cases whose names have one")
    options = parser.parse_args()
    cases = [
        case
        for case in SHORT + MUTANTS + LONG
        if (case.is_short or options.long)
        and (not options.words or any(word in case.scenario.name for word in options.words))
    ]
    if not cases:
        print(f"No case has {' or '.join(options.words)} in its name.", file=sys.stderr)
        return 2
    begun, states, surprises = time.monotonic(), 0, 0
    for case in cases:
        verdict, seconds = _search(case)
        states += verdict.states
        surprises += verdict.word != case.expected
        _print(case, verdict, seconds, with_path=options.paths)
    took = time.monotonic() - begun
    print(f"{len(cases)} cases, {states:,} states, {surprises} unexpected, {took:.0f} s")
    return 1 if surprises else 0


def _search(case: Case) -> tuple[Verdict, float]:
    begun = time.monotonic()
    verdict = search(case.scenario, MOST_STATES)
    return verdict, time.monotonic() - begun


def _print(case: Case, verdict: Verdict, seconds: float, *, with_path: bool) -> None:
    is_expected = verdict.word == case.expected
    mark = "ok  " if is_expected else "FAIL"
    name, word = case.scenario.name, verdict.word
    print(f"{mark} {name:<60} {word:<6} {verdict.states:>9,} states {seconds:6.1f} s", flush=True)
    if case.why and is_expected:
        print(f"       safe: {case.why}")
    if verdict.path and (with_path or not is_expected):
        print(f"       {INVARIANTS[word]}")
        for step in verdict.path:
            print(f"       - {step}")
        print(f"       {verdict.last}")


if __name__ == "__main__":
    sys.exit(main())
