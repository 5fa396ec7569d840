"""The Identity port over STS and harmless calls."""

from __future__ import annotations

from typing import Any

from crossload.ports.errors import CrossloadError, NotSignedIn
from crossload.ports.identity import Permission, PermissionCheck, SignIn, judged
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translated
from crossload.providers.aws.session import client

# A key that no one has: reading it tells "may not" (403) from "may, but it is not there" (404).
_NO_SUCH_KEY = ".crossload/permission-check"


def open_identity(settings: Settings) -> AwsIdentity:
    return AwsIdentity(settings)


class AwsIdentity:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def sign_in(self) -> SignIn:
        try:
            with translated():
                answer = client(self._settings, "sts").get_caller_identity()
        except CrossloadError as error:
            profile = self._settings.get("profile") or "default chain"
            raise NotSignedIn(
                f"place {self.place}: sign-in with profile {profile} failed: {error}",
                hint="check the keys of this profile, or name another under the place's connection",
            ) from error
        return SignIn(answer["Arn"], f"profile {self._settings.get('profile') or 'default chain'}")

    def check(self, permission: Permission) -> PermissionCheck:
        return judged(permission, lambda: self._ask(permission.capability, permission.resource))

    @translated()
    def _ask(self, capability: str, name: str) -> str:
        s3: Any = client(self._settings, "s3")
        if capability == "objects.list":
            s3.list_objects_v2(Bucket=name, MaxKeys=1)
            return "ListObjectsV2 of one key answered"
        if capability == "objects.read":
            s3.get_object(Bucket=name, Key=_NO_SUCH_KEY)
            return "GetObject answered"
        if capability == "objects.tags":
            s3.get_object_tagging(Bucket=name, Key=_NO_SUCH_KEY)
            return "GetObjectTagging answered"
        if capability == "objects.write":
            # If-Match on a key that is not there can never write, yet is refused first when we may not write.
            s3.put_object(Bucket=name, Key=_NO_SUCH_KEY, Body=b"", IfMatch='"0"')
            s3.delete_object(Bucket=name, Key=_NO_SUCH_KEY)
            return "PutObject of an empty object answered, and was removed"
        if capability == "models.invoke":
            client(self._settings, "bedrock-runtime").converse(
                modelId=name, messages=[{"role": "user", "content": [{"text": "ping"}]}],
                inferenceConfig={"maxTokens": 1},
            )  # fmt: skip
            return "Converse of one token answered"
        if capability == "secrets.read":
            client(self._settings, "secretsmanager").describe_secret(SecretId=name)
            return "DescribeSecret answered"
        return ""
