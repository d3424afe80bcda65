"""What embedding costs under each condition, measured on the same videos.

Decoding and encoding are timed separately, not overlapped as in the engine: which of them is the
bottleneck depends on the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from coinml.embedding.jobs import EmbedJob
from coinml.embedding.shards import load_encoder_once
from coinml.embedding_sets.options import SetOptions
from coinml.encoder.clip_encoder import ClipEncoder
from coinml.errors import CorruptVideoError
from coinml.media import DecodePool, SampledClips
from coinml.studies.plans import Condition

ROUNDS = 6
"""Number of measured rounds. Of two equal conditions, the same one is faster in each of six rounds
in 3 % of studies; in each of five, in 6 %."""

_DEADLINE_S = 120.0

_INSTANT_S = 1e-9
"""Below the clock's resolution; keeps ratios finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTimes:
    """What embedding the videos once took.

    Attributes:
        decode_s: Seconds in one decoding process.
        encode_s: Seconds of resizing and encoding.
        encode_cpu_s: CPU seconds of it, of all cores.
    """

    decode_s: float
    encode_s: float
    encode_cpu_s: float

    @property
    def seconds(self) -> float:
        """Seconds of decoding and encoding, one after the other."""
        return self.decode_s + self.encode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median over the rounds, with the least and the greatest.

    Attributes:
        value: The median.
        low: The least.
        high: The greatest.
        rounds: Number of rounds.
    """

    value: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a round."""
        return cls(value=median(values), low=min(values), high=max(values), rounds=len(values))

    @property
    def excludes_1(self) -> bool:
        """Whether a ratio is above 1 in every round or below 1 in every round, of enough rounds."""
        return self.rounds >= ROUNDS and (self.low > 1 or self.high < 1)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What embedding some videos took.

    Attributes:
        condition: Name of the condition.
        videos: Number of videos.
        clips: Number of clips of all videos.
        frames: Number of frames that the decoder decoded for them.
        rounds: The times of each round; the conditions took turns in each.
        load: Median over the rounds of the machine's load average, the study's own work in it.
    """

    condition: str
    videos: int
    clips: int
    frames: int
    rounds: tuple[RoundTimes, ...]
    load: float

    @property
    def decode_s(self) -> Spread:
        """Seconds in one decoding process, for all videos."""
        return Spread.of([one.decode_s for one in self.rounds])

    @property
    def encode_s(self) -> Spread:
        """Seconds of resizing and encoding, for all videos."""
        return Spread.of([one.encode_s for one in self.rounds])

    @property
    def encode_cpu_s_a_clip(self) -> Spread:
        """CPU seconds of resizing and encoding a clip, of all cores."""
        return Spread.of([one.encode_cpu_s / max(self.clips, 1) for one in self.rounds])

    @property
    def seconds(self) -> Spread:
        """Seconds of decoding and encoding, one after the other."""
        return Spread.of([one.seconds for one in self.rounds])

    @property
    def clips_per_s(self) -> Spread:
        """Clips a second."""
        return Spread.of([self.clips / max(one.seconds, _INSTANT_S) for one in self.rounds])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "videos": self.videos,
            "clips": self.clips,
            "frames": self.frames,
            "rounds": len(self.rounds),
            "load": self.load,
        } | {
            f"{name}{end}": value
            for name in ("decode_s", "encode_s", "encode_cpu_s_a_clip", "seconds", "clips_per_s")
            for spread in (getattr(self, name),)
            for end, value in (("", spread.value), ("_low", spread.low), ("_high", spread.high))
        }


def speed_up(
    reference: Cost, cost: Cost, seconds: Callable[[RoundTimes], float] = lambda one: one.seconds
) -> Spread:
    """The speed as a multiple of the reference's, round by round.

    Args:
        reference: What the reference took.
        cost: What is compared with it, measured in the same rounds.
        seconds: The part of a round that is compared.
    """
    return Spread.of(
        [
            seconds(before) / max(seconds(after), _INSTANT_S)
            for before, after in zip(reference.rounds, cost.rounds, strict=True)
        ]
    )


def measure_costs(
    jobs: Sequence[EmbedJob],
    conditions: Sequence[Condition],
    *,
    device: str,
    decoder: str = "auto",
    kernel: str = "auto",
    rounds: int = ROUNDS,
    load: Callable[[SetOptions, str, str], ClipEncoder] | None = None,
    on_video: Callable[[], None] | None = None,
) -> list[Cost]:
    """Embed the same videos under each condition, discarding the vectors.

    A first round, which is not measured, reads the files into the system's cache and leaves out
    videos that cannot be decoded.

    Args:
        jobs: The videos.
        conditions: Those with `set_options` are measured.
        device: Where the encoder runs.
        decoder: `auto` or a decoder's name.
        kernel: As in `load_encoder`.
        load: Loads the encoder of options on a device by a kernel; by default from its checkpoint.
        rounds: Number of measured rounds; the conditions take turns in each.
        on_video: Called after each video of each round.
    """
    tick = on_video or (lambda: None)
    made = [(c.name, c.set_options) for c in conditions if c.set_options is not None]
    times: dict[str, list[RoundTimes]] = {name: [] for name, _ in made}
    loads: list[float] = []
    counts: dict[str, tuple[int, int]] = {}
    good = list(jobs)
    with DecodePool(workers=1) as pool:
        for number in range(rounds + 1):
            for name, options in made:
                encoder = (load or load_encoder_once)(options, device, kernel)
                run = _Run(pool, encoder, snap=options.snap, decoder=decoder)
                if number == 0:
                    good = [job for job in good if run.decodes(job, tick)]
                    continue
                run.warm(good[:1])
                for job in good:
                    run.embed(job)
                    tick()
                run.finish()
                times[name].append(
                    RoundTimes(
                        decode_s=run.decode_s,
                        encode_s=run.encode_s,
                        encode_cpu_s=run.encode_cpu_s,
                    )
                )
                counts[name] = (run.clips, run.frames)
                loads.append(os.getloadavg()[0])
    return [
        Cost(
            condition=name,
            videos=len(good),
            clips=counts[name][0],
            frames=counts[name][1],
            rounds=tuple(times[name]),
            load=median(loads),
        )
        for name, _ in made
    ]


class _Run:
    """Measures one condition in one round."""

    def __init__(self, pool: DecodePool, encoder: ClipEncoder, *, snap: str, decoder: str) -> None:
        self._pool = pool
        self._encoder = encoder
        self._clip_spec = encoder.clip_spec(snap)
        self._decoder = decoder
        self._waiting: list[Any] = []
        self.decode_s = self.encode_s = self.encode_cpu_s = 0.0
        self.clips = self.frames = 0

    def decodes(self, job: EmbedJob, tick: Callable[[], None]) -> bool:
        try:
            self._sample(job)
        except CorruptVideoError:
            return False
        finally:
            tick()
        return True

    def warm(self, jobs: Sequence[EmbedJob]) -> None:
        """Run the model once, so that its set-up on first use is not measured."""
        for job in jobs:
            self._encoder.encode([self._sample(job).frames[0]])

    def embed(self, job: EmbedJob) -> None:
        start = time.perf_counter()
        sampled = self._sample(job)
        decoded, cpu_s = time.perf_counter(), time.process_time()
        self._waiting += [self._encoder.prepare(clip) for clip in sampled.frames]
        if len(self._waiting) >= self._encoder.batch_clips:
            self._encode()
        self.decode_s += decoded - start
        self.encode_s += time.perf_counter() - decoded
        self.encode_cpu_s += time.process_time() - cpu_s
        self.clips += len(sampled.frames)
        self.frames += sampled.frames_decoded

    def finish(self) -> None:
        start, cpu_s = time.perf_counter(), time.process_time()
        self._encode()
        self.encode_s += time.perf_counter() - start
        self.encode_cpu_s += time.process_time() - cpu_s

    def _encode(self) -> None:
        if self._waiting:
            self._encoder.encode_prepared(self._waiting)
            self._waiting = []

    def _sample(self, job: EmbedJob) -> SampledClips:
        return self._pool.submit_sample(
            job.path,
            self._clip_spec,
            start_s=job.start_s,
            end_s=job.end_s,
            decoder=self._decoder,
            deadline_s=_DEADLINE_S,
        ).result()
