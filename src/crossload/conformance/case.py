"""What a case is, how it speaks, and how a list of them is run."""

from __future__ import annotations

import contextlib
import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from crossload.ports.errors import CrossloadError

BenchT = TypeVar("BenchT")


class Broken(AssertionError):
    """The provider does not keep a promise of its port. The message says which, with what was seen."""


class NotOffered(Exception):
    """The provider does not make this promise (a feature it lacks, or a bench that cannot show it)."""


@dataclass(frozen=True, slots=True)
class Case(Generic[BenchT]):
    """`name` is stable (known-deviation lists use it); `promise` is the sentence it holds the provider to."""

    name: str
    promise: str
    run: Callable[[BenchT], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` is kept | broken | known | not-offered. `known` is a broken promise that was written down before."""

    case: str
    promise: str
    result: str
    detail: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "promise": self.promise, "result": self.result, "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


@dataclass(slots=True)
class Collection(Generic[BenchT]):
    """Cases in the order in which they were written."""

    cases: list[Case[BenchT]] = field(default_factory=list)

    def case(self, function: Callable[[BenchT], None]) -> Callable[[BenchT], None]:
        """Decorator: the function's name is the case, the first line of its docstring the promise."""
        promise = (inspect.getdoc(function) or "").partition("\n")[0]
        self.add(function.__name__, promise, function)
        return function

    def add(self, name: str, promise: str, function: Callable[[BenchT], None]) -> None:
        if any(case.name == name for case in self.cases):
            raise ValueError(f"two cases are named {name}")
        self.cases.append(Case(name, promise, function))


def judge(case: Case[BenchT], bench: BenchT, known: Mapping[str, str]) -> Verdict:
    """Run one case. A known deviation that is gone counts as broken, so that the list of them stays true."""
    start = time.perf_counter()

    def verdict(result: str, detail: str = "") -> Verdict:
        return Verdict(case.name, case.promise, result, detail, time.perf_counter() - start)

    try:
        case.run(bench)
    except NotOffered as reason:
        return verdict("not-offered", str(reason))
    except (Broken, CrossloadError) as error:
        text = f"{type(error).__name__}: {error}"
        if case.name in known:
            return verdict("known", f"{known[case.name]} [{text}]")
        return verdict("broken", text)
    except Exception as error:  # noqa: BLE001  # a foreign error that gets out is itself a broken promise
        return verdict("broken", f"a foreign error got out: {_where(error)}")
    if case.name in known:
        return verdict("broken", f"kept, though it is on the list of known deviations ({known[case.name]})")
    return verdict("kept")


def run_all(cases: Iterable[Case[BenchT]], bench: BenchT, known: Mapping[str, str] | None = None) -> Iterator[Verdict]:
    """Verdicts, one by one, as the cases end."""
    for case in cases:
        yield judge(case, bench, known or {})


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise Broken(message)


def expect_equal(got: object, wanted: object, what: str) -> None:
    if got != wanted:
        raise Broken(f"{what}: got {_short(got)}, wanted {_short(wanted)}")


@contextlib.contextmanager
def expect_error(*kinds: type[CrossloadError], during: str) -> Iterator[None]:
    """The block must raise one of `kinds`; another error of the tree, or none, breaks the promise."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds:
        return
    except CrossloadError as error:
        raise Broken(f"{during}: expected {names}, got {type(error).__name__}: {error}") from error
    raise Broken(f"{during}: expected {names}, but it went through")


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno} in {frame.name})"


def _short(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 48:
        return f"{len(value)} bytes starting {value[:16]!r}"
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."
