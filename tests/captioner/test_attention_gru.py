import torch

from captioner.decoders.attention_gru import AttentionGRU, AttentionGRUConfig


def model(**changes: float) -> AttentionGRU:
    torch.manual_seed(0)
    config = {"vocabulary": 30, "features": 6, "embedding": 8, "units": 10, "attention": 5, "dropout": 0.0} | changes
    return AttentionGRU(AttentionGRUConfig(**config)).eval()  # type: ignore[arg-type]


def test_steps_give_what_teacher_forcing_gives() -> None:
    net, grid, tokens = model(), torch.randn(2, 9, 6), torch.randint(30, (3, 7))
    pictures = torch.tensor([0, 1, 1])
    with torch.inference_mode():
        memory, first = net.look(grid)
        state, expected = first[pictures], net(grid[pictures], tokens)
        for t in range(7):
            logits, state = net.step(tokens[:, t], state, memory, [(0, slice(0, 1)), (1, slice(1, 3))])
            assert torch.allclose(logits, expected[:, t], atol=2e-3)  # weights in half precision


def test_attention_is_a_distribution_over_places() -> None:
    weights = model().weights(torch.randn(3, 9, 6), torch.randint(30, (3, 4)))
    assert weights.shape == (3, 4, 9)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 4))


def test_a_mask_computes_only_what_is_kept() -> None:
    net, grid, tokens = model(), torch.randn(2, 9, 6), torch.randint(30, (2, 7))
    keep = torch.rand(2, 7) < 0.5
    assert torch.allclose(net(grid, tokens, keep), net(grid, tokens)[keep], atol=1e-6)


def test_the_future_is_not_read() -> None:
    net, grid, tokens = model(), torch.randn(1, 9, 6), torch.randint(30, (1, 7))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 30
    assert torch.equal(net(grid, tokens)[0, :5], net(grid, changed)[0, :5])
    assert not torch.equal(net(grid, tokens)[0, 5], net(grid, changed)[0, 5])


def test_the_picture_matters_and_its_order_of_places_does_not() -> None:
    net, grid, tokens = model(), torch.randn(1, 9, 6), torch.randint(30, (1, 4))
    assert not torch.allclose(net(grid, tokens), net(torch.randn(1, 9, 6), tokens))
    assert torch.allclose(net(grid, tokens), net(grid[:, torch.randperm(9)], tokens), atol=1e-5)


def test_a_writer_hears_what_was_looked_at_before() -> None:
    writer = model(writer=7).writer
    assert writer is not None
    first, states, contexts = torch.randn(1, 7), torch.randn(1, 4, 10), torch.randn(1, 4, 8)
    changed = contexts.clone()
    changed[:, 1] += 1
    written, other = (writer(first, states, seen)[0] for seen in (contexts, changed))
    assert torch.equal(written[:, 0], other[:, 0])
    assert not torch.allclose(written[:, -1], other[:, -1], atol=1e-3)


def test_a_writer_that_joins_later_changes_nothing_yet() -> None:
    net, grid, tokens = model(), torch.randn(2, 9, 6), torch.randint(30, (2, 4))
    grown = net.with_writer(7)
    assert torch.allclose(grown(grid, tokens), net(grid, tokens), atol=1e-5)
    assert grown.config.writer == 7
    assert any(p.requires_grad and p.abs().sum() > 0 for p in grown.writer.parameters())  # type: ignore[union-attr]


def test_numerics_stay_put() -> None:
    """Numbers of the first version: a change of formula or layout shows here, not in tomorrow's captions."""
    net = model()
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.sin(torch.arange(parameter.numel()) + i).view_as(parameter) * 0.3)
    grid = torch.cos(torch.arange(54.0)).view(1, 9, 6)
    logits = net(grid, torch.tensor([[1, 2, 3]]))[0, -1, :4]
    assert torch.allclose(logits, torch.tensor(STORED), atol=1e-4)


STORED = [-0.1643, 0.7740, 0.2853, -0.4829]
