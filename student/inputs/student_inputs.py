"""Everything of a student except its model, as needed to encode samples."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ...teacher_cache.store import TeacherStore
from ..prompts.templates import TemplateFunction
from .image_processing import StudentImages


@dataclass(frozen=True, kw_only=True)
class StudentInputs:
    """How a student encodes samples. DataLoader workers get this without the model, which spawn would copy to each."""

    tokenizer: PreTrainedTokenizerBase
    images: StudentImages
    template: TemplateFunction
    image_token_id: int
    features: TeacherStore | None = None
    """Store whose E_v are shown to the student instead of pixels, if it projects the teacher's features."""

    def without_model(self) -> "StudentInputs":
        """Return only these fields, also of a `Student`."""
        return StudentInputs(
            tokenizer=self.tokenizer,
            images=self.images,
            template=self.template,
            image_token_id=self.image_token_id,
            features=self.features,
        )
