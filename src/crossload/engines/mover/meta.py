"""What goes with the bytes, fitted to what the target can hold; every loss is named."""

from __future__ import annotations

from urllib.parse import unquote

from crossload.ports.store import ObjectMeta, StoreFeatures

TAG_PREFIX = "crossload-tag-"
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


def fit(meta: ObjectMeta, features: StoreFeatures) -> tuple[ObjectMeta, list[str]]:
    """The meta as the target can keep it, and the losses in words.

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
    fitted = ObjectMeta(
        meta.content_type, meta.cache_control, meta.content_disposition, meta.content_encoding, meta.content_language,
        user, tags,
    )  # fmt: skip
    return fitted, losses


def _as_user_key(tag: str) -> str:
    """A tag's name as a metadata key. Stores fold such keys to lower case and take ASCII only: everything else is
    percent-encoded, or `Team` would come home as `team`."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in tag.encode())
