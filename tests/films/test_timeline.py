"""Which clips a storyboard needs, and in which order they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reelwright.backends import ClipRules
from reelwright.films.schedule import Schedule
from reelwright.films.storyboard import Storyboard
from reelwright.films.timeline import Segment, segments, split

WAN = ClipRules(16.0, 81, 4)
FREE = ClipRules()


def a_board(*shots: dict[str, Any], **values: Any) -> Storyboard:
    named = [{"id": f"s{number}", "prompt": "p", **shot} for number, shot in enumerate(shots, 1)]
    return Storyboard.model_validate({"shots": named, **values})


def clips(*shots: dict[str, Any], rules: ClipRules = WAN, draft: bool = False, **values: Any) -> Sequence[Segment]:
    return segments(a_board(*shots, **values), lambda _: rules, draft=draft)


def test_ten_seconds_of_wan_are_two_clips_the_second_of_which_goes_on() -> None:
    found = clips({"image": "a.png", "seconds": 10})
    assert [(clip.id, clip.request.num_frames, clip.upstream) for clip in found] == [
        ("s1.1", 81, None),
        ("s1.2", 81, "s1.1"),
    ]


@given(st.integers(1, 2000), st.sampled_from([WAN, FREE, ClipRules(24.0, 129, 4)]))
def test_split_clips_are_legal_and_show_the_nearest_number_of_frames(frames: int, rules: ClipRules) -> None:
    lengths = split(frames, rules)
    assert all(1 <= length <= rules.max_frames and (length - 1) % rules.multiple == 0 for length in lengths)
    shown = sum(length - 1 for length in lengths) + 1
    assert abs(shown - frames) <= max(2, rules.multiple - 1)


@given(st.integers(82, 2000))
def test_a_long_keyframe_shot_ends_with_a_clip_of_full_length(frames: int) -> None:
    lengths = split(frames, WAN, keyframed=True)
    assert lengths[-1] == 81
    assert abs(sum(length - 1 for length in lengths) + 1 - frames) <= 3


def test_a_shot_without_a_picture_continues_the_last_clip_before() -> None:
    found = clips({"image": "a.png", "seconds": 10}, {}, {"continues": False}, {"image": "b.png"})
    assert [(clip.id, clip.upstream, clip.request.task) for clip in found] == [
        ("s1.1", None, "i2v"), ("s1.2", "s1.1", "i2v"), ("s2", "s1.2", "i2v"), ("s3", None, "t2v"), ("s4", None, "i2v"),
    ]  # fmt: skip


def test_a_shots_own_seed_is_that_of_its_first_clip_and_the_next_one_has_another() -> None:
    first, second = clips({"image": "a.png", "seconds": 10, "seed": 7})
    assert first.request.seed == 7
    assert second.request.seed not in (7, None)
    assert [clip.request.seed for clip in clips({"image": "a.png", "seconds": 10, "seed": 7})] == [
        7, second.request.seed,
    ]  # fmt: skip


def test_a_clip_that_goes_on_is_not_fitted_to_the_film_a_second_time() -> None:
    found = clips({"image": "a.png", "seconds": 10, "fit": "contain"}, {"fit": "contain"})
    assert [clip.request.fit for clip in found] == ["contain", None, None]


def test_the_last_picture_belongs_to_the_last_clip_of_its_shot() -> None:
    found = clips({"image": "a.png", "last_image": "b.png", "seconds": 10})
    assert [clip.request.task for clip in found] == ["i2v", "flf2v"]


def test_a_draft_has_the_same_clips_lengths_and_joints() -> None:
    shots = ({"image": "a.png", "seconds": 10}, {"seconds": 3, "transition": "dissolve 4"}, {"image": "b.png"})
    real, draft = clips(*shots, generator="wan2.1"), clips(*shots, generator="wan2.1", draft=True)
    assert [(c.id, c.upstream, c.dissolve, c.request.num_frames, c.request.seed) for c in real] == [
        (c.id, c.upstream, c.dissolve, c.request.num_frames, c.request.seed) for c in draft
    ]
    assert {clip.request.generator for clip in draft} == {"draft"}
    assert {clip.request.fps for clip in draft} == {16.0}


def test_a_seed_belongs_to_the_shot_not_to_its_place() -> None:
    before = {clip.id: clip.request.seed for clip in clips({"id": "a"}, {"id": "b"}, {"id": "c"})}
    after = {clip.id: clip.request.seed for clip in clips({"id": "c"}, {"id": "a"})}
    assert after == {name: before[name] for name in after}
    assert len(set(before.values())) == 3
    assert clips({"id": "a", "seed": 5})[0].request.seed == 5


# ------------------------------------------------------------------------------------------------------- schedule


def run(needs: dict[str, str | None], places: int, failing: frozenset[str] = frozenset()) -> list[set[str]]:
    """The sets of clips that run at once, each finished in the order of its start."""
    schedule, rounds = Schedule(needs, places), []
    while not schedule.idle:
        now = []
        while (name := schedule.start()) is not None:
            now.append(name)
        rounds.append(set(now))
        for name in now:
            if name in failing:
                schedule.fail(name)
            else:
                schedule.finished(name)
    return rounds


def test_independent_clips_run_side_by_side_and_chained_ones_in_order() -> None:
    needs = {"a": None, "b": "a", "c": None, "d": "c", "e": None}
    assert run(needs, 2) == [{"a", "c"}, {"b", "d"}, {"e"}]


def test_what_needs_a_failed_clip_is_blocked_and_the_rest_is_made() -> None:
    schedule = Schedule({"a": None, "b": "a", "c": "b", "d": None}, 1)
    assert schedule.start() == "a"
    assert schedule.fail("a") == ("b", "c")
    assert schedule.start() == "d"
    schedule.finished("d")
    assert schedule.idle


@given(st.data(), st.integers(1, 4))
def test_every_clip_is_made_exactly_once_and_never_before_what_it_needs(data: st.DataObject, places: int) -> None:
    names = [f"n{number}" for number in range(data.draw(st.integers(0, 12)))]
    needs = {name: data.draw(st.sampled_from([None, *names[:index]])) for index, name in enumerate(names)}
    rounds = run(needs, places)
    order = [name for group in rounds for name in group]
    assert sorted(order) == sorted(names)
    assert all(len(group) <= places for group in rounds)
    place = {name: number for number, group in enumerate(rounds) for name in group}
    assert all(place[other] < place[name] for name, other in needs.items() if other is not None)
