"""What goes with the bytes, fitted to what the target can hold; every loss is named."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from crossload.ports.store import ObjectMeta, StoreFeatures

TAG_PREFIX = "crossload-tag-"
_WARMER = {"automatic": "infrequent", "archive": "cold", "cold": "infrequent", "infrequent": ""}
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


def fit(meta: ObjectMeta, features: StoreFeatures) -> tuple[ObjectMeta, list[str]]:
    """The meta as the target can keep it, and the losses in words.

    Access control lists are never among the meta: who may read is granted anew at the target, and compared there.
    A store without tags keeps them as user metadata under `crossload-tag-`; the way back turns them into tags."""
    user = dict(meta.user)
    tags = dict(meta.tags)
    losses: list[str] = []
    if features.tags:
        for name in [name for name in user if name.startswith(TAG_PREFIX)]:
            tags[unquote(name.removeprefix(TAG_PREFIX))] = user.pop(name)
    elif tags:
        user.update({TAG_PREFIX + _as_user_key(name): value for name, value in tags.items()})
        losses.append(f"{len(tags)} tag(s) kept as user metadata {TAG_PREFIX}*")
        tags = {}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in user.items())
    if size > features.user_metadata_bytes_max:
        losses.append(f"user metadata of {size} bytes does not fit ({features.user_metadata_bytes_max} at most)")
        user = {}
    storage_class, lost = _fit_class(meta.storage_class, features)
    losses += lost
    expires = meta.expires if features.expires else ""
    if expires != meta.expires:
        losses.append("the Expires date for caches is not kept")
    return replace(meta, user=user, tags=tags, storage_class=storage_class, expires=expires), losses


def _fit_class(wanted: str, features: StoreFeatures) -> tuple[str, list[str]]:
    """The class asked for or the nearest warmer one. A class that nobody could read back at once is not written: the
    copy could not be proved, and an application would find its data gone."""
    chosen = wanted
    while chosen and (chosen not in features.storage_classes or chosen in features.classes_offline):
        chosen = _WARMER.get(chosen, "")
    if chosen == wanted:
        return wanted, []
    offline = wanted in features.storage_classes
    why = "could not be read back at once" if offline else "is not known at the target"
    return chosen, [f"storage class `{wanted}` {why}: written as `{chosen or 'standard'}`"]


def _as_user_key(tag: str) -> str:
    """A tag's name as a metadata key. Stores fold such keys to lower case and take ASCII only: everything else is
    percent-encoded, or `Team` would come home as `team`."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in tag.encode())
