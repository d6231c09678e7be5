"""What holds for every decoder; what only one of them does is tested beside its own equations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captioner.decoders import DECODERS, Decoder, settings
from captioner.decoders.several import Several
from captioner.decoders.together import Together

V, D, R = 40, 6, 9
SMALL: dict[str, dict[str, Any]] = {
    "attention_gru": {"embedding": 8, "units": 12, "attention": 6},
    "attention_gru writer": {"embedding": 8, "units": 12, "attention": 6, "writer": 10},
    "par_inject_gru": {"embedding": 8, "units": 12},
    "template_lstm": {"kinds": 4, "embedding": 8, "units": 12},
    "show_and_tell": {"embedding": 8, "units": 12},
    "show_and_tell mean": {"kinds": 4, "embedding": 8, "units": 12, "label": "mean"},
    "show_and_tell words": {"kinds": 4, "embedding": 8, "units": 12, "label": "words"},
    "show_attend_and_tell": {"embedding": 8, "units": 12, "attention": 6},
    "show_attend_and_tell gru": {"embedding": 8, "units": 12, "attention": 6, "cell": "gru"},
    "up_down": {"embedding": 8, "units": 12, "attention": 6},
    "transformer": {"embedding": 16, "layers": 2, "heads": 2},
    "meshed_memory": {"embedding": 16, "layers": 2, "heads": 2, "slots": 3},
}
TOGETHER = ("show_attend_and_tell", "meshed_memory", "par_inject_gru", "transformer")
ATTENTIVE = [n for n in SMALL if n.split()[0] not in ("par_inject_gru", "template_lstm", "show_and_tell")]


def made(name: str, **changes: Any) -> Decoder:
    torch.manual_seed(0)
    config = {"vocabulary": V, "features": D, "dropout": 0.0} | SMALL[name] | changes
    decoder = DECODERS[name.split()[0]](config)
    decoder.meet(pictures().mean(1), [[5, 6], [7], [], [8, 9, 10]])
    return decoder.eval()


def pictures() -> Tensor:
    return torch.randn(4, R, D, generator=torch.Generator().manual_seed(3))


def captions(count: int = 4, length: int = 7) -> Tensor:
    return torch.randint(V, (count, length), generator=torch.Generator().manual_seed(4))


@torch.inference_mode()
def test_an_ensemble_finds_likely_what_its_members_do_on_average() -> None:
    grid, tokens = pictures(), captions()
    each = [made(name)(grid, tokens).softmax(-1) for name in TOGETHER]
    mean = torch.stack(each).prod(0) ** (1 / len(each))
    assert torch.allclose(ensemble()(grid, tokens).softmax(-1), mean / mean.sum(-1, keepdim=True), atol=1e-6)
    one = Together([made("up_down")])
    assert torch.allclose(one(grid, tokens).softmax(-1), made("up_down")(grid, tokens).softmax(-1), atol=1e-6)


def test_every_decoder_is_tested_here() -> None:
    assert {name.split()[0] for name in SMALL} == set(DECODERS)


def ensemble() -> Together:
    return Together([made(name) for name in TOGETHER])


@pytest.mark.parametrize("name", [*SMALL, "ensemble"])
@torch.inference_mode()
def test_steps_give_what_teacher_forcing_gives(name: str) -> None:
    net, grid, tokens = ensemble() if name == "ensemble" else made(name), pictures()[:2], captions(3)
    owner = torch.tensor([0, 1, 1])
    memory, first = net.begin(grid)
    state, expected = first[owner], net(grid[owner], tokens)
    runs = [(0, slice(0, 1)), (1, slice(1, 3))]
    for t in range(tokens.shape[1]):
        read = net.read(tokens[:, t], state, memory, runs)
        logits, state = net.step(tokens[:, t], state, memory, runs)
        assert torch.allclose(logits, expected[:, t], atol=2e-3)  # packed weights may be in half precision
        assert torch.allclose(read, state, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_several_views_say_the_mean_of_what_each_says(name: str) -> None:
    net, views, tokens = made(name), torch.stack([pictures()[:2], pictures()[2:]], 1), captions(3)  # (2, 2, R, D)
    several, owner = Several(net, 2), torch.tensor([0, 1, 1])
    memory, first = several.begin(views)
    state, expected = first[owner], several(views[owner], tokens)
    apart = [net(views[owner, v], tokens) for v in range(2)]
    assert torch.allclose(expected, (apart[0] + apart[1]) / 2, atol=1e-5)
    runs = [(0, slice(0, 1)), (1, slice(1, 3))]
    for t in range(tokens.shape[1]):
        read = several.read(tokens[:, t], state, memory, runs)
        logits, state = several.step(tokens[:, t], state, memory, runs)
        assert torch.allclose(logits, expected[:, t], atol=2e-3)
        assert torch.allclose(read, state, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_a_batch_gives_what_its_captions_give_alone(name: str) -> None:
    net, grid, tokens = made(name), pictures(), captions()
    together = net(grid, tokens)
    for i in range(4):
        assert torch.allclose(together[i], net(grid[i : i + 1], tokens[i : i + 1])[0], atol=1e-5)


@pytest.mark.parametrize("name", [n for n in SMALL if made(n).shares])
@torch.inference_mode()
def test_a_picture_that_is_read_once_for_several_captions_gives_what_it_gives_to_each(name: str) -> None:
    net, grid, tokens = made(name), pictures(), captions(12)
    keep = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    each = grid.repeat_interleave(3, 0)
    assert torch.allclose(net(grid, tokens), net(each, tokens), atol=1e-5)
    assert torch.allclose(net(grid, tokens, keep), net(each, tokens, keep), atol=1e-5)
    assert torch.allclose(net.weights(grid, tokens), net.weights(each, tokens), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_the_future_is_not_read_and_a_mask_computes_only_what_is_kept(name: str) -> None:
    net, grid, tokens = made(name), pictures(), captions()
    whole, changed = net(grid, tokens), tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    after = net(grid, changed)
    assert torch.allclose(whole[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(whole[:, 5], after[:, 5])
    keep = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    assert torch.allclose(net(grid, tokens, keep), whole[keep], atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_dropout_is_set_in_every_layer(name: str) -> None:
    net = made(name, dropout=0.2)
    net.drop(0.7)
    assert {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)} == {0.7}


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_the_picture_matters(name: str) -> None:
    net, tokens = made(name), captions(1).expand(4, -1)
    logits = net(pictures(), tokens)
    assert all(not torch.allclose(logits[0], other) for other in logits[1:])


@pytest.mark.parametrize("name", SMALL)
def test_four_pictures_are_learnt_by_heart(name: str) -> None:
    net, grid, tokens = made(name).train(), pictures(), captions()
    tokens[:, 0] = 1  # all begin alike: only the picture tells them apart
    optimiser = torch.optim.Adam(net.parameters(), 1e-2, fused=True)
    losses: list[float] = []
    while not losses or (losses[-1] > 0.2 and len(losses) < 300):
        logits = net(grid, tokens[:, :-1], torch.ones(4, 6, dtype=torch.bool))
        likelihood = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
        optimiser.zero_grad()
        (likelihood + 0.01 * net.penalty()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(likelihood.detach()))
    assert losses[0] > 3
    assert losses[-1] <= 0.2


@pytest.mark.parametrize("name", ATTENTIVE)
@torch.inference_mode()
def test_attention_sums_to_one(name: str) -> None:
    weights = made(name).weights(pictures(), captions())  # type: ignore[operator]
    assert weights.shape == (4, 7, R)
    assert torch.allclose(weights.sum(-1), torch.ones(4, 7), atol=1e-5)


@pytest.mark.parametrize("name", [n for n in SMALL if n not in ATTENTIVE])
def test_who_pays_no_attention_says_so(name: str) -> None:
    assert getattr(made(name), "weights", None) is None


def test_settings_are_those_of_the_config() -> None:
    assert settings("show_attend_and_tell")["cell"] is str
    assert settings("meshed_memory")["slots"] is int
    assert "attention" not in settings("par_inject_gru")


@pytest.mark.parametrize(("name", "setting"), [("show_and_tell", "label"), ("show_attend_and_tell", "cell")])
def test_an_unknown_variant_is_named(name: str, setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is .* not nonsense"):
        made(name, **{setting: "nonsense"})


@torch.inference_mode()
@pytest.mark.parametrize("noise", ["picture_noise", "embedding_noise"])
def test_noise_is_for_training_alone(noise: str) -> None:
    net, grid, tokens = made("par_inject_gru", **{noise: 0.5}), pictures(), captions()
    assert torch.equal(net(grid, tokens), net(grid, tokens))
    net.train()
    assert not torch.equal(net(grid, tokens), net(grid, tokens))


def test_labels_are_those_of_the_nearest_picture() -> None:
    labels = made("show_and_tell mean").labels
    assert labels(pictures() + 0.01).tolist() == [0, 1, 2, 3]
    assert labels.words[:, :4].tolist() == [[5, 6, -1, -1], [7, -1, -1, -1], [-1] * 4, [8, 9, 10, -1]]
    embedding = torch.nn.Embedding(V, 8)
    means = labels.mean(torch.tensor([0, 2]), embedding)
    assert torch.allclose(means, torch.stack([embedding.weight[5:7].mean(0), torch.zeros(8)]))


@torch.inference_mode()
def test_the_penalty_is_zero_where_every_place_is_looked_at_once() -> None:
    net = made("show_attend_and_tell")
    tokens = captions(4, R)
    net(pictures(), tokens, torch.ones(4, R, dtype=torch.bool))
    weights = net.weights(pictures(), tokens)
    assert torch.allclose(torch.as_tensor(net.penalty()), ((1 - weights.sum(1)) ** 2).mean(), atol=1e-6)
    net.energy.weight.zero_()  # even attention over as many words as places
    net(pictures(), tokens, torch.ones(4, R, dtype=torch.bool))
    assert float(net.penalty()) == pytest.approx(0, abs=1e-9)


def test_the_tutorials_variant_has_no_gate_and_no_penalty() -> None:
    net = made("show_attend_and_tell gru")
    net(pictures(), captions(), torch.ones(4, 7, dtype=torch.bool))
    assert net.penalty() == 0
    assert not hasattr(net, "gate")


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", torch.tensor(0.0))


def lstm(weights: dict[str, Tensor], name: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Hochreiter and Schmidhuber 1997 as torch orders the gates: input, forget, cell, output."""
    gates = weights[f"{name}.weight_ih"] @ x + weights[f"{name}.bias_ih"]
    gates = gates + weights[f"{name}.weight_hh"] @ h + weights[f"{name}.bias_hh"]
    i, f, g, o = gates.view(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@torch.inference_mode()
def test_up_down_is_what_its_equations_say() -> None:
    """Anderson et al. 2018, equations 1 to 7, one caption, word and region at a time."""
    net, grid, tokens = made("up_down"), pictures()[0], captions(1)[0]
    w = dict(net.named_parameters())
    h1 = c1 = h2 = c2 = torch.zeros(12)
    mean = sum(grid) / R
    for t, token in enumerate(tokens):
        h1, c1 = lstm(w, "attender", torch.cat([h2, mean, w["embedding.weight"][token]]), h1, c1)
        scores = [
            w["energy.weight"][0] @ torch.tanh(linear(w, "key", region) + linear(w, "query", h1)) for region in grid
        ]
        shares = torch.tensor(scores).exp() / sum(torch.tensor(scores).exp())
        seen = sum(share * region for share, region in zip(shares, grid, strict=True))
        h2, c2 = lstm(w, "writer", torch.cat([seen, h1]), h2, c2)
        expected = linear(w, "output", h2)
        assert torch.allclose(net(grid[None], tokens[None])[0, t], expected, atol=1e-5)
        assert torch.allclose(net.weights(grid[None], tokens[None])[0, t], shares, atol=1e-5)


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(
    weights: dict[str, Tensor], name: str, query: Tensor, memory: list[Tensor], heads: int, slots: int = 0
) -> Tensor:
    """One query; scaled dot products, one head and one key at a time."""
    keys = [linear(weights, f"{name}.key", m) for m in memory]
    values = [linear(weights, f"{name}.value", m) for m in memory]
    size = len(query) // heads
    keys += [size**0.5 * weights[f"{name}.slot_keys"][i] for i in range(slots)]
    values += [slots**0.5 * weights[f"{name}.slot_values"][i] for i in range(slots)]
    asked, out = linear(weights, f"{name}.query", query), []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        energies = torch.stack([asked[part] @ k[part] / size**0.5 for k in keys]).exp()
        out.append(sum(e / energies.sum() * v[part] for e, v in zip(energies, values, strict=True)))
    return linear(weights, f"{name}.out", torch.cat(out))


def feed(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(weights, f"{name}.narrow", linear(weights, f"{name}.wide", x).clamp(min=0))


@torch.inference_mode()
def test_the_meshed_memory_transformer_is_what_its_equations_say() -> None:
    """Cornia et al. 2020, equations 1 to 7, one region, word and head at a time."""
    net, grid, tokens = made("meshed_memory"), pictures()[0], captions(1, 4)[0]
    for parameter in net.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    w, layers, heads = dict(net.named_parameters()), range(2), 2
    x = [norm(w, "norm", linear(w, "place", region).clamp(min=0)) for region in grid]
    levels = []
    for i in layers:
        name = f"readers.{i}"
        z = [norm(w, f"{name}.norms.0", a + attention(w, f"{name}.attention", a, x, heads, 3)) for a in x]
        x = [norm(w, f"{name}.norms.1", a + feed(w, f"{name}.feed", a)) for a in z]
        levels.append(x)
    y = [w["embedding.weight"][token] + sinusoid(t, 16) for t, token in enumerate(tokens)]
    for i in layers:
        name = f"writers.{i}"
        own = [
            norm(w, f"{name}.norms.0", a + attention(w, f"{name}.itself", a, y[: t + 1], heads))
            for t, a in enumerate(y)
        ]
        meshed = []
        for a in own:
            total = torch.zeros(16)
            for level in layers:
                seen = attention(w, f"{name}.regions", a, levels[level], heads)
                total += linear(w, f"{name}.gates.{level}", torch.cat([a, seen])).sigmoid() * seen
            meshed.append(norm(w, f"{name}.norms.1", a + total))
        y = [norm(w, f"{name}.norms.2", a + feed(w, f"{name}.feed", a)) for a in meshed]
    expected = torch.stack([linear(w, "output", a) for a in y])
    assert torch.allclose(net(grid[None], tokens[None])[0], expected, atol=1e-4)


def sinusoid(position: int, units: int) -> Tensor:
    made = torch.zeros(units)
    for i in range(0, units, 2):
        angle = torch.tensor(position / 10000 ** (i / units))
        made[i], made[i + 1] = angle.sin(), angle.cos()
    return made
