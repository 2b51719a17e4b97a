"""What a worker keeps open: the last few, and no more than those in memory."""

from wfm.parts.kept import Kept


def test_the_last_ones_are_kept_and_the_rest_goes_first() -> None:
    made: list[str] = []
    alive: list[int] = []
    kept: Kept[str] = Kept(2)

    def make(name: str) -> str:
        alive.append(len(kept._values))
        made.append(name)
        return name.upper()

    asked = ["a", "b", "a", "b", "c", "b", "a"]
    assert [kept.get(name, lambda name=name: make(name)) for name in asked] == [name.upper() for name in asked]  # type: ignore[misc]
    assert made == ["a", "b", "c", "a"], "b was asked for after a, so a went for c"
    assert alive == [0, 1, 1, 1], "room is made before the next is opened"
