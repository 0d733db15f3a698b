"""Conversations that went wrong: valid ones, seeded, with lies, gaps and noise in them.

The same seed and number give the same case, on every machine.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage
from wire import raw
from wire.raw import Context, Pdv
from wire.receiving import NODE, instance

DEFLATED = "1.2.840.10008.1.2.1.99"
STORAGE = str(CTImageStorage)
CONTEXTS = (
    Context(id=1, abstract_syntax=raw.VERIFICATION, transfer_syntaxes=(raw.IMPLICIT,)),
    Context(id=3, abstract_syntax=STORAGE, transfer_syntaxes=(raw.EXPLICIT,)),
    Context(id=5, abstract_syntax=STORAGE, transfer_syntaxes=(raw.IMPLICIT,)),
    Context(id=7, abstract_syntax=STORAGE, transfer_syntaxes=(DEFLATED,)),
    Context(id=9, abstract_syntax="1.2.3.999", transfer_syntaxes=(raw.IMPLICIT,)),  # refused
)
OPENING = raw.associate_rq(CONTEXTS, calling="CT1", called=NODE)

#: Where in a conversation a fault can be.
LEVELS = ("opening", "order", "value", "command", "data", "bytes")

_UID = "1.2.3.{number:010}.{which}"
_LENGTHS = (0, 1, 2, 3, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# What a valid command set may be turned into.
_FIELDS = (
    0,
    0x10,
    0x20,
    0x21,
    0x30,
    0x100,
    0x110,
    0x120,
    0x130,
    0x140,
    0x150,
    0xFFF,
    0x8001,
    0xFFFF,
)

_TYPES = (0, 1, 2, raw.NO_DATA_SET, 0x102, 0xFFFF)

Random = random.Random
_Elements = list[tuple[int, bytes]]
_Piece = bytes | list[Pdv]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One conversation.

    Attributes:
        opening: What comes first; an answer to it is awaited if it is an A-ASSOCIATE-RQ as it
            should be (`is_admissible`).
        steps: What comes after. In a valid case each step awaits an answer; otherwise all of it
            comes in one go.
        is_valid: Whether nothing is wrong with it: then it has to be served.
        is_reset: Whether the sender resets the connection instead of ending it and waiting.
        sop_instance_uids: Of the instances in it.
    """

    number: int
    opening: bytes = field(repr=False)
    steps: tuple[bytes, ...] = field(repr=False)
    is_admissible: bool
    is_valid: bool
    is_reset: bool
    sop_instance_uids: tuple[str, ...]

    def datasets(self) -> set[bytes]:
        """Every data set that is whole in it: all of what may be kept."""
        return set(_reassembled(b"".join((self.opening, *self.steps))))


def case(number: int, *, seed: int = 0, levels: Sequence[str] = LEVELS) -> Case:
    """The case with this number, its faults on some of these levels."""
    rng = Random(f"{seed}/{number}")
    is_valid = rng.random() < 0.05
    faults = set() if is_valid else set(rng.choices(levels, k=rng.choice((1, 1, 1, 2, 3))))
    opening = _opening(rng) if "opening" in faults else OPENING
    uids = tuple(
        _UID.format(number=1_000_000_000 + number, which=which)
        for which in range(rng.choice((0, 1, 1, 1, 2)))
    )
    messages = [_store(rng, uid, which + 1, faults) for which, uid in enumerate(uids)]
    if not uids or rng.random() < 0.3:
        messages.append(_echo(rng, 9, faults))
    messages.append([raw.RELEASE])
    return Case(
        number=number,
        opening=opening,
        steps=tuple(map(_encoded, messages)) if is_valid else (_spoilt(rng, messages, faults),),
        is_admissible=opening == OPENING,
        is_valid=is_valid,
        is_reset=not is_valid and rng.random() < 0.1,
        sop_instance_uids=uids,
    )


def _encoded(pieces: Sequence[_Piece]) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else raw.p_data(*piece) for piece in pieces)


def _spoilt(rng: Random, messages: Sequence[list[_Piece]], faults: set[str]) -> bytes:
    """All messages, with the faults that concern more than one of them."""
    pieces = list(chain.from_iterable(messages))
    if "value" in faults:
        _spoil_a_value(rng, pieces)
    if "order" in faults:
        _spoil_the_order(rng, pieces)
    return _noisy(rng, _encoded(pieces)) if "bytes" in faults else _encoded(pieces)


def cases(
    count: int, *, seed: int = 0, first: int = 0, levels: Sequence[str] = LEVELS
) -> Iterator[Case]:
    """`count` cases from number `first` on."""
    numbers = range(first, first + count)
    return (case(number, seed=seed, levels=levels) for number in numbers)


def _reassembled(said: bytes) -> Iterator[bytes]:
    """The data sets in a stream of PDUs, as far as these are what they say."""
    so_far = b""
    while len(said) >= 6:
        kind, length = struct.unpack_from(">BxI", said)
        body, said = said[6 : 6 + length], said[6 + length :]
        if kind != raw.P_DATA_TF or len(body) < length:
            continue
        while len(body) >= 6:
            length, _context, control = struct.unpack_from(">IBB", body)
            content, body = body[6 : 4 + length], body[max(4 + length, 6) :]
            if control & 1:
                so_far = b""
                continue
            so_far += content
            if control & 2:
                yield so_far
                so_far = b""


def _template(transfer_syntax: str, pixels: int) -> bytes:
    made = instance(pixels=pixels)
    made.SOPInstanceUID = _UID.format(number=0, which=0)
    to = DicomBytesIO()
    to.is_little_endian, to.is_implicit_VR = True, transfer_syntax == raw.IMPLICIT
    write_dataset(to, made)
    return to.getvalue()


# Small ones are quick; the large one is longer than the PDUs that it comes in.
_SMALL, _LARGE = 8, 128
_TEMPLATES = {
    (syntax, pixels): _template(syntax, pixels)
    for syntax in (raw.IMPLICIT, raw.EXPLICIT)
    for pixels in (_SMALL, _LARGE)
}
# A bomb takes the node half a second.
_BOMBS, _BOMB_LENGTH = 0.01, 400 * 2**20
_DEFLATED_CONTEXT = 7
_PLACE = _UID.format(number=0, which=0).encode()


def _dataset(sop_instance_uid: str, *, transfer_syntax: str, pixels: int) -> bytes:
    """A CT image. Its UID has to have the form that all have here."""
    encoding = raw.EXPLICIT if transfer_syntax == DEFLATED else transfer_syntax
    made = _TEMPLATES[encoding, pixels].replace(_PLACE, sop_instance_uid.encode())
    return _deflated(made) if transfer_syntax == DEFLATED else made


def _deflated(content: bytes) -> bytes:
    """PS3.5 A.5: deflated, and padded to even length."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(content) + deflate.flush()
    return deflated + b"\0" * (len(deflated) % 2)


@cache
def _bomb() -> bytes:
    """Little to send, and much more than anyone wants to hold at once."""
    endless = b"\x08\x00\x05\x00UN\0\0" + struct.pack("<L", _BOMB_LENGTH)
    return _deflated(endless + bytes(_BOMB_LENGTH) + _TEMPLATES[raw.EXPLICIT, _SMALL])


def good_dataset(sop_instance_uid: str) -> bytes:
    """A small CT image in Explicit VR Little Endian, with nothing wrong about it."""
    return _dataset(sop_instance_uid, transfer_syntax=raw.EXPLICIT, pixels=_SMALL)


def _store(rng: Random, uid: str, message_id: int, faults: set[str]) -> list[_Piece]:
    context = rng.choice(CONTEXTS[1:4])
    pixels = _LARGE if rng.random() < 0.1 else _SMALL
    content = _dataset(uid, transfer_syntax=context.transfer_syntaxes[0], pixels=pixels)
    if "data" in faults:
        is_bomb = context.id == _DEFLATED_CONTEXT and rng.random() < _BOMBS
        content = _bomb() if is_bomb else _spoilt_dataset(rng, content)
    elements = list(raw.c_store_rq(STORAGE, uid, message_id=message_id).items())
    return _message(rng, context.id, elements, content, faults)


def _echo(rng: Random, message_id: int, faults: set[str]) -> list[_Piece]:
    return _message(rng, 1, list(raw.c_echo_rq(message_id=message_id).items()), None, faults)


def _message(
    rng: Random,
    context_id: int,
    elements: _Elements,
    content: bytes | None,
    faults: set[str],
) -> list[_Piece]:
    """The PDUs of one message, as lists of PDVs."""
    said = _spoilt_command(rng, elements) if "command" in faults else raw.command(dict(elements))
    longest = rng.choice((64, 300, 16384) if len(content or b"") < 4096 else (4096, 16384))
    cut = rng if rng.random() < 0.5 else None
    values = raw.fragments(said, context_id=context_id, is_command=True, longest=longest, rng=cut)
    if content is not None:
        values += raw.fragments(content, context_id=context_id, longest=longest, rng=cut)
    pieces: list[_Piece] = [[]]
    for value in values:
        together = pieces[-1]
        if together and rng.random() < 0.5:
            pieces.append([value])
        elif isinstance(together, list):
            together.append(value)
    return pieces


def _opening(rng: Random) -> bytes:
    """An A-ASSOCIATE-RQ that is not quite one, or something else."""
    spoil: Sequence[Callable[[], bytes]] = (
        lambda: _noisy(rng, OPENING),
        lambda: _noisy(rng, OPENING),
        lambda: OPENING[: rng.randrange(len(OPENING))],
        lambda: OPENING[:2] + struct.pack(">I", rng.choice(_LENGTHS)) + OPENING[6:],
        lambda: raw.associate_rq(CONTEXTS, calling="CT1", called="ELSEWHERE"),
        lambda: raw.associate_rq(CONTEXTS, calling="STRANGER", called=NODE),
        lambda: raw.associate_rq([], calling="CT1", called=NODE),
        lambda: raw.associate_rq([CONTEXTS[1]] * 128, calling="CT1", called=NODE),
        lambda: raw.associate_rq(
            [replace(CONTEXTS[1], id=rng.choice((0, 2, 254)))], calling="CT1", called=NODE
        ),
        lambda: raw.associate_rq(
            [replace(CONTEXTS[1], transfer_syntaxes=())], calling="CT1", called=NODE
        ),
        lambda: raw.associate_rq(
            CONTEXTS, calling="CT1", called=NODE, max_length=rng.choice((0, 1, 6, 7, 0xFFFFFFFF))
        ),
        lambda: OPENING + OPENING,
        lambda: _foreign(rng),
        lambda: rng.randbytes(rng.randrange(1, 200)),
        lambda: b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(100),
        lambda: b"",
    )
    return rng.choice(spoil)()


def _foreign(rng: Random) -> bytes:
    """A PDU that has no place where it stands."""
    kind = rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 0x11, 0xFF))
    body = rng.choice((b"", bytes(4), rng.randbytes(4), rng.randbytes(rng.randrange(100))))
    length = None if rng.random() < 0.7 else rng.choice(_LENGTHS)
    return raw.pdu(kind, body, length=length)


def _spoil_the_order(rng: Random, pieces: list[_Piece]) -> None:
    at = rng.randrange(len(pieces))
    match rng.randrange(7):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[at])
        case 2:
            rng.shuffle(pieces)
        case 3:
            pieces.insert(at, _foreign(rng))
        case 4:
            del pieces[at:]
        case 5:
            pieces.insert(at, rng.choice((raw.ABORTED, raw.RELEASE, OPENING)))
        case 6:
            pieces.insert(at, pieces[rng.randrange(len(pieces))])


def _spoil_a_value(rng: Random, pieces: list[_Piece]) -> None:
    """Let one PDV lie, or the PDU that holds it."""
    holders = [at for at, piece in enumerate(pieces) if isinstance(piece, list) and piece]
    if holders:
        at = rng.choice(holders)
        holder = pieces[at]
        assert isinstance(holder, list)
        pieces[at] = _spoilt_values(rng, holder)


def _spoilt_values(rng: Random, values: list[Pdv]) -> _Piece:
    which = rng.randrange(len(values))
    value = values[which]

    def instead(*others: Pdv) -> list[Pdv]:
        return [*values[:which], *others, *values[which + 1 :]]

    def nearly(length: int) -> int:
        return max(0, length + rng.choice((-2, -1, 1, 2, 6)))

    encoded_length = len(raw.p_data(*values)) - 6
    spoil: Sequence[Callable[[], _Piece]] = (
        lambda: instead(replace(value, length=rng.choice(_LENGTHS))),
        lambda: instead(replace(value, length=nearly(len(value.content) + 2))),
        lambda: instead(replace(value, context_id=rng.choice((0, 1, 2, 3, 5, 7, 9, 11, 255)))),
        lambda: instead(replace(value, control=rng.choice((0, 1, 2, 3, 4, 0x80, 0xFF)))),
        lambda: instead(replace(value, content=b"", is_last=rng.random() < 0.5), value),
        lambda: instead(value, value),
        instead,
        lambda: rng.sample(values, len(values)),
        lambda: raw.p_data(*values, length=rng.choice(_LENGTHS)),
        lambda: raw.p_data(*values, length=nearly(encoded_length)),
    )
    return rng.choice(spoil)()


def _spoilt_command(rng: Random, elements: _Elements) -> bytes:
    """A command set that breaks PS3.7 6.3 or means something else."""
    which = rng.randrange(len(elements))
    number, value = elements[which]

    def instead(*others: tuple[int, bytes]) -> _Elements:
        return [*elements[:which], *others, *elements[which + 1 :]]

    spoil: Sequence[Callable[[], _Elements | bytes]] = (
        instead,
        lambda: instead((number, value), (number, value)),
        lambda: instead((number, rng.choice((b"", value[:-1], value + value, value + b"\0")))),
        lambda: instead((number, rng.randbytes(len(value)))),
        lambda: rng.sample(elements, len(elements)),
        lambda: _with(elements, raw.COMMAND_FIELD, raw.short(rng.choice(_FIELDS))),
        lambda: _with(elements, raw.COMMAND_DATA_SET_TYPE, raw.short(rng.choice(_TYPES))),
        lambda: _with(elements, raw.AFFECTED_SOP_INSTANCE_UID, _no_uid(rng)),
        lambda: _with(elements, raw.AFFECTED_SOP_CLASS_UID, _no_uid(rng)),
        lambda: [*elements, (rng.choice((0x0900, 0x0902, 0x1030, 0xFFFF)), rng.randbytes(70))],
        lambda: _with_a_lie(rng, elements),
        lambda: rng.choice((b"", rng.randbytes(rng.randrange(200)), bytes(100))),
    )
    spoilt = rng.choice(spoil)()
    if isinstance(spoilt, bytes):
        return spoilt
    content = b"".join(raw.element(number, value) for number, value in spoilt)
    return raw.element(raw.GROUP_LENGTH, struct.pack("<L", len(content))) + content


def _with_a_lie(rng: Random, elements: _Elements) -> bytes:
    """A command set in which the first or the second element lies about its length."""
    said = bytearray(raw.command(dict(elements)))
    at = rng.choice((4, 12 + 4))
    said[at : at + 4] = struct.pack("<L", rng.choice(_LENGTHS))
    return bytes(said)


def _with(elements: _Elements, number: int, value: bytes) -> _Elements:
    return [(one, value if one == number else was) for one, was in elements]


def _no_uid(rng: Random) -> bytes:
    return rng.choice(
        (
            b"",
            b"\0" * 64,
            b"1" * 66,
            b"1.2." * 5000,
            b"../../../etc/passwd\0",
            b"1.2.3/4.5.6",
            b"..",
            b"\xff\xfe\xfd\xfc",
            b"1.2.3\0\0\0.4.5.6",
        )
    )


def _spoilt_dataset(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    unended = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    endless = b"\x08\x00\x05\x00UN\0\0" + struct.pack("<L", rng.choice(_LENGTHS))
    spoil: Sequence[Callable[[], bytes]] = (
        lambda: content[:at],
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: b"",
        lambda: unended * rng.choice((1, 100, 1000)),  # sequences in sequences
        lambda: endless + content,
        lambda: content.replace(STORAGE.encode(), rng.choice((b"", b"1.2.3", b"x" * 60))),
        lambda: content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:],
        lambda: _noisy(rng, content),
    )
    return rng.choice(spoil)()


def _noisy(rng: Random, content: bytes) -> bytes:
    """Bits flipped, bytes gone, bytes that were never there."""
    if not content:
        return content
    noisy = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # The heads are where it matters: half of the noise goes to the beginning.
        at = rng.randrange(len(noisy) if rng.random() < 0.5 else min(len(noisy), 64))
        match rng.randrange(5):
            case 0 | 1:
                noisy[at] ^= 1 << rng.randrange(8)
            case 2:
                noisy[at : at + rng.randrange(1, 20)] = b""
            case 3:
                noisy[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 4:
                noisy[at : at + 4] = struct.pack(">I", rng.choice(_LENGTHS))
        if not noisy:
            break
    return bytes(noisy)
