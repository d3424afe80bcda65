"""Which tokens of a clip are masked in pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MaskKind = Literal["tube", "random", "frame"]
"""`tube`: the same positions at all times; `random`: any tokens; `frame`: all positions at some
times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """A kind of mask with its share, for a grid of tokens.

    Every mask has the same number of masked tokens: the share, rounded to whole positions (`tube`),
    tokens (`random`) or times (`frame`), with at least one masked and one visible.

    Attributes:
        kind: What is masked.
        ratio: Share of the tokens that is to be masked, above 0 and below 1.
        grid: Number of tokens in time, rows and columns.

    Raises:
        InvalidInputError: Another kind or share, or a grid with one place to mask.
    """

    kind: MaskKind
    ratio: float
    grid: tuple[int, int, int]

    def __post_init__(self) -> None:
        if self.kind not in get_args(MaskKind):
            raise InvalidInputError(f"masking {self.kind!r}: allowed are {get_args(MaskKind)}")
        if not 0 < self.ratio < 1:
            raise InvalidInputError(f"mask ratio {self.ratio}: must be above 0 and below 1")
        if self._places < 2:
            raise InvalidInputError(
                f"masking {self.kind!r} needs two places or more, and the encoder's tokens (times, "
                f"rows, columns) are {self.grid}"
            )

    @property
    def tokens(self) -> int:
        """Number of tokens of a clip."""
        times, rows, columns = self.grid
        return times * rows * columns

    @property
    def masked_tokens(self) -> int:
        """Number of masked tokens of a clip."""
        return self._masked_places * (self.tokens // self._places)

    @property
    def masked_share(self) -> float:
        """Share of the tokens that is masked."""
        return self.masked_tokens / self.tokens

    def draw(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask: bool (tokens,), True where masked, ordered by time, row and column."""
        import numpy as np

        masked = np.zeros(self._places, dtype=bool)
        masked[rng.permutation(self._places)[: self._masked_places]] = True
        times, rows, columns = self.grid
        if self.kind == "tube":
            return np.tile(masked, times)
        return masked.repeat(rows * columns) if self.kind == "frame" else masked

    @property
    def _places(self) -> int:
        times, rows, columns = self.grid
        return {"tube": rows * columns, "frame": times}.get(self.kind, self.tokens)

    @property
    def _masked_places(self) -> int:
        return min(self._places - 1, max(1, round(self._places * self.ratio)))
