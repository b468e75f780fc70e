"""Runs somebody's program in this interpreter as `python` would: used by `loopscope run` once it has left its own
command-line parser.

The program gets a `__main__` of its own, its arguments, its folder in front of `sys.path`; its exit code, `SystemExit`,
`KeyboardInterrupt` and exit handlers are the interpreter's, since every exception goes on to the top. Only what is
printed of an exception that nobody caught is cut: the frames of Loopscope above the program's are left out.
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any


class Program(BaseException):
    """What to run: a script (or a folder or archive with a `__main__`, or `-` for standard input), or a module.

    No error: the command-line parser is left by raising it, and that catches every Exception.
    """

    def __init__(self, script: str | None, module: str | None, arguments: list[str]) -> None:
        super().__init__(script or module)
        self.script = script
        self.module = module
        self.path: str | None = None
        """The script's, as the interpreter makes it absolute: joined, not normalised."""
        self.importer: Any = None
        """What imports from the script, when it is a folder or an archive."""
        if script is not None and script != "-":
            self.path = os.path.join(os.getcwd(), script)  # noqa: PTH109, PTH118
            self.importer = pkgutil.get_importer(self.path)
        self.arguments = arguments

    @property
    def label(self) -> str:
        """What `sys.argv[0]` is while nothing runs yet; the agent's name is taken from it."""
        if self.module is None:
            return self.script or ""
        return self.module.removesuffix(".__main__").rpartition(".")[2]

    def prepare(self) -> None:
        """Make the interpreter look as it does when a program starts."""
        global _replaced
        _replaced = sys.modules["__main__"]  # its globals must not be taken apart while its frame is on the stack
        sys.modules["__main__"] = main = ModuleType("__main__")
        vars(main).update(__builtins__=builtins, __annotations__={})
        sys.argv = ["-m" if self.module is not None else self.script or "", *self.arguments]
        if not sys.flags.safe_path:
            sys.path[0] = self._first_on_path()
        elif self.path is not None and self.importer is not None:
            sys.path.insert(0, self.path)

    def _first_on_path(self) -> str:
        if self.module is not None:
            return os.getcwd()  # noqa: PTH109 - as the interpreter does it
        if self.path is None:
            return ""
        return self.path if self.importer is not None else os.path.dirname(os.path.realpath(self.path))  # noqa: PTH120

    def execute(self) -> None:
        """Run it. Whatever it raises goes on."""
        try:
            _run(self)
        except SystemExit:
            raise
        except BaseException:
            _leave_us_out()
            raise


_replaced: ModuleType | None = None


def _run(program: Program) -> None:
    """The last frame of ours; what is below it is the program's."""
    as_main: Any = runpy._run_module_as_main  # pyright: ignore - what `python -m` calls
    if program.module is not None:
        as_main(program.module)
    elif program.importer is not None:
        as_main("__main__", False)
    else:
        exec(_code(program.path), vars(sys.modules["__main__"]))  # noqa: S102 - it is what was asked for


def _code(script: str | None) -> CodeType:
    """The script's code, with `__main__` told where it comes from."""
    main = vars(sys.modules["__main__"])
    if script is None:
        main.update(__file__="<stdin>", __cached__=None, __loader__=BuiltinImporter)
        return compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True)
    main.update(__file__=script, __cached__=None, __loader__=SourceFileLoader("__main__", script))
    with open(script, "rb") as file:  # noqa: PTH123
        compiled = pkgutil.read_code(file)
        if compiled is not None:
            return compiled
        file.seek(0)
        return compile(file.read(), script, "exec", dont_inherit=True)


def _leave_us_out() -> None:
    hook = sys.excepthook

    def without_us(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        trace = _below_us(trace)
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = without_us


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    ours = {_run.__code__, _code.__code__}
    inner, found = trace, trace
    while inner is not None:
        if inner.tb_frame.f_code in ours:
            found = inner.tb_next
        inner = inner.tb_next
    return found
