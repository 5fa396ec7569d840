"""Mistakes planted into our own module, one at a time: the checker must find them, and find nothing else wrong."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest

from crossload.engines.infra.check import CheckReport
from crossload.engines.infra.module import check_module
from crossload.estate.diagnostic import errors_in
from crossload.estate.place import Place
from crossload.ports.provider import Settings

Modules = Callable[[str], dict[str, str]]
_REPLICATION = (
    "  replication {\n    user_managed {\n      replicas {\n        location = var.region\n      }\n    }\n  }\n"
)
_LABELS = (
    'labels = {\n    app                 = "helpdesk"\n    crossload_migration = "helpdesk"\n'
    '    owner               = "team-n-h-co"\n  }\n\n  # Without'
)
_VERSIONING = "  versioning {\n    enabled = true\n  }\n"
# (what a person got wrong, text in main.tf, what it became, the code that must be among the answers)
MISTAKES = [
    ("misspelt argument", "storage_class  ", "storage_clas   ", "XL812"),
    ("argument of another cloud", "force_destroy  ", "deletion_flag  ", "XL812"),
    ("misspelt nested argument", "default_kms_key_name =", "default_kms_key =", "XL812"),
    ("misspelt block", "  versioning {", "  versionning {", "XL812"),
    (
        "misspelt resource type",
        '"google_storage_bucket" "helpdesk_docs"',
        '"google_storage_buckets" "helpdesk_docs"',
        "XL811",
    ),
    ("resource type that was removed", '"google_kms_key_ring" "', '"google_kms_keyring_v1" "', "XL811"),
    ("required argument left out", "  key_ring        = google_kms_key_ring.foundations.id\n", "", "XL813"),
    ("required block left out", _REPLICATION, "", "XL813"),
    (
        "required argument of a nested block left out",
        "    default_kms_key_name = google_kms_crypto_key.data.id\n",
        "",
        None,
    ),
    (
        "text where a bool is wanted",
        "uniform_bucket_level_access = true",
        'uniform_bucket_level_access = "yes"',
        "XL814",
    ),
    ("text where a number is wanted", "retention_days = 400", 'retention_days = "a year"', "XL814"),
    (
        "text where a list is wanted",
        'permissions = ["storage.objects.get"]',
        'permissions = "storage.objects.get"',
        "XL814",
    ),
    (
        "list where text is wanted",
        "location                    = upper(var.region)",
        "location                    = [var.region]",
        "XL814",
    ),
    ("text where a map is wanted", _LABELS, 'labels = "helpdesk"\n\n  # Without', "XL814"),
    (
        "map variable where text is wanted",
        "issuer_uri        = var.oidc_issuer",
        "issuer_uri        = var.role_subjects",
        "XL814",
    ),
    (
        "reference to a resource that is not there",
        "google_kms_key_ring.foundations.id",
        "google_kms_key_ring.foundation.id",
        "XL815",
    ),
    ("reference to a variable that is not there", "project = var.project\n", "project = var.projct\n", "XL815"),
    ("reference to a local that is not there", "upper(var.region)", "upper(local.region)", "XL815"),
    (
        "reference to an attribute that is not there",
        "google_service_account.helpdesk_app.email",
        "google_service_account.helpdesk_app.mail",
        "XL816",
    ),
    ("reference inside a template", "${var.project_number}", "${var.project_nr}", "XL815"),
    ("a word without quotes", 'purpose         = "ENCRYPT_DECRYPT"', "purpose         = ENCRYPT_DECRYPT", "XL815"),
    ("read-only argument set", "  account_id   = ", '  email        = "x@y"\n  account_id   = ', "XL817"),
    ("block written as argument", _VERSIONING, "  versioning = true\n", "XL818"),
    ("argument written as block", '  display_name              = "Workloads"\n', "  display_name {\n  }\n", "XL818"),
    ("block twice where one is allowed", _VERSIONING, f"{_VERSIONING}\n{_VERSIONING}", "XL818"),
    ("argument twice", "  purpose ", '  purpose = "ENCRYPT_DECRYPT"\n  purpose ', "XL819"),
    ("resource twice", '"google_storage_bucket" "helpdesk_models"', '"google_storage_bucket" "helpdesk_docs"', "XL819"),
    ("public access left open", '"enforced"', '"inherited"', "XL820"),
    ("a value in the wrong unit", '"7776000s"', '"90d"', "XL820"),
    ("a name the cloud refuses", 'account_id   = "helpdesk-app"', 'account_id   = "App"', "XL820"),
    (
        "everybody is given a role",
        '  member = "serviceAccount:${google_service_account.helpdesk_app.email}"',
        '  member = "allUsers"',
        "XL820",
    ),
    (
        "data deleted with the module",
        "force_destroy               = false",
        "force_destroy               = true",
        "XL820",
    ),
    (
        "resources that wait for each other",
        '  name     = "helpdesk"\n',
        "  name     = google_kms_crypto_key.data.name\n",
        "XL821",
    ),
    ("a provider version whose schema was not used", '"~> 8.7"', '"~> 7.0"', "XL823"),
    ("a bracket not closed", "[var.oidc_audience]", "[var.oidc_audience", "XL810"),
    ("a quote not closed", '"team-issuer"', '"team-issuer', "XL810"),
    ("an equals sign left out", "  service = ", "  service ", "XL810"),
    ("unknown kind of block", 'resource "google_kms_key_ring"', 'resourse "google_kms_key_ring"', "XL811"),
    ("a label left out", 'resource "google_kms_key_ring" "foundations"', 'resource "google_kms_key_ring"', "XL811"),
]


def check(files: dict[str, str]) -> CheckReport:
    place = Place("target", "gcp", "europe-west3", "DE")
    return check_module(files, import_module("crossload.providers.gcp.infra").open_infra(Settings(place, {}, {})))


def seeded(module_of: Modules) -> list[tuple[str, str | None, dict[str, str]]]:
    out: list[tuple[str, str | None, dict[str, str]]] = []
    for name, before, after, code in MISTAKES:
        files = module_of("gcp")
        if before not in files["main.tf"]:
            continue
        out.append((name, code, {**files, "main.tf": files["main.tf"].replace(before, after, 1)}))
    return out


def test_the_module_without_a_mistake_is_clean(module_of: Modules) -> None:
    """Otherwise the tests below would find what was there before."""
    assert not check(module_of("gcp")).diagnostics


def test_at_least_28_of_30_mistakes_are_found(module_of: Modules) -> None:
    planted = seeded(module_of)
    assert len(planted) >= 36, "a mistake no longer fits the text it is planted into"
    missed = [name for name, _, files in planted if not errors_in(check(files).diagnostics)]
    # The block's one argument is optional by the schema, so leaving it out is no mistake a schema can see.
    assert missed == ["required argument of a nested block left out"]


@pytest.mark.parametrize("name", [row[0] for row in MISTAKES if row[3]])
def test_each_mistake_is_named_by_its_code(module_of: Modules, name: str) -> None:
    found = {planted: (code, files) for planted, code, files in seeded(module_of)}
    assert name in found, "this mistake no longer fits the text it is planted into"
    code, files = found[name]
    problems = errors_in(check(files).diagnostics)
    assert code in {item.code for item in problems}
    about = next(item for item in problems if item.code == code)
    assert code == "XL821" or (about.subject == "main.tf" and about.line > 0)


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("storage_class  ", "storage_clas   ", "storage_class"),
        ('"google_storage_bucket" "helpdesk_docs"', '"google_storage_buckt" "helpdesk_docs"', "google_storage_bucket"),
        ("google_kms_key_ring.foundations.id", "google_kms_key_ring.foundation.id", "google_kms_key_ring.foundations"),
        ("var.project\n", "var.projct\n", "project"),
        ("helpdesk_app.email", "helpdesk_app.emial", "email"),
        ("  versioning {", "  versionning {", "versioning"),
    ],
)
def test_a_misspelling_is_told_what_was_probably_meant(module_of: Modules, before: str, after: str, hint: str) -> None:
    files = module_of("gcp")
    assert before in files["main.tf"]
    files["main.tf"] = files["main.tf"].replace(before, after, 1)
    assert f"did you mean `{hint}`?" in [item.hint for item in check(files).diagnostics]


def test_a_variable_nobody_uses_is_a_warning_and_no_error(module_of: Modules) -> None:
    files = module_of("gcp")
    files["variables.tf"] += '\nvariable "spare" {\n  type = string\n}\n'
    report = check(files)
    assert [item.code for item in report.diagnostics] == ["XL822"]
    assert report.good


def test_a_secret_in_a_file_is_an_error(module_of: Modules) -> None:
    files = module_of("gcp")
    files["main.tf"] += '\nresource "google_secret_manager_secret_version" "v" {\n' + (
        '  secret      = google_secret_manager_secret.helpdesk_api_key.id\n  secret_data = "hunter2"\n}\n'
    )
    assert [item.code for item in check(files).diagnostics] == ["XL824"]
    files["main.tf"] = files["main.tf"].replace('"hunter2"', "var.project")
    assert not check(files).diagnostics


def test_a_resource_of_a_provider_without_schema_is_said_not_checked(module_of: Modules) -> None:
    files = module_of("gcp")
    files["extra.tf"] = 'resource "random_pet" "p" {\n  lenght = 3\n}\n'
    report = check(files)
    assert report.good
    assert report.unchecked == ("random_pet",)
    assert "not checked: random_pet" in report.statement


def test_every_problem_of_a_file_is_told_at_once(module_of: Modules) -> None:
    files = module_of("gcp")
    for _, before, after, code in MISTAKES[:3]:
        assert code
        files["main.tf"] = files["main.tf"].replace(before, after, 1)
    assert len(errors_in(check(files).diagnostics)) >= 3
