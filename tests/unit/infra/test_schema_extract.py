"""The extractor on a wheel made here, in the shape of the published ones."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from crossload.engines.infra.schema import read_schema

RESOURCE = """
function thingRuleToHclTerraform(struct) {
    const attrs = {
        days: {
            value: cdktn.numberToHclTerraform(struct.days),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
    };
}
class ThingRuleOutputReference extends cdktn.ComplexObject {
    // days - computed: false, optional: false, required: true
    // until - computed: true, optional: false, required: false
    get until() {
        return this.getStringAttribute('until');
    }
}
class Thing extends cdktn.TerraformResource {
    static tfResourceType = "acme_thing";
    constructor() {
        super({ terraformGeneratorMetadata: {
            providerVersion: '1.2.3',
        } });
    }
    // name - computed: false, optional: false, required: true
    // tags - computed: true, optional: true, required: false
    // size - computed: true, optional: false, required: false
    get size() {
        return this.getNumberAttribute('size');
    }
    // rule - computed: false, optional: true, required: false
    // owner - computed: false, optional: false, required: true
    synthesizeHclAttributes() {
        const attrs = {
            name: {
                value: cdktn.stringToHclTerraform(this._name),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            tags: {
                value: cdktn.hashMapperHcl(cdktn.stringToHclTerraform)(this._tags),
                isBlock: false,
                type: "map",
                storageClassType: "stringMap",
            },
            rule: {
                value: cdktn.listMapperHcl(thingRuleToHclTerraform, true)(this._rule.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ThingRuleList",
            },
            owner: {
                value: thingRuleToHclTerraform(this._owner.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ThingRuleList",
            },
        };
    }
}
"""


def wheel(folder: Path) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, text in (
            ("package/lib/thing/index.js", RESOURCE),
            ("package/lib/data-acme-thing/index.js", RESOURCE.replace("acme_thing", "acme_seen")),
            ("package/lib/thing/index.d.ts", "not read"),
        ):
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path = folder / "cdktn_provider_acme-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cdktn_provider_acme/_jsii/provider-acme@9.9.9.jsii.tgz", inner.getvalue())
    return path


def extract(repository: Path, made: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = repository / "scripts" / "extract_terraform_schema.py"
    argv = [sys.executable, str(script), str(made), "--provider", "acme/acme", "--out", str(out), *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_extract(repository: Path, tmp_path: Path) -> None:
    made, out = wheel(tmp_path), tmp_path / "schema.json.gz"
    assert extract(repository, made, out).returncode == 0
    schema = read_schema(out.read_bytes())
    assert (schema.title, schema.source, schema.complete, schema.name) == ("acme/acme 1.2.3", made.name, True, "acme")
    assert schema.kinds == ["acme_thing"], "data sources are left out"
    thing = schema.resource("acme_thing")
    assert thing is not None
    name, tags, size = thing.argument("name"), thing.argument("tags"), thing.argument("size")
    assert name is not None and (name.type, name.required, name.settable) == ("string", True, True)
    assert tags is not None and (tags.type, tags.required, tags.settable) == ("map(string)", False, True)
    assert size is not None and (size.type, size.settable) == ("number", False), (
        "what the provider fills in is read-only"
    )
    rule, owner = thing.block("rule"), thing.block("owner")
    assert rule is not None and (rule.single, rule.required) == (False, False)
    assert owner is not None and (owner.single, owner.required) == (True, True)
    assert rule.arguments == ["days", "until"]
    again = tmp_path / "again.gz"
    extract(repository, made, again)
    assert again.read_bytes() == out.read_bytes(), "the same wheel must give the same bytes"


def test_extract_only_some(repository: Path, tmp_path: Path) -> None:
    made, out = wheel(tmp_path), tmp_path / "schema.json.gz"
    assert extract(repository, made, out, "--only", "acme_thing").returncode == 0
    assert read_schema(out.read_bytes()).complete is False
    missing = extract(repository, made, out, "--only", "acme_nothing")
    assert missing.returncode != 0
    assert "acme_nothing" in missing.stderr
