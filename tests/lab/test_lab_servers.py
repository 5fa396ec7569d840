"""Every server answers, on this machine only, and each one refuses a wrong credential."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossload.lab.postgres import server as postgres_row
from crossload.lab.process import listeners_of, session_members
from crossload.lab.spec import inside
from crossload.lab.table import all_servers

if TYPE_CHECKING:
    from crossload.lab import Lab

QUESTION = {"messages": [{"role": "user", "content": "Name one colour."}], "max_tokens": 8, "temperature": 0}


def needs(lab: Lab, name: str) -> None:
    missing = all_servers()[name].missing()
    if missing is not None:
        pytest.skip(f"{name}: {missing}")


def aws(lab: Lab, profile: str, service: str, **more: Any) -> Any:
    import boto3
    import botocore.session

    session = botocore.session.Session(profile=profile)
    session.set_config_variable("config_file", lab.env()["CROSSLOAD_LAB_AWS_CONFIG"])
    session.set_config_variable("credentials_file", lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"])
    return boto3.Session(botocore_session=session).client(service, **more)


def refusal(call: Callable[[], Any]) -> str:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_all_installed_servers_are_up_and_listen_on_loopback_only(lab: Lab) -> None:
    up = {server.name: server for server in lab.status() if server.state != "not-installed"}
    assert len(up) >= 12
    for server in up.values():
        assert server.state == "up", f"{server.name}: {server.hint}"
        assert server.listeners, server.name
        assert all(listener.on_loopback for listener in server.listeners), server.listeners
        assert {listener.port for listener in server.listeners} <= set(server.ports.values()), server.name
        assert server.pss_bytes is not None
    total = sum(server.pss_bytes or 0 for server in up.values())
    assert total < 1_500_000_000


def test_nothing_of_the_lab_can_be_reached_on_another_address(lab: Lab) -> None:
    pids = [pid for server in lab.status() if server.pid for pid in session_members(server.pid)]
    outside = {str(listener) for listener in listeners_of(pids) if not listener.on_loopback}
    assert outside == set()


# -- cloud A ----------------------------------------------------------------------------------------------------


def test_object_store_refuses_wrong_keys_and_missing_rights(lab: Lab) -> None:
    needs(lab, "seaweedfs")
    bucket = "helpdesk-docs"
    seed = aws(lab, "lab-a-seed", "s3")
    if bucket not in [found["Name"] for found in seed.list_buckets()["Buckets"]]:
        seed.create_bucket(Bucket=bucket)
    seed.put_object(Bucket=bucket, Key="lab-tests/a", Body=b"a")
    anonymous = httpx.get(f"http://127.0.0.1:{lab.port('seaweedfs', 's3')}/{bucket}/lab-tests/a")
    assert anonymous.status_code == 403
    wrong = aws(lab, "lab-a-app", "s3", aws_access_key_id="AKIAAAAAAAAAAAAAAAAA", aws_secret_access_key="x" * 40)
    assert refusal(lambda: wrong.get_object(Bucket=bucket, Key="lab-tests/a")) == "InvalidAccessKeyId"
    key = aws(lab, "lab-a-app", "s3")._request_signer._credentials.access_key
    forged = aws(lab, "lab-a-app", "s3", aws_access_key_id=key, aws_secret_access_key="x" * 40)
    assert refusal(lambda: forged.get_object(Bucket=bucket, Key="lab-tests/a")) == "SignatureDoesNotMatch"
    stranger, auditor, mover = (aws(lab, f"lab-a-{name}", "s3") for name in ("stranger", "auditor", "mover"))
    assert refusal(lambda: stranger.get_object(Bucket=bucket, Key="lab-tests/a")) == "AccessDenied"
    assert refusal(lambda: stranger.list_objects_v2(Bucket=bucket)) == "AccessDenied"
    assert refusal(lambda: auditor.get_object(Bucket=bucket, Key="lab-tests/a")) == "AccessDenied"
    assert auditor.list_objects_v2(Bucket=bucket, Prefix="lab-tests/")["KeyCount"] == 1
    assert mover.get_object(Bucket=bucket, Key="lab-tests/a")["Body"].read() == b"a"
    assert refusal(lambda: mover.put_object(Bucket=bucket, Key="lab-tests/b", Body=b"")) == "AccessDenied"
    assert refusal(lambda: mover.delete_object(Bucket=bucket, Key="lab-tests/a")) == "AccessDenied"
    seed.delete_object(Bucket=bucket, Key="lab-tests/a")


def test_object_store_has_no_open_side_door(lab: Lab) -> None:
    needs(lab, "seaweedfs")
    for name in ("filer", "volume"):
        answer = httpx.get(f"http://127.0.0.1:{lab.port('seaweedfs', name)}/buckets/helpdesk-docs/lab-tests/a")
        assert answer.status_code in (401, 403, 404, 400), (name, answer.status_code, answer.text[:100])
    written = httpx.put(f"http://127.0.0.1:{lab.port('seaweedfs', 'filer')}/buckets/helpdesk-docs/x", content=b"x")
    assert written.status_code == 401


def test_writes_can_be_frozen_for_all_but_the_returner(lab: Lab) -> None:
    """What the freeze stands on: a bucket policy that denies writes, and lets the rollback's identity pass."""
    needs(lab, "seaweedfs")
    bucket = "lab-freeze-docs"
    seed = aws(lab, "lab-a-seed", "s3")
    if bucket not in [found["Name"] for found in seed.list_buckets()["Buckets"]]:
        seed.create_bucket(Bucket=bucket)
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:DeleteObject"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"StringNotEquals": {"aws:username": ["lab-a-returner"]}},
    }
    seed.put_object(Bucket=bucket, Key="before", Body=b"")
    seed.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert refusal(lambda: seed.put_object(Bucket=bucket, Key="during", Body=b"")) == "AccessDenied"
    assert refusal(lambda: seed.delete_object(Bucket=bucket, Key="before")) == "AccessDenied"
    assert seed.get_object(Bucket=bucket, Key="before")["ContentLength"] == 0
    seed.delete_bucket_policy(Bucket=bucket)
    seed.put_object(Bucket=bucket, Key="after", Body=b"")


def test_control_plane_checks_signatures_and_policies(lab: Lab) -> None:
    needs(lab, "ministack")
    for profile in ("lab-a-app", "lab-a-stranger", "lab-a-mover"):
        identity = aws(lab, profile, "sts").get_caller_identity()
        assert identity["Arn"] == f"arn:aws:iam::111122223333:user/{profile}"
    assert refusal(lambda: aws(lab, "lab-a-stranger", "sqs").list_queues()) == "AccessDenied"
    denied = refusal(lambda: aws(lab, "lab-a-mover", "secretsmanager").create_secret(Name="x", SecretString="y"))
    assert denied == "AccessDeniedException"
    key = aws(lab, "lab-a-mover", "sqs")._request_signer._credentials.access_key
    forged = aws(lab, "lab-a-mover", "sqs", aws_access_key_id=key, aws_secret_access_key="x" * 40)
    assert refusal(lambda: forged.list_queues()) in ("SignatureDoesNotMatch", "InvalidSignatureException")
    nobody = aws(lab, "lab-a-mover", "sqs", aws_access_key_id="AKIAAAAAAAAAAAAAAAAA", aws_secret_access_key="x" * 40)
    assert refusal(lambda: nobody.list_queues()) in ("InvalidClientTokenId", "UnrecognizedClientException")


def test_control_plane_takes_the_issuers_token_and_no_other(lab: Lab, token: Callable[..., str]) -> None:
    needs(lab, "ministack")
    sts = aws(lab, "lab-a-stranger", "sts")

    def assume(bearer: str) -> Any:
        role = lab.env()["CROSSLOAD_LAB_AWS_WEB_ROLE"]
        return sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="lab-test", WebIdentityToken=bearer)

    good = token("mover")
    signed = good.rpartition(".")[0]
    other = token("mover").rpartition(".")[2]
    for bad in (
        token("app"),
        token("mover", expires_in=-5),
        token("mover", audience="elsewhere"),
        f"{signed}.{other}",
        f"{signed}.",
    ):
        assert refusal(lambda bad=bad: assume(bad)) == "AccessDenied"
    lent = assume(good)["Credentials"]
    keys = {
        "aws_access_key_id": lent["AccessKeyId"],
        "aws_secret_access_key": lent["SecretAccessKey"],
        "aws_session_token": lent["SessionToken"],
    }
    assert aws(lab, "lab-a-stranger", "sqs", **keys).list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
    denied = refusal(lambda: aws(lab, "lab-a-stranger", "sqs", **keys).create_queue(QueueName="x"))
    assert denied == "AccessDenied"


def test_bedrock_answers_from_the_real_model(lab: Lab) -> None:
    needs(lab, "ministack")
    needs(lab, "llm-a")
    through = aws(lab, "lab-a-app", "bedrock-runtime").converse(
        modelId="amazon.nova-lite-v1:0",
        messages=[{"role": "user", "content": [{"text": "Name one colour."}]}],
        inferenceConfig={"maxTokens": 8, "temperature": 0},
    )
    headers = {"Authorization": f"Bearer {lab.secret('llm-a')}"}
    straight = httpx.post(
        lab.env()["CROSSLOAD_LAB_LLM_A"] + "/chat/completions", json=QUESTION, headers=headers, timeout=60
    )
    counted = straight.json()["usage"]
    assert through["usage"]["inputTokens"] == counted["prompt_tokens"]
    assert through["usage"]["outputTokens"] == counted["completion_tokens"]
    assert through["output"]["message"]["content"][0]["text"] == straight.json()["choices"][0]["message"]["content"]
    assert (
        refusal(
            lambda: aws(lab, "lab-a-stranger", "bedrock-runtime").converse(
                modelId="amazon.nova-lite-v1:0", messages=[{"role": "user", "content": [{"text": "hi"}]}]
            )
        )
        == "AccessDeniedException"
    )


@pytest.mark.parametrize("cloud", ["a", "b"])
def test_database_refuses_wrong_passwords_and_foreign_roles(lab: Lab, cloud: str) -> None:
    import psycopg

    needs(lab, f"postgres-{cloud}")
    address = lab.env()[f"CROSSLOAD_LAB_PG_{cloud.upper()}"]
    with psycopg.connect(address) as session:
        assert session.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone() is not None
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address.partition("?")[0], password="wrong")
    owner = lab.env()["CROSSLOAD_LAB_PG_A_SEED"] if cloud == "a" else address
    with psycopg.connect(owner) as session:
        session.execute("CREATE TABLE IF NOT EXISTS lab_rights (id int)")
        session.execute("INSERT INTO lab_rights VALUES (1)")
    with psycopg.connect(lab.env()[f"CROSSLOAD_LAB_PG_{cloud.upper()}_STRANGER"]) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM public.lab_rights")
    if cloud == "a":
        with psycopg.connect(address) as session:
            assert session.execute("SELECT count(*) FROM lab_rights").fetchone() is not None
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("INSERT INTO lab_rights VALUES (2)")
    with psycopg.connect(owner) as session:
        session.execute("DROP TABLE lab_rights")


def test_the_database_programs_run_as_nobody_when_root_asks(lab: Lab) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has to change its user")
    assert postgres_row("a").never_as_root
    status = (Path("/proc") / str(lab.pid("postgres-a")) / "status").read_text()
    assert "Uid:\t0\t" not in status


# -- cloud B ----------------------------------------------------------------------------------------------------


def test_store_front_refuses_what_the_token_does_not_allow(lab: Lab, token: Callable[..., str]) -> None:
    needs(lab, "envoy")
    base = lab.env()["CROSSLOAD_LAB_GCS_ENDPOINT"]

    def ask(method: str, road: str, bearer: str | None, **more: Any) -> int:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        return httpx.request(method, base + road, headers=headers, **more).status_code

    good = token("mover")
    head, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = ".".join(
        (head, base64.urlsafe_b64encode(json.dumps({**claims, "sub": "app"}).encode()).rstrip(b"=").decode(), signature)
    )
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode() + f".{payload}."
    assert ask("GET", "/storage/v1/b", good) == 200
    for bad in (None, "x", "x.y.z", forged, none, token("mover", expires_in=-5)):
        assert ask("GET", "/storage/v1/b", bad) == 401, bad
    assert ask("GET", "/storage/v1/b", token("mover", audience="another-service")) == 403
    assert ask("GET", "/storage/v1/b", token("stranger")) == 403
    bucket = {"json": {"name": "lab-front-rights"}, "params": {"project": "p"}}
    assert ask("POST", "/storage/v1/b", token("app"), **bucket) == 403
    assert ask("POST", "/storage/v1/b", token("auditor"), **bucket) == 403
    assert ask("POST", "/storage/v1/b", good, **bucket) in (200, 409)
    upload = "/upload/storage/v1/b/lab-front-rights/o?uploadType=media&name=a"
    assert ask("POST", upload, token("app"), content=b"a") == 200
    assert ask("POST", upload, token("auditor"), content=b"a") == 403
    assert ask("GET", "/storage/v1/b/lab-front-rights/o/a?alt=media", token("auditor")) == 200
    assert ask("DELETE", "/storage/v1/b/lab-front-rights/o/a", token("auditor")) == 403
    assert ask("GET", "/_internal/healthcheck", good) == 403


def test_issuer_gives_no_token_for_a_wrong_secret(lab: Lab) -> None:
    needs(lab, "issuer")
    form = {"grant_type": "client_credentials", "client_id": "mover", "client_secret": "wrong"}
    assert httpx.post(lab.env()["CROSSLOAD_LAB_OIDC_ISSUER"] + "/token", data=form).status_code == 401


def test_azure_store_refuses_a_wrong_key(lab: Lab) -> None:
    needs(lab, "azurite")
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
    from azure.storage.blob import BlobServiceClient

    address = lab.env()["CROSSLOAD_LAB_AZURE_ENDPOINT"]
    account = {"account_name": lab.env()["CROSSLOAD_LAB_AZURE_ACCOUNT"]}
    with BlobServiceClient(address, credential={**account, "account_key": lab.secret("azure-key")}) as good:
        container = good.get_container_client("lab-tests")
        if not container.exists():
            container.create_container()
        container.upload_blob("a//b/", b"kept", overwrite=True)
        assert [blob.name for blob in container.list_blobs()] == ["a//b/"]
    wrong = base64.b64encode(b"w" * 64).decode()
    with BlobServiceClient(address, credential={**account, "account_key": wrong}) as bad:
        with pytest.raises((ClientAuthenticationError, HttpResponseError)) as caught:
            list(bad.list_containers())
        assert caught.value.status_code == 403


def test_secret_store_signs_in_by_token_and_keeps_each_policy(lab: Lab, token: Callable[..., str]) -> None:
    needs(lab, "openbao")
    with httpx.Client(base_url=lab.env()["CROSSLOAD_LAB_BAO"] + "/v1/", timeout=10) as bao:

        def sign_in(identity: str, jwt: str) -> httpx.Response:
            return bao.post("auth/jwt/login", json={"role": identity, "jwt": jwt})

        assert bao.get("secret/data/x", headers={"X-Vault-Token": "wrong"}).status_code == 403
        assert sign_in("mover", token("app")).status_code in (400, 403), (
            "another identity's token took the mover's role"
        )
        assert sign_in("mover", token("mover", expires_in=-600)).status_code in (400, 403)
        assert sign_in("mover", token("mover", audience="elsewhere")).status_code in (400, 403)
        mover = {"X-Vault-Token": sign_in("mover", token("mover")).json()["auth"]["client_token"]}
        app = {"X-Vault-Token": sign_in("app", token("app")).json()["auth"]["client_token"]}
        stranger = {"X-Vault-Token": sign_in("stranger", token("stranger")).json()["auth"]["client_token"]}
        assert bao.post("secret/data/helpdesk/k", json={"data": {"v": "1"}}, headers=mover).status_code == 200
        assert bao.get("secret/data/helpdesk/k", headers=app).json()["data"]["data"] == {"v": "1"}
        assert bao.post("secret/data/helpdesk/k", json={"data": {"v": "2"}}, headers=app).status_code == 403
        assert bao.get("secret/data/helpdesk/k", headers=stranger).status_code == 403
        assert bao.post("transit/keys/helpdesk", headers=mover).status_code in (200, 204)
        plain = base64.b64encode(b"secret").decode()
        sealed = bao.post("transit/encrypt/helpdesk", json={"plaintext": plain}, headers=app).json()["data"][
            "ciphertext"
        ]
        opened = bao.post("transit/decrypt/helpdesk", json={"ciphertext": sealed}, headers=app).json()
        assert opened["data"]["plaintext"] == plain


def test_models_refuse_a_wrong_key(lab: Lab) -> None:
    needs(lab, "llm-a")
    for key in (None, "Bearer wrong"):
        headers = {"Authorization": key} if key else {}
        answer = httpx.post(lab.env()["CROSSLOAD_LAB_LLM_A"] + "/chat/completions", json=QUESTION, headers=headers)
        assert answer.status_code == 401
    index = lab.env()["CROSSLOAD_LAB_LLM_B_REPOSITORY"] + "/v2/repository/index"
    assert httpx.post(index, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.post(index).status_code == 401


def test_queue_refuses_a_wrong_password(lab: Lab) -> None:
    needs(lab, "nats")

    def connect(password: str) -> str:
        with socket.create_connection(("127.0.0.1", lab.port("nats", "client")), timeout=5) as line:
            reader = line.makefile("rb")
            assert reader.readline().startswith(b"INFO")
            line.sendall(f'CONNECT {{"user":"mover","pass":"{password}","verbose":false}}\r\nPING\r\n'.encode())
            return reader.readline().decode().strip()

    assert connect(lab.secret("nats-mover")) == "PONG"
    assert connect("wrong").startswith("-ERR 'Authorization Violation'")


# -- models -----------------------------------------------------------------------------------------------------


def test_embeddings_put_paraphrases_near_and_other_topics_far(lab: Lab) -> None:
    needs(lab, "embed")
    near = [
        ("How do I open a text file?", "How can I open a file with text?"),
        ("The cat sat on the mat.", "A cat was sitting on the mat."),
        ("What is a Python list?", "Explain lists in Python."),
    ]
    far = [
        ("How do I open a text file?", "The cat sat on the mat."),
        ("What is a Python list?", "Bake bread at 220 degrees."),
    ]
    texts = [text for pair in (*near, *far) for text in pair]
    answer = httpx.post(lab.env()["CROSSLOAD_LAB_EMBED"] + "/embeddings", json={"input": texts}, timeout=60).json()
    rows = [row["embedding"] for row in answer["data"]]
    assert {len(row) for row in rows} == {384}
    cosines = [sum(a * b for a, b in zip(*rows[i : i + 2], strict=True)) for i in range(0, len(rows), 2)]
    assert all(value > 0.8 for value in cosines[: len(near)]), cosines
    assert all(value < 0.3 for value in cosines[len(near) :]), cosines


def test_a_moved_model_is_served_from_its_bytes_and_refused_when_they_differ(lab: Lab, front: Any) -> None:
    needs(lab, "llm-b")
    needs(lab, "llm-a")
    content = Path(lab.env()["CROSSLOAD_LAB_MODEL_FILE"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert front.media("models/smollm2.gguf", content).status_code == 200
    assert front.media("models/broken.gguf", b"GGUF nothing").status_code == 200
    admin = httpx.Client(base_url=lab.env()["CROSSLOAD_LAB_LLM_B_REPOSITORY"], timeout=90)
    admin.headers["Authorization"] = f"Bearer {lab.secret('llm-b')}"
    with admin:

        def load(key: str, sha256: str) -> httpx.Response:
            parameters = {"uri": f"gs://{front.bucket}/{key}", "sha256": sha256}
            return admin.post("/v2/repository/models/smollm2/load", json={"parameters": parameters})

        assert load("models/smollm2.gguf", "0" * 64).status_code == 409
        assert load("models/absent.gguf", digest).status_code == 424
        assert admin.post("/v2/repository/index").json() == []
        assert load("models/smollm2.gguf", digest).status_code == 200
        broken = hashlib.sha256(b"GGUF nothing").hexdigest()
        assert load("models/broken.gguf", broken).status_code == 422
        (row,) = admin.post("/v2/repository/index").json()
        assert (row["state"], row["sha256"]) == ("READY", digest), "a bad model must not take the good one away"
        asked = {"json": QUESTION, "timeout": 60}
        a, b = (
            httpx.post(
                lab.env()[f"CROSSLOAD_LAB_LLM_{cloud}"] + "/chat/completions",
                headers={"Authorization": f"Bearer {lab.secret(f'llm-{cloud.lower()}')}"},
                **asked,  # type: ignore[arg-type]
            ).json()["choices"][0]["message"]["content"]
            for cloud in ("A", "B")
        )
        assert a == b
        lab.kill("llm-b")
        lab.start("llm-b")
        (row,) = admin.post("/v2/repository/index").json()
        assert (row["state"], row["sha256"]) == ("READY", digest), "forgotten after a crash"
        assert admin.post("/v2/repository/models/smollm2/unload").status_code == 200
        assert admin.post("/v2/repository/index").json() == []


def test_no_secret_value_is_in_env_logs_or_command_lines(lab: Lab) -> None:
    secrets = [
        path.read_text().strip().encode() for path in (lab.home / "secrets").iterdir() if "pgpass" not in path.name
    ]
    secrets = [secret for secret in secrets if secret and not secret.startswith(b"{")]
    secrets += [
        value.encode()
        for pair in json.loads((lab.home / "secrets" / "aws-keys.json").read_text()).values()
        for value in pair[1:]
    ]
    shown = [(lab.home / "env").read_bytes(), (lab.home / "state.json").read_bytes()]
    shown += [path.read_bytes() for path in (lab.home / "logs").iterdir()]
    for server in lab.status():
        for pid in session_members(server.pid) if server.pid else []:
            shown.append((Path("/proc") / str(pid) / "cmdline").read_bytes())
    assert len(secrets) > 15
    assert not [text[:80] for text in shown for secret in secrets if secret in text]


def test_envoy_accepts_its_configuration_without_a_warning_about_deprecation(lab: Lab) -> None:
    needs(lab, "envoy")
    config = lab.home / "envoy" / "envoy.json"
    program = str(inside("envoy", "_bin", "envoy"))
    done = subprocess.run(
        [program, "--mode", "validate", "-c", str(config), "-l", "warning"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
