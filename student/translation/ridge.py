"""Ridge regression from teacher features and cell position to image tokens, from sums over images.

The sums need one pass over the images, and their size does not depend on the number of images. Everything is float64.
N cells of the student's grid, C channels of the teacher, D width of the student's tokens, R rows (cells of all images).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...errors import MedalignError


@dataclass(frozen=True, kw_only=True, slots=True)
class RidgeSolution:
    """Coefficients for standardized features: `tokens = (features - mean) / scale @ weight + at_cell[cell]`."""

    weight: Float64[Tensor, "channels width"]
    at_cell: Float64[Tensor, "cells width"]
    """Coefficient of the cell's one-hot plus the intercept."""
    mean: Float64[Tensor, " channels"]
    scale: Float64[Tensor, " channels"]
    """Standard deviation of each channel over all rows; 1 for a constant channel."""
    variance: float
    """Mean over token channels of their variance over all rows."""
    cell_mean: Float64[Tensor, "cells width"]
    """Mean token of each cell: the prediction without looking at the image."""


class RidgeSums:
    """Sums of products over all rows added so far, relative to the first batch's means.

    The shift keeps the differences of large sums exact to rounding if means are large compared with deviations.
    """

    def __init__(self, *, cells: int, channels: int, width: int) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.images = 0
        self._shift_x, self._shift_y = zeros(channels), zeros(width)
        self._xx, self._xy = zeros(channels, channels), zeros(channels, width)
        self._x_at, self._y_at = zeros(cells, channels), zeros(cells, width)
        self._count_at = zeros(cells)
        self._yy = zeros(width)

    @property
    def rows(self) -> int:
        """Number of rows, the cells of all images."""
        return int(self._count_at.sum())

    def add(
        self, features_KNC: Float[Tensor, "images cells channels"], tokens_KND: Float[Tensor, "images cells width"]
    ) -> None:
        """Add images."""
        x_KNC, y_KND = features_KNC.double(), tokens_KND.double()
        if self.images == 0:
            self._shift_x, self._shift_y = x_KNC.mean(dim=(0, 1)), y_KND.mean(dim=(0, 1))
        x_KNC, y_KND = x_KNC - self._shift_x, y_KND - self._shift_y
        x_RC, y_RD = x_KNC.flatten(0, 1), y_KND.flatten(0, 1)
        self._xx += x_RC.T @ x_RC
        self._xy += x_RC.T @ y_RD
        self._x_at += x_KNC.sum(dim=0)
        self._y_at += y_KND.sum(dim=0)
        self._count_at += len(x_KNC)
        self._yy += y_RD.square().sum(dim=0)
        self.images += len(x_KNC)

    def solve(self, ridge: float) -> RidgeSolution:
        """Minimize `|Y - X B - 1 b|^2 + ridge |B|^2`; X is the standardized features beside the one-hot of the cell.

        The intercept b is not penalized, so X and Y are centered.

        Raises:
            MedalignError: no image was added, or the normal equations are not finite or not positive definite.
        """
        rows = self.rows
        if rows == 0:
            raise MedalignError("a translation cannot be fitted without images")
        mean_x, mean_y = self._x_at.sum(dim=0) / rows, self._y_at.sum(dim=0) / rows
        share_N = self._count_at / rows
        xx_CC = self._xx - rows * torch.outer(mean_x, mean_x)
        scale = _scale(xx_CC.diagonal() / rows)
        # Centered products of (standardized features, one-hot) with themselves and with the tokens.
        cross_NC = (self._x_at - self._count_at[:, None] * mean_x) / scale
        cells_NN = torch.diag(self._count_at) - rows * torch.outer(share_N, share_N)
        gram = torch.cat(
            [
                torch.cat([xx_CC / torch.outer(scale, scale), cross_NC.T], dim=1),
                torch.cat([cross_NC, cells_NN], dim=1),
            ]
        )
        xy_CD = (self._xy - rows * torch.outer(mean_x, mean_y)) / scale[:, None]
        ny_ND = self._y_at - self._count_at[:, None] * mean_y
        B = _solve(gram, torch.cat([xy_CD, ny_ND]), ridge)
        weight, cell = B[: len(scale)], B[len(scale) :]
        intercept = mean_y + self._shift_y - share_N @ cell
        variance = float((self._yy / rows - mean_y.square()).clamp(min=0.0).mean())
        return RidgeSolution(
            weight=weight,
            at_cell=cell + intercept,
            mean=mean_x + self._shift_x,
            scale=scale,
            variance=variance,
            cell_mean=self._y_at / self._count_at[:, None] + self._shift_y,
        )


def _scale(variance: Float64[Tensor, " channels"]) -> Float64[Tensor, " channels"]:
    """Standard deviations; 1 for channels that are constant up to rounding."""
    smallest = 1e-12 * variance.max().clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(variance > smallest, variance, torch.ones_like(variance)).sqrt()


def _solve(gram: Tensor, products: Tensor, ridge: float) -> Tensor:
    """Solve the normal equations by Cholesky decomposition."""
    penalized = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    factor, failed = torch.linalg.cholesky_ex(penalized)
    if int(failed) or not bool(factor.isfinite().all()):
        raise MedalignError(
            f"the translation's normal equations cannot be solved with ridge {ridge:g}: the teacher's features or the "
            "student's tokens are not finite, or too nearly dependent. Check the store with `medalign store verify`, "
            "or increase translation.ridge"
        )
    solution: Tensor = torch.cholesky_solve(products, factor)
    return solution


class Determination:
    """Sums for R^2: the share of the tokens' variance around their channel means that predictions explain.

    `R^2 = 1 - sum |y - p|^2 / sum |y - mean|^2`, over all rows and channels; the mean is that of the rows added here.
    """

    def __init__(self) -> None:
        self._shift = self._sum = torch.zeros(0, dtype=torch.float64)
        self._squares = 0.0
        self._residual = 0.0
        self.rows = 0

    def add(self, tokens: Float[Tensor, "*rows width"], predicted: Float[Tensor, "*rows width"]) -> None:
        """Add rows of tokens and their predictions."""
        y_RD, p_RD = tokens.detach().cpu().double().flatten(0, -2), predicted.detach().cpu().double().flatten(0, -2)
        if self.rows == 0:
            self._shift = y_RD.mean(dim=0)
            self._sum = torch.zeros_like(self._shift)
        self._residual += float((y_RD - p_RD).square().sum())
        shifted = y_RD - self._shift
        self._sum += shifted.sum(dim=0)
        self._squares += float(shifted.square().sum())
        self.rows += len(y_RD)

    @property
    def residual(self) -> float:
        """Sum of squared differences over all rows and channels."""
        return self._residual

    @property
    def r2(self) -> float:
        """R^2; nan if the tokens do not vary."""
        total = self._squares - float(self._sum.square().sum()) / max(self.rows, 1)
        return 1.0 - self._residual / total if total > 0 else math.nan
