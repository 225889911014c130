"""Lists and reads a repository of weights from a hub (through huggingface_hub) or from a folder.

The hub's own downloader is not used: after a kill it restarts a file from zero, and it does not verify the received
bytes (docs/decisions/0009-hub-transfers.md). huggingface_hub provides the listing, the addresses, the proxies and the
token; this module reads a file from any byte on. The token goes from huggingface_hub's environment into its headers,
and this module never reads it. `transfer` writes the files.

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
from typing import Any, NoReturn, Protocol

from .._version import __version__
from ..core.errors import BackendUnavailableError, Failure, ModelNotFoundError
from ..core.files import expanded, open_regular, read_bytes
from ..sites.local.probes.checksums import Checksum, recorded

_MAX_TEXT_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, with its published checksum if there is one."""

    name: str
    size: int
    checksum: Checksum | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a repository; ``commit`` if the source has commits."""

    repository: str
    files: tuple[RemoteFile, ...]
    commit: str | None = None

    @property
    def total_bytes(self) -> int:
        """The sum of all sizes."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Stream:
    """An open file of a source.

    Attributes:
        start: The offset of the first byte; a server may send the complete file although the rest was requested.
        pieces: The bytes from there to the end.
    """

    start: int
    pieces: Iterator[bytes]


class WeightsSource(Protocol):
    """A hub or a folder. Both methods raise `VideoGenerationError`, or `TransferInterrupted` where a retry may help."""

    @property
    def name(self) -> str:
        """The name for users."""
        ...

    def listing(self, repository: str) -> Listing:
        """The files of the repository."""
        ...

    def open(self, listing: Listing, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Open a file at byte ``start``."""
        ...


class TransferInterrupted(Exception):
    """The source stopped in the middle, or cannot be reached; the text says why."""


def weights_source(place: str | None, unwanted: tuple[str, ...]) -> WeightsSource:
    """The hub at an address or the models in a folder; ``None`` is the official hub.

    Raises:
        BackendUnavailableError: a hub is needed and huggingface_hub is not installed.
        ModelNotFoundError: the folder does not exist.
    """
    if place is None or place.startswith(("https://", "http://")):
        return HubSource(place, unwanted)
    folder = expanded(place).absolute()
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"--weights-source {place} is neither a folder nor an address", advice="Give a folder, or https://HOST."
        )
    return FolderSource(folder, unwanted)


def _checked(name: str) -> str:
    """The name itself, if it stays inside the target folder; a hostile server may send any name."""
    path = PurePosixPath(name)
    odd = not name or "\\" in name or not name.isprintable() or str(path) != name
    if odd or path.is_absolute() or ".." in path.parts or path.parts[0] == ".cache":
        raise ModelNotFoundError(f"the source lists a file with an impossible name: {name!r}")
    return name


def _is_wanted(name: str, unwanted: tuple[str, ...]) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in unwanted)


# ---------------------------------------------------------------------------------------------------------- a folder


@dataclass(frozen=True)
class FolderSource:
    """A folder of models, each under its repository's name (with or without the owner), or the files of one model."""

    folder: Path
    unwanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path, for users."""
        return str(self.folder)

    def listing(self, repository: str) -> Listing:
        """All files, with the checksums recorded beside them."""
        root = self._root(repository)
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        names = [name for name in names if not name.startswith(".") and _is_wanted(name, self.unwanted)]
        if not names:
            raise ModelNotFoundError(f"{root} holds no files", advice="Check --weights-source.")
        sums = recorded(root, names, _text)
        files = (RemoteFile(_checked(name), (root / name).stat().st_size, sums.get(name)) for name in names)
        return Listing(repository, tuple(files))

    @contextlib.contextmanager
    def open(self, listing: Listing, file: RemoteFile, start: int) -> Iterator[Stream]:
        """Open a file at byte ``start``."""
        path = self._root(listing.repository) / file.name
        try:
            with open_regular(path) as opened:
                opened.seek(start)
                yield Stream(start, iter(lambda: opened.read(_CHUNK_BYTES), b""))
        except OSError as error:
            if error.filename == str(path):
                raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}") from None
            raise

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


# ------------------------------------------------------------------------------------------------------------- a hub


class HubSource:
    """A hub that huggingface_hub can use; without ``endpoint``, the one configured for huggingface_hub."""

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
        except TransferInterrupted:  # the server may have closed an idle connection meanwhile
            info = self._info(repository)
        files = [self._file(item) for item in info.siblings or () if _is_wanted(item.rfilename, self._unwanted)]
        if not files:
            raise ModelNotFoundError(f"{self.name}/{repository} lists no files")
        return Listing(repository, tuple(files), info.sha)

    def _info(self, repository: str) -> Any:
        with self._explaining(repository):
            return self._api.model_info(repository, files_metadata=True, timeout=_TIMEOUT_S)

    def _file(self, item: Any) -> RemoteFile:
        if item.size is None:
            raise ModelNotFoundError(f"{self.name} gives no size for {item.rfilename}: it is not a complete hub")
        found = Checksum("sha256", item.lfs.sha256) if item.lfs else None
        if found is None and item.blob_id:
            found = Checksum("git", item.blob_id)
        return RemoteFile(_checked(item.rfilename), int(item.size), found)

    @contextlib.contextmanager
    def open(self, listing: Listing, file: RemoteFile, start: int) -> Iterator[Stream]:
        """Request a file from byte ``start`` on; httpx drops the token on a redirect to another host."""
        url = self._hub.hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=self._api.endpoint)
        headers = self._utils.build_hf_headers(library_name="reelwright", library_version=__version__)
        headers["Accept-Encoding"] = "identity"
        if start:
            headers["Range"] = f"bytes={start}-"
        request = self._utils.get_session().stream(
            "GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True
        )
        with self._explaining(listing.repository), request as answer:
            self._utils.hf_raise_for_status(answer)
            yield Stream(_first_byte(answer), answer.iter_bytes())

    @contextlib.contextmanager
    def _explaining(self, repository: str) -> Iterator[None]:
        """Turn network errors into Reelwright's; `TransferInterrupted` if a retry may help."""
        try:
            yield
        except self._errors.HfHubHTTPError as error:
            self._raise_for(error, repository)
        except (self._errors.HTTPError, self._errors.OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
            raise TransferInterrupted(f"{self.name}: {str(error) or type(error).__name__}") from None

    def _raise_for(self, error: Any, repository: str) -> NoReturn:
        status = error.response.status_code
        if status in (408, 416, 429) or status >= 500:
            raise TransferInterrupted(f"{self.name} answered {status} for {repository}") from None
        if status == 404 and not isinstance(error, self._errors.GatedRepoError):
            raise ModelNotFoundError(
                f"{self.name} has no {repository}, or not this file in it", advice="Check --weights-source."
            ) from None
        raise BackendUnavailableError(
            f"{self.name} refuses access to {repository} (status {status})",
            failure=Failure.ENV,
            advice="Request access to it there, and set the variable HF_TOKEN (or run `hf auth login`).",
        ) from None


def _first_byte(answer: Any) -> int:
    """The offset of an answer's first byte; a server may send the complete file although the rest was requested."""
    if answer.status_code != 206:
        return 0
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        raise TransferInterrupted("the server sent a part of the file without saying which")
    return int(first)
