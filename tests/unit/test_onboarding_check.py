"""What a bundle needs and this installation lacks, and how models are listed and tried."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zoo
from rich.console import Console
from typer.testing import CliRunner
from zoo import Tree

from dicomnode import bundle, cli, config, inquiry, render
from dicomnode.archive import tables
from dicomnode.archive.database import Database
from dicomnode.onboarding import checking, description, needs, packages, trial
from dicomnode.onboarding.add import add
from dicomnode.onboarding.checking import Finding

EVERYTHING = frozenset(
    {
        "torch", "monai", "numpy", "ignite", "nibabel", "einops", "torchvision", "pandas",
        "skimage", "scipy", "cucim",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """An installation of a test."""

    imports: frozenset[str] = EVERYTHING
    versions: dict[str, str] = field(default_factory=dict)

    def has(self, imported: str) -> bool:
        return imported in self.imports

    def version(self, installed: str) -> str | None:
        return self.versions.get(installed)


def without(*names: str) -> Place:
    return Place(imports=EVERYTHING - set(names))


def made(tmp_path: Path, name: str = "spleen_ct_segmentation", **how: Any) -> Path:
    about, config_ = zoo.EVERY[name]()
    return zoo.write(tmp_path / name, about, config_ | how)


def script(root: Path, name: str, text: str) -> None:
    (root / "scripts").mkdir(exist_ok=True)
    (root / "scripts" / name).write_text(text, encoding="utf-8")


def found(root: Path, place: Place | None = None) -> list[Finding]:
    """What is said beside that the manifest and the lock are missing."""
    return [
        one
        for one in checking.check(root, installation=place or Place())
        if one.code not in {"bundle-incomplete", "lock-missing"}
    ]


def missing(root: Path, place: Place) -> list[str]:
    return [
        one.message.partition(":")[0] for one in found(root, place) if one.code == "package-missing"
    ]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("swin_unetr_btcv_segmentation", "einops"),
        ("breast_density_classification", "torchvision"),
        ("lung_nodule_ct_detection", "torchvision"),
        ("prostate_mri_anatomy", "pandas"),
        ("prostate_mri_anatomy", "skimage"),
        ("pathology_nuclei_segmentation_classification", "skimage"),
        ("pancreas_ct_dints_segmentation", "scipy"),
        ("spleen_ct_segmentation", "ignite"),
    ],
)
def test_a_package_that_runs_and_is_missing_is_an_error_that_names_it(
    name: str, package: str, tmp_path: Path
) -> None:
    root = made(tmp_path, name)
    assert missing(root, without(package)) == [package]
    assert missing(root, Place()) == []


def test_the_message_names_what_to_install_and_which_version_its_makers_had(
    tmp_path: Path,
) -> None:
    root = made(tmp_path, "pathology_nuclei_segmentation_classification")
    (error,) = [one for one in found(root, without("skimage")) if one.level == "error"]
    assert "Install scikit-image (its makers used 0.19.3)" in error.message


@pytest.mark.parametrize("package", ["cucim", "pandas"])
def test_a_package_that_is_only_listed_is_a_note(package: str, tmp_path: Path) -> None:
    root = made(tmp_path, "pathology_tumor_detection")
    notes = [one for one in found(root, without(package)) if package in one.message]
    assert [(one.level, one.code) for one in notes] == [("note", "package-unused")]


def test_readers_and_savers_are_the_nodes_own_and_need_nothing(tmp_path: Path) -> None:
    root = made(tmp_path, "swin_unetr_btcv_segmentation")
    assert missing(root, without("itk")) == []


def test_an_older_version_than_the_bundle_was_made_with_is_told(tmp_path: Path) -> None:
    root = made(tmp_path)
    place = Place(versions={"monai": "1.3.0", "torch": "2.13.0", "numpy": "1.0"})
    older = {one.message.partition(" ")[0]: one.level for one in found(root, place)
             if one.code == "package-older"}  # fmt: skip
    assert older == {"monai": "warning", "numpy": "note"}


@pytest.mark.parametrize(("one", "other"), [("1.10", "1.9"), ("2.0", "odd"), ("odd", "1.0")])
def test_versions_are_compared_as_versions(one: str, other: str) -> None:
    assert not packages.is_older(one, other)
    assert packages.is_older("1.9", "1.10")


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("$import itk", "itk"),
        ("$import a.b.c as d", "a"),
        ("$from timm.layers import DropPath", "timm"),
        ("$import glob", None),
        ("$import (", None),
        ("$importlib.thing", None),
    ],
)
def test_imports_of_the_configuration_are_read(
    line: str, package: str | None, tmp_path: Path
) -> None:
    root = made(tmp_path, imports=[line])
    assert missing(root, Place()) == ([package] if package else [])


def test_a_class_of_a_foreign_package_is_a_need_and_one_of_an_import_is_none(
    tmp_path: Path,
) -> None:
    root = made(
        tmp_path,
        imports=["$from scripts import valves"],
        network_def={"_target_": "timm.models.Net", "inner": {"_target_": "valves.Head"}},
    )
    assert missing(root, Place()) == ["timm"]


def test_parts_of_monai_in_expressions_count(tmp_path: Path) -> None:
    root = made(tmp_path, network_def="$monai.networks.nets.ViT(1, 2, 3)")
    assert missing(root, without("einops")) == ["einops"]


def test_what_only_training_uses_is_no_need(tmp_path: Path) -> None:
    root = made(tmp_path, train={"network": {"_target_": "timm.Net"}})
    script(root, "training.py", "import wandb\n")
    assert missing(root, Place()) == []


def test_scripts_that_run_are_read_with_what_they_import_themselves(tmp_path: Path) -> None:
    root = made(tmp_path, network_def={"_target_": "scripts.net.Net"})
    script(root, "__init__.py", "import first\n")
    script(root, "net.py", "from .blocks import Block\nfrom scripts.more import x\n")
    script(root, "blocks.py", "import second.deep as s\nimport os, scripts\n")
    script(root, "more.py", "from third import x\nfrom . import last\n")
    script(root, "last.py", "import fourth\n")
    script(root, "unused.py", "import fifth\n")
    assert set(missing(root, Place())) == {"first", "second", "third", "fourth"}


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import extra\nexcept ImportError:\n    extra = None\n",
        "try:\n    import extra\nexcept (ValueError, ModuleNotFoundError):\n    pass\n",
        "def f():\n    import extra\n",
        "extra, has_extra = optional_import('extra.deep', name='x')\n",
    ],
)
def test_what_a_script_can_do_without_is_a_warning(text: str, tmp_path: Path) -> None:
    root = made(tmp_path, network_def={"_target_": "scripts.net.Net"})
    script(root, "net.py", text)
    said = [one for one in found(root) if "extra" in one.message]
    assert [(one.level, one.code) for one in said] == [("warning", "package-perhaps-missing")]


def test_what_only_type_checkers_read_is_no_need(tmp_path: Path) -> None:
    root = made(tmp_path, network_def={"_target_": "scripts.net.Net"})
    script(root, "net.py", "if typing.TYPE_CHECKING:\n    import extra\n")
    assert not [one for one in found(root) if "extra" in one.message]


def test_a_script_that_is_no_python_stops_nothing(tmp_path: Path) -> None:
    root = made(tmp_path, network_def={"_target_": "scripts.net.Net"})
    script(root, "net.py", "import (\n")
    assert missing(root, Place()) == []


def test_nothing_of_a_bundle_is_executed_when_it_is_looked_at(tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    root = made(
        tmp_path,
        imports=[f"$open('{flag}', 'w')"],
        network_def={"_target_": "scripts.net.Net"},
    )
    script(root, "net.py", f"open('{flag}', 'w')\nimport extra\n")
    before = set(sys.modules)
    assert missing(root, Place()) == ["extra"]
    assert not flag.exists()
    assert not {one for one in set(sys.modules) - before if one.startswith("scripts")}


def test_where_no_model_can_run_at_all_that_is_said(tmp_path: Path) -> None:
    codes = [one.code for one in found(made(tmp_path), without("torch"))]
    assert codes.count("no-worker-here") == 1


def test_each_need_stands_once_by_who_needs_it_surely(tmp_path: Path) -> None:
    root = made(tmp_path, network_def={"_target_": "scripts.net.Net"})
    script(root, "net.py", "def f():\n    import extra\nimport extra\n")
    (need,) = [one for one in needs.of(description.read(root)) if one.imported == "extra"]
    assert (need.by, need.surely) == ("scripts/net.py", True)


def _post(tmp_path: Path, *steps: Tree) -> list[Finding]:
    transforms = {"_target_": "Compose", "transforms": list(steps)}
    root = made(tmp_path, postprocessing=transforms)
    return [one for one in found(root) if one.code == "labels-interpolated"]


def test_labels_that_are_interpolated_are_warned_of(tmp_path: Path) -> None:
    (warning,) = _post(tmp_path, zoo.ARGMAX, zoo.INVERT, zoo.SAVE)
    assert warning.level == "warning"
    assert "postprocessing::transforms::1" in warning.message


@pytest.mark.parametrize(
    "steps",
    [
        (zoo.SOFTMAX, zoo.INVERT, zoo.ARGMAX),
        (zoo.ARGMAX, zoo.INVERT | {"nearest_interp": True}),
        (zoo.ARGMAX, {key: zoo.INVERT[key] for key in zoo.INVERT if key != "nearest_interp"}),
        (zoo.ARGMAX, zoo.INVERT | {"keys": "other"}),
        (zoo.ARGMAX | {"argmax": False, "threshold": 0.5}, zoo.INVERT),
    ],
)
def test_answers_that_are_put_back_rightly_are_not(steps: tuple[Tree, ...], tmp_path: Path) -> None:
    assert _post(tmp_path, *steps) == []


def test_weights_that_a_configuration_loads_and_that_are_not_there_are_an_error(
    tmp_path: Path,
) -> None:
    loader = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"}
    root = made(tmp_path, checkpointloader=loader)
    assert [one.code for one in found(root)].count("weights-missing") == 0
    (root / "models" / "model.pt").unlink()
    assert [one.code for one in found(root)].count("weights-missing") == 1


def test_the_bundle_that_comes_with_the_project_lacks_nothing() -> None:
    root = cli.MODELS_DIR / "hippocampus_mr_segmentation"
    assert [one for one in checking.check(root) if one.level == "error"] == []


def test_the_steps_of_a_chain_are_looked_at(tmp_path: Path) -> None:
    step = add(str(made(tmp_path, "swin_unetr_btcv_segmentation")), into=tmp_path / "models")
    chain = tmp_path / "models" / "chain"
    (chain / "configs").mkdir(parents=True)
    (chain / "configs" / "metadata.json").write_text('{"version": "1"}', encoding="utf-8")
    (chain / "dicom.toml").write_text(_CHAIN.format(step=f"../{step.path.name}"), encoding="utf-8")
    bundle.write_lock(chain)
    (step.path / "models" / "model.pt").write_bytes(b"others")
    codes = {one.code for one in checking.check(chain, installation=without("einops"))}
    assert codes == {"manifest-draft", "bundle-changed", "package-missing"}


_CHAIN = """
name = "chain"
manufacturer = "us"
intended_use = ""
notice = ""
family = {{ value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }}
procedure = {{ value = "25045-6", scheme = "LN", meaning = "CT unspecified body region" }}
takes = {{ organs = "organs.pred" }}
[inputs.image]
modality = "CT"
sop_classes = ["CTImageStorage"]
[steps.organs]
bundle = "{step}"
"""


def answering(monkeypatch: pytest.MonkeyPatch, program: str) -> list[dict[str, Any]]:
    """Let a trial be a program of the test; what it was asked for."""
    asked: list[dict[str, Any]] = []

    def command(root: Path, *, device: str | None, draft: bool) -> list[str]:
        asked.append({"root": root, "device": device, "draft": draft})
        return [sys.executable, "-c", program]

    monkeypatch.setattr(trial, "command", command)
    return asked


RAN = {
    "ran": True, "seconds": 1.5, "device": "cpu", "memory_bytes": 3 * 1024**3,
    "answers": [{"output": "pred", "kind": "label_map", "shape": [64, 64, 32]}],
}  # fmt: skip
LACKS = {"ran": False, "reason": "bundle-error", "detail": "No module named 'einops'"}


def printing(document: Any) -> str:
    return f"import json; print(json.dumps({document!r}))"


def test_a_trial_is_a_process_of_its_own_that_is_told_where_and_what() -> None:
    line = trial.command(Path("models/x"), device="cuda:0", draft=True)
    assert line[:4] == [sys.executable, "-m", "workers", "try"]
    assert line[4:] == ["models/x", "--json", "--device", "cuda:0", "--draft"]
    assert trial.command(Path("x"), device=None, draft=False)[4:] == ["x", "--json"]


@pytest.mark.parametrize(
    ("program", "reason", "detail"),
    [
        (printing(LACKS), "bundle-error", "einops"),
        ("import sys; print('half {'); sys.exit('the end')", "trial-died", "the end"),
        ("", "trial-died", "it said nothing"),
        ("print([1])", "trial-died", "it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "trial-died", "exit code -9"),
    ],
)
def test_a_trial_that_fails_says_why(
    program: str, reason: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, program)
    tried = trial.run(Path("x"))
    assert (tried.ran, tried.reason) == (False, reason)
    assert detail in tried.detail


def test_a_trial_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "import time; time.sleep(60)")
    assert trial.run(Path("x"), timeout_s=0.2).reason == "trial-too-slow"


def invoke(*arguments: str) -> tuple[int, Any]:
    ended = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    return ended.exit_code, json.loads(ended.stdout) if "--json" in arguments else ended.stdout


def test_add_brings_a_bundle_and_tries_its_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, printing(RAN))
    source, into = made(tmp_path), tmp_path / "models"
    code, document = invoke("models", "add", str(source), "--into", str(into), "--json")
    assert code == 0
    assert asked == [{"root": into / source.name, "device": None, "draft": True}]
    assert document["trial"]["ran"]
    assert document["guesses"]
    assert [one["code"] for one in document["findings"] if one["level"] == "error"] == []


def test_a_failing_trial_does_not_undo_the_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, printing(LACKS))
    source, into = made(tmp_path), tmp_path / "models"
    code, text = invoke("models", "add", str(source), "--into", str(into), "--device", "cpu")
    assert code == 1
    assert (into / source.name / "bundle.lock").is_file()
    assert "einops" in text
    assert "1. Mend what kept the trial from running" in text


def test_add_without_a_trial_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, "")
    code, _ = invoke(
        "models", "add", str(made(tmp_path)), "--into", str(tmp_path / "m"), "--no-run"
    )
    assert (code, asked) == (0, [])


def configuration(tmp_path: Path, *bundles: Path) -> Path:
    tables_ = "\n".join(f'[models.{one.name}]\nbundle = "{one}"' for one in bundles)
    file = tmp_path / "node.toml"
    file.write_text(f'[worker]\ndevice = "cpu"\n{tables_}\n', encoding="utf-8")
    return file


HIPPOCAMPUS = cli.MODELS_DIR / "hippocampus_mr_segmentation"


def test_bundles_come_beside_the_configuration_and_run_on_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, printing(RAN))
    file = configuration(tmp_path, HIPPOCAMPUS)
    source = made(tmp_path / "elsewhere")
    assert invoke("models", "add", str(source), "--config", str(file))[0] == 0
    assert asked[0]["device"] == "cpu"
    assert (tmp_path / "models" / source.name).is_dir()


def test_check_tells_of_each_bundle_of_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, printing(RAN))
    added = add(str(made(tmp_path, "prostate_mri_anatomy")), into=tmp_path / "models")
    file = configuration(tmp_path, HIPPOCAMPUS, added.path)
    code, document = invoke("models", "check", "--config", str(file), "--run", "--json")
    assert code == 2
    assert [(one["name"], one["sound"]) for one in document] == [
        ("hippocampus_mr_segmentation", True), ("prostate_mri_anatomy", False),
    ]  # fmt: skip
    assert [one["draft"] for one in asked] == [False, True]
    assert "labels-interpolated" in {one["code"] for one in document[1]["findings"]}


def test_check_of_one_folder_needs_no_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = invoke("models", "check", str(HIPPOCAMPUS))
    assert code in {0, 1}
    assert "hippocampus_mr_segmentation: sound  sha256" in text


def test_a_model_that_does_not_run_is_not_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, printing(LACKS))
    code, text = invoke("models", "check", str(HIPPOCAMPUS), "--run")
    assert code == 2
    assert "trial: bundle-error: No module named 'einops'" in text


def with_tuning(root: Path, **values: Any) -> None:
    content = {
        "digest": bundle.load(root).digest, "device": "cuda:0", "machine": "m",
        "precision": "bfloat16", "channels_last": True, "compile": False, "window_batch": 4,
        "seconds": 1.25, "seconds_float32": 4.0, "memory_bytes": 2 * 1024**3,
        "measured_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (root / "tuning.json").write_text(json.dumps(content | values), encoding="utf-8")


@pytest.fixture
def confirmed(tmp_path: Path) -> Path:
    """A bundle of one's own, ready to run."""
    added = add(str(HIPPOCAMPUS), into=tmp_path / "own", name="hippocampus")
    assert added.guesses == ()
    return added.path


def listed(tmp_path: Path, *bundles: Path) -> tuple[list[dict[str, Any]], str]:
    document = inquiry.models(config.load(configuration(tmp_path, *bundles), {}))
    console = Console(width=240)
    with console.capture() as captured:
        console.print(render.models(document))
    return document, captured.get()


def test_a_model_that_has_never_run_is_listed_as_that(confirmed: Path, tmp_path: Path) -> None:
    (one,), text = listed(tmp_path, confirmed)
    assert (one["device"], one["last_used_at"], one["tuning"]) == ("", None, None)
    for word in ("Hippocampus volumetry", "label_map", "not run yet", "not tuned", "never"):
        assert word in text


def test_tuning_and_memory_are_listed_while_the_files_are_the_same(
    confirmed: Path, tmp_path: Path
) -> None:
    with_tuning(confirmed)
    assert bundle.verify(confirmed), "what was measured is no part of the lock"
    (one,), text = listed(tmp_path, confirmed)
    assert one["is_tuned"]
    assert "bfloat16, channels last, 4 windows at once (1.25 s, as published 4.00 s)" in text
    assert "2.0 GiB" in text


def test_tuning_of_other_files_is_told_as_that(confirmed: Path, tmp_path: Path) -> None:
    with_tuning(confirmed, digest="0" * 64)
    (one,), text = listed(tmp_path, confirmed)
    assert not one["is_tuned"]
    assert "tuned for other files" in text
    assert "2.0 GiB" not in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 5}'])
def test_a_tuning_that_cannot_be_read_is_none(text: str, confirmed: Path, tmp_path: Path) -> None:
    (confirmed / "tuning.json").write_text(text, encoding="utf-8")
    (one,), _ = listed(tmp_path, confirmed)
    assert one["tuning"] is None


def test_a_model_that_must_not_run_is_listed_with_the_reason(
    confirmed: Path, tmp_path: Path
) -> None:
    draft = add(str(made(tmp_path)), into=tmp_path / "own").path
    document, text = listed(tmp_path, draft, confirmed)
    assert document[0]["fault"].startswith("manifest-draft")
    assert "manifest-draft" in text
    assert "Hippocampus volumetry" in text


def test_the_last_use_and_its_device_come_from_the_jobs(confirmed: Path, tmp_path: Path) -> None:
    loaded = config.load(configuration(tmp_path, confirmed), {})
    database = Database(loaded.database.url)
    database.migrate()
    with database.write() as tx:
        tx.execute(
            tables.study.insert().values(
                study_instance_uid="1.2", state="complete", revision=1, first_at=1.0, last_at=1.0,
                because="",
            )
        )  # fmt: skip
        for number, (device, ended) in enumerate([("cuda:1", 90.0), ("cpu", 50.0), ("", None)]):
            tx.execute(
                tables.job.insert().values(
                    id=str(number), key=str(number), study_instance_uid="1.2", revision=1,
                    rule="r", model="hippocampus", model_digest="", inputs={}, send_to=[],
                    urgency=1, timings={}, device=device, state="delivered", created_at=100.0,
                    ended_at=ended,
                )
            )  # fmt: skip
    database.close()
    (one,) = inquiry.models(loaded)
    assert (one["device"], one["last_used_at"]) == ("cuda:1", 90.0)


def test_tune_hands_over_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    asked: list[list[str]] = []

    def run(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(line)
        return subprocess.CompletedProcess(line, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert invoke("models", "tune", "hippocampus", "--config", "some.toml")[0] == 3
    assert asked == [[sys.executable, "-m", "workers", "tune", "some.toml", "hippocampus"]]
