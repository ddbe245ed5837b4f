"""The data-use check: a store that is not public leaves this machine only if the user names its class."""

from ...choices import DataUse
from ...errors import SettingsError
from ..store.cards.store_card import DATA_USE_MEANING, WHY_FEATURES_ARE_DATA
from ..store.format.header import StoreHeader

RESTRICTIVENESS: tuple[DataUse, ...] = ("public", "credentialed", "private")
"""From least to most restrictive; mixed data gets the strictest class."""


def strictest(classes: list[DataUse]) -> DataUse:
    """The most restrictive of some data-use classes."""
    return max(classes, key=RESTRICTIVENESS.index)


def require_permission(header: StoreHeader, allowed: DataUse | None, location: str) -> None:
    """Check that a store is public, or that `allowed` is exactly its data-use class.

    Raises:
        SettingsError: it is neither; the message explains the risk.
    """
    if header.data_use in ("public", allowed):
        return
    allowed_text = "" if allowed is None else f", but --allow-data-use is {allowed}"
    raise SettingsError(
        f"{location} has data-use class {header.data_use!r}{allowed_text}: {DATA_USE_MEANING[header.data_use]}. "
        f"{WHY_FEATURES_ARE_DATA} If everyone who will have access to the result is allowed to have these images, pass "
        f"--allow-data-use {header.data_use}"
    )
