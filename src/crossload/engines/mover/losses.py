"""What a copy leaves behind, in one set of words for every face that says it before anything moves."""

from __future__ import annotations

from crossload.engines.mover.meta import TAG_PREFIX
from crossload.ports.store import StoreFeatures


def history_left(older: int | None, markers: int | None) -> str:
    """ "" when there is no history; None counts as unknown."""
    if (older, markers) == (0, 0):
        return ""
    shown = ["unknown" if count is None else f"{count}" for count in (older, markers)]
    return f"{shown[0]} older version(s) and {shown[1]} delete marker(s) stay at the source"


def fit_losses(source: StoreFeatures, target: StoreFeatures) -> list[str]:
    """What of an object's tags and metadata the target cannot keep, if objects have such."""
    losses: list[str] = []
    if source.tags and not target.tags:
        losses.append(f"tags, if there are any, are kept as user metadata {TAG_PREFIX}*")
    if source.user_metadata_bytes_max > target.user_metadata_bytes_max:
        most = target.user_metadata_bytes_max
        losses.append(f"user metadata of more than {most} bytes an object does not fit, and is left out")
    return losses
