"""Who may have a store: anything but public data leaves this machine only when its class is named."""

from ...errors import SettingsError
from ..store.cards.store_card import DATA_USE_MEANING, WHY_FEATURES_ARE_DATA
from ..store.format.header import DataUse, StoreHeader

RESTRICTIVENESS: tuple[DataUse, ...] = ("public", "credentialed", "private")
"""From free to closed; data of mixed classes takes the strictest."""


def strictest(classes: list[DataUse]) -> DataUse:
    """The most restrictive of some data-use classes."""
    return max(classes, key=RESTRICTIVENESS.index)


def require_permission(header: StoreHeader, allowed: DataUse | None, location: str) -> None:
    """Let a store of public data pass, and any other only where `allowed` is exactly its class.

    Raises:
        SettingsError: it is not; the message says why this matters.
    """
    if header.data_use in ("public", allowed):
        return
    given = "" if allowed is None else f", and --allow-data-use says {allowed}"
    raise SettingsError(
        f"{location} is of data-use class {header.data_use!r}{given}: {DATA_USE_MEANING[header.data_use]}. "
        f"{WHY_FEATURES_ARE_DATA} If everyone who will be able to read the result may have these images, add "
        f"--allow-data-use {header.data_use}"
    )
