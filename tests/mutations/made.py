"""Mutants made by a tool: every small change of one token, comparison or statement, of which a seed draws some.

The known tools work on Python alone; half of what makes a quota exact here is Lua and SQL, and a small generator
over all three draws from them alike. What cannot change a result is left out as it is made: messages of errors,
logging, docstrings, annotations, `__str__`.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.mutations.mutant import Edit, Mutant, read

FILES = (
    *(f"scripts/lua/{name}.lua" for name in ("absorb", "consume", "define", "load")),
    *(
        f"scripts/lua/{name}.lua"
        for name in ("reserve", "settle", "snapshot", "snapshots", "unmark")
    ),
    *(
        f"scripts/lua/include/{name}.lua"
        for name in ("rule", "free", "keep", "refusal", "ranges", "state")
    ),
    *(f"quota_redis/postgres/sql/v{version}.sql" for version in (1, 2)),
    "shargain/offers/sql/create_offers_v2.sql",
    *(f"quota_redis/{name}.py" for name in ("breaker", "calls", "connection", "counters", "keys")),
    *(f"quota_redis/{name}.py" for name in ("ranges", "types", "scripts", "wire")),
    *(f"quota_redis/postgres/{name}.py" for name in ("absorb", "audit", "exact", "ledger")),
    *(
        f"quota_redis/postgres/{name}.py"
        for name in ("schema", "shards", "spending", "sync", "table")
    ),
    *(f"quota_redis/django/{name}.py" for name in ("binding", "conf", "engine")),
    *(f"quota_redis/django/{name}.py" for name in ("models", "operations", "signals")),
    "shargain/offers/services/quota.py",
)

_COMPARED = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_WORDS = {"is not": "is", "is": "is not", "not in": "in", "in": "not in", "and": "or", "or": "and"}
_PYTHON = {**_COMPARED, **_WORDS, "+": "-", "-": "+", "%": "+"}
_LUA = {
    "==": "~=",
    "~=": "==",
    "<=": "<",
    ">=": ">",
    "<": "<=",
    ">": ">=",
    "and": "or",
    "or": "and",
    "not": "",
    "true": "false",
    "+": "-",
    "-": "+",
    "math.min": "math.max",
    "math.max": "math.min",
    "break": "",
    "return 0": "",
    "return 1": "return 0",
}
_SQL = {
    "<>": "=",
    "=": "<>",
    "<=": "<",
    ">=": ">",
    "<": "<=",
    ">": ">=",
    "+": "-",
    "-": "+",
    "IS NULL": "IS NOT NULL",
    "IS NOT NULL": "IS NULL",
    "NOT": "",
    "AND": "OR",
    "OR": "AND",
    "IS DISTINCT FROM": "=",
    "IS NOT DISTINCT FROM": "IS DISTINCT FROM",
    "DESC": "",
    "desc": "",
    "least": "greatest",
    "greatest": "least",
    "lower": "upper",
    "upper": "lower",
    "true": "false",
    "false": "true",
    "max": "min",
    "SKIP LOCKED": "",
    "ON CONFLICT DO NOTHING": "",
}
_LUA_SILENT = re.compile(r"--[^\n]*|'[^'\n]*'")
_LUA_LINE = re.compile(r"^ *(redis\.call\([^\n]*|state\.\w+ = [^\n]*|set\[[^\n]*)$", re.MULTILINE)
_SQL_SILENT = re.compile(
    r"--[^\n]*|'[^']*'|RAISE [^;]*;|CREATE [^\n]*|(?<!IS )NOT NULL|BETWEEN [^\n]*"
    r"|%\([^)]*\)s|\bDEFAULT \w+|[:-]=|->>?|=>"
)
_SQL_LINE = re.compile(r"^ *(PERFORM [^;]*;|RETURN [^;]*;|\w+ := [^;]*;)", re.MULTILINE)
_STATEMENT = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")
_LOGGING = re.compile(r"\s*logger\.")


def all_made() -> list[Mutant]:
    """Every mutant that the tool can make, in the order of the files."""
    return [mutant for file in FILES for mutant in made_from(file)]


def draw(seed: int, count: int, mutants: Sequence[Mutant]) -> list[Mutant]:
    """So many of them; a change of one file leaves what is drawn from the others as it was."""
    ordered = sorted(mutants, key=lambda m: hashlib.sha256(f"{seed} {m.key}".encode()).digest())
    return ordered[:count]


def made_from(file: str) -> list[Mutant]:
    text = read(file)
    make = {"py": _python_edits, "lua": _lua_edits, "sql": _sql_edits}[file.rpartition(".")[2]]
    made: dict[str, Mutant] = {}
    for edit in sorted(set(make(text))):
        mutant = _mutant(file, text, edit)
        # The same change of an equal line elsewhere in the file gets a number.
        name, again = mutant.name, 2
        while name in made:
            name, again = f"{mutant.name} ({again})", again + 1
        made[name] = Mutant("made", name, file, mutant.line, mutant.edits)
    return list(made.values())


def _mutant(file: str, text: str, edit: Edit) -> Mutant:
    start, end, new = edit
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    before = " ".join(text[first:last].split())
    after = " ".join((text[first:start] + new + text[end:last]).split())
    name = f"{before} => {after or 'nothing'}"
    return Mutant("made", name, file, text.count("\n", 0, start) + 1, (edit,))


def _lua_edits(text: str) -> Iterator[Edit]:
    yield from _token_edits(text, _LUA, _LUA_SILENT)
    for match in _LUA_LINE.finditer(text):
        yield (*match.span(1), "")


def _sql_edits(text: str) -> Iterator[Edit]:
    yield from _token_edits(text, _SQL, _SQL_SILENT)
    for match in _SQL_LINE.finditer(text):
        yield (*match.span(1), "" if match[1].startswith("RETURN") else "NULL;")


def _token_edits(text: str, swaps: dict[str, str], silent: re.Pattern[str]) -> Iterator[Edit]:
    """Each token swapped and each number one higher, where no comment or string hides them."""
    seen = silent.sub(lambda match: " " * len(match[0]), text)
    for match in _tokens(swaps).finditer(seen):
        yield (*match.span(), swaps[match[0]])
    for match in re.finditer(r"(?<![\w.])\d+(?![\w.])", seen):
        yield (*match.span(), str(int(match[0]) + 1))


def _tokens(swaps: dict[str, str]) -> re.Pattern[str]:
    longest = sorted(swaps, key=len, reverse=True)
    alternatives = [rf"\b{re.escape(t)}\b" if t[0].isalpha() else re.escape(t) for t in longest]
    return re.compile("|".join(alternatives))


def _python_edits(text: str) -> Iterator[Edit]:
    maker = _PythonEdits(text)
    maker.visit(ast.parse(text))
    yield from maker.edits


class _PythonEdits(ast.NodeVisitor):
    """Walks what runs and can matter: neither annotations nor what an error or a log line says."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.edits: list[Edit] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in ("__str__", "__repr__", "describe"):
            self._visit_all([*node.args.defaults, *node.args.kw_defaults, *node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.value])

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")

    def visit_Assign(self, node: ast.Assign) -> None:
        if not isinstance(node.targets[0], ast.Name):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        self._swap(node.target, node.value)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, (ast.Call, ast.YieldFrom)) and not self._is_logging(node):
            self._replace(node, "pass")
            self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not _is_none(node.value):
            self._replace(node.value, "None")
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._replace(node.test, f"not ({self._segment(node.test)})")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            self._swap(left, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._swap(node.left, node.right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._swap(left, right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, self._segment(node.operand))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if other := {"min": "max", "max": "min"}.get(node.id):
            self._replace(node, other)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int):
            self._replace(node, str(node.value + 1))
        elif isinstance(node.value, str):
            self._statement(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._statement(node)

    def _statement(self, node: ast.expr) -> None:
        segment, at = self._segment(node), self._span(node)[0]
        if _STATEMENT.search(segment):
            edits = _token_edits(segment, _SQL, _SQL_SILENT)
            self.edits += [(at + start, at + end, new) for start, end, new in edits]

    def _visit_all(self, nodes: Sequence[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _is_logging(self, node: ast.AST) -> bool:
        return bool(_LOGGING.match(self._segment(node)))

    def _swap(self, left: ast.expr, right: ast.expr) -> None:
        start, end = self._span(left)[1], self._span(right)[0]
        found = _tokens(_PYTHON).search(self._text, start, end)
        if found:
            self.edits.append((*found.span(), _PYTHON[found[0]]))

    def _replace(self, node: ast.AST, new: str) -> None:
        self.edits.append((*self._span(node), new))

    def _segment(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._text[start:end]

    def _span(self, node: Any) -> tuple[int, int]:
        # Columns count bytes of UTF-8; the sources are ASCII where code stands.
        first = self._lines[node.lineno - 1] + node.col_offset
        return first, self._lines[node.end_lineno - 1] + node.end_col_offset


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
