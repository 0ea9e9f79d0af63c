from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent import paths
from edge_agent.backends import open_net
from edge_agent.errors import FetchError, ManifestError, UsageError
from edge_agent.manifest import load
from edge_agent.registry import add, catalogue, files, store
from tests.registry import here
from tests.tiny import tiny_detector

KEYS = {"name", "task", "family", "format", "version", "sha256", "licence", "trained_by", "bytes", "state"}


@pytest.fixture
def mirror(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_MODEL_MIRROR", str(data / "models"))
    return data / "models"


def toy(folder: Path, body: bytes = b"weights", *, source: str = "", written: bytes | None = None) -> Path:
    """A model's folder: a detector whose one file is `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.toml").write_text(
        f"""
name = "toy"
version = "1"
task = "detect"
family = "yolox"
licence = "CC0-1.0"
trained_by = "nobody"
labels = ["a", "b"]
input = {{ width = 32, height = 32 }}
[[file]]
name = "net.onnx"
format = "onnx"
sha256 = "{hashlib.sha256(body).hexdigest()}"
bytes = {len(body)}
{f'from = ["{source}"]' if source else ""}
"""
    )
    if not source:
        (folder / "net.onnx").write_bytes(body if written is None else written)
    return folder


def detector(path: Path, output: tuple[int, ...] = (1, 3549, 7), side: int = 416, **metadata: str) -> Path:
    """A real ONNX file with the shapes of a detector."""
    spread = helper.make_node("ConstantOfShape", ["shape"], ["out"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [len(output)], output)
    ends = [
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output)],
    ]
    model = helper.make_model(helper.make_graph([spread], "toy", *ends, [shape]), ir_version=8)
    model.opset_import[0].version = 17
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def test_home_and_carried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.home() == tmp_path / "home"
    monkeypatch.delenv("EDGE_AGENT_HOME")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert paths.home() == Path("/var/lib/one")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("HOME", "/home/ada")
    assert paths.home() == Path("/home/ada/.local/share/edge-agent")
    assert paths.carried("models", "yolox-nano", "manifest.toml").is_file()


def test_every_carried_manifest_loads_and_its_carried_files_are_right() -> None:
    folders = sorted(paths.carried("models").glob("*/manifest.toml"))
    assert {"yolox-nano", "minilm-l6-int8"} <= {path.parent.name for path in folders}
    for path in folders:
        manifest = load(path)
        assert manifest.name == path.parent.name
        for row in manifest.file:
            if not row.sources:
                assert store.digest(path.with_name(row.name)) == row.sha256, row.name
                assert path.with_name(row.name).stat().st_size == row.bytes
    assert catalogue.verify() == []


def test_yolox_nano_from_the_mirror(mirror: Path) -> None:
    assert [row["state"] for row in catalogue.listing() if row["name"] == "yolox-nano"] == ["absent"]
    said: list[tuple[int, int]] = []
    located = catalogue.pull("yolox-nano", lambda done, total: said.append((done, total)))
    assert said[-1] == (3660092 + 1949744,) * 2
    assert len(located.manifest.names()) == 80
    for row in located.manifest.file:
        assert files.file_path(located, row).read_bytes() == (mirror / row.name).read_bytes()
    assert [row["state"] for row in catalogue.listing() if row["name"] == "yolox-nano"] == ["ready"]
    assert catalogue.locate("detector").manifest.name == "yolox-nano"
    spoken = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant"}
    spoken |= {"diningtable": "dining table", "tvmonitor": "tv"}
    theirs = (mirror / "coco80_names.txt").read_text().split("\n")[:80]
    assert located.manifest.labels == [spoken.get(name.strip(), name.strip()) for name in theirs]


def test_damage_is_found_at_load_said_in_one_line_and_mended_by_pull(mirror: Path) -> None:
    located = catalogue.pull("yolox-nano")
    row = located.manifest.file[0]
    path = store.blob(paths.home(), row.sha256)
    body = bytearray(path.read_bytes())
    body[1000] ^= 1
    path.write_bytes(body)
    wrong = hashlib.sha256(body).hexdigest()
    with pytest.raises(FetchError) as error:
        files.file_path(located, row)
    for part in ("yolox_nano.onnx", wrong[:12], row.sha256[:12], "`edge-agent models pull yolox-nano`"):
        assert part in str(error.value)
    assert catalogue.verify("yolox-nano") == catalogue.verify() == [str(error.value)]
    assert files.state(located) == "corrupt"
    catalogue.pull("detector")
    assert catalogue.verify() == []


def test_alias_is_our_own_until_the_better_one_is_here(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.ALIASES, "detector", ("better", "own"))
    better = toy(own_home / "models" / "better", b"better", source="file:later")
    with pytest.raises(FetchError, match="own did not come with the program, and better is not fetched yet"):
        catalogue.locate("detector")
    own = toy(own_home / "models" / "own")
    assert catalogue.locate("detector").folder == own
    assert catalogue.locate("detector").why == (
        "detector is own: better is not fetched yet, `edge-agent models pull better`"
    )
    located = catalogue.locate("detector", pull=True)
    assert located.folder == own
    assert "better is not to be had (toy: net.onnx cannot be had: " in located.why
    (better / "later").write_bytes(b"better")
    assert catalogue.locate("detector").folder == own
    assert catalogue.locate("detector", pull=True).folder == better
    assert catalogue.locate("detector").why == "detector is better: it is here"
    files.file_path(catalogue.locate("better"), catalogue.locate("better").manifest.file[0]).write_bytes(b"b")
    assert "better is damaged" in catalogue.locate("detector").why


def test_one_variant_is_enough_to_serve(mirror: Path) -> None:
    located = catalogue.locate("yolox-nano")
    files.file_path(located, located.manifest.file[1], pull=True)
    assert files.state(located) == "ready"
    assert catalogue.locate("detector").manifest.name == "yolox-nano"
    assert len(catalogue.verify("yolox-nano")) == 1


def test_detector_pulled_on_the_way(mirror: Path) -> None:
    located = catalogue.locate("detector", pull=True)
    assert located.manifest.name == "yolox-nano"
    assert located.why == "detector is yolox-nano: it is here"


def test_missing_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r'no model "yolox-nan"; known are detector, encoder, .*yolox-nano'):
        catalogue.locate("yolox-nan")
    with pytest.raises(ManifestError, match="no such file or folder"):
        catalogue.locate(str(tmp_path / "absent.onnx"))
    with pytest.raises(ManifestError, match=r"no manifest there; give the \.onnx or \.tflite file in it, or write"):
        catalogue.locate(str(tmp_path))
    for ask in (catalogue.locate, catalogue.verify):
        for nothing in ("", " "):
            with pytest.raises(ManifestError, match="no model is named; give a name, a folder"):
                ask(nothing)
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"not a \.onnx or \.tflite file"):
        catalogue.locate(str(tmp_path / "weights.pt"))
    for odd in ("x" * 5000, "a/" + "x" * 5000, "\0"):
        with pytest.raises(ManifestError) as error:
            catalogue.locate(odd)
        assert len(str(error.value)) < 250
    located = catalogue.locate("yolox-nano")
    with pytest.raises(FetchError, match="not here yet; run `edge-agent models pull yolox-nano`"):
        files.file_path(located, located.manifest.file[0])
    assert catalogue.verify("yolox-nano") != []
    assert catalogue.verify() == []


@pytest.mark.parametrize("what", ["std = [0.0, 1, 1]", "std = [1, 1, nan]", "mean = [nan, 0, 0]", "scale = inf"])
def test_pixels_are_prepared_with_numbers_only(tmp_path: Path, what: str) -> None:
    folder = toy(tmp_path / "toy")
    text = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(text.replace("height = 32", f"height = 32, {what}"))
    with pytest.raises(ManifestError, match=rf"manifest\.toml: input\.{what[:3]}.*: must be a number"):
        load(folder / "manifest.toml")


def test_folder_with_a_manifest(tmp_path: Path) -> None:
    located = catalogue.locate(str(toy(tmp_path / "m")))
    assert files.file_path(located, located.manifest.file[0]).read_bytes() == b"weights"
    toy(tmp_path / "m", written=b"other")
    with pytest.raises(FetchError, match="damaged"):
        files.file_path(located, located.manifest.file[0])
    (tmp_path / "m" / "net.onnx").unlink()
    with pytest.raises(FetchError, match="missing in"):
        files.file_path(located, located.manifest.file[0])


def test_the_form_that_a_device_makes_is_taken_from_nobody(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "m")
    text = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(text.replace('format = "onnx"', 'format = "ort"'))
    with pytest.raises(
        ManifestError, match=r'model\.onnx: format "ort" is what this device makes itself; give the ONNX'
    ):
        catalogue.locate(str(folder))


def test_labels_without_their_byte_order_mark(tmp_path: Path) -> None:
    folder = toy(tmp_path / "m")
    text = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text('labels = "l.txt"\n' + text.replace("\nlabels = ", "\n# "))
    (folder / "l.txt").write_text("person\ncar\n", encoding="utf-8-sig")
    assert catalogue.locate(str(folder)).manifest.labels == ["person", "car"]


def test_listing_survives_a_broken_manifest(own_home: Path) -> None:
    toy(own_home / "models" / "toy")
    (own_home / "models" / "bad").mkdir()
    (own_home / "models" / "bad" / "manifest.toml").write_text("name = ")
    rows = {row["name"]: row for row in catalogue.listing()}
    assert all(set(row) >= KEYS for row in rows.values())
    assert rows["toy"]["state"] == "ready"
    assert rows["toy"]["bytes"] == 7
    assert rows["bad"]["state"] == "corrupt"
    assert any("bad" in problem for problem in catalogue.verify())


def test_add_a_bare_file_use_it_and_remove_it(tmp_path: Path, own_home: Path) -> None:
    path = detector(tmp_path / "my net.onnx", names="{0: 'cat \"tom\"', 1: 'dög'}")
    located = add.add(path, "mine", here.read)
    path.unlink()
    assert located.manifest.family == "yolox"
    again = catalogue.locate("mine")
    assert again.manifest == load(own_home / "models" / "mine" / "manifest.toml")
    assert again.manifest.names() == {0: 'cat "tom"', 1: "dög"}
    assert open_net(files.file_path(again, again.manifest.file[0]), "onnx").inputs[0].shape == (1, 3, 416, 416)
    freed = add.remove("mine")
    assert freed == again.manifest.file[0].bytes
    with pytest.raises(ManifestError, match='no model "mine"'):
        catalogue.locate("mine")
    assert [p for p in (own_home / "blobs" / "sha256").rglob("*") if p.is_file()] == []


def test_add_a_folder_and_the_names_that_are_refused(tmp_path: Path) -> None:
    folder = toy(tmp_path / "m")
    for name in ("detector", "yolox-nano", "a/b", "..", ""):
        if name:
            with pytest.raises(UsageError):
                add.add(folder, name, here.read)
    assert add.add(folder, None, here.read).manifest.name == "toy"
    assert catalogue.verify() == []


def test_remove_keeps_what_another_model_uses(own_home: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        add.add(toy(tmp_path / "m"), name, here.read)
    assert add.remove("one") == 0
    assert catalogue.verify("two") == []
    assert add.remove("two") == 7


def test_remove_of_the_catalogue(mirror: Path) -> None:
    catalogue.pull("yolox-nano")
    assert add.remove("yolox-nano") == 3660092 + 1949744
    assert files.state(catalogue.locate("yolox-nano")) == "absent"
    for name in ("detector", "../x"):
        with pytest.raises(UsageError):
            add.remove(name)
    if paths.carried("models", "edge-yolo", "manifest.toml").is_file():
        with pytest.raises(UsageError, match="came with the program"):
            add.remove("edge-yolo")


def test_minilm_from_its_wheels(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(minilm))
    assert catalogue.verify("minilm-l6-int8") == []
    located = catalogue.locate("encoder")
    assert (located.manifest.name, files.state(located)) == ("minilm-l6-int8", "ready")
    row = located.manifest.networks()[0]
    net = open_net(files.file_path(located, row), row.format)
    assert {spec.name for spec in net.inputs} == {"input_ids", "attention_mask", "token_type_ids"}


def test_damage_of_a_fetched_file_without_any_data(own_home: Path, tmp_path: Path) -> None:
    folder = toy(own_home / "models" / "toy", source=f"file:{tmp_path}/original")
    (tmp_path / "original").write_bytes(b"weights")
    assert files.state(catalogue.locate("toy")) == "absent"
    located = catalogue.pull("toy")
    path = files.file_path(located, located.manifest.file[0])
    path.write_bytes(b"damaged")
    with pytest.raises(FetchError, match=r"toy: net\.onnx is damaged: sha256 .{12}…, not .{12}…; run `edge-agent mod"):
        files.file_path(located, located.manifest.file[0])
    assert [row["state"] for row in catalogue.listing() if row["name"] == "toy"] == ["corrupt"]
    (tmp_path / "original").write_bytes(b"swapped")
    with pytest.raises(FetchError, match="promised was"):
        catalogue.pull("toy")
    (tmp_path / "original").write_bytes(b"weights")
    catalogue.pull("toy")
    assert catalogue.verify("toy") == []
    assert add.remove("toy") == 7
    assert not folder.exists()


@pytest.mark.parametrize("name", ["net\\u0000.onnx", "net\\u001b[2J.onnx", "net\\u202e.onnx"])
def test_a_name_that_no_file_has(tmp_path: Path, name: str) -> None:
    path = toy(tmp_path) / "manifest.toml"
    path.write_text(path.read_text().replace("net.onnx", name))
    with pytest.raises(ManifestError, match="a file's name has no such characters") as error:
        load(path)
    assert str(error.value).isprintable()
