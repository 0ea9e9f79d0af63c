"""Channels taken out of graphs, weights set to 0, and what is left fitted to the parent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import ModelError
from edge_agent.workshop.prune import channels, choose, fit, reconstruction, single, steps
from edge_agent.workshop.prune.graph import attributes, checked, copy, multiplications, read, weights
from tests.nets import write_onnx
from tests.workshop.prunable import attention, changed, maps, masked, run


def quiet(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


def pictures(count: int = 6) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [{"images": random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_pruned_graph_answers_as_the_masked_dense_one(tmp_path: Path, share: float) -> None:
    graph = read(maps(tmp_path / "m.onnx"))
    traced = channels.trace(graph)
    ranked = choose.by_magnitude(graph, traced, channels.families(graph, traced))
    whole = weights(graph)
    gone = choose.to_remove(graph, traced, ranked, (1 - share) * whole)
    new, stays = channels.removed(graph, traced, gone)
    assert gone and weights(new) <= (1 - share) * whole
    assert multiplications(new) < multiplications(graph)
    assert len(checked(new)) < len(checked(graph))
    for feed in pictures(2):
        (cut,), (dense,) = run(new, feed), run(masked(graph, traced, gone), feed)
        assert cut.shape == dense.shape == (1, 8, 64)
        np.testing.assert_allclose(cut, dense, rtol=1e-4, atol=1e-4)
    for number, kept in stays.items():
        old, now = graph.weight(number), new.weight(number)
        assert now.shape[0] == len(kept) and np.isin(now, old).all()


def test_channels_that_meet_go_together_and_those_of_the_output_stay(tmp_path: Path) -> None:
    graph = read(maps(tmp_path / "m.onnx"))
    traced = channels.trace(graph)
    found = {family.name: len(family.roots) for family in channels.families(graph, traced)}
    assert found == {"stem + point": 16, "wide": 32, "other": 16}
    head = next(use for use in traced.uses if graph.nodes[use.node].output[0] == "head" and use.role == "out")
    assert all(traced.fixed[root] for root in traced.roots(head.atoms))
    with pytest.raises(ModelError, match="must stay"):
        channels.removed(graph, traced, {int(traced.roots(head.atoms)[0])})


def test_sizes_that_are_written_down_follow(tmp_path: Path) -> None:
    graph = read(maps(tmp_path / "m.onnx"))
    traced = channels.trace(graph)
    wide = next(f for f in channels.families(graph, traced) if f.name == "wide")
    new, _ = channels.removed(graph, traced, {int(r) for r in wide.roots[[0, 1, 2, 20]]})
    split = next(node for node in new.nodes if node.op_type == "Split")
    assert new.values[split.input[1]].tolist() == [13, 15]
    stem = next(f for f in channels.families(graph, traced) if f.name.startswith("stem"))
    new, _ = channels.removed(graph, traced, {int(r) for r in stem.roots[:6]})
    depth = next(node for node in new.nodes if node.output[0] == "depth.raw")
    assert attributes(depth)["group"] == 10


def test_heads_of_an_attention_go_whole(tmp_path: Path) -> None:
    graph = read(attention(tmp_path / "a.onnx"))
    traced = channels.trace(graph)
    found = {family.name: family for family in channels.families(graph, traced)}
    assert {name: (len(f.roots), f.block) for name, f in found.items()} == {
        "query + key + value": (4, 1),
        "up": (64, 8),
    }
    gone = {int(found["query + key + value"].roots[1]), *(int(r) for r in found["up"].roots[:16])}
    new, _ = channels.removed(graph, traced, gone)
    feed = {"x": np.random.default_rng(0).normal(0, 1, (1, 5, 32)).astype(np.float32)}
    np.testing.assert_allclose(run(new, feed)[0], run(masked(graph, traced, gone), feed)[0], rtol=1e-4, atol=1e-5)
    query = next(n for n in new.layers() if channels.layer_name(new, n) == "query")
    assert new.weight(query).shape == (32, 24)


def test_what_cannot_be_followed_is_left_alone(tmp_path: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.output[0] == "sum")
        node.op_type, node.domain = "Strange", "somebody.else"
        model.opset_import.append(helper.make_opsetid("somebody.else", 1))

    path = changed(maps(tmp_path / "m.onnx"), unknown)
    graph = read(path)
    traced = channels.trace(graph)
    assert "stem + point" not in {f.name for f in channels.families(graph, traced)}


def test_a_channel_that_others_can_make_up_for_costs_nothing(tmp_path: Path) -> None:
    """Half of `wide` are copies: reconstruction finds them, and fitting makes the output what it was."""
    path = maps(tmp_path / "m.onnx")
    graph = read(path)
    for name in ("wide.weight", "wide.bias"):
        value = graph.values[name].copy()
        value[8:16], value[24:32] = value[0:8], value[16:24]
        graph.values[name] = value
    traced = channels.trace(graph)
    wide = [f for f in channels.families(graph, traced) if f.name == "wide"]
    feeds = pictures()
    (ranked,) = reconstruction.by_reconstruction(graph, traced, wide, feeds, quiet)
    assert ranked.cost[16] < 1e-4 < ranked.cost[8]
    new, stays = channels.removed(graph, traced, {int(r) for r in ranked.order[16:]})
    rough = run(new, feeds[0])[0]
    fitted = fit.refit(graph, new, stays, feeds, quiet)
    fine, parent = run(new, feeds[0])[0], run(graph, feeds[0])[0]
    assert np.abs(fine - parent).max() < 0.05 * np.abs(rough - parent).max()
    assert fitted and all(one.after <= one.before for one in fitted)


def test_fitting_helps_on_samples_that_it_has_not_seen(tmp_path: Path) -> None:
    graph = read(maps(tmp_path / "m.onnx"))
    traced = channels.trace(graph)
    ranked = choose.by_magnitude(graph, traced, channels.families(graph, traced))
    gone = choose.to_remove(graph, traced, ranked, 0.7 * weights(graph))
    new, stays = channels.removed(graph, traced, gone)
    (unseen,) = pictures(40)[39:]
    parent = run(graph, unseen)[0]
    before = np.square(run(new, unseen)[0] - parent).mean()
    fit.refit(graph, new, stays, pictures(24), quiet)
    assert np.square(run(new, unseen)[0] - parent).mean() < 0.7 * before


def test_so_many_weights_are_zero_and_stay_so(tmp_path: Path) -> None:
    graph = read(maps(tmp_path / "m.onnx"))
    student = copy(graph)
    masks = single.masks(student, 0.5)
    single.zeroed(student, masks)
    whole = weights(graph)
    zero = sum(int((student.weight(n) == 0).sum()) for n in student.layers())
    assert zero == round(0.5 * whole)
    depth = next(n for n in student.layers() if channels.layer_name(student, n) == "depth")
    assert depth not in masks and (student.weight(depth) != 0).all()
    parent = [run(graph, feed)[0] for feed in pictures()]
    rough = [run(student, feed)[0] for feed in pictures()]
    fit.refit(graph, student, {}, pictures(), quiet, masks)
    fine = [run(student, feed)[0] for feed in pictures()]
    assert sum(int((student.weight(n) == 0).sum()) for n in student.layers()) >= zero
    assert np.square(np.array(fine) - parent).mean() < np.square(np.array(rough) - parent).mean()
    assert len(checked(student)) == len(checked(graph)), "zeroes save nothing"


def test_halves_stay_halves(tmp_path: Path) -> None:
    path = attention(tmp_path / "a.onnx")

    def store(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "up.weight")
        value = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, "up.half"))
        model.graph.node.insert(0, helper.make_node("Cast", ["up.half"], ["up.weight"], to=TensorProto.FLOAT))

    graph = read(changed(path, store))
    assert graph.halves == {"up.weight"}
    traced = channels.trace(graph)
    up = next(f for f in channels.families(graph, traced) if f.name == "up")
    new, _ = channels.removed(graph, traced, {int(r) for r in up.roots[:8]})
    (tmp_path / "b.onnx").write_bytes(checked(new))
    again = read(tmp_path / "b.onnx")
    assert again.halves == {"up.weight"} and again.values["up.weight"].shape == (32, 56)


def test_what_cannot_be_pruned_says_why(tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"no onnx at all")
    with pytest.raises(ModelError, match=r"garbage.onnx: not an ONNX file"):
        read(tmp_path / "garbage.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "absent.onnx")
    spec = {"x": (TensorProto.FLOAT, [1, 4])}
    plain = write_onnx(
        tmp_path / "plain.onnx", [helper.make_node("Relu", ["x"], ["y"])], spec, {"y": (TensorProto.FLOAT, [1, 4])}
    )
    with pytest.raises(ModelError, match="nothing to prune"):
        read(plain)
    scale: dict[str, np.ndarray] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    quantized = write_onnx(tmp_path / "q.onnx", nodes, spec, {"y": (TensorProto.FLOAT, [1, 4])}, scale)
    with pytest.raises(ModelError, match="prune the float file"):
        read(quantized)


def test_steps_follow_the_cubic_schedule() -> None:
    plan = steps.PrunePlan(0.8, True, "weights", "magnitude", 4, False, 0.0)
    found = [steps.share(plan, number) for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)])
    assert found[-1] == 0.8


def shared_scales(path: Path) -> tuple[Path, dict[str, range]]:
    """Three branches that share one constant of channel scales; in each eight channels of its own are dead."""
    random = np.random.default_rng(5)
    dead = {"a": range(8), "b": range(8, 16), "c": range(16, 24)}
    constants = {"scale": np.exp(random.normal(0, 2, (1, 32, 1, 1))).astype(np.float32)}
    nodes = []
    for name, gone in dead.items():
        wide = random.normal(0, 0.2, (32, 3, 3, 3)).astype(np.float32)
        wide[list(gone)] = 0
        constants |= {f"{name}.wide": wide, f"{name}.out": random.normal(0, 0.2, (8, 32, 1, 1)).astype(np.float32)}
        nodes += [
            helper.make_node("Conv", ["images", f"{name}.wide"], [f"{name}.1"], name=name, pads=[1] * 4),
            helper.make_node("Mul", [f"{name}.1", "scale"], [f"{name}.2"]),
            helper.make_node("Relu", [f"{name}.2"], [f"{name}.3"]),
            helper.make_node("Conv", [f"{name}.3", f"{name}.out"], [f"{name}.4"]),
        ]
    nodes.append(helper.make_node("Sum", [f"{name}.4" for name in dead], ["out"]))
    spec = {"images": (TensorProto.FLOAT, [1, 3, 16, 16])}
    return write_onnx(path, nodes, spec, {"out": (TensorProto.FLOAT, [1, 8, 16, 16])}, constants), dead


def test_a_constant_that_several_read_keeps_each_value_through_all_steps(tmp_path: Path) -> None:
    path, dead = shared_scales(tmp_path / "m.onnx")
    whole = graph = read(path)
    for branches in ("c", "ab"):
        traced, gone = channels.trace(graph), set()
        for name in branches:
            number = next(i for i, node in enumerate(graph.nodes) if node.name == name)
            use = next(u for u in traced.uses if (u.node, u.place, u.role) == (number, 1, "out"))
            gone |= {traced.root(int(use.atoms[i])) for i in dead[name]}
        graph, _ = channels.removed(graph, traced, gone)
        checked(graph)
        for feed in pictures(2):
            np.testing.assert_allclose(run(graph, feed)[0], run(whole, feed)[0], rtol=1e-4, atol=1e-4)
    assert sorted(value.shape[1] for name, value in graph.values.items() if name.startswith("scale")) == [24] * 3


def test_what_is_fitted_is_a_layer_s_own(tmp_path: Path) -> None:
    """Two layers that share their weights and are cut differently each keep what fits them."""
    random = np.random.default_rng(6)
    constants = {"w": random.normal(0, 0.3, (8, 3, 1, 1)).astype(np.float32), "two": np.array(2, np.float32)}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], name="one"),
        helper.make_node("Mul", ["images", "two"], ["twice"]),
        helper.make_node("Conv", ["twice", "w"], ["b"], name="other"),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    spec = {"images": (TensorProto.FLOAT, [1, 3, 16, 16])}
    graph = read(write_onnx(tmp_path / "m.onnx", nodes, spec, {"out": (TensorProto.FLOAT, [1, 8, 16, 16])}, constants))
    first, second = graph.layers()
    before = graph.weight(first).copy()
    name = graph.own(first, 1)
    graph.values[name] = np.zeros_like(before)
    assert (graph.weight(second) == before).all() and not graph.weight(first).any()
    assert graph.own(second, 1) == "w" and name == "w.1"
    checked(graph)


def test_names_that_are_taken_are_not_given_again(tmp_path: Path) -> None:
    """Halves are stored behind a Cast, whose names another tensor may have."""
    half = np.ones((8, 3, 1, 1), np.float16)
    nodes = [
        helper.make_node("Cast", ["stored"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["images", "w"], ["w.half"], name="w.cast"),
        helper.make_node("Relu", ["w.half"], ["out"]),
    ]
    spec = {"images": (TensorProto.FLOAT, [1, 3, 16, 16])}
    path = write_onnx(tmp_path / "m.onnx", nodes, spec, {"out": (TensorProto.FLOAT, [1, 8, 16, 16])}, {"stored": half})
    graph = read(path)
    assert graph.halves == {"w"}
    data = checked(graph)
    names = [name for node in onnx.load_from_string(data).graph.node for name in (node.name, *node.output) if name]
    assert len(names) == len(set(names))
