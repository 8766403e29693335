"""Known files: looked for where users keep them, fetched only on request, verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from choreo.model_loaders import catalogue
from choreo.model_loaders.catalogue import CATALOGUE, KnownFile, find_file, known, require_file, where_to_get
from choreo.model_loaders.download import download, verify
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError


@pytest.fixture(autouse=True)
def _machine_without_models(tmp_path, monkeypatch):
    monkeypatch.delenv("CHOREO_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def _put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_entries_are_complete():
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert entry.licence
        assert entry.address
        assert entry.repository or entry.note
        assert len(entry.sha256) in (0, 64)


def test_where_to_get_is_a_sentence_or_nothing():
    assert "https://huggingface.co/yzd-v/DWPose" in where_to_get("YOLOX_L.onnx")
    assert "accepting the licence" in where_to_get("svd_xt_1_1.safetensors")
    assert where_to_get("anything.bin") == ""


@pytest.mark.parametrize(
    "place",
    [
        "models/yolox_l.onnx",
        "models/dwpose/yolox_l.onnx",
        "models/animation/svd/yolox_l.onnx",
        "home/.cache/choreo/models/dwpose/yolox_l.onnx",
    ],
)
def test_usual_places(tmp_path, place):
    assert find_file("yolox_l.onnx") is None
    _put(tmp_path / place)
    assert find_file("yolox_l.onnx").resolve() == (tmp_path / place).resolve()


def test_order_given_then_environment_then_usual(tmp_path, monkeypatch):
    usual = _put(tmp_path / "models" / "a.pth")
    second = _put(tmp_path / "second" / "a.pth")
    given = _put(tmp_path / "given" / "sub" / "a.pth")
    assert find_file("a.pth").resolve() == usual
    monkeypatch.setenv("CHOREO_MODELS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert find_file("a.pth") == second
    assert find_file("a.pth", [tmp_path / "given"]) == given
    assert find_file(usual) == usual


def test_folders_and_names_with_brackets_are_found(tmp_path):
    folder = tmp_path / "models" / "diffusers" / "stable-video-diffusion-img2vid-xt-1-1"
    folder.mkdir(parents=True)
    assert find_file(folder.name).resolve() == folder
    assert find_file("a[1].pth") is None
    assert find_file(_put(tmp_path / "models" / "a[1].pth").name) is not None


def test_a_whole_path_is_looked_for_there_and_nowhere_else(tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "weights" / "MimicMotion_1-1.pth"
    assert find_file(path) is None
    with pytest.raises(FileNotFoundError, match=r"MimicMotion_1-1\.pth was not found\. Get it here"):
        require_file(path)


def test_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        require_file("MimicMotion_1-1.pth", [tmp_path / "mine"])
    for part in ("MimicMotion_1-1.pth was not found", str(tmp_path / "mine"), "models", "tencent/MimicMotion"):
        assert part in str(caught.value)


def test_table_says_what_is_there(tmp_path):
    _put(tmp_path / "models" / "yolox_l.onnx")
    rows = {row["file"]: row for row in catalogue.table()}
    assert rows["yolox_l.onnx"]["found"].endswith("yolox_l.onnx")
    assert rows["dw-ll_ucoco_384.onnx"]["found"] == ""
    assert {row["system"] for row in rows.values()} == {
        "CLIP",
        "DWPose",
        "MagicPose",
        "MimicMotion",
        "Stable Diffusion 1.5",
        "StableAnimator",
        "SVD-XT",
        "SVD-XT 1.1",
    }


class Hub:
    """Stands for the hub: writes content where the client would."""

    def __init__(self, content=b"", error=None):
        self.content, self.error, self.calls = content, error, []

    def hf_hub_download(self, repository, path, local_dir):
        self.calls.append((repository, path))
        if self.error:
            raise self.error
        return str(_put(Path(local_dir) / path, self.content))


def _use(monkeypatch, hub, entry=None):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    if entry:
        monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    return hub


def _entry(content=b"right", **changes):
    digest = hashlib.sha256(content).hexdigest()
    values = {"size": len(content), "sha256": digest, **changes}
    return KnownFile("net.onnx", "DWPose", "dwpose", "owner/repo", "sub/net.onnx", "MIT", **values)


def test_download_puts_the_file_where_it_is_found(tmp_path, monkeypatch):
    hub = _use(monkeypatch, Hub(b"right"), _entry())
    path = download("NET.onnx", tmp_path / "models")
    assert path.read_bytes() == b"right"
    assert hub.calls == [("owner/repo", "sub/net.onnx")]
    assert find_file("net.onnx").resolve() == path.resolve()


def test_download_of_a_folder(tmp_path, monkeypatch):
    hub = _use(monkeypatch, Hub(b"x"))
    folder = download("stable-video-diffusion-img2vid-xt", tmp_path)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted(
        path for _, path in hub.calls
    )
    assert find_file(folder.name, [tmp_path]) == folder


def test_stableanimator_lands_in_the_layout_of_its_release(tmp_path, monkeypatch):
    hub = _use(monkeypatch, Hub(b"x"))
    folder = download("stable_animator", tmp_path)
    assert folder == tmp_path / "stable_animator" and (folder / "Animation" / "unet.pth").is_file()
    assert {repository for repository, _ in hub.calls} == {"FrancisRing/StableAnimator"}
    assert find_file("Animation/pose_net.pth", [tmp_path]) == folder / "Animation" / "pose_net.pth"


@pytest.mark.parametrize(("content", "message"), [(b"wrong", "SHA-256"), (b"short", "SHA-256"), (b"long one", "bytes")])
def test_download_is_verified(tmp_path, monkeypatch, content, message):
    _use(monkeypatch, Hub(content), _entry())
    with pytest.raises(ValueError, match=f"{message}.*delete it and download it again"):
        download("net.onnx", tmp_path)


def test_a_file_without_known_hash_is_accepted(tmp_path):
    verify(_put(tmp_path / "f", b"anything"), _entry(size=None, sha256=""))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (LocalEntryNotFoundError("no connection"), OSError, "no connection.*run the download again"),
        (EntryNotFoundError("404"), ValueError, "no longer holds sub/net.onnx"),
        (OSError(28, "No space left on device"), OSError, "No space left on device"),
    ],
)
def test_failures_say_what_to_do(tmp_path, monkeypatch, error, kind, message):
    _use(monkeypatch, Hub(error=error), _entry())
    with pytest.raises(kind, match=message):
        download("net.onnx", tmp_path)


def test_names_that_cannot_be_downloaded(tmp_path):
    with pytest.raises(ValueError, match=r"nonsense is not known; known are yolox_l\.onnx"):
        download("nonsense", tmp_path)
    with pytest.raises(ValueError, match=r"cannot be downloaded from here.*node pack"):
        download("mimic_motion_pose_net.safetensors", tmp_path)
    assert known("nonsense") is None
