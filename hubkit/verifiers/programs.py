r"""Converts tests of programs in public datasets to the two kinds that the code verifier runs.

    MBPP       test_list: ["assert double(2) == 4"], with test_setup_code or test_imports beside it
    HumanEval  test: "def check(candidate):\n    assert candidate(2) == 4", entry_point: "double"
    APPS       input_output: '{"inputs": ["21\n"], "outputs": ["42\n"]}', also with "fn_name": "double"
    TACO       the same; inputs may be lists of lines
    pairs      [{"input": "21\n", "output": "42\n"}], as LiveCodeBench has them with "testtype": "stdin"
become
    ["assert double(2) == 4"], ["def check(…): …\n\ncheck(double)"], [{"input": "21\n", "output": "42\n"}]

A test that checks nothing is refused when the problem is read: Python that asserts and raises nothing, or uses no name
that the program could define, a definition that is never called, inputs without outputs, and every other layout.
`code.py` finds tests that check nothing only when they run (`if False:`, a loop over nothing): they pass without any
program.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from hubkit.errors import InputError

__all__ = ["BESIDE", "read_tests"]

BESIDE: Final = ("entry_point", "test_setup_code", "test_imports")
"""Columns that HumanEval and MBPP have beside the tests; they are read if present."""

LAYOUTS: Final = "give asserts, {input, output} pairs, or what APPS, TACO, HumanEval or MBPP have"


def read_tests(value: Any, row: Mapping[str, Any], where: str) -> list[Any]:
    """The tests of a problem: Python texts and {"input", "output"}. `row` has the columns of BESIDE, if any.

    Raises InputError that names the row for tests that check nothing, or are laid out in another way.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"{where}: tests are not JSON: {error}", LAYOUTS) from error
    if isinstance(value, Mapping):
        tests = _apps(value, where)
    elif isinstance(value, str):
        tests = [_text(value, row, where)]
    elif isinstance(value, list | tuple):
        tests = [_one(test, row, f"{where}: test {number}") for number, test in enumerate(value, 1)]
    else:
        raise InputError(f"{where}: tests are {type(value).__name__}, no list", LAYOUTS)
    if not tests:
        raise InputError(f"{where}: there are no tests", LAYOUTS)
    return tests


def _one(test: Any, row: Mapping[str, Any], where: str) -> Any:
    if isinstance(test, str):
        return _text(test, row, where)
    if not isinstance(test, Mapping):
        raise InputError(f"{where} is {type(test).__name__}, neither text nor a pair", LAYOUTS)
    kind = test.get("testtype", "stdin")
    if (
        not set(test) <= {"input", "output", "testtype"}
        or not {"input", "output"} <= set(test)
        or kind != "stdin"
    ):
        keys = ", ".join(map(str, test))
        raise InputError(f"{where} has the keys {keys}, and not just input and output", LAYOUTS)
    return _pair(test["input"], test["output"], where)


def _pair(given: Any, printed: Any, where: str) -> dict[str, str]:
    texts = []
    for text in (given, printed):
        if isinstance(text, list) and all(isinstance(line, str) for line in text):
            text = "\n".join(text)  # TACO's lists of lines
        if not isinstance(text, str):
            raise InputError(f"{where}: input and output are not texts: {str(text)[:40]!r}", LAYOUTS)
        texts.append(text)
    if not texts[1].strip():
        raise InputError(f"{where}: it expects no output, and so checks nothing", LAYOUTS)
    return {"input": texts[0], "output": texts[1]}


def _apps(value: Mapping[str, Any], where: str) -> list[Any]:
    """APPS and TACO: lists of inputs and outputs, for standard input or, with fn_name, for a function."""
    if not {"inputs", "outputs"} <= set(value) or not set(value) <= {"inputs", "outputs", "fn_name"}:
        raise InputError(f"{where}: tests have the keys {', '.join(map(str, value))}", LAYOUTS)
    inputs, outputs, function = value["inputs"], value["outputs"], value.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise InputError(f"{where}: inputs and outputs are not lists of the same length", LAYOUTS)
    if not function:
        return [
            _pair(*pair, f"{where}: test {n}") for n, pair in enumerate(zip(inputs, outputs, strict=True), 1)
        ]
    if not str(function).isidentifier():
        raise InputError(f"{where}: fn_name {str(function)[:40]!r} is not the name of a function", LAYOUTS)
    return [_call(str(function), given, wanted, where) for given, wanted in zip(inputs, outputs, strict=True)]


def _call(function: str, given: Any, wanted: Any, where: str) -> str:
    """A call with its arguments. A result may stand in a list of one, and tuples are lists, as in APPS' own checker."""
    if not isinstance(given, list):
        raise InputError(f"{where}: the arguments of {function} are no list", LAYOUTS)
    arguments, result = json.dumps(json.dumps(given)), json.dumps(json.dumps(wanted))
    return (
        "import json as _json\n"
        f"_found = (Solution().{function} if 'Solution' in globals() else {function})(*_json.loads({arguments}))\n"
        f"_found, _wanted = _json.loads(_json.dumps(_found)), _json.loads({result})\n"
        "assert _found == _wanted or (isinstance(_wanted, list) and len(_wanted) == 1 and _found == _wanted[0]), "
        "f'{_found!r} is not {_wanted!r}'"
    )


def _text(test: str, row: Mapping[str, Any], where: str) -> str:
    """Python that runs after the program, with what stands beside it in the row."""
    setup = row.get("test_imports") or row.get("test_setup_code") or ""
    before = "\n".join(setup) if isinstance(setup, list) else str(setup)
    whole = f"{before}\n{test}" if before.strip() else test
    try:
        tree = ast.parse(whole)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: a test is no Python: {error}", LAYOUTS) from error
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if checks and not _called(tree, "check"):
        entry = str(row.get("entry_point") or "")
        if not entry.isidentifier():
            raise InputError(
                f"{where}: check() is defined and never called, and there is no entry_point beside it",
                LAYOUTS,
            )
        whole = f"{whole}\n\ncheck({entry})"
        tree = ast.parse(whole)
    if foreign := _foreign(tree):
        raise InputError(
            f"{where}: a test imports {foreign}, and programs run with the standard library alone",
            "leave such problems out",
        )
    if not _checks(tree) or not _uses_program(tree):
        raise InputError(f"{where}: a test checks nothing: {test.strip()[:60]!r}", LAYOUTS)
    return whole


def _foreign(tree: ast.Module) -> str:
    """Returns a module that the tests import and the sandbox lacks; "" if there is none."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                return name
    return ""


def _uses_program(tree: ast.Module) -> bool:
    """Whether a name is used that neither Python nor the test itself defines."""
    known = {*vars(builtins), "__name__"} - {"globals", "locals", "eval", "exec", "__import__"}
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
    return not used <= known


def _called(tree: ast.Module, name: str) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        for node in ast.walk(tree)
    )


def _checks(tree: ast.Module) -> bool:
    """Whether code that runs asserts or raises something; the body of a definition runs if its name is used."""
    defined = {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    left, done = _running(tree.body), set()
    while left:
        node = left.pop()
        if isinstance(node, ast.Raise) or (
            isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)
        ):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            ends = called in ("sys.exit", "exit", "quit", "os._exit")
            status = node.args[0] if node.args else ast.Constant(0)
            if (
                (ends and not (isinstance(status, ast.Constant) and status.value in (0, None)))
                or ".assert_" in called
                or ".testing." in called
            ):
                return True
            if called.endswith(("unittest.main", "TextTestRunner().run")) or called == "main":
                cases = [d for d in defined.values() if isinstance(d, ast.ClassDef)]
                if any(".assert" in ast.unparse(case) or "assert " in ast.unparse(case) for case in cases):
                    return True
        if isinstance(node, ast.Name) and node.id in defined and node.id not in done:
            done.add(node.id)
            found = defined[node.id]
            left += _running(found.body)
            if isinstance(found, ast.ClassDef):
                left += [
                    inner for part in found.body if hasattr(part, "body") for inner in _running(part.body)
                ]
    return False


def _running(body: list[ast.stmt]) -> list[ast.AST]:
    """All nodes of statements but those in the bodies of definitions."""
    nodes: list[ast.AST] = []
    left: list[ast.AST] = list(body)
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        nodes.append(node)
        left += list(ast.iter_child_nodes(node))
    return nodes
