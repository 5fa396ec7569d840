"""Foundations as AWS resources (Terraform provider hashicorp/aws). Data in, blocks out; no text is written.

Sources: the provider's documentation; IAM and S3 user guides (policy grammar, web identity federation)."""

from __future__ import annotations

from collections.abc import Mapping

from crossload.ports.infra import (
    Block,
    Call,
    Constraint,
    Expression,
    FoundationBucket,
    FoundationRole,
    Foundations,
    Grant,
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

_VERSION = "~> 6.69"
# capability -> (actions, does it act on objects)
_ACTIONS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "objects.list": (("s3:ListBucket",), False),
    "objects.read": (("s3:GetObject",), True),
    "objects.write": (("s3:PutObject", "s3:AbortMultipartUpload"), True),
    "objects.delete": (("s3:DeleteObject",), True),
}
_BUCKET_NAME = r"(?!xn--|sthree-|.*--)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_CONSTRAINTS = (
    Constraint("aws_s3_bucket.bucket", _BUCKET_NAME, "3-63 lower-case letters, digits, `-`, `.`"),
    Constraint("aws_s3_bucket.force_destroy", "false", "`terraform destroy` must not delete carried data: false"),
    *(
        Constraint(f"aws_s3_bucket_public_access_block.{name}", "true", "a landing bucket is never public: true")
        for name in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    ),
    Constraint("aws_s3_bucket_versioning.versioning_configuration.status", "Enabled", "the way back from an overwrite"),
    Constraint(
        "aws_s3_bucket_server_side_encryption_configuration.rule.apply_server_side_encryption_by_default.sse_algorithm",
        "aws:kms|aws:kms:dsse|AES256",
        "aws:kms, aws:kms:dsse or AES256",
    ),
    Constraint(
        "aws_s3_bucket_ownership_controls.rule.object_ownership",
        "BucketOwnerEnforced",
        "object ACLs would bypass the policies: BucketOwnerEnforced",
    ),
    Constraint("aws_kms_key.enable_key_rotation", "true", "a key that never changes protects less: true"),
    Constraint("aws_kms_key.deletion_window_in_days", r"[7-9]|[12]\d|30", "7-30 days"),
    Constraint(
        "aws_kms_key.rotation_period_in_days", r"9\d|[1-9]\d\d|1\d{3}|2[0-4]\d\d|25[0-5]\d|2560", "90-2560 days"
    ),
    Constraint("aws_kms_alias.name", r"alias/(?!aws/)[A-Za-z0-9/_-]+", "alias/NAME, not alias/aws/"),
    Constraint("aws_iam_role.name", r"[\w+=,.@-]{1,64}", "1-64 letters, digits, +=,.@-_"),
    Constraint(
        "aws_iam_role.max_session_duration", r"3[6-9]\d\d|[4-9]\d{3}|[1-3]\d{4}|4[0-2]\d{3}|43[01]\d\d|43200", "s"
    ),
    Constraint("aws_secretsmanager_secret.name", r"[A-Za-z0-9/_+=.@-]{1,512}", "1-512 letters, digits, /_+=.@-"),
)


def open_infra(settings: Settings) -> TerraformInfra:
    return TerraformInfra(
        settings.place.id, "aws", "crossload.providers.aws", "aws.schema.json.gz", _CONSTRAINTS,
        _main, _variables, _outputs,
    )  # fmt: skip


def _main(foundations: Foundations) -> list[Block]:
    out = [*_setup(foundations), *_keys(foundations)]
    for bucket in foundations.buckets:
        out += _bucket(bucket)
    return [*out, *_roles(foundations), *_secrets(foundations), *_logs(foundations)]


def _policy(*statements: Mapping[str, Value]) -> Call:
    return Call("jsonencode", {"Version": "2012-10-17", "Statement": tuple(statements)})


def _setup(foundations: Foundations) -> list[Block]:
    tags = Block("default_tags", (), {"tags": labels(foundations)})
    provider = Block("provider", ("aws",), {"region": Expression("var.region")}, (tags,))
    return [required("aws", _VERSION), provider]


def _keys(foundations: Foundations) -> list[Block]:
    out: list[Block] = []
    for key in foundations.keys:
        name = slug(key.name)
        attributes: dict[str, Value] = {
            "description": f"{key.name} for {foundations.migration}",
            "enable_key_rotation": True,
            "rotation_period_in_days": max(90, key.rotation_days),
            "deletion_window_in_days": 30,
        }
        out.append(Block("resource", ("aws_kms_key", name), attributes, (KEEP_KEY,), f"Protects {key.reason}."))
        alias: dict[str, Value] = {
            "name": f"alias/{foundations.migration}-{key.name}",
            "target_key_id": Expression(f"aws_kms_key.{name}.key_id"),
        }
        out.append(Block("resource", ("aws_kms_alias", name), alias))
    return out


def _bucket(bucket: FoundationBucket) -> list[Block]:
    name = slug(bucket.name)
    this = Expression(f"aws_s3_bucket.{name}.id")

    def part(kind: str, attributes: Mapping[str, Value], *blocks: Block) -> Block:
        return Block("resource", (f"aws_s3_bucket_{kind}", name), {"bucket": this, **attributes}, blocks)

    tags: dict[str, Value] = {"tags": {"sensitivity": bucket.sensitivity}} if bucket.sensitivity else {}
    own: dict[str, Value] = {"bucket": bucket.name, "force_destroy": False, **tags}
    encrypted: dict[str, Value] = {"sse_algorithm": "AES256"}
    if bucket.key:
        encrypted = {
            "sse_algorithm": "aws:kms",
            "kms_master_key_id": Expression(f"aws_kms_key.{slug(bucket.key)}.arn"),
        }
    rule = Block("apply_server_side_encryption_by_default", (), encrypted)
    closed = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    tls_only: dict[str, Value] = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": (Expression(f"aws_s3_bucket.{name}.arn"), Template(f"${{aws_s3_bucket.{name}.arn}}/*")),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return [
        Block("resource", ("aws_s3_bucket", name), own, note=f"Holds {', '.join(bucket.assets)}."),
        part("public_access_block", dict.fromkeys(closed, True)),
        part("ownership_controls", {}, Block("rule", (), {"object_ownership": "BucketOwnerEnforced"})),
        part("versioning", {}, Block("versioning_configuration", (), {"status": "Enabled"})),
        part("server_side_encryption_configuration", {}, Block("rule", (), {"bucket_key_enabled": True}, (rule,))),
        part("policy", {"policy": _policy(tls_only)}),
    ]


def _roles(foundations: Foundations) -> list[Block]:
    if not foundations.roles:
        return []
    issuer: dict[str, Value] = {
        "url": Expression("var.oidc_issuer"),
        "client_id_list": (Expression("var.oidc_audience"),),
    }
    out = [Block("resource", ("aws_iam_openid_connect_provider", "issuer"), issuer)]
    for role in foundations.roles:
        name = slug(role.name)
        note = f"{role.asset}: the same rights as at the source, and no access key." if role.asset else ""
        trust: dict[str, Value] = {"name": role.name, "assume_role_policy": _trust(role), "max_session_duration": 3600}
        out.append(Block("resource", ("aws_iam_role", name), trust, note=note))
        statements = [found for grant in role.grants if (found := _statement(grant, foundations)) is not None]
        # Reading and writing encrypted objects needs the key as well; without it every request is refused.
        statements += [
            {
                "Effect": "Allow",
                "Action": ("kms:Decrypt", "kms:GenerateDataKey"),
                "Resource": Expression(f"aws_kms_key.{slug(key.name)}.arn"),
            }
            for key in foundations.keys
        ]
        rights: dict[str, Value] = {"role": Expression(f"aws_iam_role.{name}.id"), "policy": _policy(*statements)}
        out.append(Block("resource", ("aws_iam_role_policy", name), rights))
    return out


def _trust(role: FoundationRole) -> Call:
    """Audience AND subject: with one of them alone, any workload of the issuer could take the role."""
    host = '${replace(var.oidc_issuer, "https://", "")}'
    equals: dict[Template, Value] = {
        Template(f"{host}:aud"): Expression("var.oidc_audience"),
        Template(f"{host}:sub"): Expression(f'var.role_subjects["{role.name}"]'),
    }
    return _policy(
        {
            "Effect": "Allow",
            "Principal": {"Federated": Expression("aws_iam_openid_connect_provider.issuer.arn")},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": equals},
        }
    )


def _statement(grant: Grant, foundations: Foundations) -> dict[str, Value] | None:
    if grant.capability in _ACTIONS and grant.resource in {bucket.name for bucket in foundations.buckets}:
        actions, on_objects = _ACTIONS[grant.capability]
        arn = f"aws_s3_bucket.{slug(grant.resource)}.arn"
        resource: Value = Template(f"${{{arn}}}/*") if on_objects else Expression(arn)
        return {"Effect": "Allow", "Action": actions, "Resource": resource}
    if grant.capability == "secrets.read" and grant.resource in {secret.name for secret in foundations.secrets}:
        arn = f"aws_secretsmanager_secret.{slug(grant.resource)}.arn"
        return {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": Expression(arn)}
    return None


def _secrets(foundations: Foundations) -> list[Block]:
    return [
        Block(
            "resource",
            ("aws_secretsmanager_secret", slug(secret.name)),
            {"name": secret.name, "recovery_window_in_days": 30},
            note=f"{secret.asset}: the box only; its value is put in by the team, never by a file.",
        )
        for secret in foundations.secrets
    ]


def _logs(foundations: Foundations) -> list[Block]:
    sink = foundations.sink
    if sink is None:
        return []
    arns = tuple(Template(f"${{aws_s3_bucket.{slug(bucket.name)}.arn}}/") for bucket in foundations.buckets)
    data = Block("data_resource", (), {"type": "AWS::S3::Object", "values": arns})
    trail: dict[str, Value] = {
        "name": sink.name,
        "s3_bucket_name": Expression("var.audit_bucket"),
        "enable_log_file_validation": True,
        "is_multi_region_trail": False,
    }
    selector = Block("event_selector", (), {"read_write_type": "All", "include_management_events": False}, (data,))
    note = f"Who touched which object. Keep the audit bucket's objects {sink.retention_days} days."
    return [Block("resource", ("aws_cloudtrail", "access"), trail, (selector,), note)]


def _variables(foundations: Foundations) -> list[Block]:
    out = [variable("region", "string", "Region of everything here.", default=foundations.region)]
    if foundations.sink is not None:
        out.append(variable("audit_bucket", "string", "The organisation's bucket for audit logs."))
    return [*out, *sign_in_variables(foundations)]


def _outputs(foundations: Foundations) -> list[Block]:
    buckets: dict[str, Value] = {
        bucket.name: Expression(f"aws_s3_bucket.{slug(bucket.name)}.arn") for bucket in foundations.buckets
    }
    roles: dict[str, Value] = {
        role.name: Expression(f"aws_iam_role.{slug(role.name)}.arn") for role in foundations.roles
    }
    out = [output("buckets", buckets, "Bucket -> its ARN.")] if buckets else []
    if roles:
        out.append(output("roles", roles, "Role -> its ARN."))
    return out
