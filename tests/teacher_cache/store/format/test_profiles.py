"""Every profile compared with slow loops written from docs/stores.md, and the reported change of S."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import interpolate_patches
from medalign.teacher_cache.store.format import profiles
from medalign.teacher_cache.store.format.codecs import rotate_channels, unrotate_channels
from medalign.teacher_cache.store.format.profiles import (
    GRAM_PROFILES,
    PROFILES,
    WIDER,
    decode,
    encode,
    has_patches,
    row_arrays,
    similarity,
)

NATIVE, GRID = PatchGrid(3, 4), PatchGrid(5, 6)


def features(images: int = 2, grid: PatchGrid = NATIVE, width: int = 24, seed: int = 0) -> torch.Tensor:
    """Patch features with a common direction and one outlier channel, like those of trained towers."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(images, grid.patches, width, generator=generator) + 1
    values[..., width // 3] *= 20
    return values


def attention(images: int = 2, grid: PatchGrid = NATIVE) -> torch.Tensor:
    return torch.rand(images, grid.patches, generator=torch.Generator().manual_seed(9))


def slow_weights(native: PatchGrid, grid: PatchGrid) -> np.ndarray:
    """U [N, M] in float64: bilinear, half-pixel centers, repeated border."""

    def line(source: int, target: int) -> np.ndarray:
        weights = np.zeros((target, source))
        for position in range(target):
            at = max((position + 0.5) * source / target - 0.5, 0.0)
            low = min(int(at), source - 1)
            high = min(low + 1, source - 1)
            weights[position, low] += 1 - (at - low)
            weights[position, high] += at - low
        return weights

    return np.kron(line(native.rows, grid.rows), line(native.columns, grid.columns))


def slow_cosines(patches: np.ndarray) -> np.ndarray:
    """[P, b] -> [P, P] in float64, pair by pair."""
    count = len(patches)
    cosines = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            norms = math.sqrt(patches[i] @ patches[i]) * math.sqrt(patches[j] @ patches[j])
            cosines[i, j] = patches[i] @ patches[j] / norms if norms else 0.0
    return cosines


def slow_dct(width: int) -> np.ndarray:
    """Orthonormal DCT-II, y = matrix @ x."""
    matrix = np.zeros((width, width))
    for k in range(width):
        for n in range(width):
            matrix[k, n] = math.sqrt((1 if k == 0 else 2) / width) * math.cos(math.pi * (n + 0.5) * k / width)
    return matrix


def slow_similarity(profile: str, row: dict[str, np.ndarray], native: PatchGrid, grid: PatchGrid) -> np.ndarray:
    """S on `grid`, computed only from one row's stored arrays, in float64."""
    U = slow_weights(native, grid)
    if profile == "float16":
        return slow_cosines(row["E_v"].astype(np.float64))
    if profile in GRAM_PROFILES:
        lowest, step = row["cosine_scale"].astype(np.float64)
        factors = row["cosine_factors"].astype(np.float64)
        cosines = np.eye(native.patches)
        levels = iter(row["cosines"].tolist())
        for i in range(native.patches):
            for j in range(i + 1, native.patches):
                cosine = factors[i] @ factors[j] + lowest + next(levels) * step
                cosines[i, j] = cosines[j, i] = min(1.0, max(-1.0, cosine))
        norms = row["norms"].astype(np.float64) if "norms" in row else np.ones(native.patches)
        gram = U @ np.diag(norms) @ cosines @ np.diag(norms) @ U.T
        roots = np.sqrt(np.diag(gram))
        return gram / np.outer(roots, roots)
    patches = row["E_v"].astype(np.float64)
    if profile == "int8":
        patches = (patches * row["scales"].astype(np.float64)[:, None]) @ slow_dct(patches.shape[1])
    return slow_cosines(U @ patches)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("grid", [GRID, NATIVE], ids=["interpolated", "native grid"])
def test_stored_rows_match_the_documentation(profile, grid):
    teacher, maps = features(), attention()
    encoded = encode(profile, teacher, maps, NATIVE, grid)
    specs = row_arrays(profile, NATIVE, grid, 24)
    assert list(encoded.arrays) == [spec.name for spec in specs]
    assert specs[-1].name == "E_a"
    for spec in specs:
        assert encoded.arrays[spec.name].shape == (2, *spec.shape)
        assert encoded.arrays[spec.name].dtype == np.dtype(spec.dtype)
        assert encoded.arrays[spec.name][0].nbytes == spec.nbytes
    decoded = decode(profile, encoded.arrays, NATIVE, grid)
    U = slow_weights(NATIVE, grid)
    np.testing.assert_allclose(decoded.E_a, maps.double().numpy() @ U.T, rtol=1e-5)
    for image in range(2):
        row = {name: values[image] for name, values in encoded.arrays.items()}
        expected = slow_similarity(profile, row, NATIVE, grid)
        np.testing.assert_allclose(similarity(decoded)[image], expected, atol=2e-6)
        exact = slow_cosines(U @ teacher[image].double().numpy())
        assert encoded.max_abs_dS[image] == pytest.approx(np.abs(expected - exact).max(), abs=2e-6)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_gives_patches_or_cosines(profile):
    encoded = encode(profile, features(), attention(), NATIVE, GRID)
    decoded = decode(profile, encoded.arrays, NATIVE, GRID)
    assert (decoded.E_v is not None) == has_patches(profile) == (profile not in GRAM_PROFILES)
    assert (decoded.S is None) == has_patches(profile)
    if decoded.E_v is not None:
        assert decoded.E_v.shape == (2, GRID.patches, 24)
        expected = interpolate_patches(features(), NATIVE, GRID)
        worst = (decoded.E_v - expected).norm() / expected.norm()
        assert worst <= {"float16": 1e-3, "native": 1e-3, "int8": 1e-2, "float32": 0}[profile]


def test_float16_is_the_interpolated_features_rounded():
    teacher, maps = features(), attention()
    arrays = encode("float16", teacher, maps, NATIVE, GRID).arrays
    assert np.array_equal(arrays["E_v"], interpolate_patches(teacher, NATIVE, GRID).half().numpy())
    assert np.array_equal(arrays["E_a"], interpolate_patches(maps[..., None], NATIVE, GRID)[..., 0].numpy())


def test_images_do_not_depend_on_their_batch():
    teacher, maps = features(images=11), attention(images=11)
    for profile in PROFILES:
        together = encode(profile, teacher, maps, NATIVE, GRID)
        alone = encode(profile, teacher[10:], maps[10:], NATIVE, GRID)
        np.testing.assert_allclose(together.max_abs_dS[10], alone.max_abs_dS[0], atol=1e-6)
        for name, values in alone.arrays.items():
            np.testing.assert_allclose(together.arrays[name][10], values[0], rtol=1e-5, atol=1)


@st.composite
def teachers(draw):
    """(features, native grid, grid) of 1 to 3 images: any small grids, any scale, sometimes zero or equal patches."""
    sides = st.integers(1, 5)
    native = PatchGrid(draw(st.integers(2, 5)), draw(sides))
    grid = draw(st.one_of(st.just(native), st.builds(PatchGrid, sides, sides)))
    width, images = draw(st.integers(1, 17)), draw(st.integers(1, 3))
    values = torch.randn(
        images, native.patches, width, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    values = (values + draw(st.sampled_from([0.0, 1.0, -3.0]))) * draw(st.sampled_from([1e-12, 1e-3, 1.0, 50.0, 1e6]))
    special = draw(st.sampled_from(["none", "zero patch", "equal patches", "one huge channel"]))
    if special == "zero patch":
        values[0, draw(st.integers(0, native.patches - 1))] = 0
    elif special == "equal patches":
        values[:] = values[:, :1]
    elif special == "one huge channel":
        values[..., 0] *= 1000
    return values, native, grid


@settings(max_examples=60, deadline=None)
@given(case=teachers(), profile=st.sampled_from(PROFILES))
def test_the_reported_change_of_S_matches_the_reader(case, profile):
    values, native, grid = case
    encoded = encode(profile, values, torch.rand(values.shape[:2]), native, grid)
    decoded = decode(profile, encoded.arrays, native, grid)
    exact = cosine_matrix(interpolate_patches(values, native, grid))
    for image, reported in enumerate(encoded.max_abs_dS):
        if math.isinf(reported):
            assert profile in ("float16", "native"), "only float16 has a range"
            assert values.abs().max() > 65504
        else:
            S = similarity(decoded)[image]
            assert reported == pytest.approx((S - exact[image]).abs().max().item(), abs=3e-7)
            torch.testing.assert_close(S, S.T, rtol=0, atol=3e-7)
            assert S.abs().max() <= 1 + 1e-6


@settings(max_examples=40, deadline=None)
@given(case=teachers())
def test_falling_back_ends_at_float32_which_is_exact(case):
    values, native, grid = case
    for profile in PROFILES:
        steps = [profile]
        while steps[-1] in WIDER:
            steps.append(WIDER[steps[-1]])
        assert len(steps) <= len(PROFILES)
        assert steps[-1] == "float32"
    encoded = encode("float32", values, torch.rand(values.shape[:2]), native, grid)
    assert (encoded.max_abs_dS == 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), shift=st.sampled_from([0.0, 1.0]), side=st.integers(2, 6))
def test_change_is_bounded_on_the_teachers_grid(seed, shift, side):
    """Half a step for Gram profiles; for int8 what half a step in every channel can turn two patches."""
    grid = PatchGrid(side, side)
    values = torch.randn(2, grid.patches, 32, generator=torch.Generator().manual_seed(seed)) + shift
    maps = torch.rand(2, grid.patches)
    rounding = 5e-7
    gram12 = encode("gram12", values, maps, grid, grid)
    assert (gram12.max_abs_dS <= 0.5 / 2047 + rounding).all()
    assert gram12.arrays["cosines"].max() <= 2 * 2047, "12 bits"
    assert (gram12.arrays["cosine_scale"][:, 1] == np.float32(1 / 2047)).all(), "docs/store-format.md"
    gram16 = encode("gram16", values, maps, grid, grid)
    assert (gram16.max_abs_dS <= gram16.arrays["cosine_scale"][:, 1] / 2 + rounding).all()
    assert (gram16.max_abs_dS <= 0.5 / 32767 + rounding).all()
    int8 = encode("int8", values, maps, grid, grid)
    turned = int8.arrays["scales"] / 2 * math.sqrt(32) / values.norm(dim=-1).numpy()
    assert (int8.max_abs_dS <= 4 * turned.max(axis=1)).all()


@given(seed=st.integers(0, 99), width=st.integers(1, 33))
def test_the_rotation_is_the_orthonormal_dct(seed, width):
    values = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(seed))
    rotated = rotate_channels(values)
    np.testing.assert_allclose(rotated[0], values[0].double().numpy() @ slow_dct(width).T, atol=2e-6)
    torch.testing.assert_close(unrotate_channels(rotated), values, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(rotated.norm(dim=-1), values.norm(dim=-1), rtol=1e-5, atol=2e-6)


def test_the_rotation_lets_int8_keep_an_outlier_channel(monkeypatch):
    values = features(width=96)
    values[..., 32] = values[..., 32].abs() * 100
    rotated = encode("int8", values, attention(), NATIVE, GRID).max_abs_dS.max()
    monkeypatch.setattr(profiles, "rotate_channels", lambda patches: patches)
    monkeypatch.setattr(profiles, "unrotate_channels", lambda patches: patches)
    plain = encode("int8", values - values.mean(dim=1, keepdim=True), attention(), NATIVE, GRID).max_abs_dS.max()
    centered = values - values.mean(dim=1, keepdim=True)
    monkeypatch.undo()
    assert encode("int8", centered, attention(), NATIVE, GRID).max_abs_dS.max() < plain / 2
    assert rotated < 1e-2


def test_values_that_do_not_fit_give_inf_and_nonfinite_ones_give_nan():
    values = features(images=4)
    values[1, 0, 0] = 1e5
    values[2, 3, 3] = torch.nan
    maps = attention(images=4)
    maps[3, 0] = torch.inf
    for profile in PROFILES:
        changes = encode(profile, values, maps, NATIVE, GRID).max_abs_dS
        assert np.isfinite(changes[0])
        assert np.isinf(changes[1]) == (profile in ("float16", "native"))
        assert np.isnan(changes[2:]).all()


def test_a_gram_row_of_a_teacher_on_the_stores_own_grid_needs_no_norms():
    assert [spec.name for spec in row_arrays("gram16", NATIVE, GRID, 24)] == [
        *("cosines", "cosine_scale", "cosine_factors", "norms", "E_a")
    ]
    assert [spec.name for spec in row_arrays("gram16", GRID, GRID, 24)] == [
        "cosines",
        "cosine_scale",
        "cosine_factors",
        "E_a",
    ]


@pytest.mark.parametrize(
    ("profile", "native", "width", "kind", "most", "change"),
    [
        ("gram16", PatchGrid(14, 14), 768, "shared direction", 40_000, 2e-5),
        ("gram16", PatchGrid(14, 14), 768, "isotropic", 40_000, 2e-5),
        ("gram12", PatchGrid(24, 24), 1024, "shared direction", 250_000, 2.5e-4),
        ("gram12", PatchGrid(24, 24), 1024, "isotropic", 250_000, 2.5e-4),
        ("gram12", PatchGrid(24, 24), 1024, "three dimensions", 250_000, 2.5e-4),
    ],
)
def test_gram_rows_are_as_small_and_as_exact_as_promised(profile, native, width, kind, most, change):
    """Bytes of all chunks with their checksums and index entries, for a ViT-B/16 and a ViT-L/14-336."""
    from numcodecs.blosc import BITSHUFFLE, Blosc

    generator = torch.Generator().manual_seed(3)
    values = torch.randn(1, native.patches, width, generator=generator)
    if kind == "shared direction":
        values += torch.randn(width, generator=generator)
    elif kind == "three dimensions":  # uniformly distributed cosines
        values[..., 3:] = 0
    grid = PatchGrid(24, 24)
    encoded = encode(profile, values, torch.rand(1, native.patches), native, grid)
    assert encoded.max_abs_dS[0] <= change
    blosc = Blosc(cname="zstd", clevel=7, shuffle=BITSHUFFLE)
    chunks = [
        blosc.encode(encoded.arrays[spec.name][0]) if spec.compressed else encoded.arrays[spec.name][0].tobytes()
        for spec in row_arrays(profile, native, grid, width)
    ]
    assert sum(len(chunk) + 20 for chunk in chunks) <= most
