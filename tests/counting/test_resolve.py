"""A tokenizer is found by name, loaded without truncation, and told apart from everything that is not one."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cachesim.counting.resolve import installed_tokenizers, load_tokenizer
from cachesim.errors import ConfigError, InputError


def tiny_json(truncate: int | None = None) -> str:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "one": 1, "[PAD]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if truncate is not None:
        tokenizer.enable_truncation(truncate)
        tokenizer.enable_padding(length=truncate, pad_id=2, pad_token="[PAD]")
    return tokenizer.to_str()


def write_tokenizer(directory: Path, text: str | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "tokenizer.json"
    path.write_text(text or tiny_json())
    return path


def install(site: Path, name: str, files: dict[str, str], record: bool = True) -> None:
    """A package as pip lays it out; importing it would fail loudly, so a test that passes proves nobody did."""
    package = site / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for inner, text in files.items():
        (package / inner).parent.mkdir(parents=True, exist_ok=True)
        (package / inner).write_text(text)
    if record:
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{package.name}/{inner},,\n" for inner in ["__init__.py", *files]]
        (info / "RECORD").write_text("".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(path)])
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_file_and_directory(tmp_path: Path, name: str) -> None:
    path = write_tokenizer(tmp_path)
    loaded = load_tokenizer(str(tmp_path / name))
    assert loaded.count_batch(["one two  three", "", "one"]) == [3, 0, 1]
    assert loaded.version == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.exact
    assert load_tokenizer(str(path), "v7").version == "v7"


def test_shipped_truncation_and_padding_are_switched_off(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path, tiny_json(truncate=4))
    assert load_tokenizer(str(path)).count_batch(["a b c d e f", "one"]) == [6, 1]


@pytest.mark.parametrize(
    ("variables", "below"),
    [
        ({"HF_HUB_CACHE": "{tmp}/c"}, "c"),
        ({"HF_HOME": "{tmp}/h"}, "h/hub"),
        ({"XDG_CACHE_HOME": "{tmp}/x"}, "x/huggingface/hub"),
        ({"HOME": "{tmp}/u"}, "u/.cache/huggingface/hub"),
    ],
)
def test_hub_cache_location(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], below: str
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    write_tokenizer(tmp_path / below / "models--acme--tiny" / "snapshots" / "abc")
    assert load_tokenizer("hub:acme/tiny").count_batch(["one"]) == [1]


def test_hub_takes_the_snapshot_of_refs_main_else_the_newest(hub: Path) -> None:
    repository = hub / "models--acme--tiny"
    old = write_tokenizer(repository / "snapshots" / "old")
    new = write_tokenizer(repository / "snapshots" / "new", tiny_json(truncate=2))
    os.utime(old, ns=(1, 1))
    os.utime(new, ns=(2, 2))
    new_version = hashlib.sha256(new.read_bytes()).hexdigest()
    assert load_tokenizer("hub:acme/tiny").version == new_version
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("old\n")
    assert load_tokenizer("hub:acme/tiny").version == hashlib.sha256(old.read_bytes()).hexdigest()
    assert "hub:acme/tiny" in installed_tokenizers()


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a/b/c", "a/.."])
def test_hub_name_must_be_a_repository_name(hub: Path, name: str) -> None:
    with pytest.raises(InputError, match="hub:org/name"):
        load_tokenizer(f"hub:{name}")


def test_hub_missing_lists_what_is_there(hub: Path) -> None:
    (hub / "models--acme--other").mkdir(parents=True)
    with pytest.raises(InputError, match=r"never downloads") as caught:
        load_tokenizer("hub:acme/tiny")
    assert "acme/other" in str(caught.value)


@pytest.mark.parametrize("source", ["package:tok-one", "package:tok_one", "package:tok-one/data"])
def test_package_without_importing_it(site: Path, source: str) -> None:
    install(site, "tok-one", {"data/tokenizer.json": tiny_json(), "data/other.json": "{}"})
    assert load_tokenizer(source).count_batch(["one two"]) == [2]
    assert "tok_one" not in sys.modules
    assert "package:tok-one" in installed_tokenizers()


def test_package_with_several_lists_them_and_takes_a_path(site: Path) -> None:
    install(site, "tok-many", {f"models/{name}/tokenizer.json": tiny_json() for name in ("a", "b")})
    with pytest.raises(InputError, match="2 files match") as caught:
        load_tokenizer("package:tok-many")
    assert "tok_many/models/a/tokenizer.json, tok_many/models/b/tokenizer.json" in str(caught.value)
    for path in ("b", "models/b", "models/b/tokenizer.json", "tok_many/models/b"):
        assert load_tokenizer(f"package:tok-many/{path}").count_batch(["one"]) == [1]
    assert "package:tok-many/tok_many/models/a" in installed_tokenizers()


def test_package_without_metadata_is_searched_on_disk(site: Path) -> None:
    install(site, "tok_bare", {"deep/tokenizer.json": tiny_json()}, record=False)
    assert load_tokenizer("package:tok_bare").count_batch(["one"]) == [1]
    assert "tok_bare" not in sys.modules


def test_package_missing_or_without_tokenizer(site: Path) -> None:
    install(site, "tok-none", {"config.json": "{}"})
    with pytest.raises(InputError, match=r"the package has no tokenizer\.json; its tokenizers: none"):
        load_tokenizer("package:tok-none")
    with pytest.raises(InputError, match="no such package is installed"):
        load_tokenizer("package:tok-absent")


def test_missing_file_and_directory_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        load_tokenizer(str(tmp_path / "absent"))
    (tmp_path / "tokenizer.model").write_bytes(b"\x00")
    with pytest.raises(InputError, match=r"holds no tokenizer.json \(found tokenizer.model"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"\x80\x04secret", b'{"secret": 1}', json.dumps([1]).encode()])
def test_a_file_that_is_no_tokenizer_is_a_config_error_without_its_content(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"not a HuggingFace tokenizer\.json") as caught:
        load_tokenizer(str(path))
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_the_default_is_embedded_and_marked_as_an_estimate() -> None:
    loaded = load_tokenizer("default")
    assert not loaded.exact
    assert len(loaded.version) == 64
    text = "def handle(request):\n    return request.user.name\n" * 20
    (tokens,) = loaded.count_batch([text])
    assert len(text) / 6 < tokens < len(text) / 3
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(text).ids) == text
