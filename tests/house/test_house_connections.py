"""What a provider reads of a connection is what it says it reads, and what the docs say: anything else is refused."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from settings_reads import Reads, handing_functions, reads
from source_tree import DOCS, Source, imports, name_of, sources

from crossload import wiring
from crossload.ports.provider import BESIDE, IDENTITIES, Provider

PROVIDERS = sorted(wiring.PROVIDERS)


@cache
def modules() -> dict[str, Source]:
    return {source.module: source for source in sources() if source.path.startswith("providers/")}


@cache
def handing() -> dict[str, int]:
    ports = [s for s in sources() if s.path.startswith("ports/") and s.path != "ports/provider.py"]
    return handing_functions([*ports, *modules().values()])


@cache
def reads_of(module: str) -> Reads:
    return reads(modules()[module], handing())


def behind(module: str, seen: set[str] | None = None) -> set[str]:
    """A module and all modules of providers that it imports, also inside functions."""
    seen = set() if seen is None else seen
    if module in modules() and module not in seen:
        seen.add(module)
        for _, name in imports(modules()[module].tree):
            behind(name, seen)
            behind(name.rpartition(".")[0], seen)
    return seen


def read_by(offered: str) -> set[str]:
    """Settings that the port at `module:function` reads."""
    return {name for module in behind(offered.partition(":")[0]) for name in reads_of(module).names}


def differences(provider: Provider) -> list[str]:
    """Settings read and not declared, and the other way round."""
    found: list[str] = []
    for port, offered in provider.ports.items():
        read, declared = read_by(offered), set(provider.settings.get(port, {}))
        found += [f"{provider.name}.{port} reads `{name}` and does not say so" for name in sorted(read - declared)]
        found += [f"{provider.name}.{port} says `{name}`, which it never reads" for name in sorted(declared - read)]
    return found


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_says_what_it_reads(name: str) -> None:
    assert differences(wiring.provider(name)) == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_port_says_it_in_one_line_each(name: str) -> None:
    provider = wiring.provider(name)
    assert list(provider.settings) == list(provider.ports), "one entry for each port, in the same order"
    assert set().union(*provider.settings.values()), "a provider that needs no setting at all is none"
    for settings in provider.settings.values():
        for setting, line in settings.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", setting), setting
            assert line and "\n" not in line and "|" not in line and len(line) <= 100, setting


def test_one_name_is_one_thing_at_all_ports_of_a_provider() -> None:
    for name in PROVIDERS:
        lines: dict[str, set[str]] = {}
        for settings in wiring.provider(name).settings.values():
            for setting, line in settings.items():
                lines.setdefault(setting, set()).add(line)
        assert {setting: said for setting, said in lines.items() if len(said) > 1} == {}


def test_every_reading_can_be_followed() -> None:
    unclear = [line for module in modules() for line in reads_of(module).unclear]
    assert unclear == [], "read it by its name, so that it can be checked; or teach settings_reads.py"
    assert {"reference_of", "secret_value"} <= set(handing())


def test_a_setting_that_is_not_declared_is_found() -> None:
    """Take one declared setting away, and add one: both must be seen."""
    provider = wiring.provider("local")
    ports = {"store": provider.ports["store"]}
    less = Provider(provider.name, provider.title, ports, {"store": {}})
    more = Provider(provider.name, provider.title, ports, {"store": {"root": "x", "colour": "y"}})
    assert differences(less) == ["local.store reads `root` and does not say so"]
    assert differences(more) == ["local.store says `colour`, which it never reads"]


def planted(code: str, told: dict[str, int] | None = None) -> Reads:
    return reads(Source("providers/x/planted.py", "planted", code, ast.parse(code)), told or {})


INSIDE = "class X:\n  def __init__(self, settings: Settings):\n    self._s = settings\n  def f(self):\n    "


@pytest.mark.parametrize(
    "code",
    [
        "def f(settings: Settings): return settings.get('wanted')",
        "def f(s: Settings): return s.require('wanted')",
        "def f(*, s: Settings | None): return s.get('wanted', 'on')",
        "def f(s: Settings):\n  def g(): return s.get('wanted')\n  return g",
        "def f(s: Settings):\n  other = replace(s, identity='app')\n  return other.get('wanted')",
        "def f(s: Settings, x): return (replace(s, identity='a') if x else s).get('wanted')",
        "def f(s: Settings):\n  get = s.get\n  return get('wanted')",
        "def f(s: Settings): return [s.get(name) for name in ('wanted',)]",
        "def f(s: Settings):\n  names = ('wanted',)\n  return tuple(s.get(name) for name in names)",
        "NAMES = ('wanted',)\ndef f(s: Settings):\n  for name in NAMES: s.get(name)",
        "NAME = 'wanted'\ndef f(s: Settings): return s.get(NAME)",
        "def f(s: Settings): return s.connection.get('wanted@audit')",
        "def f(s: Settings): return s.connection['wanted']",
        "def f(s: Settings): return 'wanted' in s.connection",
        "def f(s: Settings): return s.connection.get(f'wanted@{s.identity}')",
        "def f(s: Settings): return [key for key in s.connection if key.startswith('wanted@')]",
        "def f(s: Settings):\n  c = s.connection\n  return {n: c.get(f'{n}@x') or c.get(n) for n in ('wanted',)}",
        "def f(place): return place.connection['wanted']",
        INSIDE + "return self._s.get('wanted')",
        INSIDE + "return replace(self._s, identity='x').require('wanted')",
        INSIDE + "s = self._s\n    return s.get('wanted')",
        INSIDE + "get = self._s.get\n    return get('wanted')",
        INSIDE + "return Settings(self._s.place, self._s.connection, {}).get('wanted')",
    ],
)
def test_a_planted_reading_is_found(code: str) -> None:
    found = planted(code)
    assert (found.names, found.unclear) == ({"wanted"}, [])


@pytest.mark.parametrize(
    "code",
    [
        "def f(s: Settings): return s.get(name='wanted')",
        "def f(s: Settings): return s.get(other())",
        "def f(s: Settings): return dict(s.connection)",
        "def f(s: Settings): return s.connection.items()",
        "def f(s: Settings): return [key for key in s.connection]",
        "def f(s: Settings): return g(s.connection)",
        "def f(s: Settings): return map(s.get, names)",
        "def f(s: Settings): return [s.get(n) for n in ('a', other)]",
        "def f(s: Settings):\n  name = 'a'\n  name = other()\n  return s.get(name)",
        "def f(place): return place.connection",
    ],
)
def test_what_cannot_be_followed_is_not_passed_over(code: str) -> None:
    assert planted(code).unclear


def test_a_reading_through_another_function_is_found() -> None:
    outer = "def f(s: Settings, name): return s.connection.get(f'{name}@{s.identity}') or s.get(name)\n"
    assert planted(outer).handing == {"f": 1}
    assert planted(outer + "def g(s: Settings): return f(s, 'wanted')", {"f": 1}).names == {"wanted"}
    assert planted("def g(s: Settings): return f(s, other())", {"f": 1}).unclear


def test_mappings_that_are_no_settings_are_left_alone() -> None:
    code = "def f(config):\n  settings = config or {}\n  return settings.get('PageSize')\n"
    assert planted(code) == Reads()


def test_identities_are_those_that_work_is_done_as() -> None:
    """Every identity that a stage or a provider chooses has its line, and the other way round."""
    chosen: set[str] = set()
    for source in sources():
        for call in [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]:
            wanted = [keyword.value for keyword in call.keywords if keyword.arg == "identity"]
            if source.room == "stages" and name_of(call.func) == "world.store":
                wanted += call.args[1:2]
            if source.room in ("stages", "providers"):
                chosen |= {w.value for w in wanted if isinstance(w, ast.Constant) and isinstance(w.value, str)}
    rules = {
        node.value
        for source in sources()
        if source.path.startswith("engines/checks/rules/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(chosen) >= 4
    assert chosen <= set(IDENTITIES)
    assert set(IDENTITIES) - chosen <= rules


def test_ports_beside_a_service_are_those_the_world_asks_for() -> None:
    source = next(item for item in sources() if item.path == "wiring.py")
    asked = {
        call.args[2].value
        for call in ast.walk(source.tree)
        if isinstance(call, ast.Call) and name_of(call.func) == "self._of" and isinstance(call.args[2], ast.Constant)
    }
    assert asked == BESIDE


# -- docs ------------------------------------------------------------------------------------------------------------


def rows(provider: Provider) -> list[str]:
    """The table that docs/migration-file.md must have of a provider, line by line."""
    lines = {setting: line for settings in provider.settings.values() for setting, line in settings.items()}
    asking = [port for port, settings in provider.settings.items() if settings]
    return [
        f"| `{setting}` | {'all' if list(readers) == asking and len(asking) > 1 else ', '.join(readers)} | {line} |"
        for setting, line in lines.items()
        for readers in [provider.readers(setting)]
    ]


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_docs_list_every_setting(name: str) -> None:
    provider = wiring.provider(name)
    page = (DOCS / "migration-file.md").read_text(encoding="utf-8")
    section = re.search(rf"^### `{name}`: {re.escape(provider.title)}$(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"docs/migration-file.md lacks the heading: ### `{name}`: {provider.title}"
    written = [line for line in section[1].splitlines() if line.startswith("| `")]
    assert written == rows(provider), "docs/migration-file.md must say:\n" + "\n".join(rows(provider))


def test_the_docs_list_every_identity() -> None:
    page = (DOCS / "migration-file.md").read_text(encoding="utf-8")
    written = [line for line in page.splitlines() if line.startswith("| `@")]
    assert written == [f"| `@{name}` | {line} |" for name, line in IDENTITIES.items()]
