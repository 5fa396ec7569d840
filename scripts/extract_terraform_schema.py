"""Extract a Terraform provider's resource schema from its published CDK wheel, without a registry or a network.

    pip download --no-deps cdktn-provider-google==21.1.0 -d DIR
    python scripts/extract_terraform_schema.py DIR/cdktn_provider_google-21.1.0-py3-none-any.whl \
        --provider hashicorp/google --out src/crossload/providers/gcp/google.schema.json.gz

The wheel holds a jsii tarball; each `package/lib/<resource>/index*.js` was generated from the provider's own schema.
What is read there: every argument with type and block-ness (`synthesizeHclAttributes`, `*ToHclTerraform`), and per
name a comment `NAME - computed: .., optional: .., required: ..`. What is not there: enums, item limits other than
"one block", conflicts between arguments, data sources. Run once per provider version; only the result is committed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_ENTRY = re.compile(
    r"^\s+(\w+): \{\n\s+value: (.+),\n\s+isBlock: (true|false),\n\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\"",
    re.M,
)
_STRUCT = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.M | re.S)
_CLASS = re.compile(r"^class (\w+)OutputReference extends [^\n]*\n(.*?)^\}", re.M | re.S)
_MAIN = re.compile(r"^class (\w+) extends cdktn\.Terraform(?:Resource|Provider) \{\n(.*?)^\}", re.M | re.S)
_FLAG = re.compile(r"^\s+// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)", re.M)
_GETTER = re.compile(r"return (?:cdktn\.Fn\.tolist\()?this\.get(\w+)Attribute\('(\w+)'\)")
_TYPE_NAME = re.compile(r'static tfResourceType = "(\w+)"')
_VERSION = re.compile(r"providerVersion: '([\w.+-]+)'")
_STRUCT_CALL = re.compile(r"\b(\w+)ToHclTerraform\b")

_SIMPLE = {"string": "string", "number": "number", "boolean": "bool"}
_GETTERS = {
    "String": "string", "Number": "number", "Boolean": "bool", "List": "list(string)", "NumberList": "list(number)",
    "StringMap": "map(string)", "NumberMap": "map(number)", "BooleanMap": "map(bool)",
}  # fmt: skip
DEPTH_MAX = 12  # some providers nest a block in itself without end


def terraform_type(kind: str, storage: str) -> str:
    """`kind` is simple | list | set | map | struct, `storage` such as string, stringList, stringMap."""
    if kind == "simple" and storage in _SIMPLE:
        return _SIMPLE[storage]
    if kind in ("list", "set", "map"):
        for word, name in _SIMPLE.items():
            if storage.startswith(word):
                return f"{kind}({name})"
    return "any"


def flag_mark(computed: bool, optional: bool, required: bool) -> str:
    """`!` required, `?` optional, `=` the provider fills it in; `=` alone is read-only."""
    return "!" if required else ("?" if optional else "") + ("=" if computed else "")


class ResourceReader:
    """One resource's generated JavaScript."""

    def __init__(self, text: str) -> None:
        self.structs = {name: body for name, body in _STRUCT.findall(text)}
        self.classes = {_lower_first(name): body for name, body in _CLASS.findall(text)}
        main = _MAIN.search(text)
        self.main = main.group(2) if main else ""

    def read(self) -> dict[str, Any]:
        start = self.main.find("synthesizeHclAttributes")
        return self._block(self.main[start:] if start >= 0 else "", self.main, 0)

    def _block(self, arguments: str, declared: str, depth: int) -> dict[str, Any]:
        flags = {name: flag_mark(*(word == "true" for word in words)) for name, *words in _FLAG.findall(declared)}
        attributes: dict[str, str] = {}
        blocks: dict[str, Any] = {}
        for name, value, is_block, kind, storage in _ENTRY.findall(arguments):
            struct = next((found for found in _STRUCT_CALL.findall(value) if found in self.structs), None)
            mark = flags.get(name, "?")
            if is_block == "true" and struct and depth < DEPTH_MAX:
                inner = self._block(self.structs[struct], self.classes.get(struct, ""), depth + 1)
                blocks[name] = {"n": "*" if "listMapperHcl" in value else "1", "f": mark, **inner}
            else:
                attributes[name] = terraform_type("struct" if struct else kind, storage) + mark
        getters = {name: kind for kind, name in _GETTER.findall(declared)}
        for name, mark in flags.items():
            if name not in attributes and name not in blocks:
                attributes[name] = _GETTERS.get(getters.get(name, ""), "any") + mark
        out: dict[str, Any] = {"a": dict(sorted(attributes.items()))}
        if blocks:
            out["b"] = dict(sorted(blocks.items()))
        return out


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


def resource_texts(wheel: Path) -> Iterator[tuple[str, str]]:
    """(folder, JavaScript of all its files) of the wheel's tarball, data sources left out."""
    with zipfile.ZipFile(wheel) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        data = archive.read(inner)
    texts: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            parts = member.name.split("/")
            if len(parts) < 4 or parts[1] != "lib" or parts[2].startswith("data-") or not member.name.endswith(".js"):
                continue
            handle = tar.extractfile(member)
            if handle is not None:
                texts.setdefault(parts[2], []).append(handle.read().decode("utf-8"))
    for folder in sorted(texts):
        yield folder, "\n".join(texts[folder])


def extract(wheel: Path, provider: str, only: frozenset[str]) -> dict[str, Any]:
    """The schema document; `only` names resource types, empty means all."""
    resources: dict[str, Any] = {}
    settings: Mapping[str, Any] = {}
    version = ""
    for folder, text in resource_texts(wheel):
        if folder == "provider":
            settings = ResourceReader(text).read()
            continue
        name = _TYPE_NAME.search(text)
        if name is None or (only and name.group(1) not in only):
            continue
        found = _VERSION.search(text)
        version = version or (found.group(1) if found else "")
        resources[name.group(1)] = ResourceReader(text).read()
    missing = only - set(resources)
    if missing:
        raise SystemExit(f"not in {wheel.name}: {', '.join(sorted(missing))}")
    return {
        "provider": provider,
        "version": version,
        "source": wheel.name,
        "complete": not only,
        "settings": settings,
        "resources": dict(sorted(resources.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Extract a Terraform provider's schema from its CDK wheel.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--provider", required=True, help="registry address, for example hashicorp/google")
    parser.add_argument("--only", nargs="*", default=[], help="resource types; all when absent")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    document = extract(chosen.wheel, chosen.provider, frozenset(chosen.only))
    raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    # mtime 0: the same wheel gives the same bytes, so a refresh shows up as a diff only when the schema changed.
    chosen.out.write_bytes(gzip.compress(raw, 9, mtime=0))
    count = len(document["resources"])
    sys.stderr.write(
        f"{document['provider']} {document['version']}: {count} resources, {chosen.out.stat().st_size} bytes\n"
    )


if __name__ == "__main__":
    main()
