"""Load a teacher and compute its targets for images."""

from typing import get_args

from ..choices import Dtype, Geometry
from ..path_checks import path_text
from ..pipeline.devices import pick_device
from ..teacher_cache.extraction.targets_in_memory import compute_targets
from ..teacher_cache.store import TeacherTargets
from ..teacher_cache.teachers.forward import DTYPES
from ..teacher_cache.teachers.forward import Teacher as LoadedTeacher
from ..teacher_cache.teachers.recipe import TeacherRecipe
from .arguments import AnyPath, Images, check_choices, check_grid, check_positive, images_of


class Teacher(LoadedTeacher):
    """An expert CLIP image tower with its weights; `load_teacher` makes one.

    `spec` describes the architecture, `tower` is the torch module.
    """

    def targets(
        self, images: Images, *, grid: str | None = None, geometry: Geometry = "pad", batch_size: int = 16
    ) -> TeacherTargets:
        """Compute E_v and E_a for images, as `medalign teacher extract` computes the rows of a store.

        Args:
            images: One image or a list of K: paths, Pillow images, or uint8 pixels.
            grid: Patch grid of the result, ROWSxCOLUMNS, interpolated as for a store; default: the native grid.
            geometry: `pad` (the square that the student sees) or `crop`.
            batch_size: Images per forward pass.

        Returns:
            `E_v`, the patch features `[K, N, b]`, and `E_a`, the raw attention `[K, N]`: float32, on the CPU, N patches
            row-major from the top left. `S` is None.

        Raises:
            InputError: An image cannot be read, or there is none.
            SettingsError: `grid` or `geometry` is invalid.

        Examples:
            >>> import medalign
            >>> teacher = medalign.load_teacher("phantom-tiny", "medalign-demo/teacher.safetensors", device="cpu")
            >>> targets = teacher.targets("medalign-demo/phantoms/images/00000.png", grid="8x8")
            >>> targets.E_v.shape, targets.E_a.shape
            (torch.Size([1, 64, 96]), torch.Size([1, 64]))
        """
        check_choices(geometry=(geometry, get_args(Geometry)))
        check_positive(batch_size=(batch_size,))
        return compute_targets(
            self,
            images_of(images),
            grid=self.spec.grid if grid is None else check_grid(grid),
            geometry=geometry,
            batch_size=batch_size,
        )

    def __repr__(self) -> str:
        return (
            f"<Teacher {self.spec.name!r}: {self.dtype} on {self.device}, {self.spec.grid} patches of "
            f"{self.spec.width} channels, weights {self.weights_sha256[:12]}>"
        )


def load_teacher(name: str, weights: AnyPath, *, device: str | None = None, dtype: Dtype = "float32") -> Teacher:
    """Load the image tower of a teacher.

    Args:
        name: Name of the teacher (`medalign teacher list`).
        weights: A file, an open_clip model folder, or `hf-hub:OWNER/NAME`.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        dtype: Precision of the matrix products.

    Raises:
        SettingsError: The teacher, device or dtype does not exist.
        InputError: The weights cannot be read or are not this teacher's.

    Examples:
        >>> import medalign
        >>> teacher = medalign.load_teacher("phantom-tiny", "medalign-demo/teacher.safetensors", device="cpu")
        >>> str(teacher.spec.grid), teacher.spec.width
        ('12x12', 96)
    """
    check_choices(dtype=(dtype, tuple(DTYPES)))
    recipe = TeacherRecipe(name=name, weights=path_text("weights", weights), device=pick_device(device), dtype=dtype)
    loaded = recipe.load()
    return Teacher(
        spec=loaded.spec,
        tower=loaded.tower,
        device=loaded.device,
        dtype=loaded.dtype,
        weights_sha256=loaded.weights_sha256,
    )
