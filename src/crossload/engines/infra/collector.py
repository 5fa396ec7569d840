"""The OpenTelemetry Collector's settings for one place, so that the target is seen from its first request on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from crossload.estate.diagnostic import Diagnostic
from crossload.ports.infra import Foundations

_SECTIONS = ("receivers", "processors", "exporters", "extensions")
_SIGNALS = ("traces", "metrics", "logs")
_MEMORY_MIB = 400


def collector(foundations: Foundations, attributes: Mapping[str, str]) -> str:
    """YAML. Where data goes and with which credential stays in the environment of the process, never in the file."""
    resource = [
        {"key": key, "value": value, "action": "upsert"}
        for key, value in sorted(_attributes(foundations, attributes).items())
    ]
    pipeline = {
        "receivers": ["otlp"],
        # The limiter is first: a collector that runs out of memory takes the workload's telemetry with it.
        "processors": ["memory_limiter", "resource/place", "batch"],
        "exporters": ["otlphttp"],
    }
    settings: dict[str, Any] = {
        "receivers": {"otlp": {"protocols": {
            "grpc": {"endpoint": "127.0.0.1:4317"}, "http": {"endpoint": "127.0.0.1:4318"},
        }}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": _MEMORY_MIB, "spike_limit_mib": _MEMORY_MIB // 4},
            "resource/place": {"attributes": resource},
            "batch": {"send_batch_size": 512, "timeout": "5s"},
        },
        "exporters": {"otlphttp": {
            "endpoint": "${env:OTEL_EXPORTER_OTLP_ENDPOINT}",
            "headers": {"authorization": "${env:CROSSLOAD_OTLP_AUTHORIZATION}"},
            "retry_on_failure": {"enabled": True, "max_elapsed_time": "300s"},
            "sending_queue": {"enabled": True, "queue_size": 2000},
        }},
        "extensions": {"health_check": {"endpoint": "127.0.0.1:13133"}},
        "service": {"extensions": ["health_check"], "pipelines": {signal: dict(pipeline) for signal in _SIGNALS}},
    }  # fmt: skip
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Anchors (`&id001`) are legal YAML that people then copy wrongly; every list is written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _attributes(foundations: Foundations, attributes: Mapping[str, str]) -> dict[str, str]:
    """OpenTelemetry's own names (semantic conventions) where there is one, `crossload.` where there is none."""
    return {
        **attributes,
        "cloud.region": foundations.region,
        "crossload.migration": foundations.migration,
        "crossload.place": foundations.place,
        **({"service.namespace": foundations.labels["app"]} if foundations.labels.get("app") else {}),
    }


def check_collector(text: str, file: str = "") -> list[Diagnostic]:
    """Every component a pipeline names is defined, every defined one is used, all three signals flow somewhere."""

    def problem(summary: str, hint: str = "") -> Diagnostic:
        return Diagnostic.error("XL825", summary, subject=file, hint=hint)

    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [problem(f"not YAML: {error}")]
    if not isinstance(settings, dict) or not isinstance(settings.get("service"), dict):
        return [problem("no `service` section: the collector would refuse to start")]
    out: list[Diagnostic] = []
    pipelines: dict[str, Any] = settings["service"].get("pipelines") or {}
    used: dict[str, set[str]] = {section: set() for section in _SECTIONS}
    used["extensions"] |= set(settings["service"].get("extensions") or ())
    for name, pipeline in pipelines.items():
        out += [
            problem(f"pipeline {name} has no {section}")
            for section in ("receivers", "exporters")
            if not pipeline.get(section)
        ]
        for section in _SECTIONS[:3]:
            used[section] |= set(pipeline.get(section) or ())
    for section in _SECTIONS:
        defined = set(settings.get(section) or ())
        out += [problem(f"{section}: `{name}` is used and not defined") for name in sorted(used[section] - defined)]
        out += [problem(f"{section}: `{name}` is defined and never used") for name in sorted(defined - used[section])]
    seen = {name.partition("/")[0] for name in pipelines}
    out += [problem(f"no pipeline carries {signal}", "an unseen signal is a gap after the cutover")
            for signal in _SIGNALS if signal not in seen]  # fmt: skip
    return out
