"""The Identity port for Google Cloud: sign in by federation or the default chain, ask by harmless calls."""

from __future__ import annotations

from crossload.ports.identity import Permission, PermissionCheck, SignIn, judged
from crossload.ports.provider import Settings
from crossload.providers.gcp.session import access_token, bucket_path, object_path, request

_NO_SUCH_KEY = ".crossload/permission-check"
_NEVER = "1"  # a generation no object has: the write can never happen


def open_identity(settings: Settings) -> GcpIdentity:
    return GcpIdentity(settings)


class GcpIdentity:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def sign_in(self) -> SignIn:
        token = access_token(self._settings)
        request(  # a token is only good once a server took it
            self._settings, "GET", "/storage/v1/b", params={"project": self._settings.get("project"), "maxResults": "1"}
        )
        return SignIn(token.subject, token.method, token.issuer, token.expires_at)

    def check(self, permission: Permission) -> PermissionCheck:
        return judged(permission, lambda: self._ask(permission.capability, permission.resource))

    def _ask(self, capability: str, bucket: str) -> str:
        if capability == "objects.list":
            request(self._settings, "GET", f"{bucket_path(bucket)}/o", params={"maxResults": "1"})
            return "objects.list of one key answered"
        if capability == "objects.read":
            request(self._settings, "GET", object_path(bucket, _NO_SUCH_KEY), params={"alt": "media"})
            return "objects.get answered"
        if capability == "objects.write":
            path = object_path(bucket, _NO_SUCH_KEY)
            request(self._settings, "DELETE", path, params={"ifGenerationMatch": _NEVER})
            return "objects.delete of a key that cannot match answered"
        return ""
