"""The Python API: what the faces call, and what a script may call. Nothing here prints."""

from __future__ import annotations

from crossload.api.move import Move, MoveOptions, open_move
from crossload.api.project import (
    BadFile,
    CrossloadError,
    Diagnostic,
    Evidence,
    Inventory,
    Plan,
    Project,
    Quiet,
    RunReport,
    StepResult,
    StepStatus,
    check_file,
    check_inclusion,
    doctor,
    draft_file,
    json_schema,
    lab_main,
    lab_places,
    open_project,
    open_proof,
    play_demo,
    schema_text,
    stage_names,
    support_matrix,
    verify_provider,
)
from crossload.api.relay import AgentSettings, open_agent

__all__ = [
    "AgentSettings", "BadFile", "CrossloadError", "Diagnostic", "Evidence", "Inventory", "Move", "MoveOptions",
    "Plan", "Project", "Quiet", "RunReport", "StepResult", "StepStatus", "check_file", "check_inclusion", "doctor",
    "draft_file", "json_schema", "lab_main", "lab_places", "open_agent", "open_move", "open_project", "open_proof",
    "play_demo", "schema_text", "stage_names", "support_matrix", "verify_provider",
]  # fmt: skip
