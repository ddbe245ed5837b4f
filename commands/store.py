"""The commands of `medalign teacher` that look at a store and put it right."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
from .interrupt import Command
from .options import (
    AsJson,
    Device,
    HashKeyFile,
    ImageRoot,
    ImagesFolder,
    ImagesManifest,
    StoreLocation,
    StorePath,
    progress_bars,
    show_report,
)

app = typer.Typer()

SomeWeights = Annotated[
    str | None, typer.Option("--weights", help="The teacher's weights: a file, a folder, or hf-hub:ID.")
]


@app.command(cls=Command)
def info(store: StoreLocation, as_json: AsJson = False) -> None:
    """Whose targets a store holds, of how many images, in which form."""
    from ..pipeline.stores.verify import describe_store

    show_report("store", describe_store(store), as_json)


@app.command(cls=Command)
def verify(
    store: StoreLocation,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes and ledger alone; shard files are not read.")] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Compute so many random rows again from their images too.")
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
        typer.Option("--expect-root", help="The root digest that the store must have, as its makers publish it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store against its ledger; needs no images and no teacher, but for --sample."""
    given = {"--weights": weights, "--manifest": manifest, "--images": images, "--seed": seed}
    useless = [name for name, value in given.items() if value is not None]
    if sample is None and useless:
        raise SettingsError(f"{', '.join(useless)}: only --sample has a use for it")
    from ..pipeline.stores.verify import Trusted, verify_store

    trusted = Trusted(root_sha256=expected_root, signed_by=signed_by)
    with progress_bars() as progress:
        report = verify_store(store, progress, quick=quick, trusted=trusted)
        if sample is not None:  # which loads teachers, and takes its time
            from ..pipeline.extraction.image_sources import ImageRequest
            from ..pipeline.stores.repair import TeacherRequest, sample_store

            found = ImageRequest(manifest=manifest, images=images, root=root)
            request = TeacherRequest(weights=weights, images=found, device=device, hash_key=hash_key)
            report = sample_store(report, sample, seed or 0, request, progress)
    show_report("verification", report, as_json)
    report.raise_for_problems()


@app.command(cls=Command)
def sign(
    store: StorePath,
    key: Annotated[Path, typer.Option("--key", help="Ed25519 private key: OpenSSH's (ssh-keygen -t ed25519) or PEM.")],
    quick: Annotated[bool, typer.Option("--quick", help="Verify sizes and ledger alone before signing.")] = False,
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
    """Bring a store to the present format, where it lies; shard files stay as they are."""
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
    """Restore what `verify` finds damaged; only shards that must be computed again need weights and images."""
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
    show_report("repair", report, as_json)
    report.raise_for_rest()
