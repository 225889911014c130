"""Where weights come from: a hub (through huggingface_hub), or a folder that stands in for one.

The hub's own downloader is not used: since huggingface_hub 2 it writes to a file with a random name and begins from
zero after an interruption (``_download_to_tmp_and_move``), which for a shard of 10 GB is a long way back. Listing,
addresses, proxies and the token are huggingface_hub's; reading from a certain byte on is ours. The token goes from
its environment into its headers and is never seen here. Not for writing anything: see `transfer`.

    >>> FolderSource(Path("/mnt/disk/models")).name
    '/mnt/disk/models'
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

from .._version import __version__
from ..core.errors import BackendUnavailableError, Failure, ModelNotFoundError
from ..core.files import expanded, open_regular, read_bytes
from ..sites.local.probes.checksums import Checksum, recorded
from . import Sources
from .weight_sources import Interrupted, Listing, RemoteFile, Stream, WeightsSource

_MAX_TEXT_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


def weights_source(sources: Sources, unwanted: tuple[str, ...]) -> WeightsSource:
    """The hub or folder that is asked for.

    Raises:
        BackendUnavailableError: a hub is meant and huggingface_hub is not installed.
        ModelNotFoundError: a folder is meant and not there.
    """
    asked = sources.weights
    if asked is None or asked.startswith(("https://", "http://")):
        return HubSource(asked, unwanted)
    folder = expanded(asked).absolute()
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"--weights-source {asked} is neither a folder nor an address", advice="Give a folder, or https://HOST."
        )
    return FolderSource(folder, unwanted)


def _checked(name: str) -> str:
    """A file's name that stays inside the folder it is written to, whatever a server says."""
    path = PurePosixPath(name)
    odd = not name or "\\" in name or not name.isprintable() or str(path) != name
    if odd or path.is_absolute() or ".." in path.parts or path.parts[0] == ".cache":
        raise ModelNotFoundError(f"the source lists a file with an impossible name: {name!r}")
    return name


def _wanted(name: str, unwanted: tuple[str, ...]) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in unwanted)


# ---------------------------------------------------------------------------------------------------------- a folder


@dataclass(frozen=True)
class FolderSource:
    """A folder that holds a model's folder under the repository's name, with or without its owner's, or its files."""

    folder: Path
    unwanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return str(self.folder)

    def listing(self, repository: str) -> Listing:
        """Every file, with the checksums that were recorded beside them."""
        root = self._root(repository)
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        names = [path.relative_to(root).as_posix() for path in paths]
        names = [name for name in names if not name.startswith(".") and _wanted(name, self.unwanted)]
        if not names:
            raise ModelNotFoundError(f"{root} holds no files", advice="Check --weights-source.")
        sums = recorded(root, names, _text)
        files = (RemoteFile(_checked(name), (root / name).stat().st_size, sums.get(name)) for name in names)
        return Listing(repository, tuple(files))

    def open(self, listing: Listing, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read from a byte on."""
        return _reading(self._root(listing.repository) / file.name, start)

    def _root(self, repository: str) -> Path:
        places = (self.folder / repository, self.folder / repository.rpartition("/")[2])
        found = next((place for place in places if place.is_dir()), None)
        if found is None and (self.folder / "config.json").is_file():
            return self.folder
        if found is None:
            raise ModelNotFoundError(
                f"{self.folder} has no folder {places[1].name}",
                advice="Check --weights-source, or name other --models.",
            )
        return found


def _text(path: Path) -> str:
    try:
        return read_bytes(path, _MAX_TEXT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _reading(path: Path, start: int) -> Iterator[Stream]:
    try:
        with open_regular(path) as file:
            file.seek(start)
            yield _FileStream(start, file)
    except OSError as error:
        if error.filename == str(path):
            raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}") from None
        raise


@dataclass
class _FileStream:
    start: int
    file: BinaryIO

    def read(self) -> bytes:
        return self.file.read(_CHUNK_BYTES)


# ------------------------------------------------------------------------------------------------------------- a hub


class HubSource:
    """A hub with huggingface_hub's interface; ``endpoint`` ``None`` is the one huggingface_hub is set to."""

    def __init__(self, endpoint: str | None = None, unwanted: tuple[str, ...] = ()) -> None:
        try:
            self._hub: Any = importlib.import_module("huggingface_hub")
        except ImportError as error:
            raise BackendUnavailableError(
                f"fetching weights from a hub needs the package huggingface_hub ({error})",
                failure=Failure.ENV,
                advice="Run: pip install 'reelwright[setup]', or give a folder with --weights-source.",
            ) from None
        self._errors: Any = importlib.import_module("huggingface_hub.errors")
        self._utils: Any = importlib.import_module("huggingface_hub.utils")
        self._unwanted = unwanted
        self._api: Any = self._hub.HfApi(
            endpoint=endpoint.rstrip("/") if endpoint else None, library_name="reelwright", library_version=__version__
        )
        self.name: str = self._api.endpoint

    def listing(self, repository: str) -> Listing:
        """The newest commit of the repository, with sizes and checksums."""
        try:
            info = self._info(repository)
        except Interrupted:  # a connection kept from before may have been closed by the server meanwhile
            info = self._info(repository)
        files = [self._file(item) for item in info.siblings or () if _wanted(item.rfilename, self._unwanted)]
        if not files:
            raise ModelNotFoundError(f"{self.name}/{repository} lists no files")
        return Listing(repository, tuple(files), info.sha)

    def _info(self, repository: str) -> Any:
        with self._explaining(repository):
            return self._api.model_info(repository, files_metadata=True, timeout=_TIMEOUT_S)

    def _file(self, item: Any) -> RemoteFile:
        if item.size is None:
            raise ModelNotFoundError(f"{self.name} tells no size for {item.rfilename}: it is no complete hub")
        found = Checksum("sha256", item.lfs.sha256) if item.lfs else None
        if found is None and item.blob_id:
            found = Checksum("git", item.blob_id)
        return RemoteFile(_checked(item.rfilename), int(item.size), found)

    @contextlib.contextmanager
    def open(self, listing: Listing, file: RemoteFile, start: int) -> Iterator[Stream]:
        """Ask for the rest of a file; redirects to another host lose the token (httpx does that)."""
        url = self._hub.hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=self._api.endpoint)
        headers = self._utils.build_hf_headers(library_name="reelwright", library_version=__version__)
        headers["Accept-Encoding"] = "identity"
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            self._explaining(listing.repository),
            self._utils.get_session().stream(
                "GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True
            ) as answer,
        ):
            self._utils.hf_raise_for_status(answer)
            yield _HubStream(_begins(answer), answer.iter_bytes())

    @contextlib.contextmanager
    def _explaining(self, repository: str) -> Iterator[None]:
        """Errors of the network as ours; what may pass by itself is `Interrupted`."""
        try:
            yield
        except self._errors.HfHubHTTPError as error:
            self._refused(error, repository)
        except (self._errors.HTTPError, self._errors.OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
            raise Interrupted(f"{self.name}: {str(error) or type(error).__name__}") from None

    def _refused(self, error: Any, repository: str) -> NoReturn:
        status = error.response.status_code
        if status in (408, 416, 429) or status >= 500:
            raise Interrupted(f"{self.name} answered {status} for {repository}") from None
        gated = isinstance(error, self._errors.GatedRepoError)
        if status == 404 and not gated:
            raise ModelNotFoundError(
                f"{self.name} has no {repository}, or not this file of it", advice="Check --weights-source."
            ) from None
        raise BackendUnavailableError(
            f"{self.name} refuses access to {repository} (status {status})",
            failure=Failure.ENV,
            advice="Ask for access to it there, and set the variable HF_TOKEN (or run `hf auth login`).",
        ) from None


def _begins(answer: Any) -> int:
    """The first byte of an answer: a server may send the whole file although only the rest was asked for."""
    if answer.status_code != 206:
        return 0
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        raise Interrupted("the server answered with a part that it does not describe")
    return int(first)


@dataclass
class _HubStream:
    start: int
    pieces: Iterator[bytes]

    def read(self) -> bytes:
        return next(self.pieces, b"")
