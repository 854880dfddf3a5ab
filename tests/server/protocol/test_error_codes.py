"""Every code that the source can send is in the list, and the list holds nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

from server.protocol import errors
from server.protocol.error_codes import CODES
from server.protocol.errors import TaskError
from server.specs.parameters import parameter_codes
from tests.server.support.process import REPOSITORY

FAMILY_FUNCTIONS = {"invalid": errors.invalid, "missing": errors.missing, "unsupported": errors.unsupported}
ERROR_CLASSES = {kind.__name__ for kind in TaskError.__subclasses__()} | {"TaskError"}


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """All calls in the server's source, with the name of what is called."""
    for path in (REPOSITORY / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                yield path, node, name


def takes_code(name: str) -> bool:
    """Whether an error class takes its code as the first argument."""
    kind = getattr(errors, name)
    return "code" in kind.__init__.__code__.co_varnames[: kind.__init__.__code__.co_argcount]


def sent_codes() -> set[str]:
    found = set()
    for path, call, name in calls():
        in_errors = path.name == "errors.py" and path.parent.name == "protocol"
        if (name in ERROR_CLASSES and takes_code(name)) or (in_errors and name == "__init__"):
            if call.args and isinstance(call.args[0], ast.Constant):
                found.add(str(call.args[0].value))
            else:
                assert in_errors, f"{path}:{call.lineno}: the code must be written out"
    return found


def parameter_codes_sent() -> set[str]:
    return {
        FAMILY_FUNCTIONS[name](str(call.args[0].value), "").code
        for _, call, name in calls()
        if name in FAMILY_FUNCTIONS and call.args and isinstance(call.args[0], ast.Constant)
    }


def test_the_list_holds_the_codes_that_the_source_sends_and_no_others() -> None:
    assert sent_codes() == set(CODES)


def test_codes_about_one_parameter_are_listed() -> None:
    listed = {code for codes in parameter_codes().values() for code in codes} | set(CODES)
    assert parameter_codes_sent() - listed == set()
