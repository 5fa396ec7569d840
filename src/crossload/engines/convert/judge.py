"""Which calls can be carried, and a diagnostic for every call, keyword and answer key that cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crossload.engines.convert.calls import NeutralCall, Origin
from crossload.engines.convert.scan import Scan
from crossload.estate.diagnostic import Diagnostic
from crossload.ports.code import Reading, ReadRow, Writing


@dataclass(frozen=True, slots=True)
class Verdict:
    """`carried`: calls that the adapter answers at the target. `origins`: constructors to redirect. `homes`: where
    clients of carried calls are made, redirected before or now (the adapter lives beside them). `sessions`: whether
    a session's clients are among them. `extra_members`: other members of clients that the code uses."""

    carried: tuple[NeutralCall, ...]
    origins: tuple[Origin, ...]
    homes: tuple[Origin, ...]
    writings: tuple[Writing, ...]
    diagnostics: tuple[Diagnostic, ...]
    sessions: bool
    extra_members: frozenset[str]


def judge(found: Scan, reading: Reading, writings: Sequence[Writing]) -> Verdict:
    """Sort the calls of a scan. Nothing is dropped in silence: what is not carried has a diagnostic."""
    offered = {op: writing for writing in writings for op in writing.rows}
    moving = reading.services_of({writing.group for writing in writings})
    carried: list[NeutralCall] = []
    said: list[Diagnostic] = []
    in_tests: set[Origin] = set()
    for call in found.calls:
        problem = _not_carried(call, reading, moving, offered)
        if problem is not None:
            said.append(problem)
            continue
        if all(_is_test(found, origin) for origin in call.origins):
            in_tests.update(call.origins)
            continue
        carried.append(call)
        row = reading.rows[call.service, call.method]
        said += _arguments(call, row)
        said += _losses(call, offered)
    origins = {origin for call in carried for origin in call.origins}
    in_tests |= {origin for origin in origins if _is_test(found, origin)}
    said += [
        _at(origin, Diagnostic.warning, "XL711", "a test makes its own client; tests are never edited",
            hint="let the test use the application's client, else it goes on speaking to the source")
        for origin in sorted(in_tests)
    ]  # fmt: skip
    homes = tuple(sorted(origins - in_tests))
    said += [problem for origin in homes for problem in _options(origin)]
    new = tuple(origin for origin in homes if not origin.converted)
    used = tuple(writing for writing in writings if any(call.op in writing.rows for call in carried))
    sessions = any(origin.of_session for origin in homes)
    diagnostics = tuple(
        sorted(set(said), key=lambda item: (item.subject, item.line, item.column, item.code, item.summary))
    )
    return Verdict(tuple(carried), new, homes, used, diagnostics, sessions, _extra_members(found, reading))


def _is_test(found: Scan, origin: Origin) -> bool:
    file = found.index.files.get(origin.path)
    return file is not None and file.is_test


def _not_carried(
    call: NeutralCall, reading: Reading, moving: dict[str, str], offered: dict[str, Writing]
) -> Diagnostic | None:
    name = f"{call.service or 'unknown service'}.{call.method}"
    if call.evidence == "name":
        return _at(
            call, Diagnostic.warning, "XL709", f"{name}: only names say that this is a cloud call; it is not converted",
            hint="annotate the client's type, or pass it from where it is made",
        )  # fmt: skip
    if call.maker != "client" and (call.service in moving or not call.service):
        return _at(
            call, Diagnostic.error, "XL712", f"{name}: the {call.maker} interface has no portable form",
            hint="use the client interface here",
        )  # fmt: skip
    row = reading.rows.get((call.service, call.method))
    if call.service not in moving:
        op = f" ({row.op})" if row is not None and row.op else ""
        return _at(call, Diagnostic.warning, "XL702", f"{name}{op} has no target here: it stays with the source")
    if row is None or not row.op:
        why = row.why if row is not None else ""
        return _at(
            call, Diagnostic.error, "XL701", f"{name} has no portable form, but its client moves", detail=why,
            hint="rewrite this call by hand before switching to the target",
        )  # fmt: skip
    if row.op not in offered:
        return _at(call, Diagnostic.error, "XL701", f"{name} ({row.op}) is not offered by the target")
    if not call.origins:
        return _at(
            call, Diagnostic.warning, "XL709", f"{name}: nothing here makes this client; it is not converted",
            hint="whoever passes the client in decides which cloud it speaks to",
        )  # fmt: skip
    return None


def _arguments(call: NeutralCall, row: ReadRow) -> Iterator[Diagnostic]:
    name = f"{call.service}.{call.method}"
    for argument in call.arguments:
        if argument.keyword in row.losses:
            yield _at(
                call, Diagnostic.warning, "XL704", f"{name}: {argument.keyword} is not carried over",
                detail=row.losses[argument.keyword],
            )  # fmt: skip
        elif not argument.neutral:
            yield _at(
                call, Diagnostic.error, "XL703", f"{name}: {argument.keyword} has no portable form",
                hint="the adapter refuses it at run time; rewrite this call by hand",
            )  # fmt: skip
    if call.untraced:
        yield _at(
            call, Diagnostic.warning, "XL705", f"{name}: some keywords are known at run time only",
            hint="a keyword without portable form is then refused by the adapter",
        )  # fmt: skip
    for key in call.results if row.results is not None else ():
        if row.results is not None and key not in row.results:
            yield _at(
                call, Diagnostic.warning, "XL706", f"{name}: the answer's {key} is not given at the target",
                hint="read it with .get(), and do without it",
            )  # fmt: skip


def _losses(call: NeutralCall, offered: dict[str, Writing]) -> Iterator[Diagnostic]:
    for loss in offered[call.op].rows[call.op].losses:
        yield _at(call, Diagnostic.note, "XL704", f"{call.service}.{call.method}: {loss}")


def _options(origin: Origin) -> Iterator[Diagnostic]:
    if origin.options:
        yield _at(
            origin, Diagnostic.note, "XL707", f"client options ({', '.join(origin.options)}) apply at the source only",
            detail="the target has settings of its own, read from the environment",
        )  # fmt: skip


def _extra_members(found: Scan, reading: Reading) -> frozenset[str]:
    """Members such as `client.exceptions` that the application names anywhere outside its tests."""
    names: set[str] = set()
    for file in found.index.files.values():
        for member, _ in file.members:
            name = member.child_by_field_name("attribute")
            if name is not None and file.text(name) in reading.plain_members:
                names.add(file.text(name))
    return frozenset(names)


def _at(
    place: NeutralCall | Origin, make: Any, code: str, summary: str, detail: str = "", hint: str = ""
) -> Diagnostic:
    column = place.column if isinstance(place, NeutralCall) else 1
    return make(code, summary, detail=detail, hint=hint, subject=place.path, line=place.line, column=column)
