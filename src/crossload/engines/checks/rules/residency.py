"""Where the bytes may lie: the country of the place, and the region the bucket really has. Unknown does not pass."""

from __future__ import annotations

from crossload.engines.checks.model import EQUAL, UNKNOWN, WEAKER, Comparison, Line, Pair
from crossload.ports.policy import REGION


def _lines(pair: Pair) -> list[Line]:
    """No sensitivity, no rule: said, and not stopped. With a rule, an unknown country or another region stops."""
    place, fact = pair.target.place, pair.target.posture.fact(REGION)
    where = f"{place.country or 'unknown'} ({place.region})"
    source = f"{pair.source.place.country or 'unknown'} ({pair.source.place.region})"
    how = f"country as the place says; region: {fact.how}"

    def line(verdict: str, hint: str = "", blocks: bool = False, target: str = where) -> list[Line]:
        return [Line("residency", f"{pair.asset.id} lies in", source, target, verdict, hint, how, blocks)]

    if pair.allowed is None:
        sensitivity = pair.asset.overlay.get("sensitivity")
        if sensitivity:
            return line(EQUAL, f"no residency rule is for {sensitivity} data")
        return line(UNKNOWN, "no sensitivity is set, so no residency rule applies: set one under `overlays`")
    allowed = ", ".join(sorted(pair.allowed))
    if not place.country:
        return line(UNKNOWN, f"set `country` of place {place.id}; allowed: {allowed}", True)
    if fact.known and str(fact.value).lower() != place.region.lower():
        shown = f"{fact.value}, not {place.region}"
        return line(
            WEAKER, f"the bucket is not where the place is; its country is not known. Allowed: {allowed}", True, shown
        )
    if place.country not in pair.allowed:
        return line(WEAKER, f"{place.country} is not allowed; allowed: {allowed}", True)
    if not fact.known and pair.asset.fact("bucket"):
        return line(UNKNOWN, f"the store does not tell the bucket's region ({fact.how})", True)
    return line(EQUAL)


RULE = Comparison(id="residency", title="Where the bytes lie", lines=_lines, question="residency")
