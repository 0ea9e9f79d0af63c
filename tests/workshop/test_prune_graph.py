"""Channels taken out of networks, and what is left fitted to the parent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import ModelError, RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.prune import choose, fit, verb
from edge_agent.workshop.prune.channels import ChannelGroup, Traced, families, multiplications, read, removed, weights
from edge_agent.workshop.prune.trace import trace
from tests.nets import write_onnx
from tests.workshop.prunable import attention, by_size, changed, layer, maps, masked, run

PICTURE = {"images": (TensorProto.FLOAT, [1, 3, 16, 16])}


def quiet(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


def pictures(count: int = 6) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [{"images": random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def followed(path: Path) -> tuple[ir.Model, Traced, dict[str, ChannelGroup]]:
    model = read(path)
    traced = trace(model)
    return model, traced, {one.name: one for one in families(traced)}


def smaller(model: ir.Model, share: float) -> tuple[ir.Model, Traced, set[int], dict[str, np.ndarray]]:
    traced = trace(model)
    ranked = by_size(traced, families(traced))
    gone = choose.to_remove(model, traced, ranked, (1 - share) * weights(model))
    new, stays = removed(model, traced, gone)
    return new, traced, gone, stays


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_pruned_network_answers_as_the_masked_dense_one(tmp_path: Path, share: float) -> None:
    model = read(maps(tmp_path / "m.onnx"))
    new, traced, gone, stays = smaller(model, share)
    assert share <= 1 - weights(new) / weights(model) < share + 0.05, "what was asked for, and hardly more"
    assert multiplications(new) < multiplications(model) and len(net.data(new)) < len(net.data(model))
    for feed in pictures(2):
        (cut,), (dense,) = run(new, feed), run(masked(model, traced, gone), feed)
        assert cut.shape == dense.shape == (1, 8, 64)
        np.testing.assert_allclose(cut, dense, rtol=1e-4, atol=1e-4)
    old, now = ({node.name: net.numbers(node.inputs[1]) for node in net.layers(one)} for one in (model, new))
    assert all(len(now[name]) == len(kept) and np.isin(now[name], old[name]).all() for name, kept in stays.items())


def test_channels_that_meet_go_together_and_those_of_the_output_stay(tmp_path: Path) -> None:
    model, traced, found = followed(maps(tmp_path / "m.onnx"))
    assert {name: len(one.roots) for name, one in found.items()} == {"stem + point": 16, "wide": 32, "other": 16}
    head = next(use for use in traced.uses if use.node.outputs[0].name == "head" and use.role == "out")
    with pytest.raises(ModelError, match="must stay"):
        removed(model, traced, {int(traced.roots(head.atoms)[0])})


def test_sizes_that_are_written_down_follow(tmp_path: Path) -> None:
    model, traced, found = followed(maps(tmp_path / "m.onnx"))
    new, _ = removed(model, traced, {int(r) for r in found["wide"].roots[[0, 1, 2, 20]]})
    (split,) = [node for node in new.graph if node.op_type == "Split"]
    assert net.numbers(split.inputs[1]).tolist() == [13, 15]
    new, _ = removed(model, traced, {int(r) for r in found["stem + point"].roots[:6]})
    (depth,) = [node for node in new.graph if node.outputs[0].name == "depth.raw"]
    assert depth.attributes.get_int("group") == 10


def test_heads_of_an_attention_go_whole(tmp_path: Path) -> None:
    model, traced, found = followed(attention(tmp_path / "a.onnx"))
    heads = "query + key + value"
    assert {name: (len(f.roots), f.block) for name, f in found.items()} == {heads: (4, 1), "up": (64, 8)}
    gone = {int(found[heads].roots[1]), *(int(r) for r in found["up"].roots[:16])}
    new, _ = removed(model, traced, gone)
    feed = {"x": np.random.default_rng(0).normal(0, 1, (1, 5, 32)).astype(np.float32)}
    np.testing.assert_allclose(run(new, feed)[0], run(masked(model, traced, gone), feed)[0], rtol=1e-4, atol=1e-5)
    assert layer(new, "query").shape == (32, 24)


def test_what_cannot_be_followed_is_left_alone(tmp_path: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.output[0] == "sum")
        node.op_type, node.domain = "Strange", "somebody.else"
        model.opset_import.append(helper.make_opsetid("somebody.else", 1))

    _, _, found = followed(changed(maps(tmp_path / "m.onnx"), unknown))
    assert "stem + point" not in found


def test_channels_that_change_nothing_go_first(tmp_path: Path) -> None:
    """Of a layer every second channel is dead: these go, whatever the order, and the answer stays."""

    def die(model: onnx.ModelProto) -> None:
        for one in model.graph.initializer:
            if one.name in ("wide.weight", "wide.bias"):
                value = onnx.numpy_helper.to_array(one).copy()
                value[::2] = 0
                one.CopyFrom(onnx.numpy_helper.from_array(value, one.name))

    model, traced, found = followed(changed(maps(tmp_path / "m.onnx"), die))
    feeds = pictures(4)
    for ranked in (
        by_size(traced, [*found.values()]),
        choose.ranked(model, traced, [*found.values()], feeds, quiet),
    ):
        gone = choose.to_remove(model, traced, ranked, 0.9 * weights(model))
        assert gone < set(found["wide"].roots[::2].tolist())
        new, _ = removed(model, traced, gone)
        np.testing.assert_allclose(run(new, feeds[0])[0], run(model, feeds[0])[0], rtol=1e-4, atol=1e-5)


def test_a_channel_that_others_can_make_up_for_costs_nothing(tmp_path: Path) -> None:
    """Half of `wide` are copies: reconstruction finds them, and fitting makes the output what it was."""

    def copied(model: onnx.ModelProto) -> None:
        for one in model.graph.initializer:
            if one.name in ("wide.weight", "wide.bias"):
                value = onnx.numpy_helper.to_array(one).copy()
                value[8:16], value[24:32] = value[0:8], value[16:24]
                one.CopyFrom(onnx.numpy_helper.from_array(value, one.name))

    model, traced, found = followed(changed(maps(tmp_path / "m.onnx"), copied))
    feeds = pictures()
    (ranked,) = choose.ranked(model, traced, [found["wide"]], feeds, quiet)
    assert ranked.cost[16] < 1e-4 < ranked.cost[8]
    new, stays = removed(model, traced, {int(r) for r in ranked.order[16:]})
    rough = run(new, feeds[0])[0]
    fitted = fit.refit(model, new, stays, feeds, quiet)
    fine, parent = run(new, feeds[0])[0], run(model, feeds[0])[0]
    assert np.abs(fine - parent).max() < 0.05 * np.abs(rough - parent).max()
    assert fitted and all(after <= before for before, after in fitted.values())


def test_fitting_helps_on_samples_that_it_has_not_seen(tmp_path: Path) -> None:
    model = read(maps(tmp_path / "m.onnx"))
    new, _, _, stays = smaller(model, 0.3)
    (unseen,) = pictures(40)[39:]
    parent = run(model, unseen)[0]
    before = np.square(run(new, unseen)[0] - parent).mean()
    fit.refit(model, new, stays, pictures(24), quiet)
    assert np.square(run(new, unseen)[0] - parent).mean() < 0.7 * before


def test_halves_stay_halves(tmp_path: Path) -> None:
    def store(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "up.weight")
        value = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, "up.half"))
        model.graph.node.insert(0, helper.make_node("Cast", ["up.half"], ["up.weight"], to=TensorProto.FLOAT))

    model, traced, found = followed(changed(attention(tmp_path / "a.onnx"), store))
    new, _ = removed(model, traced, {int(r) for r in found["up"].roots[:8]})
    (tmp_path / "b.onnx").write_bytes(net.data(new))
    halves = [one for one in onnx.load(tmp_path / "b.onnx").graph.initializer if one.data_type == TensorProto.FLOAT16]
    assert [list(one.dims) for one in halves] == [[32, 56]]
    assert layer(read(tmp_path / "b.onnx"), "up").shape == (32, 56)


def test_what_cannot_be_pruned_says_why(tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"no onnx at all")
    with pytest.raises(RefusedError, match=r"garbage.onnx: not a readable ONNX"):
        read(tmp_path / "garbage.onnx")
    with pytest.raises(RefusedError, match="cannot be read"):
        read(tmp_path / "absent.onnx")
    spec = {"x": (TensorProto.FLOAT, [1, 4])}
    out = {"y": (TensorProto.FLOAT, [1, 4])}
    with pytest.raises(RefusedError, match="nothing to prune"):
        read(write_onnx(tmp_path / "plain.onnx", [helper.make_node("Relu", ["x"], ["y"])], spec, out))
    scale: dict[str, np.ndarray] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    with pytest.raises(RefusedError, match="prune the float file"):
        read(write_onnx(tmp_path / "q.onnx", nodes, spec, out, scale))


def test_steps_follow_the_cubic_schedule() -> None:
    found = [verb.share(0.8, number, 4) for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)])


def test_a_constant_that_several_read_keeps_each_value_through_all_steps(tmp_path: Path) -> None:
    """Three branches share one constant of channel scales; in each eight channels of its own are dead."""
    random, dead = np.random.default_rng(5), {"a": range(8), "b": range(8, 16), "c": range(16, 24)}
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
    whole = model = read(
        write_onnx(tmp_path / "m.onnx", nodes, PICTURE, {"out": (TensorProto.FLOAT, [1, 8, 16, 16])}, constants)
    )
    for branches in ("c", "ab"):
        traced, going = trace(model), set()
        for use in traced.uses:
            if use.node.name in branches and (use.place, use.role) == (1, "out"):
                going |= {traced.root(int(use.atoms[i])) for i in dead[use.node.name]}
        model, _ = removed(model, traced, going)
        for feed in pictures(2):
            np.testing.assert_allclose(run(model, feed)[0], run(whole, feed)[0], rtol=1e-4, atol=1e-4)
    scales = [value for name, value in model.graph.initializers.items() if name.startswith("scale")]
    assert sorted(net.numbers(value).shape[1] for value in scales) == [24] * 3
