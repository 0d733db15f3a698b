"""Bundles on their way into the node: from folders, archives and the Model Zoo."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zoo

from dicomnode import bundle
from dicomnode.errors import Misconfigured
from dicomnode.onboarding import archive, download
from dicomnode.onboarding.add import Added, add

WEIGHTS = b"weights of a network" * 100


class Files(ThreadingHTTPServer):
    """Gives what stands in `content`, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = False
        self.kind = "application/octet-stream"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.server.cut else body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the interface
        """Tests are silent."""


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return zoo.written("spleen_ct_segmentation", tmp_path / "source")


def refused(source: Path | str, into: Path, **how: Any) -> Misconfigured:
    """The error of an add that fails, and that leaves nothing behind."""
    before = _listing(into)
    with pytest.raises(Misconfigured) as caught:
        add(str(source), into=into, **how)
    assert _listing(into) == before
    return caught.value


def _listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    } | ({"": None} if folder.exists() else {})


def zipped(folder: Path, to: Path) -> Path:
    return Path(shutil.make_archive(str(to), "zip", folder.parent, folder.name))


def test_a_folder_is_copied_described_and_locked(source: Path, into: Path) -> None:
    added = add(str(source), into=into)
    assert added.path == into / "spleen_ct_segmentation"
    assert (added.version, added.drafted) == ("0.4.2", True)
    assert bundle.verify(added.path) == added.digest
    assert not (source / "dicom.toml").exists(), "the source stays as it is"
    assert [path.name for path in into.iterdir()] == ["spleen_ct_segmentation"]


def test_a_bundle_that_was_added_is_not_run_before_its_guesses_are_confirmed(
    source: Path, into: Path
) -> None:
    added = add(str(source), into=into)
    with pytest.raises(Misconfigured) as caught:
        bundle.load(added.path)
    assert caught.value.reason == "manifest-draft"
    text = (added.path / "dicom.toml").read_text(encoding="utf-8")
    start, end = text.index("draft = ["), text.index("]\n", text.index("draft = [")) + 2
    (added.path / "dicom.toml").write_text(text[:start] + text[end:], encoding="utf-8")
    bundle.write_lock(added.path)
    assert bundle.load(added.path).manifest.draft == ()


def test_a_bundle_that_is_there_is_never_overwritten(source: Path, into: Path) -> None:
    add(str(source), into=into)
    assert refused(source, into).reason == "bundle-exists"
    (into / "other").mkdir()
    assert refused(source, into, name="other").reason == "bundle-exists"
    assert add(str(source), into=into, name="third").name == "third"


def test_a_manifest_and_a_lock_that_came_along_are_kept(source: Path, into: Path) -> None:
    first = add(str(source), into=into)
    second = add(str(first.path), into=into, name="again")
    assert (second.drafted, second.digest, second.guesses) == (False, first.digest, first.guesses)


def test_a_bundle_that_is_not_what_its_lock_says_is_refused(source: Path, into: Path) -> None:
    first = add(str(source), into=into)
    (first.path / "models" / "model.pt").write_bytes(b"others")
    assert refused(first.path, into, name="again").reason == "bundle-changed"


def test_what_was_left_by_tools_is_not_taken_and_links_to_files_are_followed(
    source: Path, into: Path, tmp_path: Path
) -> None:
    for name in (".git", "__pycache__", ".cache"):
        (source / name).mkdir()
        (source / name / "junk").write_bytes(b"junk")
    weights = tmp_path / "blob"
    weights.write_bytes(WEIGHTS)
    (source / "models" / "model.pt").unlink()
    (source / "models" / "model.pt").symlink_to(weights)
    for path in (source, *source.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    added = add(str(source), into=into)
    taken = added.path / "models" / "model.pt"
    assert (taken.is_symlink(), taken.read_bytes()) == (False, WEIGHTS)
    assert {path.name for path in added.path.iterdir()} == {
        "bundle.lock", "configs", "dicom.toml", "models",
    }  # fmt: skip


def test_a_link_to_a_folder_and_a_folder_in_itself_are_refused(
    source: Path, into: Path, tmp_path: Path
) -> None:
    (source / "more").symlink_to(tmp_path)
    assert refused(source, into).reason == "source-unsafe"
    (source / "more").unlink()
    assert refused(source, source / "models").reason == "source-unsafe"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("configs/metadata.json", "bundle-incomplete"),
        ("configs/inference.json", "bundle-incomplete"),
    ],
)
def test_what_is_no_bundle_is_refused_and_leaves_nothing(
    spoil: str, reason: str, source: Path, into: Path
) -> None:
    (source / spoil).unlink()
    assert refused(source, into).reason == reason


def test_a_version_that_is_none_is_refused(source: Path, into: Path) -> None:
    metadata = source / "configs" / "metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    metadata.write_text(json.dumps(content | {"version": 3}), encoding="utf-8")
    assert refused(source, into).reason == "metadata-faulty"


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "xztar"])
@pytest.mark.parametrize("deep", [True, False])
def test_an_archive_is_unpacked_whether_or_not_it_holds_the_folder(
    form: str, deep: bool, source: Path, into: Path, tmp_path: Path
) -> None:
    base = str(tmp_path / "spleen_v0.4.2")
    if deep:
        made = shutil.make_archive(base, form, source.parent, source.name)
    else:
        made = shutil.make_archive(base, form, source)
    added = add(made, into=into)
    assert added.name == ("spleen_ct_segmentation" if deep else "spleen")
    assert (added.path / "models" / "model.pt").read_bytes() == b"weights"


def _zip_with(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return path


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/outside", "C:/outside", "..\\outside", "a\nb"]
)
def test_a_name_that_leaves_the_archive_is_refused(name: str, into: Path, tmp_path: Path) -> None:
    hostile = _zip_with(tmp_path, ("configs/metadata.json", b"{}"), (name, b"x"))
    assert refused(hostile, into).reason == "archive-unsafe"
    assert not list(tmp_path.rglob("outside"))


def test_a_link_in_a_zip_is_refused(into: Path, tmp_path: Path) -> None:
    hostile = _zip_with(tmp_path, (_link("models"), b"/"), ("models/x", b"x"))
    assert refused(hostile, into).reason == "archive-unsafe"


def test_a_name_that_stands_twice_is_refused(into: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        hostile = _zip_with(tmp_path, ("a", b"x"), ("a", b"y"))
    assert refused(hostile, into).reason == "archive-unsafe"


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, into: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        info = tarfile.TarInfo("models")
        info.type, info.linkname = kind, "/etc"
        made.addfile(info)
    assert refused(path, into).reason == "archive-unsafe"


def test_a_tar_that_climbs_is_refused(into: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as made:
        info = tarfile.TarInfo("../outside")
        info.size = 1
        made.addfile(info, io.BytesIO(b"x"))
    assert refused(path, into).reason == "archive-unsafe"


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_what_swells_far_beyond_a_bundle_is_refused(
    form: str, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_ALWAYS_ALLOWED", 1024)
    swollen = bytes(10_000_000)
    path = tmp_path / f"bomb.{form}"
    if form == "zip":
        path = _zip_with(tmp_path, ("models/model.pt", swollen))
    else:
        with tarfile.open(path, "w:gz") as made:
            info = tarfile.TarInfo("models/model.pt")
            info.size = len(swollen)
            made.addfile(info, io.BytesIO(swollen))
    assert refused(path, into).reason == "archive-unsafe"


def test_a_size_that_a_header_belittles_is_counted_all_the_same(
    into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_ALWAYS_ALLOWED", 1024)
    path = _zip_with(tmp_path, ("model.pt", bytes(10_000_000)))
    size = (10_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (5).to_bytes(4, "little")))
    assert refused(path, into).reason in {"archive-unsafe", "archive-faulty"}


def test_a_tar_with_an_endless_header_is_refused(into: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    assert refused(path, into).reason == "archive-faulty"


def test_more_members_than_a_bundle_has_are_refused(
    into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
    path = _zip_with(tmp_path, *((str(n), b"") for n in range(4)))
    assert refused(path, into).reason == "archive-unsafe"


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar.gz"])
def test_a_file_that_is_no_archive_is_refused(name: str, into: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"no archive" * 100)
    assert refused(path, into).reason == "archive-faulty"


def test_a_zip_that_is_cut_off_is_refused(source: Path, into: Path, tmp_path: Path) -> None:
    path = zipped(source, tmp_path / "spleen")
    path.write_bytes(path.read_bytes()[:-40])
    assert refused(path, into).reason == "archive-faulty"


@pytest.mark.parametrize("missing", ["no/such/folder", "model.zip"])
def test_a_path_that_is_not_there_is_not_looked_up_in_the_zoo(missing: str, into: Path) -> None:
    error = refused(missing, into, index="http://127.0.0.1:1/none")
    assert error.reason == "source-missing"


@pytest.mark.parametrize("name", ["-x", "a b", "..", "a" * 65, "naïve"])
def test_a_name_that_no_folder_should_have_is_refused(name: str, source: Path, into: Path) -> None:
    assert refused(source, into, name=name).reason == "bad-name"


def published(files: Files, source: Path, tmp_path: Path, *versions: str) -> str:
    """A Zoo with versions of one bundle; the address of its index."""
    index = {}
    for version in versions:
        content = zipped(source, tmp_path / version).read_bytes()
        path = f"/{source.name}_v{version}.zip"
        files.content[path] = content
        index[f"{source.name}_v{version}"] = {
            "checksum": hashlib.sha1(content).hexdigest(),
            "source": files.url(path),
        }
    files.content["/model_info.json"] = json.dumps(index).encode()
    return files.url("/model_info.json")


def from_zoo(name: str, files: Files, source: Path, tmp_path: Path, into: Path) -> Added:
    index = published(files, source, tmp_path, "0.4.9", "0.4.10", "0.4.2")
    return add(name, into=into, index=index)


def test_a_name_brings_the_newest_version_of_the_zoo(
    files: Files, source: Path, tmp_path: Path, into: Path
) -> None:
    added = from_zoo("spleen_ct_segmentation", files, source, tmp_path, into)
    assert added.source == files.url("/spleen_ct_segmentation_v0.4.10.zip")
    assert added.path == into / "spleen_ct_segmentation"
    assert added.warnings == ()


def test_a_version_may_be_named(files: Files, source: Path, tmp_path: Path, into: Path) -> None:
    added = from_zoo("spleen_ct_segmentation@0.4.2", files, source, tmp_path, into)
    assert added.source == files.url("/spleen_ct_segmentation_v0.4.2.zip")


def test_a_name_or_version_that_the_zoo_has_not_is_told_with_those_alike(
    files: Files, source: Path, tmp_path: Path, into: Path
) -> None:
    index = published(files, source, tmp_path, "0.4.2")
    unknown = refused("spleen_ct", into, index=index)
    assert (unknown.reason, "spleen_ct_segmentation" in unknown.detail) == ("zoo-has-not", True)
    older = refused("spleen_ct_segmentation@9", into, index=index)
    assert (older.reason, "0.4.2" in older.detail) == ("zoo-has-not", True)


def test_an_archive_with_another_hash_than_the_index_says_is_refused(
    files: Files, source: Path, tmp_path: Path, into: Path
) -> None:
    index = published(files, source, tmp_path, "0.4.2")
    files.content["/spleen_ct_segmentation_v0.4.2.zip"] += b"\0"
    assert refused("spleen_ct_segmentation", into, index=index).reason == "download-changed"


def test_an_archive_that_no_hash_vouches_for_is_taken_with_a_warning(
    files: Files, source: Path, tmp_path: Path, into: Path
) -> None:
    index = published(files, source, tmp_path, "0.4.2")
    entries = json.loads(files.content["/model_info.json"])
    del entries["spleen_ct_segmentation_v0.4.2"]["checksum"]
    files.content["/model_info.json"] = json.dumps(entries).encode()
    added = add("spleen_ct_segmentation", into=into, index=index)
    assert len(added.warnings) == 1


def test_without_a_network_the_address_and_the_next_step_are_named(
    into: Path, free_port: int
) -> None:
    index = f"http://127.0.0.1:{free_port}/model_info.json"
    error = refused("spleen_ct_segmentation", into, index=index)
    assert error.reason == "download-failed"
    assert index in error.detail
    assert "dicomnode models add" in error.detail


@pytest.mark.parametrize("content", [b"no index", b"[]", b"\xff"])
def test_an_index_that_is_none_is_refused(files: Files, content: bytes, into: Path) -> None:
    files.content["/index"] = content
    reason = refused("spleen", into, index=files.url("/index")).reason
    assert reason in {"zoo-faulty", "download-failed"}


def test_a_download_that_ends_early_is_no_download(
    files: Files, source: Path, tmp_path: Path, into: Path
) -> None:
    index = published(files, source, tmp_path, "0.4.2")
    text = files.content.pop("/model_info.json")
    target = tmp_path / "file"
    files.content["/file"] = WEIGHTS
    files.cut = True
    with pytest.raises(Misconfigured, match="bytes"):
        download.fetch(files.url("/file"), target, expected=None)
    assert not target.exists()
    assert [path for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    assert (text, index) != (b"", "")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nonsense", "http://["]
)
def test_only_the_web_is_called(url: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        download.fetch(url, tmp_path / "file", expected=None)
    assert caught.value.reason == "download-failed"


def with_large_files(source: Path, *entries: dict[str, str]) -> Path:
    (source / "models" / "model.pt").unlink()
    lines = ["large_files:"]
    for entry in entries:
        pairs = [f'{key}: "{value}"' for key, value in entry.items()]
        lines += [f"  - {pairs[0]}", *(f"    {pair}" for pair in pairs[1:])]
    (source / "large_files.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return source


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
def test_weights_that_lie_elsewhere_are_fetched_and_compared(
    kind: str, files: Files, source: Path, into: Path
) -> None:
    files.content["/weights"] = WEIGHTS
    value = hashlib.new(kind, WEIGHTS).hexdigest()
    entry = {"path": "models/model.pt", "url": files.url("/weights"), "hash_val": value}
    added = add(str(with_large_files(source, entry | {"hash_type": kind})), into=into)
    assert (added.path / "models" / "model.pt").read_bytes() == WEIGHTS
    assert added.warnings == ()
    assert bundle.verify(added.path) == added.digest


def test_large_files_of_an_archive_are_fetched_too(
    files: Files, source: Path, into: Path, tmp_path: Path
) -> None:
    files.content["/weights"] = WEIGHTS
    entry = {"path": "models/model.pt", "url": files.url("/weights")}
    made = zipped(with_large_files(source, entry), tmp_path / "spleen")
    added = add(str(made), into=into)
    assert (added.path / "models" / "model.pt").read_bytes() == WEIGHTS
    assert ["models/model.pt" in one for one in added.warnings] == [True]


def test_weights_with_another_hash_are_refused(files: Files, source: Path, into: Path) -> None:
    files.content["/weights"] = b"<html>sign in</html>"
    files.kind = "text/html"
    entry = {"path": "models/model.pt", "url": files.url("/weights"), "hash_val": "0" * 32}
    error = refused(with_large_files(source, entry | {"hash_type": "md5"}), into)
    assert (error.reason, "web page" in error.detail) == ("download-changed", True)


def test_what_is_there_already_is_compared_and_not_fetched(
    files: Files, source: Path, into: Path
) -> None:
    right = hashlib.sha256(WEIGHTS).hexdigest()
    entry = {"path": "models/model.pt", "url": files.url("/weights"), "hash_val": right}
    with_large_files(source, entry | {"hash_type": "sha256"})
    (source / "models" / "model.pt").write_bytes(b"others")
    assert refused(source, into).reason == "large-file-changed"
    (source / "models" / "model.pt").write_bytes(WEIGHTS)
    add(str(source), into=into)
    assert files.asked == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"path": "../outside", "url": "http://127.0.0.1:1/"}, "large-files-faulty"),
        ({"path": "/outside", "url": "http://127.0.0.1:1/"}, "large-files-faulty"),
        ({"url": "http://127.0.0.1:1/"}, "large-files-faulty"),
        ({"path": "a", "url": "u", "hash_val": "xyz", "hash_type": "md5"}, "hash-unknown"),
        ({"path": "a", "url": "u", "hash_val": "0" * 32, "hash_type": "crc"}, "hash-unknown"),
    ],
)
def test_a_faulty_list_of_large_files_is_refused(
    entry: dict[str, str], reason: str, source: Path, into: Path
) -> None:
    assert refused(with_large_files(source, entry), into).reason == reason


@pytest.mark.parametrize("text", ["nothing", "large_files: 3", "large_files: [x]", "[", "a: b: c"])
def test_a_list_that_is_none_is_refused(text: str, source: Path, into: Path) -> None:
    (source / "large_files.yml").write_text(text, encoding="utf-8")
    assert refused(source, into).reason == "large-files-faulty"
