from prometheus_client.parser import text_string_to_metric_families

from bot.health import Health


def figures(health: Health) -> dict[tuple[str, ...], float]:
    data, content_type = health.metrics()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(data.decode())
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_verdicts_name_what_fails() -> None:
    health, state = Health(), {"model": False}
    assert health.live() == (True, "Alive.")
    assert health.ready() == (False, "Not ready: starting.")
    health.watch("model", alive=lambda: True, ready=lambda: state["model"])
    health.watch("web", ready=lambda: True)
    assert health.ready() == (False, "Not ready: model.")
    state["model"] = True
    assert health.ready() == (True, "Ready.")
    health.watch("model", alive=lambda: False)
    assert health.live() == (False, "Not alive: model.")


def test_figures() -> None:
    health = Health()
    health.watch_queue(lambda: 3)
    health.count_meme("meme", "made", {"wait": 0.1, "draw": 0.2})
    health.count_meme("meme", "Busy", {})
    health.count_reaction(added=True)
    seen = figures(health)
    assert seen["quipbot_queue_waiting",] == 3
    assert seen["quipbot_memes_total", "made", "meme"] == 1
    assert seen["quipbot_memes_total", "Busy", "meme"] == 1
    assert seen["quipbot_reactions_total", "added"] == 1
    assert seen["quipbot_stage_seconds_count", "draw"] == 1
    assert seen["quipbot_stage_seconds_sum", "wait"] == 0.1


def test_two_bots_in_one_process_do_not_share_figures() -> None:
    one, other = Health(), Health()
    one.count_reaction(added=True)
    assert ("quipbot_reactions_total", "added") not in figures(other)
