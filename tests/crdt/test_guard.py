from crdt.archive import Archive
from crdt.guard import Guard
from crdt.update import decode
from tests.crdt.compaction_peers import Edit, Yjs, node_value
from tests.crdt.compaction_story import Story, label, plan_of


def test_without_the_archive_every_key_is_written_anew(yjs: Yjs) -> None:
    story = Story(yjs)
    story.world.edit(story.gone, label("unsent"))
    story.write("three")
    story.world.pull(story.gone)
    story.compact()
    plan = plan_of(story.world, story.gone, archives=False)
    assert story.world.guard is not None
    assert plan.claims.keys() == story.world.guard.anchors.keys()
    story.world.close()


def test_a_page_that_is_new_is_not_late(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three")
    story.compact()
    guard, room = story.world.guard, story.world.server_vector()
    assert guard is not None
    assert guard.lacked_by({}, room) == ()
    assert guard.lacked_by({424242: 3}, room) == ()
    assert guard.lacked_by(room, room) == ()
    assert guard.lacked_by({1000: 1}, room) != ()
    story.world.close()


def test_an_ordinary_edit_concerns_nobody(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three")
    story.compact()
    assert story.world.guard is not None
    for edit in (label("x"), Edit("add", "n9", value=node_value(label=1)), Edit("type", "n0", value="a")):
        before = story.here.replica.vector()
        story.world.edit(story.here, edit)
        assert not story.world.guard.concerns(decode(story.here.replica.update(before)))
    assert not plan_of(story.world, story.here)
    story.world.close()


def test_a_guard_comes_out_of_sql_as_it_went_in(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three", "four")
    story.compact()
    story.world.edit(story.gone, label("offline"))
    story.world.sync(story.gone)
    guard = story.world.guard
    assert guard is not None
    assert guard.hanging
    assert guard.settled
    assert Guard.decode(guard.encode()) == guard
    assert Archive(guard.hanging).find((guard.hanging[0].client, guard.hanging[0].clock)) == guard.hanging[0].place
    story.world.close()
