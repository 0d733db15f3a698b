"""Programs that others wrote judge our objects: dciodvfy, dcentvfy, dsrdump, DicomSRValidator.

`complaints` gives what a program says against some files, without what `ALLOWED` excuses: errors
and warnings alike. What is excused stands there with its reason, and nowhere else.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

#: The Debian packages that the programs come from.
PACKAGES = ("dicom3tools", "dcmtk", "pixelmed-apps")

LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"

_WITHIN_S = 120


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """One sentence of one program that we let pass.

    Attributes:
        says: A regular expression for the whole line, without the part that names a file.
        why: The reason.
        of_label_maps: Whether it is excused only of Label Map Segmentations and what refers to one.
    """

    program: str
    says: str
    why: str
    of_label_maps: bool = False


_EXTENSIBLE = "TID 1500 and the templates of its groups are extensible (PS3.16); added is a "
_NEWER = "newer than the program (June 2022)"
_GROUP = (
    r'.*/CONTAINER \(126010,DCM,"Imaging Measurements"\)'
    r'/CONTAINER \(125007,DCM,"Measurement Group"\)/'
)

ALLOWED = (
    Allowed(
        program="dciodvfy",
        says=r"Warning - Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI"
        r" Device UID",
        why="Device UID of Contributing Equipment (PS3.3 C.12.1), type 3, is " + _NEWER,
    ),
    Allowed(
        program="dciodvfy",
        says=r"Warning - Dicom dataset contains attributes not present in standard DICOM IOD - this"
        r" is a Standard Extended SOP Class",
        why="follows from the one before; any other such attribute has a line of its own",
    ),
    Allowed(
        program="dciodvfy",
        says=r"Error - Information Object Not found",
        why="the IOD is " + _NEWER + "; `as_fractional` has its modules looked at all the same",
        of_label_maps=True,
    ),
    Allowed(
        program="dciodvfy",
        says=r"Error - SegmentNumber not monotonically increasing from one by one - have"
        r" SegmentSequence item number 1 \(from one\) with SegmentNumber of 0",
        why="0 is the background, which a label map must describe (PS3.3 C.8.20.2.3)",
        of_label_maps=True,
    ),
    Allowed(
        program="dciodvfy",
        says=r"Error - Shall not be present for Referenced SOP Class that is not segmentation -"
        r" attribute <ReferencedSegmentNumber>",
        why="it is one: the SOP class is " + _NEWER,
        of_label_maps=True,
    ),
    Allowed(
        program="dciodvfy",
        says=r"Warning - Unrecognized defined term <QUANTITY> for value 4 of attribute"
        r" <(Image|Frame) Type>",
        why="a defined term of Derived Pixel Contrast (PS3.3 C.8.16.1.4): " + _NEWER,
    ),
    Allowed(
        program="dciodvfy",
        says=r"Warning - Attribute is not present in standard DICOM IOD - \((0x0018,0x0050|"
        r"0x0018,0x1164|0x0020,0x0032|0x0020,0x0037|0x0020,0x0052|0x0020,0x1040)\) .*",
        why="where a Secondary Capture lies in the patient, or how large its pixels are: a derived"
        " image of a kind that has no other SOP class is one, and is placed all the same",
    ),
    Allowed(
        program="dciodvfy",
        says=r"Warning - is only permitted to be empty when actually unknown; should be absent (not"
        r" empty) if an unpaired body part, and have a value if a paired body part - attribute"
        r" <Laterality>".replace("(", r"\(").replace(")", r"\)"),
        why="it is unknown where the source says neither side nor body part",
    ),
    Allowed(
        program="dcentvfy",
        says=r"Warning - Different information entities for attribute - Element=<AccessionNumber>"
        r" IE <(Series> versus <Study|Study> versus <Series)> for file .*",
        why="the program takes it for one of the series in a document and of the study in an image",
    ),
    Allowed(
        program="dcentvfy",
        says=r"Warning - Unrecognized SOP Class - 1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.7 - so"
        r" cannot determine information entity of attributes within file .*",
        why="the SOP class is " + _NEWER,
        of_label_maps=True,
    ),
    Allowed(
        program="dcentvfy",
        says=r"Warning - Different information entities for attribute - Element=<\w+>"
        r" IE <(Unknown> versus <\w+|\w+> versus <Unknown)> for file .*",
        why="follows from the one before: what it cannot place is not in the place of others",
        of_label_maps=True,
    ),
    Allowed(
        program="dsrdump",
        says=r"W: Check for template constraints not yet supported",
        why="of the program: it knows no templates; DicomSRValidator does",
    ),
    Allowed(
        program="dsrdump",
        says=r"W: Invalid or unknown image SOP class referenced from IMAGE content item",
        why="the SOP class is newer than DCMTK 3.6.7",
        of_label_maps=True,
    ),
    Allowed(
        program="dsrdump",
        says=r'W: Reading invalid/incomplete content item IMAGE "[0-9.]+"',
        why="follows from the one before",
        of_label_maps=True,
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: .*: Code \((121232|121233),DCM,\"Source (Series|Image) for Segmentation\"\)"
        r" has different code meaning .*",
        why="the spelling of the meaning was changed: it is " + _NEWER,
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: [0-9.]+: "
        + _GROUP
        + r'CODE \(276214006,SCT,"Finding category"\): Content Item not in template',
        why="the row of TID 1410, 1411 and 1501 is " + _NEWER,
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: [0-9.]+: "
        + _GROUP
        + r'TEXT \(122405,DCM,"Algorithm Manufacturer"\): Content Item not in template',
        why="the row of TID 4019 is " + _NEWER,
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: [0-9.]+: "
        + _GROUP
        + r'(TEXT|CODE) \((111000|111001|111002|111003),DCM,"Algorithm \w+"\): Content Item not in'
        r" template",
        why="that TID 1411 includes TID 4019 is " + _NEWER,
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: [0-9.]+: (/.*)?"
        r'/TEXT \(121106,DCM,"Comment"\): Content Item not in template',
        why=_EXTENSIBLE + "sentence: the notice, or that nothing was found",
    ),
    Allowed(
        program="DicomSRValidator",
        says=r"Warning: [0-9.]+: "
        + _GROUP
        + r'CODE \(404684003,SCT,"Clinical finding"\): Content Item not in template',
        why=_EXTENSIBLE + "qualitative evaluation under the manifest's name of it",
    ),
    Allowed(
        program="DicomSRValidator",
        says=r'Warning: [0-9.]+: /CONTAINER \(18748-4,LN,"[^"]*"\)/CONTAINER \(59776-5,LN,"[^"]*"\)'
        r'(/TEXT \(121071,DCM,"Finding"\))?: Content Item not in template',
        why="LOINC's codes of the headings of CID 7001 are " + _NEWER,
    ),
)


def complaints(program: str, *files: Path) -> list[str]:
    """What a program says against some files, without what is excused."""
    excused = [one for one in ALLOWED if one.program == program]
    if not any(_names_label_maps(path) for path in files):
        excused = [one for one in excused if not one.of_label_maps]
    return [
        line
        for line in PROGRAMS[program](files)
        if not any(re.fullmatch(one.says, line) for one in excused)
    ]


def _names_label_maps(path: Path) -> bool:
    """Whether an object is a Label Map Segmentation, or names one."""
    return LABEL_MAP_SEGMENTATION_STORAGE.encode() in path.read_bytes()


def is_label_map(path: Path) -> bool:
    """Whether an object is a Label Map Segmentation."""
    sop_class = pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID
    return bool(sop_class == LABEL_MAP_SEGMENTATION_STORAGE)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, check=False, timeout=_WITHIN_S
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def _iods(files: Sequence[Path]) -> Iterator[str]:
    """One file after the other against its IOD (PS3.3)."""
    for path in files:
        said = _run("dciodvfy", path)
        known = [line.strip() for line in said.splitlines() if line.startswith(("Err", "Warn"))]
        # Without a line that names the IOD, or says that there is none, nothing was looked at.
        if not said.strip():
            yield "dciodvfy said nothing"
        yield from known


def _entities(files: Sequence[Path]) -> Iterator[str]:
    """All files together: whether what they say of a patient, a study, a series is the same."""
    for line in _run("dcentvfy", *files).splitlines():
        if line.strip():
            yield line.strip()


def _tree(files: Sequence[Path]) -> Iterator[str]:
    """The content trees of documents: value types, relationships, references (PS3.3 C.17.3).

    An image of an unknown SOP class is read all the same, with a warning.
    """
    for path in files:
        lines = _run("dsrdump", "--ignore-item-errors", path).splitlines()
        if not any("<CONTAINER" in line for line in lines):
            yield "E: there is no content tree"
        yield from (line.strip() for line in lines if re.match(r"[WEF]: ", line))


_JAVA = Path("/usr/share/java")
# What DicomSRValidator needs. Debian's own start of it lacks most, and the limits of Java 17.
_JARS = [
    "pixelmed", "jmdns", "hsqldb", "vecmath", "commons-codec", "commons-net", "slf4j-api",
    "slf4j-jdk14", "javax.json-api", "javax.json", "jaxb-api",
]  # fmt: skip
_ENDS = ("Root Template Validation Complete", "IOD validation complete")
_SAYS_NOTHING = re.compile(r"Found \w+ IOD|Found Root Template TID_\d+ .*|" + "|".join(_ENDS))


def _templates(files: Sequence[Path]) -> Iterator[str]:
    """Documents against their templates (PS3.16)."""
    jars = ":".join(str(_JAVA / f"{name}.jar") for name in _JARS)
    limits = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")
    options = [f"-Djdk.xml.{limit}=0" for limit in limits]
    for path in files:
        said = _run("java", *options, "-cp", jars, "com.pixelmed.validate.DicomSRValidator", path)
        lines = said.splitlines()
        for end in _ENDS:
            if end not in lines:
                yield f"DicomSRValidator did not come to: {end}"
        yield from (line for line in lines if not _SAYS_NOTHING.fullmatch(line))


PROGRAMS: dict[str, Callable[[Sequence[Path]], Iterator[str]]] = {
    "dciodvfy": _iods,
    "dcentvfy": _entities,
    "dsrdump": _tree,
    "DicomSRValidator": _templates,
}


def as_fractional(label_map: Path, folder: Path) -> Path:
    """A Label Map Segmentation dressed as a fractional one, whose other modules are the same.

    So that a program which does not know the SOP class looks at all that they share: whose it is,
    its series, where its frames lie, what they were made of, what each segment means.
    """
    dataset = pydicom.dcmread(label_map)
    dataset.decompress(generate_instance_uid=False)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "OCCUPANCY"
    dataset.MaximumFractionalValue = 255
    del dataset.PixelPaddingValue
    background, *segments = dataset.SegmentSequence
    assert background.SegmentNumber == 0
    dataset.SegmentSequence = segments
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.SegmentIdentificationSequence = [Dataset()]
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    folder.mkdir(exist_ok=True)
    dressed = folder / f"dressed-{label_map.name}"
    dataset.save_as(dressed, enforce_file_format=True)
    return dressed
