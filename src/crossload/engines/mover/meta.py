"""What goes with the bytes, fitted to what the target can hold; every loss is named."""

from __future__ import annotations

from crossload.ports.store import ObjectMeta, StoreFeatures

TAG_PREFIX = "crossload-tag-"


def fit(meta: ObjectMeta, features: StoreFeatures) -> tuple[ObjectMeta, list[str]]:
    """The meta as the target can keep it, and the losses in words.

    A store without tags keeps them as user metadata under `crossload-tag-`; the way back turns them into tags."""
    user = dict(meta.user)
    tags = dict(meta.tags)
    losses: list[str] = []
    if features.tags:
        for name in [name for name in user if name.startswith(TAG_PREFIX)]:
            tags[name.removeprefix(TAG_PREFIX)] = user.pop(name)
    elif tags:
        user.update({f"{TAG_PREFIX}{name}": value for name, value in tags.items()})
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
