"""`minicolab images list|build|check|values`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from hub.cli.common import IO_ERROR, SETTINGS, TRY_LATER, USAGE, fail, print_json
from hub.setup.images import HUB, Image, build, constraints_of, image_called, known_images, push, save
from hub.setup.pins import check_pins
from hub.setup.runtime_environment import CATALOGUE
from hub.setup.steps import SetupError, say, step
from spawner.catalogue import CatalogueError, load_catalogue, record_image

ESTIMATE_SECONDS = 180.0
BUILD_SECONDS = 3600.0  # without a word of the builder


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    images = commands.add_parser("images", help="container images").add_subparsers(
        dest="action", required=True
    )
    listing = images.add_parser("list", help="list the images there are recipes for, and which are built")
    listing.add_argument("--json", action="store_true")
    _add_engine(listing)
    listing.set_defaults(run=_list)
    build = images.add_parser("build", help="build images on a Docker engine")
    build.add_argument("names", nargs="+", metavar="NAME", help="hub, or a runtime of images/catalogue.yaml")
    build.add_argument(
        "--base-image", default=None, help="Debian to build on (default: that of the Dockerfile)"
    )
    build.add_argument(
        "--save",
        type=Path,
        default=None,
        metavar="DIR",
        help="also write each as an archive for `docker load`",
    )
    build.add_argument(
        "--push", action="store_true", help="also push each to its registry, which --prefix names"
    )
    build.add_argument(
        "--record",
        type=Path,
        default=None,
        metavar="FILE",
        help="with --push: write digests and sizes into this catalogue, for runtimes.catalogue of the settings",
    )
    build.add_argument("--fresh", action="store_true", help="do not use layers of earlier builds")
    build.add_argument("--verbose", action="store_true", help="show every line of the builder")
    _add_engine(build)
    build.set_defaults(run=_build)
    check = images.add_parser("check", help="ask the package index whether all pins of runtimes can be had")
    check.add_argument("names", nargs="*", metavar="NAME", help="runtimes (default: all)")
    check.set_defaults(run=_check)
    values = images.add_parser("values", help="print the chart's values for the images of a catalogue")
    values.add_argument("catalogue", type=Path, metavar="FILE", help="as `images build --record` wrote it")
    values.add_argument(
        "--environment", default=None, metavar="NAME", help="runtime (default: the default one)"
    )
    values.set_defaults(run=_values)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--docker", default=None, metavar="URL", help="engine (default: DOCKER_HOST or the local one)"
    )
    parser.add_argument(
        "--prefix", default=None, help="registry and repository (default: that of the catalogue)"
    )


def engine_client(url: str | None, seconds: float = 30) -> Any:
    """Return a client of the engine. Raise SetupError."""
    import docker

    try:
        client = (
            docker.DockerClient(base_url=url, timeout=seconds) if url else docker.from_env(timeout=seconds)
        )
        client.ping()
    except docker.errors.DockerException as error:
        raise SetupError(f"The Docker engine does not answer: {error}") from error
    return client


def _list(arguments: argparse.Namespace) -> int:
    try:
        client = engine_client(arguments.docker)
    except SetupError:
        client = None
    rows = [_row(image, client) for image in known_images(arguments.prefix)]
    if arguments.json:
        print_json({"items": rows})
        return 0
    for row in rows:
        state = {True: "built", False: "not built", None: "engine does not answer"}[row["built"]]
        print(
            f"{row['name']:16} {row['size_bytes'] / 1e9:5.1f} GB  {state:10}  {row['image']}  {row['title']}"
        )
    return 0


def _row(image: Image, client: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": image.name,
        "image": image.tag,
        "title": image.title,
        "programs": list(image.programs),
        "accelerators": list(image.entry.accelerators) if image.entry is not None else [],
        "size_bytes": image.size_bytes,
        "built": None,
        "id": None,
    }
    if client is not None:
        import docker

        try:
            found = client.images.get(image.tag)
            row.update(built=True, id=found.id, size_bytes=found.attrs["Size"])
        except docker.errors.ImageNotFound:
            row["built"] = False
    return row


def _build(arguments: argparse.Namespace) -> int:
    if arguments.record is not None and not arguments.push:
        fail(USAGE, "--record needs --push: an image has a digest once it is in a registry.")
    if arguments.push and arguments.prefix is None:
        fail(USAGE, "--push needs --prefix, such as registry.example.org/team.")
    try:
        client = engine_client(arguments.docker, BUILD_SECONDS)
    except SetupError as error:
        fail(TRY_LATER, str(error))
    try:
        for image in [image_called(name, arguments.prefix) for name in arguments.names]:
            with step(f"Building {image.tag}", ESTIMATE_SECONDS):
                show = say if arguments.verbose else _steps_only
                identity = build(client, image, arguments.base_image, show, fresh=arguments.fresh)
            say(f"  {identity}")
            if arguments.save is not None:
                say(f"  {save(client, image, arguments.save)}")
            if arguments.push:
                _push(client, image, arguments.prefix, arguments.record)
    except (SetupError, CatalogueError) as error:
        fail(IO_ERROR, str(error))
    return 0


def _push(client: Any, image: Image, registry: str, record: Path | None) -> None:
    with step(f"Pushing {image.tag}", ESTIMATE_SECONDS):
        digest = push(client, image, say)
    say(f"  {image.tag.rpartition(':')[0]}@{digest}")
    if record is not None:
        size = int(client.images.get(image.tag).attrs["Size"])
        record_image(record, CATALOGUE, registry, image.name, digest, size)


def _check(arguments: argparse.Namespace) -> int:
    """Say of each runtime whether its pins can be had together; end with 74 when one can not."""
    good = True
    try:
        images = [image_called(name) for name in arguments.names] or known_images()
    except SetupError as error:
        fail(IO_ERROR, str(error))
    for image in images:
        if image.entry is None:
            continue
        try:
            problems = check_pins(image.entry.pins, constraints_of(image.entry))
        except SetupError as error:
            problems = [str(error)]
        print(
            f"{image.name}: " + ("all can be had" if not problems else "\n  ".join(["", *problems]).strip())
        )
        good = good and not problems
    return 0 if good else IO_ERROR


def _values(arguments: argparse.Namespace) -> int:
    try:
        catalogue = load_catalogue(arguments.catalogue)
        default = next(entry.name for entry in catalogue.entries if entry.default)
        entry = catalogue.entry(arguments.environment or default)
    except CatalogueError as error:
        fail(SETTINGS, str(error))
    except KeyError:
        fail(USAGE, f"{arguments.catalogue} has no runtime named '{arguments.environment}'.")
    runtime = entry.image.reference(catalogue.registry)
    values: dict[str, Any] = {
        "config": {"runtimes": {"backend": "kubernetes", "kubernetes": {"image": runtime}}}
    }
    for service in catalogue.services:
        if service.name == HUB and service.image.digest is not None:
            repository = f"{catalogue.registry}/{service.image.image.partition(':')[0]}"
            values["images"] = {"hub": {"repository": repository, "digest": service.image.digest}}
    yaml.safe_dump(values, sys.stdout, sort_keys=False, width=200)
    return 0


def _steps_only(line: str) -> None:
    if line.startswith("Step "):
        say(f"  {line[:110]}")
