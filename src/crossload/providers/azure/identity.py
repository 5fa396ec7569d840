"""The Identity port for Azure: an account key or azure-identity's chain, asked by harmless calls."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions

from crossload.ports.errors import AccessDenied, NotSignedIn
from crossload.ports.identity import Permission, PermissionCheck, SignIn, judged
from crossload.ports.provider import Settings
from crossload.providers.azure.errors import translated
from crossload.providers.azure.session import service

# A key that no one has: asking for it tells "may not" (403) from "may, but it is not there" (404).
_NO_SUCH_KEY = ".crossload/permission-check"
_NEVER = '"0x0"'  # an etag no blob has: the delete can never happen


def open_identity(settings: Settings) -> AzureIdentity:
    return AzureIdentity(settings)


class AzureIdentity:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def sign_in(self) -> SignIn:
        account = self._settings.require("account")
        method = "account key" if self._settings.get("key") else "azure-identity default chain"
        try:
            with translated():
                next(iter(service(self._settings).list_containers(results_per_page=1)), None)
        except (NotSignedIn, AccessDenied) as error:
            raise NotSignedIn(
                f"place {self.place}: sign-in to account {account} by {method} failed: {error}",
                hint="check the reference `key` of this place, or run `az login`",
            ) from error
        return SignIn(account, method)

    def check(self, permission: Permission) -> PermissionCheck:
        return judged(permission, lambda: self._ask(permission.capability, permission.resource))

    @translated()
    def _ask(self, capability: str, bucket: str) -> str:
        container: Any = service(self._settings).get_container_client(bucket)
        blob = container.get_blob_client(_NO_SUCH_KEY)
        if capability == "objects.list":
            next(iter(container.list_blobs(results_per_page=1)), None)
            return "List Blobs of one key answered"
        if capability == "objects.read":
            blob.download_blob(0, 1).readall()
            return "Get Blob answered"
        if capability == "objects.tags":
            blob.get_blob_tags()
            return "Get Blob Tags answered"
        if capability == "objects.write":
            blob.delete_blob(etag=_NEVER, match_condition=MatchConditions.IfNotModified)
            return "Delete Blob with a condition that cannot hold answered"
        return ""
