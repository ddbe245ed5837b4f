"""`medalign assets`: list, add and verify."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, SettingsError
from ...progress import Progress
from ...student.metrics.reports.metric_assets import ASSETS, AssetNeed
from ...student.metrics.reports.report_metric import Assets, MissingAsset
from ...suggestions import suggestion
from .asset_list import Asset, hash_folder, manifest_path, read_manifest, write_manifest

COLUMNS = ("asset", "state", "for", "folder")


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetReport:
    """The state of one asset."""

    name: str
    purpose: str
    source: str
    folder: Path | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`absent`, `ready`, or `changed` with the first problem."""
        if self.folder is None:
            return "absent"
        return f"changed: {self.problems[0]}" if self.problems else "ready"

    def row(self) -> tuple[Any, ...]:
        return (self.name, self.state, self.purpose, self.folder)

    def summary(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "purpose": self.purpose,
            "folder": self.folder,
            "problems": self.problems,
            "source": self.source,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedAsset:
    """A newly added asset."""

    name: str
    asset: Asset
    manifest: Path

    def summary(self) -> dict[str, Any]:
        size = sum(record.bytes for record in self.asset.files.values())
        return {
            "asset": self.name,
            "folder": str(self.asset.folder),
            "files": len(self.asset.files),
            "bytes_on_disk": size,
            "manifest": str(self.manifest),
        }


def local_assets() -> Assets:
    """The folder of every asset, or why it is not available; checks sizes but not digests."""
    known = read_manifest(manifest_path())
    return {need.name: _local(need, known.get(need.name)) for need in ASSETS}


def asset_digests() -> dict[str, dict[str, str]]:
    """SHA-256 of every file of every added asset, recorded beside report metrics."""
    known = read_manifest(manifest_path())
    return {name: {file: record.sha256 for file, record in asset.files.items()} for name, asset in known.items()}


def list_assets() -> list[AssetReport]:
    """Every asset that a metric needs, and its state according to file sizes."""
    known = read_manifest(manifest_path())
    return [_report(need, known.get(need.name), known_problems(known.get(need.name))) for need in ASSETS]


def known_problems(asset: Asset | None) -> list[str]:
    """The problems of an asset that file sizes show."""
    problem = None if asset is None else asset.changed_size()
    return [] if problem is None else [problem]


def add_asset(name: str, folder: Path, progress: Progress) -> AddedAsset:
    """Load a folder as its metrics will, hash it and add it to the list, replacing an earlier entry.

    Raises:
        SettingsError: No metric needs an asset of that name.
        InputError: Files are missing, or it cannot be loaded.
    """
    need = _need(name)
    folder = folder.expanduser().resolve()
    missing = [file for file in need.files if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not {name}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            f"Available from: {need.source}"
        )
    from ...student.metrics.reports.catalog import load_asset  # imports torch, which listing does not need

    progress.start(f"loading {name}", None)
    load_asset(name, folder)
    asset = Asset(folder=folder, files=hash_folder(folder, progress))
    path = manifest_path()
    write_manifest(path, read_manifest(path) | {name: asset})
    return AddedAsset(name=name, asset=asset, manifest=path)


def verify_assets(names: Sequence[str], progress: Progress) -> list[AssetReport]:
    """Hash the files of assets again and report changes; without names, of all that were added.

    Raises:
        SettingsError: No metric needs an asset of that name.
        InputError: A named asset was not added, or a file cannot be read.
    """
    known = read_manifest(manifest_path())
    wanted = [_need(name) for name in names] or [need for need in ASSETS if need.name in known]
    absent = [need.name for need in wanted if need.name not in known]
    if absent:
        raise InputError(f"{', '.join(absent)}: not added yet; add with `medalign assets add`")
    return [_report(need, known[need.name], _compare(known[need.name], progress)) for need in wanted]


def raise_for_changes(reports: Sequence[AssetReport]) -> None:
    """Fail if any asset has changed.

    Raises:
        InputError: With every problem.
    """
    problems = [problem for report in reports for problem in report.problems]
    if problems:
        raise InputError(
            f"{'; '.join(problems)}. Restore the files, or add the folder again with `medalign assets add`"
        )


def _need(name: str) -> AssetNeed:
    for need in ASSETS:
        if need.name == name:
            return need
    names = [need.name for need in ASSETS]
    raise SettingsError(f"unknown asset {name!r}{suggestion(name, names)}; available: {', '.join(names)}")


def _local(need: AssetNeed, asset: Asset | None) -> Path | MissingAsset:
    if asset is None:
        return MissingAsset(f"{need.name} is not on this machine; `medalign assets list` shows where to get it")
    problem = asset.changed_size()
    if problem is not None:
        return MissingAsset(f"{need.name} changed: {problem}; see `medalign assets verify`")
    return asset.folder


def _report(need: AssetNeed, asset: Asset | None, problems: list[str]) -> AssetReport:
    folder = None if asset is None else asset.folder
    return AssetReport(name=need.name, purpose=need.purpose, source=need.source, folder=folder, problems=problems)


def _compare(asset: Asset, progress: Progress) -> list[str]:
    """Every file that is missing, new or changed."""
    if not asset.folder.is_dir():
        return [f"{asset.folder} is missing"]
    found = hash_folder(asset.folder, progress)
    problems = [f"{asset.folder / name} is missing" for name in asset.files if name not in found]
    problems += [f"{asset.folder / name} is new" for name in found if name not in asset.files]
    same = [name for name in asset.files if name in found]
    return problems + [
        f"{asset.folder / name} has SHA-256 {found[name].sha256[:12]}; it had {asset.files[name].sha256[:12]}"
        for name in same
        if found[name] != asset.files[name]
    ]
