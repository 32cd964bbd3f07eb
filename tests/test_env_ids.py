"""An id that no game has: which game is meant, and what its ids are."""

from __future__ import annotations

from a3c.errors import UsageError
from atari_wrapper import get_protocol, make_player

import pytest


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("Pongg-v0", "Pong-v0"),
        ("pong-v0", "Pong-v0"),
        ("breakout-v0", "Breakout-v0"),
        ("Pong-v5", "ALE/Pong-v5"),
        ("", "Pong-v0"),
        ("nothing at all", "Pong-v0"),
        ("CartPole-v1", "Pong-v0"),
    ],
)
@pytest.mark.parametrize("use", [get_protocol, make_player])
def test_no_such_game(env_id, near, use):
    with pytest.raises(UsageError) as caught:
        use(env_id)
    text = str(caught.value)
    assert env_id in text
    assert near in text
    assert "\n" not in text


PONGS = {"Pong-v0", "Pong-v4", "PongNoFrameskip-v0", "PongNoFrameskip-v4", "ALE/Pong-v5"}
MEANT = {  # an unknown id: the first that is suggested
    "pong": "Pong-v0",
    "Pong": "Pong-v0",
    "PONG-V0": "Pong-v0",
    " Pong-v0 ": "Pong-v0",
    "Pong_v0": "Pong-v0",
    "PongV4": "Pong-v4",
    "ALE/Pong": "ALE/Pong-v5",
    "ALE/Pong-v0": "ALE/Pong-v5",
    "ale_py:ALE/Pong-v5": "ALE/Pong-v5",
    "gym:Pong-v0": "Pong-v0",
    "Pong-v5": "Pong-v0",
    "Pong-ram-v0": "Pong-v0",
    "Pong-ramNoFrameskip-v4": "PongNoFrameskip-v4",
    "Pong-ramDeterministic-v4": "PongNoFrameskip-v4",
    "PongDeterministic-v4": "Pong-v4",
    "PongNoFrameskip-v5": "PongNoFrameskip-v0",
}


@pytest.mark.parametrize("env_id", MEANT)
def test_all_ids_of_the_game_that_is_meant_are_suggested(env_id):
    with pytest.raises(UsageError) as caught:
        get_protocol(env_id)
    suggested = str(caught.value).partition("did you mean ")[2].removesuffix("?").split(", ")
    assert suggested[0] == MEANT[env_id]
    assert set(suggested) == PONGS


@pytest.mark.parametrize(
    "env_id", ["SpaceInvadersDeterministic-v4", "ALE/SpaceInvaders", "space_invaders", "SpaceInvader-v0"]
)
def test_games_of_two_words(env_id):
    with pytest.raises(UsageError, match=r"did you mean (ALE/)?SpaceInvaders-v\d"):
        get_protocol(env_id)


def test_games_whose_names_begin_alike_are_kept_apart():
    with pytest.raises(UsageError, match=r"did you mean ALE/Pitfall2-v5\?"):
        get_protocol("Pitfall2")
    with pytest.raises(UsageError) as caught:
        get_protocol("PitfallDeterministic-v4")
    assert "2" not in str(caught.value).partition("did you mean")[2]
