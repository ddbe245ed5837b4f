"""How to load a teacher, as a value that can be sent to other processes and machines; each loads the weights itself."""

from dataclasses import dataclass, replace

import torch

from ...choices import Dtype
from .forward import Teacher
from .teacher_loading import load_teacher


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecipe:
    """The arguments of `load_teacher`."""

    name: str
    weights: str
    """A path that every worker can read, or `hf-hub:OWNER/NAME`."""
    device: str = "cpu"
    dtype: Dtype = "float32"

    def load(self) -> Teacher:
        """Load the teacher in this process.

        Raises:
            SettingsError: unknown teacher, dtype or device.
            InputError: the weights cannot be read or are not exactly this teacher's.
        """
        return load_teacher(self.name, self.weights, self.device, self.dtype)

    def checked(self) -> Teacher:
        """Load the teacher on the CPU, to check its weights before other processes load them."""
        return replace(self, device="cpu").load()

    def for_worker(self, number: int) -> "TeacherRecipe":
        """The recipe for one worker: `cuda` without a number becomes one of this machine's GPUs, in turn."""
        if self.device != "cuda":
            return self
        return replace(self, device=f"cuda:{number % max(1, torch.cuda.device_count())}")
