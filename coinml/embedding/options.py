"""How videos are embedded: parameters that do not change the vectors."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coinml.encoder.kernels import AUTO, check_kernel_name
from coinml.errors import InvalidInputError
from coinml.media.records import DecoderName


class EmbedOptions(BaseModel):
    """The decoder, the kernel, the devices and the time limit for embedding."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Embedding")

    decoder: DecoderName = Field(
        default="auto", description="`auto`, `pyav`, `decord` or `torchcodec`."
    )
    kernel: str = Field(
        default=AUTO,
        description="How the encoder is computed on a CPU: `auto` (the fastest on this machine) or "
        "one that `coinml doctor` lists.",
    )
    deadline_s: float = Field(
        default=60, ge=0.001, description="Seconds that decoding one video may take."
    )
    runner: Literal["local", "dask"] = Field(
        default="local",
        description="`local`: this machine's devices; `dask`: the workers of a cluster.",
    )
    address: str | None = Field(
        default=None, description="URL of the Dask scheduler, such as tcp://10.0.0.5:8786."
    )
    devices: str | None = Field(
        default=None,
        description="One process per device, such as `cuda:0,cuda:1`; by default COINML_DEVICE, "
        "where `auto` is every GPU.",
    )
    shard_size: int | None = Field(
        default=None,
        ge=1,
        description="Videos (or segments) per task; by default chosen by the number of processes.",
    )

    @field_validator("kernel")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_kernel_name(name)

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.runner == "dask" and not self.address:
            raise InvalidInputError(
                "--runner dask needs the --address of a scheduler; without --runner, all GPUs of "
                "this machine are used"
            )
        if self.runner != "dask" and self.address:
            raise InvalidInputError(f"--address {self.address} is for --runner dask")
        if self.runner == "dask" and self.devices:
            raise InvalidInputError(
                "--devices are this machine's; the cluster's are chosen where its workers start"
            )
        return self
