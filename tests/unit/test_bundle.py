"""A bundle's manifest and lock."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomnode import bundle
from dicomnode.errors import Misconfigured

MANIFEST = """
name         = "Blobs"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = { value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }
procedure    = { value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }

[inputs.image]
modality    = "MR"
sop_classes = ["MRImageStorage"]
spacing_mm  = { min = 0.5, max = 2 }

[outputs.pred]
kind = "label_map"

[[outputs.pred.segments]]
label    = 1
name     = "Blob"
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type     = { value = "5366008", scheme = "SCT", meaning = "Hippocampus" }
color    = "#ff0000"
"""

SECOND_SEGMENT = MANIFEST[MANIFEST.index("[[outputs") :]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with every kind of file that a bundle has."""
    files = {
        "dicom.toml": MANIFEST,
        "configs/metadata.json": json.dumps({"version": "1.2.3"}),
        "configs/inference.json": "{}",
        "models/model.pt": "weights",
        "scripts/net.py": "x = 1",
        "docs/README.md": "What it is",
        "sample/0001.dcm": "an image",
        "LICENSE": "free",
    }
    folder = tmp_path / "blobs"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def refusal(act: Callable[[], object]) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        act()
    return caught.value


def test_a_bundle_carries_its_manifest_its_version_and_its_digest(root: Path) -> None:
    digest = bundle.write_lock(root)

    loaded = bundle.load(root)

    assert loaded.manifest.inputs["image"].sop_classes == ("MRImageStorage",)
    assert loaded.version == "1.2.3"
    assert loaded.digest == digest
    assert loaded.algorithm_version == f"1.2.3+{digest[:16]}"


def test_the_lock_lists_what_can_change_the_answer_and_nothing_else(root: Path) -> None:
    cache = root / "scripts" / "__pycache__"
    cache.mkdir()
    (cache / "net.cpython-311.pyc").write_bytes(b"compiled")
    (root / "scripts" / "old.pyc").write_bytes(b"compiled")

    bundle.write_lock(root)

    listed = [line.split("  ")[1] for line in (root / "bundle.lock").read_text().splitlines()]
    assert listed == [
        "configs/inference.json",
        "configs/metadata.json",
        "dicom.toml",
        "models/model.pt",
        "scripts/net.py",
    ]


@pytest.mark.parametrize("name", ["docs/README.md", "sample/0001.dcm", "LICENSE"])
def test_documentation_and_the_sample_change_no_digest(root: Path, name: str) -> None:
    digest = bundle.write_lock(root)

    (root / name).write_text("corrected")

    assert bundle.verify(root) == digest


def test_sha256sum_checks_the_lock_without_the_node(root: Path) -> None:
    bundle.write_lock(root)
    command = ["sha256sum", "--strict", "-c", "bundle.lock"]

    assert subprocess.run(command, cwd=root, check=False, capture_output=True).returncode == 0

    (root / "models" / "model.pt").write_text("other weights")
    assert subprocess.run(command, cwd=root, check=False, capture_output=True).returncode != 0


def test_the_digest_is_the_sha256_of_the_lock_as_written(root: Path) -> None:
    digest = bundle.write_lock(root)

    assert hashlib.sha256((root / "bundle.lock").read_bytes()).hexdigest() == digest


def test_the_same_files_have_the_same_digest_in_another_folder(root: Path, tmp_path: Path) -> None:
    digest = bundle.write_lock(root)

    other = shutil.copytree(root, tmp_path / "elsewhere")

    assert bundle.write_lock(other) == digest
    assert bundle.verify(other) == digest


def _change(root: Path) -> None:
    (root / "models" / "model.pt").write_text("other weights")


def _add(root: Path) -> None:
    (root / "scripts" / "more.py").write_text("y = 2")


def _remove(root: Path) -> None:
    (root / "scripts" / "net.py").unlink()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_change, "changed: models/model.pt"),
        (_add, "appeared: scripts/more.py"),
        (_remove, "vanished: scripts/net.py"),
    ],
)
def test_a_file_that_differs_from_the_lock_is_named(
    root: Path, harm: Callable[[Path], None], told: str
) -> None:
    bundle.write_lock(root)
    harm(root)

    error = refusal(lambda: bundle.verify(root))

    assert error.reason == "bundle-changed"
    assert told in error.detail


def test_a_missing_manifest_is_no_reason_to_trust_the_rest(root: Path) -> None:
    bundle.write_lock(root)
    (root / "dicom.toml").unlink()

    assert refusal(lambda: bundle.verify(root)).reason == "bundle-incomplete"


def test_a_bundle_without_a_lock_is_refused(root: Path) -> None:
    error = refusal(lambda: bundle.load(root))

    assert error.reason == "lock-missing"
    assert "dicomnode models lock" in error.detail


def test_a_line_of_the_lock_that_says_nothing_is_named(root: Path) -> None:
    bundle.write_lock(root)
    with (root / "bundle.lock").open("a") as lock:
        lock.write("trust me\n")

    error = refusal(lambda: bundle.load(root))

    assert error.reason == "lock-faulty"
    assert "line 6" in error.detail


def test_a_folder_behind_a_link_cannot_hide_from_the_lock(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "configs" / "more").symlink_to(tmp_path / "outside")

    assert refusal(lambda: bundle.write_lock(root)).reason == "bundle-unlockable"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('modality    = "MR"', "", "inputs.image.modality: Field required"),
        ('"MRImageStorage"', '"MrImageStorage"', "inputs.image.sop_classes[0]: "),
        ('"MRImageStorage"', '"ExplicitVRLittleEndian"', "inputs.image.sop_classes[0]: "),
        ('["MRImageStorage"]', "[]", "inputs.image.sop_classes: "),
        ("min = 0.5", "min = 5", "inputs.image.spacing_mm: "),
        ('color    = "#ff0000"', 'color = "red"', "outputs.pred.segments[0].color: "),
        ("label    = 1", "label = 0", "outputs.pred.segments[0].label: "),
        ('"label_map"', '"label-map"', "outputs.pred.kind: "),
        ("notice ", "notices ", "notices: Extra inputs are not permitted"),
    ],
)
def test_a_fault_of_the_manifest_is_named_with_its_key_path(
    root: Path, old: str, new: str, told: str
) -> None:
    bundle.write_lock(root)
    assert old in MANIFEST
    (root / "dicom.toml").write_text(MANIFEST.replace(old, new))

    error = refusal(lambda: bundle.load(root))

    assert error.reason == "manifest-faulty"
    assert str(root / "dicom.toml") in error.detail
    assert told in error.detail


def test_one_label_cannot_stand_for_two_segments(root: Path) -> None:
    bundle.write_lock(root)
    (root / "dicom.toml").write_text(MANIFEST + SECOND_SEGMENT)

    error = refusal(lambda: bundle.load(root))

    assert "outputs.pred.segments: " in error.detail
    assert "more than once: 1" in error.detail


def test_toml_that_cannot_be_read_is_named_with_its_line(root: Path) -> None:
    bundle.write_lock(root)
    (root / "dicom.toml").write_text('name = "Blobs\n')

    error = refusal(lambda: bundle.load(root))

    assert error.reason == "manifest-faulty"
    assert "line 1" in error.detail


@pytest.mark.parametrize("content", ["{}", '{"version": 3}', '{"version": ""}', "[]", "{", '""'])
def test_metadata_without_a_version_are_refused(root: Path, content: str) -> None:
    bundle.write_lock(root)
    (root / "configs" / "metadata.json").write_text(content)

    error = refusal(lambda: bundle.load(root))

    assert error.reason == "metadata-faulty"
    assert "metadata.json" in error.detail


def test_a_version_leaves_room_for_the_digest_in_a_dicom_attribute(root: Path) -> None:
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1" * 43}))
    bundle.write_lock(root)
    assert len(bundle.load(root).algorithm_version) == 60

    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1" * 48}))
    assert refusal(lambda: bundle.load(root)).reason == "metadata-faulty"


def test_a_name_that_is_too_long_for_the_series_description_is_refused(root: Path) -> None:
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1" * 44}))
    bundle.write_lock(root)

    error = refusal(lambda: bundle.load(root))

    assert error.reason == "manifest-faulty"
    assert "more than 64 characters" in error.detail


def test_words_beyond_ascii_are_refused(root: Path) -> None:
    manifest = root / "dicom.toml"
    manifest.write_text(manifest.read_text().replace("Nobody", "Klinikum München"))
    bundle.write_lock(root)

    assert "ASCII" in refusal(lambda: bundle.load(root)).detail


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    error = refusal(lambda: bundle.load(tmp_path / "nowhere"))

    assert error.reason == "bundle-incomplete"
    assert "nowhere" in error.detail


class TestABundleThatMustStayUntouched:
    @pytest.fixture
    def manifest(self, root: Path, tmp_path: Path) -> Path:
        beside = tmp_path / "manifests" / "blobs.toml"
        beside.parent.mkdir()
        return (root / "dicom.toml").rename(beside)

    def test_has_its_manifest_and_its_lock_elsewhere(self, root: Path, manifest: Path) -> None:
        before = sorted(root.rglob("*"))
        digest = bundle.write_lock(root, manifest=manifest)

        loaded = bundle.load(root, manifest=manifest)

        assert loaded.digest == digest == bundle.verify(root, manifest=manifest)
        assert loaded.manifest_path == manifest
        assert sorted(root.rglob("*")) == before
        assert manifest.with_suffix(".lock").is_file()

    def test_is_the_same_model_wherever_the_manifest_lies(self, root: Path, manifest: Path) -> None:
        digest = bundle.write_lock(root, manifest=manifest)

        manifest.rename(root / "dicom.toml")

        assert bundle.write_lock(root) == digest

    def test_is_another_model_with_another_manifest(self, root: Path, manifest: Path) -> None:
        bundle.write_lock(root, manifest=manifest)
        manifest.write_text(MANIFEST.replace("max = 2", "max = 3"))

        assert (
            "changed: dicom.toml" in refusal(lambda: bundle.verify(root, manifest=manifest)).detail
        )
