"""Measures quota_redis against others and against its bars.

    scripts/bench [quick|full] [--only CASE ...] [--json FILE] [--check] [--record] [--list]

On servers of its own. `--check` compares the ratios with those in docs/benchmarks.json, measures the cases again
where one is worse beyond its slack, and ends with status 1 where one is so both times; `--record` keeps what was
measured there, and writes docs/benchmarks.md and its plots from it.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shargain.demo.bench import Case, document, record
from shargain.demo.bench.process import load
from shargain.demo.bench.record import Record, RecordError
from shargain.demo.bench.runner import ROOT, CaseError, run_cases
from shargain.demo.folders import ServerError
from shargain.demo.supervisor import ProcessError
from shargain.stopping import PatientStop

INTERRUPTED = 130
DOCS = ROOT / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, compare and record; returns the exit status."""
    cases = load()
    options = parse(arguments, cases)
    if options.list:
        print("\n".join(f"{name:20} {case.title}" for name, case in cases.items()))
        return 0
    # Servers end, and their data go, whichever signal ends us.
    PatientStop().listen()
    try:
        recorded = record.read(_recorded(options.docs)) if options.check else None
        found = _measure(_chosen(cases, options), options)
        return _judge(cases, found, recorded, options)
    except (CaseError, RecordError, ServerError, ProcessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def _chosen(cases: Mapping[str, Case], options: argparse.Namespace) -> list[str]:
    """Names of the cases to run, in their order."""
    if options.only:
        return [name for name in cases if name in options.only]
    return [name for name, case in cases.items() if case.is_quick or options.mode == "full"]


def _measure(names: Sequence[str], options: argparse.Namespace) -> Record:
    return record.new(run_cases(names, options.mode, options.state, _say))


def _judge(
    cases: Mapping[str, Case], found: Record, recorded: Record | None, options: argparse.Namespace
) -> int:
    print(document.terminal(cases, found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    is_worse = recorded is not None and not _check(recorded, found, options)
    if options.record:
        _keep(cases, found, options.docs, is_part=bool(options.only))
    return 1 if is_worse else 0


def _check(recorded: Record, found: Record, options: argparse.Namespace) -> bool:
    """Say what is worse than recorded, twice in a row; whether nothing is."""
    print(f"\nCheck: {record.compared(recorded, found)} figures were compared with the record.")
    worse = record.worse(recorded, found)
    if worse:
        # One median in many lies beyond its slack by the machine's doing alone.
        print("\n".join(f"Worse, and measured again: {sentence}" for sentence in worse.values()))
        cases = list(dict.fromkeys(case for case, _ in worse))
        again = record.worse(recorded, _measure(cases, options))
        worse = {figure: sentence for figure, sentence in again.items() if figure in worse}
    print("\n".join(f"WORSE {sentence}" for sentence in worse.values()) or "None is worse.")
    return not worse


def _keep(cases: Mapping[str, Case], found: Record, docs: Path, *, is_part: bool) -> None:
    from shargain.demo.bench.plots import draw

    file = _recorded(docs)
    kept = record.merged(record.read(file), found) if is_part and file.exists() else found
    record.write(file, kept)
    (docs / document.IMAGES).mkdir(exist_ok=True)
    drawn = draw(kept, docs / document.IMAGES)
    (docs / "benchmarks.md").write_text(document.markdown(cases, kept), encoding="utf-8")
    _say(f"Written: {file.name}, benchmarks.md and {len(drawn)} plots in {docs}.")


def parse(arguments: Sequence[str] | None, cases: Mapping[str, Case]) -> argparse.Namespace:
    """Read the command line, and refuse what makes no run."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure quota_redis against others and against its bars, on servers of its own.",
    )
    parser.add_argument(
        "mode", nargs="?", default="quick", choices=("quick", "full"),
        help="quick takes about three minutes (the default), full half an hour",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=list(cases), metavar="CASE", help="see --list")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")
    parser.add_argument("--check", action="store_true", help="compare with docs/benchmarks.json")
    parser.add_argument("--record", action="store_true", help="write docs/benchmarks.json and .md")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="(docs)")
    parser.add_argument("--state", type=Path, default=ROOT / ".state", metavar="FOLDER")
    options = parser.parse_args(arguments)
    for folder in (options.docs, options.json.parent if options.json else options.docs):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder: make it first")
    return options


def _recorded(docs: Path) -> Path:
    return docs / "benchmarks.json"


def _say(text: str) -> None:
    # What was found alone goes to standard output.
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
