"""Cloud A's control plane: SigV4 and IAM policies checked, Bedrock answered by the lab's real model."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from typing import Any

from crossload.lab.cloud_a import ACCOUNT, PROFILES, REGION, Profile, access_keys, aws_exports, write_aws_files
from crossload.lab.cloud_b import AUDIENCE, issuer_url
from crossload.lab.loopback import direct
from crossload.lab.probe import is_ready
from crossload.lab.site import Site, write_private
from crossload.lab.spec import HttpProbe, Server

CANARY_MODEL = "amazon.nova-lite-v1:0"
WEB_ROLE = "lab-a-mover"
_WEB_ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/lab/{WEB_ROLE}"
_FORMAT = 2
_CREATED = "2026-01-01T00:00:00Z"


def _prep(site: Site) -> None:
    write_aws_files(site)
    site.secret("llm-a")  # its file is read at every question, also when the model comes later
    for name in ("state", "tmp", "s3"):
        (site.folder / name).mkdir(parents=True, exist_ok=True)
    _write_users(site)


def _write_users(site: Site) -> None:
    """Put our users into the server's own state file before each start: it forgets users when it is killed."""
    path = site.folder / "state" / "iam.json"
    try:
        payload: dict[str, Any] = json.loads(path.read_text())["payload"]
    except (OSError, ValueError, KeyError):
        payload = {}
    users = _scoped(payload, "users")
    keys = _scoped(payload, "access_keys")
    policies = _scoped(payload, "user_inline_policies")
    roles = _scoped(payload, "roles")
    roles[_scope(WEB_ROLE)] = _web_role(site)
    held = access_keys(site)
    for number, profile in enumerate(PROFILES):
        key, secret = held[profile.name]
        users[_scope(profile.name)] = {
            "UserName": profile.name,
            "Arn": f"arn:aws:iam::{ACCOUNT}:user/{profile.name}",
            "UserId": f"AIDACROSSLOADLAB{number:05d}",
            "CreateDate": _CREATED,
            "Path": "/",
            "PermissionsBoundary": "",
            "AttachedPolicies": [],
            "Tags": [],
        }
        keys[_scope(key)] = {
            "UserName": profile.name,
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Status": "Active",
            "CreateDate": _CREATED,
        }
        policies[_scope(profile.name)] = {"lab": _policy(profile)}
    write_private(path, json.dumps({"__ministack_format__": _FORMAT, "payload": payload}))


def _web_role(site: Site) -> dict[str, Any]:
    """The role that a token of the lab's issuer for "mover" may take: no long-lived key on the way in."""
    (mover,) = (profile for profile in PROFILES if profile.name == "lab-a-mover")
    host = issuer_url(site).removeprefix("http://")
    trust = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{host}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{host}:aud": AUDIENCE, f"{host}:sub": "mover"}},
    }
    return {
        "RoleName": WEB_ROLE,
        "Arn": _WEB_ROLE_ARN,
        "RoleId": "AROACROSSLOADLAB0000",
        "CreateDate": _CREATED,
        "Path": "/lab/",
        "AssumeRolePolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        "Description": "what the mover's token of the lab's issuer may do on the control plane",
        "MaxSessionDuration": 3600,
        "PermissionsBoundary": "",
        "AttachedPolicies": [],
        "InlinePolicies": {"lab": _policy(mover)},
        "Tags": [],
    }


def _policy(profile: Profile) -> str:
    statement = {"Effect": "Allow", "Action": list(profile.allow), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _scope(key: str) -> str:
    return f"{ACCOUNT}\0{key!r}"


def _scoped(payload: dict[str, Any], store: str) -> dict[str, Any]:
    held: dict[str, Any] = payload.setdefault(store, {"__scoped__": True, "data": {}})
    data: dict[str, Any] = held.setdefault("data", {})
    return data


def _env(site: Site) -> Mapping[str, str]:
    return {
        "GATEWAY_PORT": str(site.port("api")),
        # Without it the server listens on every interface, and its root key needs no signature.
        "BIND_HOST": "127.0.0.1",
        # Two more servers that nobody here asks for, and that would listen on every interface.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": site.secret("ministack-root"),
        "AWS_SECRET_ACCESS_KEY": site.secret("ministack-root-secret"),
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(site.folder / "state"),
        "S3_PERSIST": "0",
        "S3_DATA_DIR": str(site.folder / "s3"),
        "LOG_LEVEL": "WARNING",
        "MINISTACK_BEDROCK_PROXY_URL": site.url("api", "llm-a"),
        "MINISTACK_BEDROCK_PROXY_TIMEOUT_SECONDS": "120",
        "CROSSLOAD_LAB_LLM_KEY_FILE": str(site.secret_path("llm-a")),
        "CROSSLOAD_LAB_OIDC_ISSUER": issuer_url(site),
        "CROSSLOAD_LAB_OIDC_AUDIENCE": AUDIENCE,
    }


def _settle(site: Site) -> None:
    """One question through Bedrock and one straight to the model: same answer, same token counts, or this is a mock."""
    if not is_ready(HttpProbe(site.url("api", "llm-a") + "/health")):
        return  # no model here; the host turns every Bedrock call into an error, so nothing is invented
    question = "Name one colour."
    straight = _post(
        site.url("api", "llm-a") + "/v1/chat/completions",
        {"Authorization": f"Bearer {site.secret('llm-a')}"},
        {"messages": [{"role": "user", "content": question}], "max_tokens": 4, "temperature": 0},
    )
    # The server takes its own root key without a signature; the lab uses that here and nowhere else.
    scope = f"{site.secret('ministack-root')}/20260101/{REGION}/bedrock/aws4_request"
    through = _post(
        site.url("api") + f"/model/{CANARY_MODEL}/converse",
        {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"},
        {
            "messages": [{"role": "user", "content": [{"text": question}]}],
            "inferenceConfig": {"maxTokens": 4, "temperature": 0},
        },
    )
    usage = straight["usage"]
    wanted = (straight["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"])
    blocks, counted = through["output"]["message"]["content"], through["usage"]
    found = ("".join(block.get("text", "") for block in blocks), counted["inputTokens"], counted["outputTokens"])
    if found != wanted:
        raise RuntimeError(
            f"Bedrock does not answer from the lab's model: {found!r} through it, {wanted!r} from the model"
        )


def _post(url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
    sent = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=sent)  # noqa: S310
    with direct.open(request, timeout=30) as answer:
        reply: dict[str, Any] = json.load(answer)
        return reply


SERVER = Server(
    name="ministack",
    cloud="a",
    about="AWS control plane",
    port_names=("api",),
    argv=lambda _site: [sys.executable, "-m", "crossload.lab.programs.ministack_host"],
    ready=lambda site: HttpProbe(site.url("api") + "/_ministack/health"),
    hint="pip install ministack==1.5.33",
    modules=("ministack",),
    env=_env,
    exports=lambda site: {
        **aws_exports(site),
        "CROSSLOAD_LAB_AWS_WEB_ROLE": _WEB_ROLE_ARN,
    },
    prep=_prep,
    settle=_settle,
    settle_after=("llm-a",),
    grace_seconds=3.0,
    proves="signatures and IAM policies refuse, queues, secrets, tables, keys, Bedrock on a real model",
)
