"""`medalign store`: the commands that inspect, repair and extend a finished store."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
from .base.base_command import Command
from .base.command_group import CommandGroup
from .next_steps import show_next
from .options import (
    AsJson,
    DecodeWorkers,
    Device,
    Engine,
    HashKeyFile,
    ImageRoot,
    ImagesDataUse,
    ImagesFolder,
    ImagesManifest,
    StoreLocation,
    StorePath,
    Weights,
    Workers,
    progress_bars,
    show_report,
)

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Finished stores: check, repair, extend, share and sign them.",
    epilog="To see what a store holds, and whether its rows belong to your images: `medalign teacher preview STORE`.",
)

SomeWeights = Annotated[
    str | None, typer.Option("--weights", help="The teacher's weights: a file, a folder, or hf-hub:ID.")
]


@app.command(cls=Command)
def info(store: StoreLocation, as_json: AsJson = False) -> None:
    """Show a store's teacher, number of images and format."""
    from ..pipeline.stores.verify import describe_store

    show_report("store", describe_store(store), as_json)
    show_next("look", as_json=as_json, store=store)


@app.command(cls=Command)
def verify(
    store: StoreLocation,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check only sizes and the ledger; do not read shard files.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Also recompute N random rows from their images.")
    ] = None,
    weights: SomeWeights = None,
    manifest: ImagesManifest = None,
    images: ImagesFolder = None,
    root: ImageRoot = None,
    hash_key: HashKeyFile = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of --sample; default: 0.")] = None,
    signed_by: Annotated[
        str | None,
        typer.Option(
            "--signed-by", help="Public key (a file, or the text `ssh-ed25519 ...`) that must have signed it."
        ),
    ] = None,
    expected_root: Annotated[
        str | None,
        typer.Option("--expect-root", help="Root digest that the store must have, as published by its authors."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store against its ledger; only --sample needs images and a teacher."""
    given = {"--weights": weights, "--manifest": manifest, "--images": images, "--seed": seed}
    useless = [name for name, value in given.items() if value is not None]
    if sample is None and useless:
        raise SettingsError(f"{', '.join(useless)}: only used with --sample")
    from ..pipeline.stores.verify import Trusted, verify_store

    trusted = Trusted(root_sha256=expected_root, signed_by=signed_by)
    with progress_bars() as progress:
        if sample is None:
            report = verify_store(store, progress, quick=quick, trusted=trusted)
        else:  # slow import: loads the teachers
            from ..pipeline.extraction.image_sources import ImageRequest
            from ..pipeline.stores.repair import TeacherRequest, check_teacher_request, sample_store

            found = ImageRequest(manifest=manifest, images=images, root=root)
            request = TeacherRequest(weights=weights, images=found, device=device, hash_key=hash_key)
            check_teacher_request(request)
            report = verify_store(store, progress, quick=quick, trusted=trusted)
            report = sample_store(report, sample, seed or 0, request, progress)
    show_report("verification", report, as_json, report.table)
    report.raise_for_problems()
    show_next("look", as_json=as_json, store=store)


@app.command(cls=Command)
def extend(
    store: StorePath,
    weights: Weights,
    manifest: ImagesManifest = None,
    images: ImagesFolder = None,
    root: ImageRoot = None,
    data_use: ImagesDataUse = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also retry images in this input that failed before.")
    ] = False,
    device: Device = None,
    workers: Workers = 1,
    decode_workers: DecodeWorkers = None,
    engine: Engine = "local",
    hash_key: HashKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Add images to a finished store, with its settings; the store stays readable until the last step."""
    from ..pipeline.extraction.extract import CrewRequest, ExtensionRequest, run_extension
    from ..pipeline.extraction.image_sources import ImageRequest

    request = ExtensionRequest(
        store=store,
        weights=weights,
        images=ImageRequest(manifest=manifest, images=images, root=root, data_use=data_use),
        crew=CrewRequest(device=device, engine=engine, workers=workers, decode_workers=decode_workers),
        hash_key=hash_key,
        retry_failed=retry_failed,
    )
    with progress_bars() as progress:
        report = run_extension(request, progress)
    show_report("store", report, as_json)
    report.raise_for_failures()


@app.command(cls=Command)
def sign(
    store: StorePath,
    key: Annotated[Path, typer.Option("--key", help="Ed25519 private key: OpenSSH's (ssh-keygen -t ed25519) or PEM.")],
    quick: Annotated[bool, typer.Option("--quick", help="Verify only sizes and the ledger before signing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify a store, then sign its root digest, so that others can check who made it."""
    from ..pipeline.stores.convert_and_sign import sign_store
    from ..pipeline.terminal import ask_secret

    with progress_bars() as progress:
        report = sign_store(store, key, lambda: ask_secret(f"passphrase of {key}"), progress, quick=quick)
    show_report("signed store", report, as_json)


@app.command(cls=Command)
def convert(store: StorePath, as_json: AsJson = False) -> None:
    """Convert a store to the current format in place; shard files do not change."""
    from ..pipeline.stores.convert_and_sign import convert_store

    with progress_bars() as progress:
        report = convert_store(store, progress)
    show_report("converted store", report, as_json)


@app.command(cls=Command)
def repair(
    store: StoreLocation,
    weights: SomeWeights = None,
    manifest: ImagesManifest = None,
    images: ImagesFolder = None,
    root: ImageRoot = None,
    hash_key: HashKeyFile = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Repair what `verify` reports as damaged; only shards that must be recomputed need weights and images."""
    from ..pipeline.extraction.image_sources import ImageRequest
    from ..pipeline.stores.repair import TeacherRequest, repair_store

    request = TeacherRequest(
        weights=weights,
        images=ImageRequest(manifest=manifest, images=images, root=root),
        device=device,
        hash_key=hash_key,
    )
    with progress_bars() as progress:
        report = repair_store(store, request, progress)
    show_report("repair", report, as_json, report.table)
    report.raise_for_rest()
