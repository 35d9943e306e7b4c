"""What a trainer process is told to do: `plan.json` of its attempt directory. Torch-free.

A plan holds no credential and no name of a store: inputs are local, verified directories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(description="A key of the catalog.")
    config: dict[str, Any] = Field(description="The recipe's complete config.")
    dataset_dir: Path = Field(description="A materialised dataset version in canonical form.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="The device this attempt owns.")
    threads: int = Field(1, ge=1, description="The share of cores this attempt owns.")


class SourcePlan(BaseModel):
    """Weights that the networks start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="As the job says it.")
    kind: Literal["model", "checkpoint", "weights", "torchvision"]
    recipe: str = Field(description="What trained them; 'weights' or 'torchvision' where no recipe did.")
    config: dict[str, Any] = Field(description="The config they were trained with; empty where no recipe did.")
    directory: Path = Field(
        description="A verified bundle or checkpoint, or the published file; empty: to be downloaded from its publisher."
    )


class TrainPlan(_Plan):
    """One attempt of a job."""

    mode: Literal["train"] = "train"
    job_id: str
    attempt: int = Field(ge=1)
    token: int = Field(ge=0)
    resume_dir: Path | None = Field(None, description="A verified checkpoint to go on from.")
    source: SourcePlan | None = Field(None, description="Weights to start from; no attempt that resumes has them.")
    origin: str = Field("", description="What the job started from, for the record.")
    micro_batches: int = Field(1, ge=1, description="Parts each batch is trained in: more after a lack of memory.")
    loader_workers: int | None = Field(None, ge=0, description="Loader processes instead of the config's; same bits.")
    cache_dir: Path = Field(description="Survives attempts: decisions of the precision probe.")
    spool_dir: Path = Field(description="Where checkpoints, artifacts and the bundle of this attempt are left.")


class PackagePlan(_Plan):
    """Makes a servable bundle of one checkpoint."""

    mode: Literal["package_checkpoint"] = "package_checkpoint"
    checkpoint_dir: Path = Field(description="A verified checkpoint.")
    origin: str = Field("", description="What its job started from, for the record.")
    bundle_dir: Path = Field(description="Where to write the bundle; must not exist.")
