"""The drive plugin's pure parts: mountinfo read, an annotation read, what is to be bound and unbound."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_mount.plugin import mountinfo, pods
from storage_mount.plugin.mountinfo import Mount
from storage_mount.plugin.pods import Pods, Trouble
from storage_mount.plugin.reconcile import (
    MOST_DRIVES,
    Bind,
    Bound,
    Drive,
    Step,
    Unbind,
    Volume,
    parse_drives,
    steps,
)
from storage_mount.plugin.wire import generate

A, B = "a" * 12, "b" * 12


# -- mountinfo ------------------------------------------------------------------------------------------------


def test_a_line_of_mountinfo_is_read_with_its_escapes_and_tags() -> None:
    line = r"36 35 98:0 /mnt1/a\040b /mnt2\011x\134y\043 ro,noatime shared:5 master:1 - ext3 /dev/my\040root rw,errors=continue"
    (mount,) = mountinfo.parse(line + "\n")
    assert mount == Mount(
        36, 35, "/mnt1/a b", "/mnt2\tx\\y#", frozenset({"ro", "noatime"}), True, "ext3", "/dev/my root"
    )
    assert mount.readonly


def test_a_line_without_tags_is_read() -> None:
    (mount,) = mountinfo.parse("1 0 0:1 / / rw - rootfs rootfs rw")
    assert not mount.shared
    assert not mount.readonly


@pytest.mark.parametrize(
    "line", ["", "x", "1 2 3", "36 35 98:0 / / rw shared:5 ext3 /dev/root rw", "a b c / / rw - x y z"]
)
def test_what_is_no_mountinfo_is_refused_instead_of_read_as_nothing(line: str) -> None:
    with pytest.raises(ValueError, match=r"mountinfo|invalid literal"):
        mountinfo.parse(f"{line}\n")


def test_the_machines_own_mountinfo_is_read() -> None:
    text = Path("/proc/self/mountinfo").read_text()
    seen = mountinfo.parse(text)
    assert len(seen) == len(text.splitlines())
    assert mountinfo.below(seen, "/proc")


def _mount(number: int, parent: int, point: str) -> Mount:
    return Mount(number, parent, "/", point, frozenset({"rw"}), False, "tmpfs", "x")


def test_below_is_not_fooled_by_a_name_that_only_begins_alike() -> None:
    seen = [_mount(1, 0, "/a/b"), _mount(2, 0, "/a/bc"), _mount(3, 0, "/a/b/c")]
    assert [mount.id for mount in mountinfo.below(seen, "/a/b")] == [1, 3]


def test_the_topmost_of_a_pile_comes_first() -> None:
    pile = [_mount(9, 1, "/a"), _mount(4, 9, "/a"), _mount(7, 4, "/a"), _mount(8, 7, "/a/b")]
    assert [mount.id for mount in mountinfo.deepest_first(pile)] == [8, 7, 4, 9]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.randoms())
def test_no_mount_is_taken_away_before_one_that_lies_upon_it(parents: list[int], random: Any) -> None:
    mounts = [_mount(i + 1, min(parent, i), f"/p{i}") for i, parent in enumerate(parents)]
    random.shuffle(mounts)
    order = [mount.id for mount in mountinfo.deepest_first(mounts)]
    assert sorted(order) == sorted(mount.id for mount in mounts)
    for mount in mounts:
        if mount.parent in order:
            assert order.index(mount.id) < order.index(mount.parent)


# -- the annotation -------------------------------------------------------------------------------------------


def _entry(**changes: object) -> dict[str, object]:
    return {"name": A, "drive": "0f3c", "readonly": False, **changes}


def test_an_annotation_is_read() -> None:
    text = json.dumps([_entry(), _entry(name=B, drive="team-7", readonly=True)])
    assert parse_drives(text) == ((Drive(A, "0f3c", False), Drive(B, "team-7", True)), ())


def test_no_annotation_asks_for_no_drive() -> None:
    assert parse_drives("") == ((), ())
    assert parse_drives("[]") == ((), ())


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(_entry(drive="../bob"), id="a-way-up"),
        pytest.param(_entry(drive="bob/secret"), id="a-slash"),
        pytest.param(_entry(drive=".."), id="dots"),
        pytest.param(_entry(drive=""), id="no-id"),
        pytest.param(_entry(drive="-x"), id="a-leading-dash"),
        pytest.param(_entry(drive="Bob"), id="capital"),
        pytest.param(_entry(drive="bob\n"), id="newline"),
        pytest.param(_entry(drive="b\u0661"), id="another-scripts-digit"),
        pytest.param(_entry(drive="a" * 64), id="too-long"),
        pytest.param(_entry(drive=7), id="a-number"),
        pytest.param(_entry(name="../../etc"), id="name-with-a-way-up"),
        pytest.param(_entry(name=A + "\n"), id="name-with-newline"),
        pytest.param(_entry(name="A" * 12), id="name-capital"),
        pytest.param(_entry(name="a" * 11), id="name-short"),
        pytest.param(_entry(readonly="no"), id="readonly-no-truth"),
        pytest.param(_entry(readonly=0), id="readonly-zero"),
        pytest.param({"name": A, "drive": "x"}, id="readonly-missing"),
        pytest.param(_entry(more=1), id="a-key-too-many"),
        pytest.param([A, "x", False], id="a-list"),
        pytest.param("x", id="a-string"),
        pytest.param(None, id="null"),
    ],
)
def test_what_is_no_drive_is_refused_and_the_rest_still_holds(entry: object) -> None:
    good = _entry(name=B)
    drives, problems = parse_drives(json.dumps([entry, good]))
    assert drives == (Drive(B, "0f3c", False),)
    assert len(problems) == 1


@pytest.mark.parametrize("text", ["{", "{}", "7", "null", '"x"', "[" * 100_000, "\x00"])
def test_what_is_no_list_asks_for_nothing_and_is_told(text: str) -> None:
    drives, problems = parse_drives(text)
    assert drives == ()
    assert problems


def test_a_name_asked_for_twice_counts_once() -> None:
    drives, problems = parse_drives(json.dumps([_entry(), _entry(drive="other")]))
    assert drives == (Drive(A, "0f3c", False),)
    assert problems == (f"The name {A} is asked for twice.",)


def test_no_more_drives_than_a_pod_may_have() -> None:
    entries = [_entry(name=f"{i:012x}") for i in range(MOST_DRIVES + 1)]
    drives, problems = parse_drives(json.dumps(entries))
    assert len(drives) == MOST_DRIVES
    assert problems


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_text_makes_a_drive_with_an_id_or_name_that_is_a_path(text: str) -> None:
    for drive in parse_drives(text)[0]:
        assert "/" not in drive.id + drive.name
        assert not drive.id.startswith(".")


# -- what to do -----------------------------------------------------------------------------------------------


def _volume(*bound: Bound, pod: str = "p") -> Volume:
    return Volume(pod, f"/pods/{pod}", bound)


def test_what_is_right_stays_untouched() -> None:
    volume = _volume(Bound(A, "x", False), Bound(B, "y", True))
    assert steps({"p": [Drive(A, "x", False), Drive(B, "y", True)]}, [volume]) == []


def test_a_missing_drive_is_bound_and_a_revoked_one_taken_away_first() -> None:
    volume = _volume(Bound(A, "x", False))
    drive = Drive(B, "y", False)
    assert steps({"p": [drive]}, [volume]) == [Unbind(volume, A), Bind(volume, drive)]


def test_a_drive_that_becomes_read_only_is_taken_away_and_bound_anew() -> None:
    volume = _volume(Bound(A, "x", False))
    drive = Drive(A, "x", True)
    assert steps({"p": [drive]}, [volume]) == [Unbind(volume, A), Bind(volume, drive)]


def test_another_drive_under_the_name_is_replaced() -> None:
    volume = _volume(Bound(A, "x", False))
    drive = Drive(A, "y", False)
    assert steps({"p": [drive]}, [volume]) == [Unbind(volume, A), Bind(volume, drive)]


def test_a_pod_that_is_not_there_any_more_keeps_nothing() -> None:
    volume = _volume(Bound(A, "x", False))
    assert steps({}, [volume]) == [Unbind(volume, A)]


def test_what_is_no_drive_of_ours_is_taken_away() -> None:
    volume = _volume(Bound("stranger", None, False), Bound(f"{A}/below", None, False))
    assert steps({"p": []}, [volume]) == [Unbind(volume, "stranger"), Unbind(volume, f"{A}/below")]


def test_two_mounts_upon_each_other_become_one() -> None:
    volume = _volume(Bound(A, "x", False), Bound(A, "x", False))
    drive = Drive(A, "x", False)
    assert steps({"p": [drive]}, [volume]) == [Unbind(volume, A), Bind(volume, drive)]


def test_a_pod_without_a_volume_yet_waits_for_it() -> None:
    assert steps({"p": [Drive(A, "x", False)]}, []) == []


_names = st.sampled_from([f"{i:012x}" for i in range(4)])
_ids = st.sampled_from(["x", "y"])
_drives = st.lists(st.builds(Drive, _names, _ids, st.booleans()), max_size=4, unique_by=lambda d: d.name)
_bound = st.lists(
    st.builds(Bound, _names | st.just("stranger"), st.none() | _ids, st.booleans()), max_size=6
).map(tuple)


@given(
    st.dictionaries(st.sampled_from("pqr"), _drives),
    st.dictionaries(st.sampled_from("pqr"), _bound),
)
def test_after_its_steps_every_volume_is_as_wanted_and_there_is_nothing_more_to_do(
    wanted: dict[str, list[Drive]], found: dict[str, tuple[Bound, ...]]
) -> None:
    volumes = [Volume(pod, pod, bound) for pod, bound in found.items()]
    after = _carry_out(steps(wanted, volumes), volumes)
    for volume in after:
        expected = {(d.name, d.id, d.readonly) for d in wanted.get(volume.pod, [])}
        assert {(b.name, b.id, b.readonly) for b in volume.bound} == expected
        assert len(volume.bound) == len(expected)
    assert steps(wanted, after) == []


def _carry_out(todo: list[Step], volumes: list[Volume]) -> list[Volume]:
    bound = {volume.pod: list(volume.bound) for volume in volumes}
    for step in todo:
        here = bound[step.volume.pod]
        if isinstance(step, Unbind):
            here[:] = [b for b in here if b.name != step.name]
        else:
            assert step.drive.name not in {b.name for b in here}, "bound over another mount"
            here.append(Bound(step.drive.name, step.drive.id, step.drive.readonly))
    return [Volume(pod, pod, tuple(b)) for pod, b in bound.items()]


# -- the watch ------------------------------------------------------------------------------------------------


class ScriptedApi:
    """Answers one list and one watch after another, as a test wrote them; a Trouble among them is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.versions: list[str] = []

    def list(self) -> dict[str, Any]:
        answer = self._next()
        return {"kind": "PodList", "metadata": {"resourceVersion": answer[0]}, "items": answer[1]}

    def watch(self, version: str) -> Iterator[dict[str, Any]]:
        self.versions.append(version)
        for event in self._next():
            if isinstance(event, Exception):
                raise event
            yield event

    def _next(self) -> Any:
        if not self.answers:
            raise Over
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Over(Exception):
    """The script is at its end."""


def _pod(uid: str, annotation: str | None = None) -> dict[str, Any]:
    annotations = {pods.DRIVES_ANNOTATION: annotation} if annotation is not None else None
    return {"metadata": {"uid": uid, "annotations": annotations}}


def _follow(api: ScriptedApi) -> tuple[list[Mapping[str, str]], list[float]]:
    heard: list[Mapping[str, str]] = []
    slept: list[float] = []
    record: Callable[[Mapping[str, str]], None] = heard.append
    with pytest.raises(Over):
        Pods(api, record, sleep=slept.append).run()
    return heard, slept


def test_pods_are_listed_and_their_changes_followed() -> None:
    events = [
        {"type": "MODIFIED", "object": _pod("1", "[1]")},
        {"type": "MODIFIED", "object": _pod("1", "[1]")},  # nothing that matters here changed
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        {"type": "ADDED", "object": _pod("2")},
        {"type": "DELETED", "object": _pod("1")},
    ]
    heard, slept = _follow(ScriptedApi(("7", [_pod("1")]), events))
    assert heard == [{"1": ""}, {"1": "[1]"}, {"1": "[1]", "2": ""}, {"2": ""}]
    assert slept == []


def test_a_version_that_is_too_old_leads_to_a_new_list_at_once() -> None:
    gone = {"type": "ERROR", "object": {"code": 410}}
    api = ScriptedApi(("7", [_pod("1", "a")]), [gone], ("99", [_pod("2", "b")]), [])
    heard, slept = _follow(api)
    assert heard == [{"1": "a"}, {"2": "b"}]
    assert api.versions == ["7", "99"]
    assert slept == []


def test_trouble_never_looks_like_pods_that_are_gone_and_is_waited_out() -> None:
    broken = [{"type": "MODIFIED", "object": _pod("1", "b")}, Trouble("reset")]
    api = ScriptedApi(
        ("7", [_pod("1", "a")]), broken, Trouble("500"), Trouble("500"), ("8", [_pod("1", "b")]), []
    )
    heard, slept = _follow(api)
    assert heard == [{"1": "a"}, {"1": "b"}, {"1": "b"}]
    assert len(slept) == 3
    assert all(seconds > 0 for seconds in slept)


# -- the messages ---------------------------------------------------------------------------------------------


def test_the_generated_messages_are_those_of_the_proto_files(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    for made in tmp_path.glob("*_pb2.py"):
        assert _description(made) == _description(generate.HERE / made.name), (
            "run: python -m storage_mount.plugin.wire.generate"
        )


def _description(module: Path) -> str:
    """Return the line that holds the messages; the others tell with which version it was made."""
    (line,) = (line for line in module.read_text().splitlines() if "AddSerializedFile" in line)
    return line
