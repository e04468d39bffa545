"""From the name of a tokenizer in the configuration to a loaded one, using only what is on this machine."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from cachesim.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_TOKENIZER: Final = "default"
FILE_NAME: Final = "tokenizer.json"
DEFAULT_FILE: Final = Path(__file__).with_name("default_tokenizer.json.gz")
SOURCES_HELP: Final = (
    'a file, a directory holding tokenizer.json, "hub:org/name", "package:name[/path]" or "default" were expected'
)
_OTHER_TOKENIZER_FILES: Final = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json")
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A tokenizer ready to count.

    source: the name it was asked for by; version: SHA-256 (hex) of its file, or the configured override;
    exact: False only for the embedded default, whose counts are estimates of any real model's.
    """

    source: str
    version: str
    exact: bool
    tokenizer: Tokenizer

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without special tokens; releases the GIL, so threads can count side by side."""
        return [len(encoding) for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def load_tokenizer(source: str, version: str | None = None) -> LoadedTokenizer:
    """The tokenizer `source` names, with truncation and padding switched off. No network, nothing is executed.

    Raises InputError where nothing is found (the message lists what was looked for) and ConfigError where the file
    found is not a tokenizer.json.
    """
    return read_tokenizer(source, version)[0]


def read_tokenizer(source: str, version: str | None = None) -> tuple[LoadedTokenizer, bytes]:
    """The same, and the file that it was made from."""
    data, exact = _file_of(source)
    return _load(source, data, version, exact=exact), data


def tokenizer_version(source: str, version: str | None = None) -> str:
    """The version `load_tokenizer` would give, without building the tokenizer. Raises InputError."""
    return version or hashlib.sha256(_file_of(source)[0]).hexdigest()


def _file_of(source: str) -> tuple[bytes, bool]:
    """The bytes of the tokenizer file that `source` names, and whether its counts are exact."""
    if source == DEFAULT_TOKENIZER:
        return gzip.decompress(_read(source, DEFAULT_FILE)), False
    if source.startswith("hub:"):
        path = _find_in_hub(source)
    elif source.startswith("package:"):
        path = _find_in_package(source)
    else:
        path = _find_file(source)
    return _read(source, path), True


def installed_tokenizers() -> list[str]:
    """The `package:` and `hub:` sources available on this machine, sorted, for suggestions in messages."""
    found = set()
    for name in _cached_repositories():
        if _hub_snapshot(name) is not None:
            found.add(f"hub:{name}")
    for distribution in importlib.metadata.distributions():
        # Searching the raw RECORD text first is 50 times cheaper than parsing every package's file list.
        if FILE_NAME not in (distribution.read_text("RECORD") or ""):
            continue
        name = distribution.metadata["Name"]
        files = [file for file in distribution.files or () if file.name == FILE_NAME]
        found.update([f"package:{name}"] if len(files) == 1 else [f"package:{name}/{file.parent}" for file in files])
    return sorted(found)


def _load(source: str, data: bytes, version: str | None, *, exact: bool) -> LoadedTokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as exc:
        # The library's own text can quote the file, which may be a log named by mistake: it is left out.
        raise ConfigError(
            f"tokenizer {source}: a file of {len(data)} bytes that is not a HuggingFace tokenizer.json was found; "
            "give the tokenizer.json of the model"
        ) from exc
    # A tokenizer.json may carry the truncation and padding of its training set-up; both would falsify counts.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return LoadedTokenizer(source, version or hashlib.sha256(data).hexdigest(), exact, tokenizer)


def _read(source: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputError(f"tokenizer {source}: {path} could not be read: {exc.strerror}") from exc


def _find_file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"tokenizer {source}: no such file or directory; {SOURCES_HELP}{_suggestion(source)}")
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    others = [name for name in _OTHER_TOKENIZER_FILES if (path / name).exists()]
    found = f" (found {', '.join(others)}, which cannot be used)" if others else ""
    raise InputError(f"tokenizer {source}: the directory holds no {FILE_NAME}{found}")


def _suggestion(source: str) -> str:
    word = source.rsplit("/", 1)[-1].lower()
    near = [name for name in installed_tokenizers() if word and word in name.lower()]
    return f"; installed here: {', '.join(near)}" if near else ""


# --- hub: the local HuggingFace cache -------------------------------------------------------------------------------


def _hub_cache() -> Path:
    """The cache directory huggingface_hub would use, by the same environment variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable):
            return Path(value).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def _find_in_hub(source: str) -> Path:
    name = source.removeprefix("hub:")
    if not _HUB_NAME.fullmatch(name):
        raise InputError(f'tokenizer {source}: not a repository name; "hub:org/name" was expected')
    path = _hub_snapshot(name)
    if path is None:
        have = ", ".join(_cached_repositories()) or "nothing"
        raise InputError(
            f"tokenizer {source}: no {FILE_NAME} of {name} in {_hub_cache()} (it holds: {have}); cachesim never "
            "downloads: fetch it with the hub's own client, or name a file"
        )
    return path


def _hub_snapshot(name: str) -> Path | None:
    """tokenizer.json in the snapshot refs/main names, else in the most recent snapshot that has one."""
    repository = _hub_cache() / ("models--" + name.replace("/", "--"))
    snapshots = repository / "snapshots"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    if commit and (path := snapshots / PurePosixPath(commit).name / FILE_NAME).is_file():
        return path
    files = sorted((path.stat().st_mtime_ns, path) for path in snapshots.glob(f"*/{FILE_NAME}") if path.is_file())
    return files[-1][1] if files else None


def _cached_repositories() -> list[str]:
    directories = _hub_cache().glob("models--*")
    return sorted(path.name.removeprefix("models--").replace("--", "/") for path in directories)


# --- package: a data file of an installed Python package ------------------------------------------------------------


def _find_in_package(source: str) -> Path:
    name, _, inner = source.removeprefix("package:").partition("/")
    inner = inner.strip("/")
    files = dict(_package_files(name)) if name else {}
    if not files and not _package_exists(name):
        near = ", ".join(item for item in installed_tokenizers() if item.startswith("package:"))
        raise InputError(f"tokenizer {source}: no such package is installed; with a {FILE_NAME}: {near or 'none'}")
    wanted = {shown: path for shown, path in files.items() if _is_wanted(shown, inner)}
    if len(wanted) == 1:
        return next(iter(wanted.values()))
    looked = f"{inner} or {inner}/{FILE_NAME}" if inner else FILE_NAME
    if wanted:
        raise InputError(
            f"tokenizer {source}: {len(wanted)} files match {looked}; name one as package:{name}/PATH: "
            + ", ".join(sorted(wanted))
        )
    have = ", ".join(sorted(shown for shown in files if shown.endswith(FILE_NAME))) or "none"
    raise InputError(f"tokenizer {source}: the package has no {looked}; its tokenizers: {have}")


def _is_wanted(shown: str, inner: str) -> bool:
    """Whether the file `shown` is what `package:name/inner` means: any tail of its path, file or directory."""
    if not inner:
        return PurePosixPath(shown).name == FILE_NAME
    return any(f"/{shown}".endswith(f"/{wanted}") for wanted in (inner, f"{inner}/{FILE_NAME}"))


def _package_files(name: str) -> Iterator[tuple[str, Path]]:
    """(path as shown, path on disk) of the package's JSON files, from its metadata or else its directory."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    listed = [(str(file), Path(str(file.locate()))) for file in files if file.suffix == ".json"]
    if listed:
        yield from listed
        return
    # Editable installs and plain directories on the path have no file list; the directory itself is searched.
    for root in _package_roots(name):
        for path in sorted(root.rglob("*.json")):
            yield str(PurePosixPath(root.name, path.relative_to(root).as_posix())), path


def _package_roots(name: str) -> list[Path]:
    module = name.replace("-", "_")
    try:
        # For a top-level name find_spec only looks the package up; it does not import it.
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
    except (ImportError, ValueError):
        return []
    return [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []


def _package_exists(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return bool(_package_roots(name))
    return True
