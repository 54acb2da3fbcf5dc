import pytest

from crdt.chains import read_chains
from crdt.errors import BadUpdate
from crdt.update import ANY, HAS_KEY, HAS_ORIGIN, Section, Struct, Update


def item(*, origin: tuple[int, int]) -> Struct:
    return Struct(HAS_KEY | HAS_ORIGIN | ANY, 0, 1, origin=origin, content=b"\x01\x7e")


@pytest.mark.timeout(20)
def test_items_that_name_each_other_as_origin_are_refused_and_not_followed_for_ever() -> None:
    sections = [Section(1, [item(origin=(2, 0))]), Section(2, [item(origin=(1, 0))])]
    with pytest.raises(BadUpdate, match="each other"):
        read_chains(Update(sections))
