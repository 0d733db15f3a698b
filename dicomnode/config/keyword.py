"""DICOM keywords in the clauses of a rule, checked against the dictionary (PS3.6)."""

from __future__ import annotations

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from dicomnode.config.problem import nearest

#: Keys of a clause that are no element: the number of instances in the series.
PSEUDO_KEYWORDS = frozenset({"instances"})

# Groups of commands and of File Meta Information (PS3.7 E, PS3.10 7.1): not in the data set.
_FIRST_GROUP_OF_DATA_SET = 0x0008
# … of which the node keeps this one beside each instance.
_KEPT = frozenset({"TransferSyntaxUID"})

# Value representations without one plain value to compare: sequences and bulk data (PS3.5 6.2).
_NOT_PLAIN = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def known_keyword(word: str) -> str:
    """`word`, if a clause can be about it.

    Raises:
        ValueError: It is no keyword, or its element holds no plain value.
    """
    if word in PSEUDO_KEYWORDS | _KEPT:
        return word
    tag = tag_for_keyword(word)
    if tag is None:
        meant = nearest(word, (*keyword_dict, *PSEUDO_KEYWORDS))
        hint = f' Did you mean "{meant}"?' if meant else " PS3.6 lists the keywords."
        raise ValueError(f"is no DICOM keyword.{hint}")
    if tag >> 16 < _FIRST_GROUP_OF_DATA_SET:
        raise ValueError("is no element of a data set, which is all that a clause can look at")
    if _NOT_PLAIN & set(dictionary_VR(tag).split(" or ")):
        raise ValueError("holds a sequence or bulk data, which no clause can compare")
    return word
