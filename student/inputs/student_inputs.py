"""What turns samples into a student's inputs: everything of a student but its model."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..prompts.templates import TemplateFunction
from .image_processing import StudentImages


@dataclass(frozen=True, kw_only=True)
class StudentInputs:
    """How a student reads a sample. DataLoader workers hold this and no model, which spawn would copy into each."""

    tokenizer: PreTrainedTokenizerBase
    images: StudentImages
    template: TemplateFunction
    image_token_id: int

    def without_model(self) -> "StudentInputs":
        """These fields alone, also of a whole `Student`."""
        return StudentInputs(
            tokenizer=self.tokenizer, images=self.images, template=self.template, image_token_id=self.image_token_id
        )
