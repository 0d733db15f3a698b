"""People who do not exist: names in the scripts of the world, identifiers, dates of birth.

Every name and number is one that nothing else is called: what is found of one of them in a log, a
file or an answer has come from there, and never by chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from dicomnode.simulation import chance

Sex = Literal["F", "M", "O"]

# Neither vowels, which would make words, nor the letters of hexadecimal numbers, of which logs and
# UIDs are full.
_LETTERS = "GHJKLMNPQRSTVWXZ"
_BORN_FROM = date(1909, 1, 1)
_YEARS = 95
_DAYS_OF_A_YEAR = 365

_LATIN_ONSETS = (
    "Qua",
    "Xel",
    "Zor",
    "Vyx",
    "Jaq",
    "Kwi",
    "Zhu",
    "Wryn",
    "Ixo",
    "Ubv",
    "Oqu",
    "Yzz",
)
_LATIN_MIDDLES = ("bril", "dorv", "fenq", "gulm", "kraz", "lyph", "mord", "nexw", "povl", "trux")
_LATIN_ENDS = ("ane", "eck", "iva", "osk", "uld", "yth", "ing", "aro")
_TITLES = ("Hofraethin", "Kommerzialrath", "Feldscherin", "Oberbergrath")


@dataclass(frozen=True, kw_only=True)
class Script:
    """How the names of some people are written.

    Attributes:
        character_sets: Specific Character Set (0008,0005), PS3.3 C.12.1.1.2.
        groups: What stands in the component groups of a name (PS3.5 6.2.1): one alone, or the
            alphabetic, ideographic and phonetic one.
    """

    character_sets: tuple[str, ...]
    groups: tuple[Callable[[random.Random], str], ...]


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who does not exist.

    Attributes:
        character_sets: As in `Script`.
        name: Patient's Name (0010,0010), every component group of it.
        referrer: The name of who has sent for the study, in the same script.
        birth_date: DA.
    """

    character_sets: tuple[str, ...]
    name: str
    referrer: str
    patient_id: str
    birth_date: str
    sex: Sex


def person(*key: object) -> Person:
    """The person that belongs to a key."""
    rng = chance.of("person", *key)
    script = rng.choice(SCRIPTS)
    born = _BORN_FROM + timedelta(days=rng.randrange(_YEARS * _DAYS_OF_A_YEAR))
    return Person(
        character_sets=script.character_sets,
        name=_name(script, rng, title=rng.random() < 0.1),  # noqa: PLR2004 - few have one
        referrer=_name(script, rng, title=True),
        patient_id=f"SIM-{identifier(rng, 9)}",
        birth_date=born.strftime("%Y%m%d"),
        sex=rng.choice(("F", "M", "O")),
    )


def identifier(rng: random.Random, length: int) -> str:
    """Letters and digits that nobody has seen together."""
    return "".join(rng.choices(_LETTERS + "23456789", k=length))


def latin(rng: random.Random) -> str:
    """A word that no language has."""
    return rng.choice(_LATIN_ONSETS) + rng.choice(_LATIN_MIDDLES) + rng.choice(_LATIN_ENDS)


def _name(script: Script, rng: random.Random, *, title: bool) -> str:
    """A Person Name: family and given name, and where asked for a prefix and a suffix."""
    groups = [f"{part(rng)}^{part(rng)}" for part in script.groups]
    titles = f"^^{rng.choice(_TITLES)}^{latin(rng)}" if title else ""
    return "=".join([groups[0] + titles, *groups[1:]])


def _syllables(
    *kinds: str, count: tuple[int, int] = (2, 3), capital: bool = True
) -> Callable[[random.Random], str]:
    """Makes words of syllables: each a letter of every kind, in turn."""

    def word(rng: random.Random) -> str:
        text = "".join(rng.choice(kind) for _ in range(rng.randint(*count)) for kind in kinds)
        return text.capitalize() if capital else text

    return word


def _accented(rng: random.Random) -> str:
    return latin(rng) + rng.choice(("ö", "ü", "ñ", "é", "ç", "å", "ø")) + rng.choice(_LATIN_ENDS)


def _of(characters: str, *, count: tuple[int, int]) -> Callable[[random.Random], str]:
    return _syllables(characters, count=count, capital=False)


_KANJI = _of("山田中村木林佐藤高橋渡辺伊東小野石川森池島崎松竹梅鈴", count=(2, 2))
_HIRAGANA = _of("かきくけこさしすせそたちつてとなにぬねのまみむめもらりるれろ", count=(3, 4))
_HALF_WIDTH = _of("ｱｲｳｴｵｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾅﾆﾇﾈﾉﾏﾐﾑﾒﾓ", count=(4, 5))
_HANGUL = _of("가나다라마바사아자차카타파하김박정강조윤장임한오서신권황안송", count=(3, 4))
_HANJA = _of("金李朴崔鄭姜趙尹張林韓吳申徐權黃安宋柳洪", count=(2, 2))
_HANZI = _of("王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗", count=(2, 3))
_GREEK = _syllables("ΒΓΔΖΘΚΛΜΝΞΠΡΣΤΦΧΨ".lower(), "αειου", count=(3, 4))
_CYRILLIC = _syllables("бвгджзклмнпрстфхцчшщ", "аеиоуыэюя", count=(3, 4))
_ARABIC = _of("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", count=(4, 6))
_HEBREW = _of("אבגדהוזחטיכלמנסעפצקרשת", count=(4, 6))
_THAI = _of("กขคงจฉชซญดตถทธนบปผพฟภมยรลวศษสหอฮ", count=(4, 6))

#: PS3.5 Annexes H (Japanese), I (Korean), J and K (Chinese, Unicode) have names such as these.
SCRIPTS: tuple[Script, ...] = (
    Script(character_sets=(), groups=(latin,)),
    Script(character_sets=("ISO_IR 100",), groups=(_accented,)),
    Script(character_sets=("ISO_IR 192",), groups=(_accented,)),
    Script(character_sets=("ISO_IR 192",), groups=(latin, _HANZI)),
    Script(character_sets=("", "ISO 2022 IR 87"), groups=(latin, _KANJI, _HIRAGANA)),
    Script(
        character_sets=("ISO 2022 IR 13", "ISO 2022 IR 87"),
        groups=(_HALF_WIDTH, _KANJI, _HIRAGANA),
    ),
    Script(character_sets=("", "ISO 2022 IR 149"), groups=(latin, _HANJA, _HANGUL)),
    Script(character_sets=("GB18030",), groups=(latin, _HANZI)),
    Script(character_sets=("ISO_IR 126",), groups=(_GREEK,)),
    Script(character_sets=("ISO_IR 144",), groups=(_CYRILLIC,)),
    Script(character_sets=("ISO_IR 127",), groups=(_ARABIC,)),
    Script(character_sets=("ISO_IR 138",), groups=(_HEBREW,)),
    Script(character_sets=("ISO_IR 166",), groups=(_THAI,)),
)
