"""Try mutants of the shipped code against the tests: python -m tests.mutations [--only WORD] [--report FILE]

Without options all deliberate mutants and the drawn ones are tried, an hour or two on two cores. Exit status 0
where each survivor is judged.
"""

import argparse
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.mutations.bench_copy import Bench, Outcome
from tests.mutations.deliberate import all_deliberate
from tests.mutations.made import all_made, draw
from tests.mutations.mutant import Mutant
from tests.mutations.report import Results, judgements, write_report
from tests.mutations.selection import CORE, DJANGO, LEDGER, OFFERS, SEARCH


def main() -> int:
    options = _options()
    mutants = [m for m in _wanted(options) if options.only in m.key]
    if not mutants:
        print(f"No mutant has {options.only!r} in its file or name.", file=sys.stderr)
        return 2
    results = Results(options.results)
    left = [m for m in mutants if results.verdict(m) != "killed"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _try_all(left, results, options.jobs, is_checked=not options.unchecked)
    except KeyboardInterrupt:
        print("Interrupted; what was tried is in the results file, if one was named.")
        return 130
    if options.report:
        write_report(options.report, mutants, results, f"seed {options.seed}")
    return _sum_up(mutants, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="those with it in file or name")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--deliberate", action="store_true", help="only the listed mistakes")
    which.add_argument("--made", action="store_true", help="only those that the tool makes")
    parser.add_argument("--seed", type=int, default=1, help="draws other mutants of the tool")
    parser.add_argument("--count", type=int, default=150, help="how many of the tool's are drawn")
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, 9), help="runs at once")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="goes on where a run ended that had this file"
    )
    parser.add_argument(
        "--unchecked", action="store_true", help="leave out the run without a mutant"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables, as Markdown")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> list[Mutant]:
    deliberate = [] if options.made else all_deliberate()
    return deliberate + (
        [] if options.deliberate else draw(options.seed, options.count, all_made())
    )


def _try_all(mutants: Sequence[Mutant], results: Results, jobs: int, *, is_checked: bool) -> None:
    if not mutants:
        return
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    with ExitStack() as stack:
        benches = [stack.enter_context(Bench.open()) for _ in range(min(jobs, len(mutants)))]
        if is_checked:
            _check_unchanged(benches[0])
        failures: list[Exception] = []
        threads = [
            threading.Thread(target=_work, args=(bench, waiting, results, failures), daemon=True)
            for bench in benches
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


def _check_unchanged(bench: Bench) -> None:
    outcome = bench.run((CORE, LEDGER, DJANGO, OFFERS, SEARCH))
    if outcome.verdict != "survived":
        sys.exit(f"The tests fail without any mutant: {outcome.by}. Put that right first.")
    print(f"Without a mutant all tests pass, in {outcome.seconds:.0f} s.", flush=True)


def _work(
    bench: Bench,
    waiting: "queue.SimpleQueue[Mutant]",
    results: Results,
    failures: list[Exception],
) -> None:
    for mutant in _drained(waiting):
        try:
            outcome = bench.try_out(mutant)
        except Exception as error:  # noqa: BLE001  raised again by the main thread
            failures.append(error)
            return
        results.add(mutant, outcome)
        _print(mutant, outcome)


def _drained(waiting: "queue.SimpleQueue[Mutant]") -> Iterator[Mutant]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


def _print(mutant: Mutant, outcome: Outcome) -> None:
    by = f" by {outcome.by}" if outcome.by else ""
    place = f"{mutant.file}:{mutant.line}"
    print(f"{outcome.verdict:<9} {outcome.seconds:5.0f} s  {place}  {mutant.name}{by}", flush=True)


def _sum_up(mutants: Sequence[Mutant], results: Results) -> int:
    survivors = [m for m in mutants if results.verdict(m) == "survived"]
    judged = judgements()
    open_ones = [mutant for mutant in survivors if mutant.key not in judged]
    for mutant in open_ones:
        print(f"NOT JUDGED {mutant.file}:{mutant.line}  {mutant.name}")
    killed = len(mutants) - len(survivors)
    print(
        f"{len(mutants)} mutants: {killed} killed, {len(survivors)} survived,"
        f" {len(open_ones)} of them without a judgement"
    )
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main())
