"""Foundations as Azure resources (Terraform provider hashicorp/azurerm). Data in, blocks out; no text is written.

Sources: the provider's documentation; learn.microsoft.com on storage, key vault, workload identity federation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from crossload.ports.infra import (
    Block,
    Constraint,
    Expression,
    FoundationRole,
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

_VERSION = "~> 5.10"
_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_CONTAINER = "Microsoft.Storage/storageAccounts/blobServices/containers/read"
# (actions, data actions). Listing names of blobs is `blobs/read` in Azure: the two cannot be told apart there.
_PERMISSIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "objects.list": ((_CONTAINER,), (f"{_BLOBS}/read",)),
    "objects.read": ((), (f"{_BLOBS}/read",)),
    "objects.write": ((), (f"{_BLOBS}/write", f"{_BLOBS}/add/action")),
    "objects.delete": ((), (f"{_BLOBS}/delete",)),
}
_GROUP = "azurerm_resource_group.foundations"
_ACCOUNT = "azurerm_storage_account.data"

_CONSTRAINTS = (
    Constraint("azurerm_storage_account.name", r"[a-z0-9]{3,24}", "3-24 lower-case letters and digits"),
    Constraint("azurerm_storage_account.min_tls_version", "TLS1_2|TLS1_3", "TLS1_2 or TLS1_3"),
    Constraint("azurerm_storage_account.https_traffic_only_enabled", "true", "no request without TLS: true"),
    Constraint(
        "azurerm_storage_account.allow_nested_items_to_be_public", "false", "no container is ever public: false"
    ),
    Constraint(
        "azurerm_storage_account.shared_access_key_enabled", "false", "an account key bypasses every role: false"
    ),
    Constraint(
        "azurerm_storage_account.account_replication_type", "LRS|ZRS|GRS|GZRS|RAGRS|RAGZRS", "a replication type"
    ),
    Constraint("azurerm_storage_account.blob_properties.versioning_enabled", "true", "the way back from an overwrite"),
    Constraint("azurerm_storage_container.container_access_type", "private", "a landing container is private"),
    Constraint("azurerm_storage_container.name", r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", "3-63 of a-z, 0-9 and -"),
    Constraint("azurerm_key_vault.name", r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]", "3-24 letters, digits, -"),
    Constraint("azurerm_key_vault.purge_protection_enabled", "true", "a purged key makes data unreadable: true"),
    Constraint("azurerm_key_vault.sku_name", "standard|premium", "standard or premium"),
    Constraint("azurerm_log_analytics_workspace.retention_in_days", r"[3-9]\d|[1-6]\d\d|7[0-2]\d|730", "30-730 days"),
)


def open_infra(settings: Settings) -> TerraformInfra:
    return TerraformInfra(
        settings.place.id, "azure", "crossload.providers.azure", "azurerm.schema.json.gz", _CONSTRAINTS,
        _main, _variables, _outputs,
    )  # fmt: skip


def _main(foundations: Foundations) -> list[Block]:
    out = [*_setup(foundations), *_keys(foundations), *_buckets(foundations)]
    return [*out, *_roles(foundations), *_logs(foundations)]


def _short(foundations: Foundations, length: int) -> str:
    """Letters and digits, unique enough for a world-wide name: the tail is a hash of migration and place."""
    tail = hashlib.sha256(f"{foundations.migration}/{foundations.place}".encode()).hexdigest()[:6]
    return re.sub(r"[^a-z0-9]+", "", foundations.migration.lower())[: length - 6] + tail


def _container(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]


def _placed(foundations: Foundations) -> dict[str, Value]:
    return {
        "resource_group_name": Expression(f"{_GROUP}.name"),
        "location": Expression(f"{_GROUP}.location"),
        "tags": labels(foundations),
    }


def _setup(foundations: Foundations) -> list[Block]:
    keep = Block("key_vault", (), {"purge_soft_delete_on_destroy": False})
    provider = Block(
        "provider",
        ("azurerm",),
        {"subscription_id": Expression("var.subscription_id")},
        (Block("features", (), {}, (keep,)),),
    )
    group = Block(
        "resource",
        ("azurerm_resource_group", "foundations"),
        {
            "name": foundations.migration,
            "location": Expression("var.region"),
            "tags": labels(foundations),
        },
    )
    return [required("azurerm", _VERSION), provider, group]


def _keys(foundations: Foundations) -> list[Block]:
    if not foundations.keys:
        return []
    vault = Block(
        "resource",
        ("azurerm_key_vault", "foundations"),
        {
            "name": f"kv{_short(foundations, 20)}",
            **_placed(foundations),
            "tenant_id": Expression("var.tenant_id"),
            "sku_name": "premium",
            "rbac_authorization_enabled": True,
            "purge_protection_enabled": True,
            "soft_delete_retention_days": 90,
        },
    )
    reader = Block(
        "resource",
        ("azurerm_user_assigned_identity", "storage"),
        {"name": "storage-encryption", **_placed(foundations)},
        note="The identity with which the storage account itself reaches the key; nobody signs in with it.",
    )
    allowed = Block(
        "resource",
        ("azurerm_role_assignment", "storage_key"),
        {
            "scope": Expression("azurerm_key_vault.foundations.id"),
            "role_definition_name": "Key Vault Crypto Service Encryption User",
            "principal_id": Expression("azurerm_user_assigned_identity.storage.principal_id"),
        },
    )
    return [vault, reader, allowed, *(_key(key.name, key.rotation_days, key.reason) for key in foundations.keys)]


def _key(name: str, rotation_days: int, reason: str) -> Block:
    rotation = Block("automatic", (), {"time_after_creation": f"P{rotation_days}D"})
    return Block(
        "resource",
        ("azurerm_key_vault_key", slug(name)),
        {
            "name": name,
            "key_vault_id": Expression("azurerm_key_vault.foundations.id"),
            "key_type": "RSA-HSM",
            "key_size": 3072,
            "key_opts": ("wrapKey", "unwrapKey"),
        },
        (
            Block("rotation_policy", (), {}, (rotation,)),
            KEEP_KEY,
        ),
        f"Protects {reason}.",
    )


def _buckets(foundations: Foundations) -> list[Block]:
    if not foundations.buckets:
        return []
    kept = Block("delete_retention_policy", (), {"days": 30})
    blocks = [Block("blob_properties", (), {"versioning_enabled": True}, (kept,))]
    attributes: dict[str, Value] = {
        "name": _short(foundations, 24),
        **_placed(foundations),
        "account_tier": "Standard",
        # Copies in a second region would leave the country the plan was allowed to use.
        "account_replication_type": "ZRS",
        "https_traffic_only_enabled": True,
        "min_tls_version": "TLS1_2",
        "allow_nested_items_to_be_public": False,
        "shared_access_key_enabled": False,
        "cross_tenant_replication_enabled": False,
    }
    key = next((bucket.key for bucket in foundations.buckets if bucket.key), "")
    if key:
        user: Value = (Expression("azurerm_user_assigned_identity.storage.id"),)
        blocks.append(Block("identity", (), {"type": "UserAssigned", "identity_ids": user}))
        managed: dict[str, Value] = {
            "key_vault_key_id": Expression(f"azurerm_key_vault_key.{slug(key)}.versionless_id"),
            "user_assigned_identity_id": Expression("azurerm_user_assigned_identity.storage.id"),
        }
        blocks.append(Block("customer_managed_key", (), managed))
        attributes["depends_on"] = (Expression("azurerm_role_assignment.storage_key"),)
    account = Block("resource", ("azurerm_storage_account", "data"), attributes, tuple(blocks))
    return [account, *(_container_block(bucket.name, bucket.assets) for bucket in foundations.buckets)]


def _container_block(name: str, assets: tuple[str, ...]) -> Block:
    return Block(
        "resource",
        ("azurerm_storage_container", slug(name)),
        {
            "name": _container(name),
            "storage_account_id": Expression(f"{_ACCOUNT}.id"),
            "container_access_type": "private",
        },
        note=f"Holds {', '.join(assets)}.",
    )


def _roles(foundations: Foundations) -> list[Block]:
    used = sorted({grant.capability for role in foundations.roles for grant in role.grants} & set(_PERMISSIONS))
    out: list[Block] = []
    for name in used:
        actions, data_actions = _PERMISSIONS[name]
        allowed: dict[str, Value] = {"actions": actions} if actions else {}
        allowed["data_actions"] = data_actions
        out.append(
            Block(
                "resource",
                ("azurerm_role_definition", slug(name)),
                {
                    "name": f"{name} for {foundations.migration}",
                    "scope": Expression(f"{_GROUP}.id"),
                    "assignable_scopes": (Expression(f"{_GROUP}.id"),),
                },
                (Block("permissions", (), allowed),),
            )
        )
    for role in foundations.roles:
        out += _role(foundations, role)
    return out


def _role(foundations: Foundations, role: FoundationRole) -> list[Block]:
    name = slug(role.name)
    held = {bucket.name for bucket in foundations.buckets}
    identity = Block(
        "resource",
        ("azurerm_user_assigned_identity", name),
        {"name": role.name, **_placed(foundations)},
        note=f"{role.asset}: the same rights as at the source, and no secret to keep." if role.asset else "",
    )
    trust = Block(
        "resource",
        ("azurerm_federated_identity_credential", name),
        {
            "name": "team-issuer",
            "user_assigned_identity_id": Expression(f"azurerm_user_assigned_identity.{name}.id"),
            "issuer": Expression("var.oidc_issuer"),
            "audience": (Expression("var.oidc_audience"),),
            "subject": Expression(f'var.role_subjects["{role.name}"]'),
        },
    )
    out = [identity, trust]
    for grant in role.grants:
        if grant.capability in _PERMISSIONS and grant.resource in held:
            container = f"azurerm_storage_container.{slug(grant.resource)}"
            out.append(
                Block(
                    "resource",
                    ("azurerm_role_assignment", f"{name}_{slug(grant.resource)}_{slug(grant.capability)}"),
                    {
                        "scope": Expression(f"{container}.id"),
                        "role_definition_id": Expression(
                            f"azurerm_role_definition.{slug(grant.capability)}.role_definition_resource_id"
                        ),
                        "principal_id": Expression(f"azurerm_user_assigned_identity.{name}.principal_id"),
                    },
                )
            )
    return out


def _logs(foundations: Foundations) -> list[Block]:
    sink = foundations.sink
    if sink is None:
        return []
    workspace = Block(
        "resource",
        ("azurerm_log_analytics_workspace", "access"),
        {"name": sink.name, **_placed(foundations), "retention_in_days": min(sink.retention_days, 730)},
        note="In the region of the data: access logs name people.",
    )
    route = Block(
        "resource",
        ("azurerm_monitor_diagnostic_setting", "access"),
        {
            "name": sink.name,
            "target_resource_id": Template(f"${{{_ACCOUNT}.id}}/blobServices/default"),
            "log_analytics_workspace_id": Expression("azurerm_log_analytics_workspace.access.id"),
        },
        tuple(
            Block("enabled_log", (), {"category": name}) for name in ("StorageRead", "StorageWrite", "StorageDelete")
        ),
    )
    return [workspace, route]


def _variables(foundations: Foundations) -> list[Block]:
    out = [
        variable("subscription_id", "string", "Subscription that receives the workload."),
        variable("region", "string", "Region of everything here.", default=foundations.region),
    ]
    if foundations.keys:
        out.append(variable("tenant_id", "string", "Tenant whose identities may reach the keys."))
    return [*out, *sign_in_variables(foundations)]


def _outputs(foundations: Foundations) -> list[Block]:
    if not foundations.buckets:
        return []
    addresses: dict[str, Value] = {
        bucket.name: Expression(f"azurerm_storage_container.{slug(bucket.name)}.id") for bucket in foundations.buckets
    }
    clients: dict[str, Value] = {
        role.name: Expression(f"azurerm_user_assigned_identity.{slug(role.name)}.client_id")
        for role in foundations.roles
    }
    out = [output("buckets", addresses, "Bucket -> its container.")]
    if clients:
        out.append(output("client_ids", clients, "Role -> its client id."))
    return out
