"""Foundations as Google Cloud resources (Terraform provider hashicorp/google). Data in, blocks out; no text is written.

Sources: the provider's documentation and cloud.google.com/iam/docs (custom roles, workload identity federation)."""

from __future__ import annotations

import re

from crossload.ports.infra import (
    Block,
    Constraint,
    Expression,
    Foundations,
    Template,
    Value,
)
from crossload.ports.provider import Settings
from crossload.providers.terraform import (
    KEEP_KEY,
    TerraformInfra,
    labels,
    output,
    required,
    sign_in_variables,
    slug,
    variable,
)

_VERSION = "~> 8.7"
_DAY_SECONDS = 86_400
# Overwriting an object asks for storage.objects.delete: a role with `create` alone breaks the second write of a key.
_PERMISSIONS = {
    "objects.list": ("storage.objects.list",),
    "objects.read": ("storage.objects.get",),
    "objects.write": ("storage.objects.create", "storage.objects.delete", "storage.objects.update"),
    "objects.delete": ("storage.objects.delete",),
}
_SECRET_READER = "roles/secretmanager.secretAccessor"  # noqa: S105 - the name of a role

# What the schema does not say. From the resources' API references.
_CONSTRAINTS = (
    Constraint(
        "google_storage_bucket.public_access_prevention", "enforced", "a landing bucket is never public: enforced"
    ),
    Constraint("google_storage_bucket.uniform_bucket_level_access", "true", "object ACLs would bypass the roles: true"),
    Constraint(
        "google_storage_bucket.force_destroy", "false", "`terraform destroy` must not delete carried data: false"
    ),
    Constraint("google_storage_bucket.versioning.enabled", "true", "the way back from an overwrite: true"),
    Constraint(
        "google_storage_bucket.name",
        r"(?!goog)(?!.*google)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
        "3-63 lower-case letters, digits, `-`, `_`, `.`; no `google` in it",
    ),
    Constraint(
        "google_storage_bucket.storage_class", "STANDARD|NEARLINE|COLDLINE|ARCHIVE", "a storage class in capitals"
    ),
    Constraint("google_kms_crypto_key.purpose", "ENCRYPT_DECRYPT", "buckets take only ENCRYPT_DECRYPT keys"),
    Constraint(
        "google_kms_crypto_key.rotation_period", r"(?:[89]\d{4}|\d{6,})(?:\.\d+)?s", "seconds with `s`, at least a day"
    ),
    Constraint("google_kms_key_ring.name", r"[A-Za-z0-9_-]{1,63}", "1-63 letters, digits, `_`, `-`"),
    Constraint(
        "google_service_account.account_id", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "6-30 lower-case letters, digits, `-`"
    ),
    Constraint("google_project_iam_custom_role.role_id", r"[A-Za-z0-9_.]{3,64}", "3-64 letters, digits, `_`, `.`"),
    Constraint(
        "google_storage_bucket_iam_member.member",
        r"(?!allUsers$|allAuthenticatedUsers$)(?:user|serviceAccount|group|domain|principal|principalSet):.+",
        "a named member, never allUsers or allAuthenticatedUsers",
    ),
    Constraint(
        "google_iam_workload_identity_pool.workload_identity_pool_id", r"(?!gcp-)[a-z0-9-]{4,32}", "4-32 of a-z 0-9 -"
    ),
    Constraint(
        "google_iam_workload_identity_pool_provider.workload_identity_pool_provider_id",
        r"(?!gcp-)[a-z0-9-]{4,32}",
        "4-32 of a-z 0-9 -",
    ),
    Constraint(
        "google_project_iam_audit_config.audit_log_config.log_type", "DATA_READ|DATA_WRITE|ADMIN_READ", "a log type"
    ),
    Constraint("google_logging_project_bucket_config.retention_days", r"[1-9]\d{0,3}", "1-3650 days"),
    Constraint("google_secret_manager_secret.secret_id", r"[A-Za-z0-9_-]{1,255}", "1-255 letters, digits, `_`, `-`"),
)


def open_infra(settings: Settings) -> TerraformInfra:
    return TerraformInfra(
        settings.place.id, "gcp", "crossload.providers.gcp", "google.schema.json.gz", _CONSTRAINTS,
        _main, _variables, _outputs,
    )  # fmt: skip


def _main(foundations: Foundations) -> list[Block]:
    out = [*_setup(), *_keys(foundations), *_buckets(foundations)]
    return [*out, *_roles(foundations), *_secrets(foundations), *_logs(foundations)]


def _account_id(name: str) -> str:
    """6-30 characters, first a letter: longer names are cut, shorter ones get a tail."""
    text = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:30].strip("-")
    text = text if text[:1].isalpha() else f"w-{text}"[:30].strip("-")
    return text if len(text) >= 6 else f"{text}-workload"


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:32].strip("-")


def _setup() -> list[Block]:
    provider = Block(
        "provider", ("google",), {"project": Expression("var.project"), "region": Expression("var.region")}
    )
    return [required("google", _VERSION), provider]


def _keys(foundations: Foundations) -> list[Block]:
    if not foundations.keys:
        return []
    ring = Block(
        "resource",
        ("google_kms_key_ring", "foundations"),
        {"name": _identifier(foundations.migration), "location": Expression("var.region")},
    )
    out = [ring]
    for key in foundations.keys:
        name = slug(key.name)
        attributes: dict[str, Value] = {
            "name": key.name,
            "key_ring": Expression("google_kms_key_ring.foundations.id"),
            "purpose": "ENCRYPT_DECRYPT",
            "rotation_period": f"{key.rotation_days * _DAY_SECONDS}s",
            "labels": labels(foundations),
        }
        agent = Block(
            "resource",
            ("google_kms_crypto_key_iam_member", f"{name}_storage"),
            {
                "crypto_key_id": Expression(f"google_kms_crypto_key.{name}.id"),
                "role": "roles/cloudkms.cryptoKeyEncrypterDecrypter",
                "member": Template(
                    "serviceAccount:service-${var.project_number}@gs-project-accounts.iam.gserviceaccount.com"
                ),
            },
            note="Cloud Storage itself encrypts and decrypts with the key; nobody else may.",
        )
        out += [
            Block("resource", ("google_kms_crypto_key", name), attributes, (KEEP_KEY,), f"Protects {key.reason}."),
            agent,
        ]
    return out


def _buckets(foundations: Foundations) -> list[Block]:
    out: list[Block] = []
    for bucket in foundations.buckets:
        marks = labels(foundations)
        if bucket.sensitivity:
            marks["sensitivity"] = re.sub(r"[^a-z0-9_-]+", "-", bucket.sensitivity.lower())
        attributes: dict[str, Value] = {
            "name": bucket.name,
            "location": Expression("upper(var.region)"),
            "storage_class": "STANDARD",
            "uniform_bucket_level_access": True,
            "public_access_prevention": "enforced",
            "force_destroy": False,
            "labels": marks,
        }
        blocks = [Block("versioning", (), {"enabled": bucket.versioning})]
        if bucket.key:
            key = slug(bucket.key)
            blocks.append(
                Block("encryption", (), {"default_kms_key_name": Expression(f"google_kms_crypto_key.{key}.id")})
            )
            attributes["depends_on"] = (Expression(f"google_kms_crypto_key_iam_member.{key}_storage"),)
        note = f"Holds {', '.join(bucket.assets)}."
        out.append(Block("resource", ("google_storage_bucket", slug(bucket.name)), attributes, tuple(blocks), note))
    return out


def _roles(foundations: Foundations) -> list[Block]:
    if not foundations.roles:
        return []
    used = sorted({grant.capability for role in foundations.roles for grant in role.grants} & set(_PERMISSIONS))
    out: list[Block] = [
        Block(
            "resource",
            ("google_project_iam_custom_role", slug(name)),
            {
                "role_id": f"crossload_{slug(foundations.migration)}_{slug(name)}"[:64],
                "title": f"{name} for {foundations.migration}",
                "permissions": _PERMISSIONS[name],
            },
        )
        for name in used
    ]
    out += _federation(foundations)
    held = {bucket.name for bucket in foundations.buckets}
    for role in foundations.roles:
        account = slug(role.name)
        note = f"{role.asset}: the same rights as at the source, and no key file." if role.asset else ""
        out.append(
            Block(
                "resource",
                ("google_service_account", account),
                {"account_id": _account_id(role.name), "display_name": role.name},
                note=note,
            )
        )
        out.append(
            Block(
                "resource",
                ("google_service_account_iam_member", f"{account}_federated"),
                {
                    "service_account_id": Expression(f"google_service_account.{account}.name"),
                    "role": "roles/iam.workloadIdentityUser",
                    "member": Template(
                        "principal://iam.googleapis.com/${google_iam_workload_identity_pool.workloads.name}/subject/"
                        f'${{var.role_subjects["{role.name}"]}}'
                    ),
                },
            )
        )
        for grant in role.grants:
            if grant.capability in _PERMISSIONS and grant.resource in held:
                out.append(_bucket_member(account, grant.capability, grant.resource))
    return out


def _bucket_member(account: str, capability: str, bucket: str) -> Block:
    return Block(
        "resource",
        ("google_storage_bucket_iam_member", f"{account}_{slug(bucket)}_{slug(capability)}"),
        {
            "bucket": Expression(f"google_storage_bucket.{slug(bucket)}.name"),
            "role": Expression(f"google_project_iam_custom_role.{slug(capability)}.id"),
            "member": Template(f"serviceAccount:${{google_service_account.{account}.email}}"),
        },
    )


def _federation(foundations: Foundations) -> list[Block]:
    pool = Block(
        "resource",
        ("google_iam_workload_identity_pool", "workloads"),
        {"workload_identity_pool_id": _identifier(f"{foundations.migration}-workloads"), "display_name": "Workloads"},
    )
    provider = Block(
        "resource",
        ("google_iam_workload_identity_pool_provider", "issuer"),
        {
            "workload_identity_pool_id": Expression(
                "google_iam_workload_identity_pool.workloads.workload_identity_pool_id"
            ),
            "workload_identity_pool_provider_id": "team-issuer",
            "attribute_mapping": {"google.subject": "assertion.sub"},
            "attribute_condition": Template("assertion.sub in ${jsonencode(values(var.role_subjects))}"),
        },
        (
            Block(
                "oidc",
                (),
                {"issuer_uri": Expression("var.oidc_issuer"), "allowed_audiences": (Expression("var.oidc_audience"),)},
            ),
        ),
        "Only the subjects listed; without the condition every token of the issuer could ask.",
    )
    return [pool, provider]


def _secrets(foundations: Foundations) -> list[Block]:
    out: list[Block] = []
    for secret in foundations.secrets:
        name = slug(secret.name)
        replica = Block("replicas", (), {"location": Expression("var.region")})
        managed = Block("replication", (), {}, (Block("user_managed", (), {}, (replica,)),))
        out.append(
            Block(
                "resource",
                ("google_secret_manager_secret", name),
                {"secret_id": re.sub(r"[^A-Za-z0-9_-]+", "-", secret.name), "labels": labels(foundations)},
                (managed,),
                f"{secret.asset}: the box only; its value is put in by the team, never by a file.",
            )
        )
        out += [
            Block(
                "resource",
                ("google_secret_manager_secret_iam_member", f"{slug(role.name)}_{name}"),
                {
                    "secret_id": Expression(f"google_secret_manager_secret.{name}.id"),
                    "role": _SECRET_READER,
                    "member": Template(f"serviceAccount:${{google_service_account.{slug(role.name)}.email}}"),
                },
            )
            for role in foundations.roles
            if any(grant.capability == "secrets.read" and grant.resource == secret.name for grant in role.grants)
        ]
    return out


def _logs(foundations: Foundations) -> list[Block]:
    sink = foundations.sink
    if sink is None:
        return []
    audit = Block(
        "resource",
        ("google_project_iam_audit_config", "storage"),
        {"project": Expression("var.project"), "service": "storage.googleapis.com"},
        (
            Block("audit_log_config", (), {"log_type": "DATA_READ"}),
            Block("audit_log_config", (), {"log_type": "DATA_WRITE"}),
        ),
        "Data access is not logged until it is asked for.",
    )
    bucket = Block(
        "resource",
        ("google_logging_project_bucket_config", "access"),
        {
            "project": Expression("var.project"),
            "location": Expression("var.region"),
            "bucket_id": _identifier(sink.name),
            "retention_days": sink.retention_days,
        },
        note="In the region of the data: access logs name people.",
    )
    names = " OR ".join(f'resource.labels.bucket_name="{item.name}"' for item in foundations.buckets)
    route = Block(
        "resource",
        ("google_logging_project_sink", "access"),
        {
            "name": sink.name,
            "destination": Template("logging.googleapis.com/${google_logging_project_bucket_config.access.id}"),
            "filter": f'logName:"cloudaudit.googleapis.com" AND ({names})',
            "unique_writer_identity": True,
        },
    )
    return [audit, bucket, route]


def _variables(foundations: Foundations) -> list[Block]:
    out = [
        variable("project", "string", "Project id that receives the workload."),
        variable("region", "string", "Region of everything here.", default=foundations.region),
    ]
    if foundations.keys:
        out.append(variable("project_number", "string", "Number of the project; names its storage service agent."))
    return [*out, *sign_in_variables(foundations)]


def _outputs(foundations: Foundations) -> list[Block]:
    buckets: dict[str, Value] = {
        bucket.name: Expression(f"google_storage_bucket.{slug(bucket.name)}.url") for bucket in foundations.buckets
    }
    accounts: dict[str, Value] = {
        role.name: Expression(f"google_service_account.{slug(role.name)}.email") for role in foundations.roles
    }
    out = [output("buckets", buckets, "Bucket -> its address.")] if buckets else []
    if accounts:
        out.append(output("service_accounts", accounts, "Role -> the service account it became."))
        provider = Expression("google_iam_workload_identity_pool_provider.issuer.name")
        out.append(output("workload_identity_provider", provider, "Audience of the token exchange."))
    return out
