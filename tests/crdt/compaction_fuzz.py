"""Random lives of a compacted room; `python -m tests.crdt.compaction_fuzz 1000` runs that many of each kind."""

import sys
import time
from collections import Counter
from random import Random

from tests.crdt.compaction_peers import Yjs
from tests.crdt.compaction_world import Deviation, Person, World

STEPS = 90


def inside_the_window(seed: int, yjs: Yjs) -> World:
    """Offline edits, undo and redo, reloads and one to three compactions; nobody comes from before the frontier."""
    world = World(Random(seed), yjs)  # noqa: S311 - a trial must be repeatable
    people = [world.join() for _ in range(3)]
    due = set(world.random.sample(range(10, STEPS), world.random.randrange(1, 4)))
    for step in range(STEPS):
        _act(world, world.random.choice(people))
        if step in due:
            _compact(world)
        if world.random.random() < 0.03:
            _reload(world, people)
    world.settle()
    world.close()
    return world


def with_late_peers(seed: int, yjs: Yjs, *, healing: bool = True) -> World:
    """As above, while some stay away over a compaction or two and come back with edits."""
    world = World(Random(seed), yjs, healing=healing)  # noqa: S311
    people = [world.join() for _ in range(4)]
    for person in people[:2]:
        person.away = True
    due = set(world.random.sample(range(10, STEPS), world.random.randrange(1, 4)))
    back = set(world.random.sample(range(20, STEPS), 4))
    for step in range(STEPS):
        person = world.random.choice(people)
        if person.away:
            _stay_away(world, person)
        else:
            _act(world, person)
        if step in due:
            _compact(world)
        if step in back:
            world.sync(world.random.choice(people[:2]))
    world.settle()
    for person in people:
        world.edit(person)
    world.settle()
    world.close()
    return world


def _act(world: World, person: Person) -> None:
    chance = world.random.random()
    if chance < 0.5:
        world.edit(person)
    elif chance < 0.6:
        world.undo(person, redo=world.random.random() < 0.3)
    elif chance < 0.75:
        world.keeper_writes()
    elif chance < 0.8:
        world.pull(person)
    else:
        world.sync(person)


def _stay_away(world: World, person: Person) -> None:
    chance = world.random.random()
    if chance < 0.4:
        world.edit(person)
    elif chance < 0.45:
        world.undo(person)
    elif chance < 0.5:
        world.pull(person)
    else:
        world.keeper_writes()


def _compact(world: World) -> None:
    """Mostly most people have seen everything by then, as in a week; else the frontier is old."""
    for person in world.people:
        if not person.away and world.random.random() < 0.8:
            world.sync(person)
    world.compact()


def _reload(world: World, people: list[Person]) -> None:
    gone = people.pop(0)
    world.sync(gone)
    world.leave(gone)
    people.append(world.join())


def main(trials: int, first: int = 0) -> int:
    """Run every kind of life that often and print what came of it; the exit code."""
    yjs = Yjs()
    failed = 0
    for name, life in {"window": inside_the_window, "late": with_late_peers}.items():
        began, sums = time.monotonic(), Counter[str]()
        for seed in range(first, first + trials):
            try:
                world = life(seed, yjs)
            except AssertionError as error:
                failed += 1
                sys.stdout.write(f"{name} {seed}: {type(error).__name__} {str(error)[:300]}\n")
                continue
            sums.update(compactions=world.compactions, retired=world.retired, heals=world.heals, late_syncs=world.late)
        sys.stdout.write(f"{name}: {trials} trials in {time.monotonic() - began:.0f} s, {dict(sums)}\n")
    control = 0
    for seed in range(first, first + trials):
        try:
            with_late_peers(seed, yjs, healing=False)
        except Deviation:
            control += 1
    sys.stdout.write(f"control without healing: {control} of {trials} deviate; with it: {failed}\n")
    yjs.close()
    return 1 if failed or not control else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
