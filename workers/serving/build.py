"""The export child: a bundle becomes an archive whose network passed the parity gate."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.core.answers import same_answer
from services.core.target import ServingTarget
from workers.engine.frames import FrameKind, FrameWriter
from workers.engine.processor import instruction_sets
from workers.families.catalog import CATALOG, Entry
from workers.serving.archive import ArchiveFile, bundle_members, write_archive
from workers.serving.bundle import (
    NETWORK_FILE,
    SERVING_FILE,
    Parts,
    ServingRecord,
    golden_files,
    golden_instances,
    read_parts,
)
from workers.serving.export import Exporter
from workers.serving.form import MEMORY_FORMATS, Form, memory_format_of
from workers.serving.parity import Choice, choose


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What the supervisor asks for; `model` names the model version for answers and people."""

    bundle_dir: Path
    out_path: Path
    target: ServingTarget
    model: Mapping[str, Any]
    forms: tuple[Form, ...] = tuple(Form)

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> BuildPlan:
        return cls(
            bundle_dir=Path(plan["bundle_dir"]),
            out_path=Path(plan["out_path"]),
            target=ServingTarget(**plan["target"]),
            model=plan.get("model", {}),
            forms=tuple(Form(form) for form in plan.get("forms", Form)),
        )


@dataclass(frozen=True, slots=True)
class Built:
    """An archive and how its network was chosen."""

    archive: ArchiveFile
    choice: Choice


def build_archive(plan: Mapping[str, Any], frames: FrameWriter) -> None:
    """Build the archive of `plan` and end with a final frame that describes it.

    Raises:
        BundleInvalid: the bundle cannot be read.
        ParityFailed: no form gives the trainer's answers.
    """
    built = build(BuildPlan.from_json(plan), frames)
    choice = built.choice
    frames.write(
        FrameKind.FINAL,
        reason="completed",
        path=str(built.archive.path),
        sha256=built.archive.sha256,
        size_bytes=built.archive.size_bytes,
        form=choice.candidate.form,
        parity={**choice.differences, "milliseconds": round(choice.milliseconds, 3)},
        candidates=list(choice.record),
    )


def build(plan: BuildPlan, frames: FrameWriter, *, catalog: Mapping[str, Entry] = CATALOG) -> Built:
    """Export, judge and write; sets this process's threads to the target's."""
    torch.set_num_threads(plan.target.threads)
    parts = read_parts(plan.bundle_dir, catalog=catalog)
    with tempfile.TemporaryDirectory(prefix="export-", dir=plan.out_path.parent) as scratch:
        choice = _choose(plan, parts, Path(scratch), frames)
        members: dict[str, Path | bytes] = dict(bundle_members(plan.bundle_dir))
        members[SERVING_FILE] = _record(plan, parts, choice).to_json()
        if choice.candidate.path is not None:
            members[NETWORK_FILE] = choice.candidate.path
        archive = write_archive(plan.out_path, members=members, model_name=str(plan.model.get("name", parts.recipe)))
    return Built(archive, choice)


def _choose(plan: BuildPlan, parts: Parts, scratch: Path, frames: FrameWriter) -> Choice:
    def announce(form: Form) -> None:
        frames.write(FrameKind.PHASE, phase="exporting", detail=form)

    candidates, rejections = Exporter(parts, plan.target, scratch).build(plan.forms, on_start=announce)
    frames.write(FrameKind.PHASE, phase="probing", detail="parity and speed of the forms")
    return choose(parts.handler, parts.golden, candidates, rejections)


def _record(plan: BuildPlan, parts: Parts, choice: Choice) -> ServingRecord:
    wanted = memory_format_of(parts.module, parts.spec.input_shape)
    return ServingRecord(
        form=choice.candidate.form,
        target=plan.target,
        instruction_sets=instruction_sets(),
        torch=torch.__version__,
        model=plan.model,
        parity=choice.differences,
        candidates=choice.record,
        memory_format=next(name for name, one in MEMORY_FORMATS.items() if one is wanted),
        smoke=_smoke(plan, parts, choice),
    )


def _smoke(plan: BuildPlan, parts: Parts, choice: Choice) -> dict[str, Any]:
    """Return a golden input with the answer of the chosen form, for whoever tries the archive over the wire.

    One that the trainer answered alike: a host that cannot run this form serves the archive eagerly, and has to pass, too.
    """

    def case(number: int) -> tuple[Path, Any]:
        return paths[number], parts.handler.predict(instances[number : number + 1], choice.candidate.network)[0]

    paths, instances = golden_files(plan.bundle_dir), golden_instances(parts.golden)
    cases = zip(map(case, range(len(paths))), parts.golden.answers, strict=True)
    # The first one, nearly always: the others are not even answered then.
    path, answer = next((one for one, expected in cases if same_answer(expected, one[1])), None) or case(0)
    return {"input": path.relative_to(plan.bundle_dir).as_posix(), "answer": answer}
