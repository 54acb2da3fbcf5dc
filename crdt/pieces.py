"""A document as several small updates, to be loaded one at a time.

Loading an update holds the interpreter's lock from its first struct to its last. Each piece here needs nothing of those
behind it, so a document is loaded piece by piece while others get their turn in between.
"""

from collections.abc import Iterator

from crdt.update import GC, SKIP, Id, Section, Struct, Update, decode, encode

PIECE_STRUCTS = 2_000
PIECE_DELETES = 10_000


def pieces(state: bytes) -> list[bytes]:
    """Updates (v1) that make the same document when they are applied in this order.

    Args:
        state: Yjs update (v1) of a whole document in which nothing waits.

    """
    whole = decode(state)
    made: list[bytes] = []
    piece: dict[int, Section] = {}
    count = 0
    for client, struct in _in_order(whole):
        piece.setdefault(client, Section(client, [], struct.clock)).structs.append(struct)
        count += 1
        if count == PIECE_STRUCTS:
            made.append(_encoded(piece))
            piece, count = {}, 0
    if piece:
        made.append(_encoded(piece))
    ranges = [(client, run) for client, runs in whole.deletes for run in runs]
    for start in range(0, len(ranges), PIECE_DELETES):
        deletes: dict[int, list[tuple[int, int]]] = {}
        for client, run in ranges[start : start + PIECE_DELETES]:
            deletes.setdefault(client, []).append(run)
        made.append(encode(Update([], sorted(deletes.items(), reverse=True))))
    return made


def _encoded(piece: dict[int, Section]) -> bytes:
    # Yjs writes larger client ids first; a reader that finds them in order needs no second look.
    return encode(Update([piece[client] for client in sorted(piece, reverse=True)]))


def _in_order(update: Update) -> Iterator[tuple[int, Struct]]:
    """Every struct behind all that it refers to; of one client in the order of clocks."""
    left = {section.client: iter(section.structs) for section in update.sections}
    ready = {section.client: section.clock for section in update.sections}
    for first in list(left):
        for struct in left[first]:
            stack = [(first, struct)]
            while stack:
                client, one = stack[-1]
                lacking = next((need for need in _needs(one) if ready.get(need[0], 0) <= need[1]), None)
                following = next(left[lacking[0]], None) if lacking is not None and lacking[0] in left else None
                if lacking is not None and following is not None:
                    stack.append((lacking[0], following))
                    continue
                # What it refers to is there; or is nowhere, and a reader will make garbage of it as it would anyway.
                stack.pop()
                ready[client] = one.end
                yield client, one


def _needs(struct: Struct) -> Iterator[Id]:
    if struct.kind in (GC, SKIP):
        return
    for one in (struct.origin, struct.right, struct.parent):
        if isinstance(one, tuple):
            yield one
