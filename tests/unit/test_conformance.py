"""The conformance statement says what the program does: each of its lists, in both directions.

A list stands between `<!-- list: name -->` and `<!-- end -->`. Where one differs, the message says
which line is to be added, corrected or removed; of the long ones it holds the whole list, to be
pasted.
"""

from __future__ import annotations

import ast
import inspect
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import sop_class

import dicomnode
from dicomnode import config, status
from dicomnode.archive import commitments
from dicomnode.archive.access import deeds
from dicomnode.archive.auditing import told
from dicomnode.archive.disk import elements, header, space
from dicomnode.archive.disk import files as archive_files
from dicomnode.auditing import codes, events, syslog
from dicomnode.auditing import message as audit_message
from dicomnode.network import association, tls
from dicomnode.network.auditing import reporter as audit_reporter
from dicomnode.network.calling import conversion, request, sender
from dicomnode.network.commitment import call as commitment_call
from dicomnode.network.commitment import message as commitment_message
from dicomnode.network.serving import acceptor, listener, message, places, storage, wire
from dicomnode.profile import NAMED
from dicomnode.results import checking, common, notices, plan
from dicomnode.results.checking import segmentation as check_segmentation
from dicomnode.results.part import SERIES_NUMBER, Kind
from dicomnode.results.writing import report

ROOT = Path(__file__).resolve().parents[2]
STATEMENT = ROOT / "deploy" / "conformance.md"

Row = tuple[str, ...]


@cache
def _text() -> str:
    return STATEMENT.read_text(encoding="utf-8")


def _rows(name: str) -> list[Row]:
    """The cells of a marked list, without its heading, and without the marks of code."""
    found = re.findall(rf"<!-- list: {re.escape(name)} -->\n(.*?)<!-- end -->", _text(), re.DOTALL)
    assert len(found) == 1, f"deploy/conformance.md has not exactly one list called {name}"
    lines = [line.strip("| ") for line in found[0].splitlines() if line.startswith("|")]
    return [tuple(cell.strip(" `") for cell in line.split("|")) for line in lines[2:]]


def _agree(name: str, said: Iterable[Any], true: Iterable[Any], *, paste: str = "") -> None:
    """Compare what a list says with what is so, whatever the order."""
    said, true = set(said), set(true)
    faults = [f"add: {one}" for one in sorted(true - said, key=str)]
    faults += [f"remove or correct: {one}" for one in sorted(said - true, key=str)]
    where = f"the list '{name}' of deploy/conformance.md"
    whole = f"\nThe whole list:\n\n{paste}" if paste else ""
    assert not faults, f"{where} differs from the program:\n" + "\n".join(faults) + whole


# --- What is accepted, and what is asked for ---


def _name_of(uid: str) -> str:
    """What PS3.6 calls a UID; of one that is newer than pydicom its keyword."""
    known = UID(uid).name
    keywords = {str(value): word for word, value in vars(sop_class).items() if word[0].isupper()}
    return known if known != uid else keywords.get(uid, uid)


def _table(heading: Row, rows: Iterable[Row]) -> str:
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def storage_classes_table() -> str:
    """The list 'storage-scp' as it is to be."""
    accepted = sorted(uid for uid in _accepted() if association.is_for_storage(uid))
    return _table(("SOP class", "UID"), [(_name_of(uid), uid) for uid in accepted])


def transfer_syntaxes_table() -> str:
    """The list 'storage-syntaxes' as it is to be."""
    syntaxes = enumerate(association.transfer_syntaxes(), start=1)
    return _table(
        ("#", "transfer syntax", "UID"), [(str(n), _syntax_name(uid), uid) for n, uid in syntaxes]
    )


# Newer than pydicom's dictionary.
_NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}


def _syntax_name(uid: str) -> str:
    return _NEWER.get(uid, UID(uid).name)


def _accepted() -> dict[str, list[str]]:
    """SOP class → the transfer syntaxes that it is accepted in, by order of preference."""
    return {
        str(one.abstract_syntax): [str(uid) for uid in one.transfer_syntax or ()]
        for one in association.accepted_contexts()
    }


def test_the_storage_classes_are_those_that_are_accepted() -> None:
    said = [uid for _, uid in _rows("storage-scp")]
    true = [uid for uid in _accepted() if association.is_for_storage(uid)]
    _agree("storage-scp", said, true, paste=storage_classes_table())
    assert len(said) == len(set(said))


def test_the_transfer_syntaxes_are_those_that_are_accepted_in_that_order() -> None:
    said = [uid for _, _, uid in _rows("storage-syntaxes")]
    for uid, true in _accepted().items():
        if association.is_for_storage(uid):
            _agree("storage-syntaxes", said, true, paste=transfer_syntaxes_table())
            assert said == true, f"in another order:\n{transfer_syntaxes_table()}"


def test_the_other_services_are_those_that_are_accepted() -> None:
    *services, _storage = _rows("services-scp")
    said = {uid: syntaxes.split(", ") for _, uid, syntaxes, _ in services}
    true = {
        uid: [UID(one).name for one in syntaxes]
        for uid, syntaxes in _accepted().items()
        if not association.is_for_storage(uid)
    }
    assert said == true, "the list 'services-scp' of deploy/conformance.md is not what is accepted"


def test_roles_are_negotiated_for_storage_commitment_alone() -> None:
    said = {uid for _, uid, _, role in _rows("services-scp") if "Role Selection" in role}
    true = {
        str(one.abstract_syntax)
        for one in association.accepted_contexts()
        if one.scu_role is not None or one.scp_role is not None
    }
    _agree("services-scp", said, true)


def test_what_is_asked_for_is_what_is_proposed() -> None:
    rows = _rows("scu-contexts")
    said = {uid for _, what, _, _ in rows for uid in re.findall(r"1\.2\.840[\d.]+", what)}
    true = {sender._VERIFICATION, sender._STUDY_ROOT_FIND, commitment_message.SOP_CLASS}
    _agree("scu-contexts", said, true)
    uncompressed = {UID(one).name for one in conversion.UNCOMPRESSED}
    assert {UID(one).name for one in commitment_call._SYNTAXES} == uncompressed
    assert uncompressed == {"Explicit VR Little Endian", "Implicit VR Little Endian"}


def test_what_is_converted_for_a_peer_is_what_loses_nothing() -> None:
    said = {
        row[0].split()[0]: {f"{word} VR Little Endian" for word in _words_before_vr(row[1])}
        for row in _rows("transcoding")
    }
    every = [*association.transfer_syntaxes(), *conversion.UNCOMPRESSED]
    true = {
        uid: {UID(one).name for one in conversion.alternatives(uid)}
        for uid in every
        if conversion.alternatives(uid)
    }
    assert said == true, "the list 'transcoding' of deploy/conformance.md is not what is converted"


def _words_before_vr(cell: str) -> list[str]:
    return re.findall(r"Explicit|Implicit", cell)


# --- What is created ---


def _header() -> Dataset:
    header_of = Dataset()
    header_of.PatientID, header_of.StudyInstanceUID = "P", "1.2.3"
    return header_of


def _notices() -> dict[str, set[str]]:
    """The SOP classes of the objects that are no answer, as they are made."""
    now = datetime(2026, 3, 4, tzinfo=UTC)
    about = notices.Referenced(
        series_instance_uid="1.2.3.1", sop_class_uid="1.2.4", sop_instance_uid="1.2.3.1.1"
    )
    told = notices.not_analysed(
        notices.NotAnalysed(
            key="k",
            header=_header(),
            model="m",
            reason="missing-slices",
            detail="There is a gap.",
            images=(about,),
            moment=now,
        )
    )
    rejected = notices.rejection(
        notices.Rejection(key="k", header=_header(), objects=(about,), moment=now)
    )
    return {one.kind: {str(one.dataset.SOPClassUID)} for one in (told, rejected)}


def test_the_objects_that_are_created_are_those_of_the_program() -> None:
    true: dict[str, set[str]] = {
        kind: {str(uid) for uid in classes} for kind, classes in checking._SOP_CLASSES.items()
    }
    true["seg"].add(str(check_segmentation.LABEL_MAP_SEGMENTATION_STORAGE))
    true |= _notices()
    assert set(true) == set(get_args(Kind))
    said = [(kind, uid) for kind, _, uid, *_ in _rows("results")]
    _agree("results", said, [(kind, uid) for kind, uids in true.items() for uid in uids])


def test_the_series_numbers_are_those_of_the_program() -> None:
    said = [(kind, int(number)) for kind, _, _, _, number in _rows("results")]
    _agree("results", said, SERIES_NUMBER.items())


def test_the_order_of_sending_is_that_of_the_program() -> None:
    order = ", ".join(f"`{kind}`" for kind in plan._ORDER)
    assert f"What is named comes before what names it: {order}." in _text()


def test_what_is_copied_from_the_source_is_what_the_program_copies() -> None:
    said = [(source.split(",")[0], word) for source, words in _rows("copied")
            for word in words.split(", ")]  # fmt: skip
    true = [("COPY2" if word in common._NEVER_ABSENT else "COPY", word) for word in common.IDENTITY]
    _agree("copied", said, [*true, *(("COPY", word) for word in common.BODY)])
    bodiless = re.findall(r"`([\w-]+)`", _text().split("| COPY, not of ")[1].split("|")[0])
    _agree("copied", bodiless, common._BODILESS)


def test_the_titles_of_a_report_are_those_of_the_program() -> None:
    for code in report.TITLES.values():
        assert f'({code.value}, {code.scheme}, "{code.meaning}")' in _text()


def codes_table() -> str:
    """The list 'codes' as it is to be."""
    rows = [(scheme, value, meaning) for scheme, value, meaning in sorted(_codes())]
    return _table(("scheme", "code", "meaning"), rows)


def test_the_codes_of_the_node_are_listed() -> None:
    _agree("codes", _rows("codes"), _codes(), paste=codes_table())


def _codes() -> set[Row]:
    """Every code that stands in what writes results, as scheme, value, meaning."""
    folder = ROOT / "dicomnode" / "results"
    modules = [path for path in folder.rglob("*.py") if "checking" not in path.parts]
    found: set[Row] = set()
    for path in modules:
        for call in _calls(path.read_text(encoding="utf-8"), "Code", "CodedConcept"):
            named = {one.arg: one.value for one in call.keywords}
            given = [*call.args, *(named.get(word) for word in ("value", "scheme", "meaning"))]
            words = [str(one.value) for one in given if isinstance(one, ast.Constant)]
            if len(words) == 3:
                value, scheme, meaning = words
                found.add((scheme, value, meaning))
    return found


# --- What is answered ---


def _calls(source: str, *names: str) -> Iterator[Any]:
    """Calls of what is called so, alone or as an attribute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function: Any = node.func
            if getattr(function, "id", getattr(function, "attr", "")) in names:
                yield node


def _refusals(*modules: ModuleType) -> set[tuple[int, str]]:
    """Status and reason of every refusal that stands in some modules."""
    found: set[tuple[int, str]] = set()
    for module in modules:
        source = inspect.getsource(module)
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef):
                found |= set(_of_function(function, module, source))
    return found


def _of_function(
    function: ast.FunctionDef, module: ModuleType, source: str
) -> Iterator[tuple[int, str]]:
    names = [one.arg for one in function.args.args]
    for call in _calls(ast.unparse(function), "Refused"):
        (code,) = [one.value for one in call.keywords if one.arg == "status"]
        reasons = _words(call.args[0], names, function.name, source)
        codes = _numbers(code, names, function.name, module, source)
        yield from ((one, reason) for one in codes for reason in reasons)


def _words(reason: ast.expr, parameters: list[str], function: str, source: str) -> list[str]:
    """The reason of a refusal; where it is a parameter, those that the function is called with."""
    if isinstance(reason, ast.Constant):
        return [str(reason.value)]
    assert isinstance(reason, ast.Name)
    if reason.id in parameters:
        place = parameters.index(reason.id)
        given = [call.args[place] for call in _calls(source, function)]
        return [str(one.value) for one in given if isinstance(one, ast.Constant)]
    return [
        one.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and reason.id in ast.unparse(node.targets[0])
        for one in ast.walk(node.value)
        if isinstance(one, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)+", str(one.value))
    ]


def _numbers(
    code: ast.expr, parameters: list[str], function: str, module: ModuleType, source: str
) -> list[int]:
    """The status of a refusal, likewise."""
    if isinstance(code, ast.Name) and code.id in parameters:
        place = parameters.index(code.id)
        given = [call.args[place] for call in _calls(source, function)]
        return [_constant(one, module) for one in given]
    return [_constant(code, module)]


def _constant(expression: ast.expr, module: ModuleType) -> int:
    value: Any = module
    for word in ast.unparse(expression).split("."):
        value = getattr(value, word)
    return int(value)


def _listed_words(rows: Iterable[Row], code: Callable[[Row], int]) -> set[tuple[int, str]]:
    return {
        (code(row), word) for row in rows for word in re.findall(r"[a-z]+(?:-[a-z]+)+", row[-1])
    }


def test_the_statuses_of_storage_are_those_that_the_program_has_words_for() -> None:
    rows = _rows("store-statuses")
    true = _refusals(archive_files, space, elements, header, storage)
    true -= {(status.CANNOT_UNDERSTAND, "not-dicom")}  # of files, which no peer sends
    _agree("store-statuses", _listed_words(rows, lambda row: int(row[0], 16)), true)
    said = {int(row[0], 16) for row in rows}
    _agree("store-statuses", map(hex, said), (hex(code) for code, _ in true | {(0, "")}))


def test_every_status_of_the_program_is_listed() -> None:
    ours = {
        value
        for name, value in vars(status).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int)
    }
    said = {int(row[0], 16) for row in _rows("store-statuses")}
    _agree("store-statuses", map(hex, said), map(hex, ours))


@pytest.mark.parametrize(("code", "says"), [("0000", "stored"), ("Bxxx", "stored"),
                                            ("0110", "tried again later"),
                                            ("0213", "tried again later"),
                                            ("A7xx", "tried again later")])  # fmt: skip
def test_what_a_peer_answers_is_understood_as_it_is_said(code: str, says: str) -> None:
    rows = dict(_rows("store-outcomes"))
    outcomes = {status.outcome(int(code.replace("x", digit), 16)) for digit in "0f"}
    assert says in rows[code]
    assert outcomes == {"stored" if says == "stored" else "retry"}


def test_every_other_answer_of_a_peer_is_a_refusal() -> None:
    said = [row[0] for row in _rows("store-outcomes")]
    patterns = [re.compile(one.lower().replace("x", "[0-9a-f]")) for one in said]
    for code in range(0x10000):
        is_listed = any(one.fullmatch(f"{code:04x}") for one in patterns)
        assert is_listed or status.outcome(code) == "refused", f"0x{code:04X}"


def test_the_rejections_of_associations_are_those_of_the_program() -> None:
    true = _refusals(association, places)
    true |= {(association.REJECTED_FOR_NOW, "unexpected-error")}
    assert "storage.unexpected(association.REJECTED_FOR_NOW)" in inspect.getsource(acceptor)

    def code(row: Row) -> int:
        result, source, reason = (int(cell.split()[0]) for cell in row[:3])
        return result << 16 | source << 8 | reason

    # Why a calling AE title is not known is decided in one place, on two ways.
    _agree("rejections", _listed_words(_rows("rejections"), code), true)


def test_the_statuses_of_storage_commitment_are_those_of_the_program() -> None:
    ours = {
        value
        for name, value in vars(commitment_message).items()
        if name.isupper() and isinstance(value, int) and value > 0xFF
    }
    said = {int(row[0], 16) for row in _rows("commitment-statuses")}
    _agree(
        "commitment-statuses",
        map(hex, said),
        map(hex, ours | {status.SUCCESS, status.PROCESSING_FAILURE}),
    )


def test_the_failure_reasons_are_those_of_the_program() -> None:
    said = [int(row[0], 16) for row in _rows("failure-reasons")]
    _agree("failure-reasons", map(hex, said), (hex(one) for one in commitments.FailureReason))


def test_what_ends_a_question_for_good_is_said() -> None:
    listed = "0112, 0117, 0118, 0122, 0123, 0211"
    assert {int(one, 16) for one in listed.split(", ")} == commitment_call._NOT_SUPPORTED
    assert f"{listed}, or no accepted presentation context" in _text()


# --- Identity, limits, configuration ---


def test_the_product_and_its_implementation_are_identified() -> None:
    said = dict(_rows("identity"))
    assert said["Implementation Class UID"] == archive_files.IMPLEMENTATION_CLASS_UID
    assert said["Implementation Version Name"] == archive_files.IMPLEMENTATION_VERSION_NAME
    assert f"| Version | {dicomnode.__version__} |" in _text(), (
        "the cover page is of another release"
    )
    assert f"| {dicomnode.__version__} |" in _text().split("### 3.1")[1], "no line in 3.1"


def test_the_limits_are_those_of_the_program() -> None:
    patience, listen = request.Patience(), config.Listen()
    echo = inspect.signature(sender.echo).parameters["timeout_s"].default
    _agree(
        "limits",
        [row[:2] for row in _rows("limits")],
        [
            ("Maximum Length of PDUs, as acceptor", f"{listen.max_pdu_kib * 1024} bytes"),
            ("Maximum Length of PDUs, as requestor", f"{association.MAX_PDU_LENGTH} bytes"),
            ("presentation contexts proposed on one association", str(request.MAX_CONTEXTS)),
            ("wait for a TCP connection", f"{patience.connect_s:g} s"),
            ("wait for an A-ASSOCIATE-RQ, and for a TLS handshake of ours as server",
             f"{listener.ACSE_S:g} s"),
            ("wait for an A-ASSOCIATE-AC, and for an A-RELEASE-RP", f"{patience.acse_s:g} s"),
            ("silence on an accepted association", f"{listen.idle_s:g} s"),
            ("wait for the answer to a C-STORE-RQ or C-FIND-RQ", f"{patience.answer_s:g} s"),
            ("wait for the answer to an N-ACTION-RQ or N-EVENT-REPORT-RQ",
             f"{commitment_call._PATIENCE.answer_s:g} s"),
            ("wait for the answer to a C-ECHO-RQ", f"{echo:g} s"),
            ("longest command set that is taken", f"{message.LONGEST_COMMAND} bytes"),
            ("longest data set of a message that is no C-STORE",
             f"{message._LONGEST_DATA_SET} bytes"),
            ("longest PDU that is no P-DATA-TF", f"{wire._LONGEST_OTHER} bytes"),
            ("longest data set of a C-STORE", f"{listen.max_instance_gib:g} GiB"),
        ],
    )  # fmt: skip
    assert f"stays open for {commitment_call._STAY_S:g} seconds" in _text()
    assert f"may be {wire._TOLERANCE:,} bytes longer" in _text()


SECTIONS: dict[str, type[BaseModel]] = {
    "node": config.Node,
    "listen": config.Listen,
    "tls": config.Tls,
    "disk": config.Disk,
    "complete": config.tree.Complete,
    "deliver": config.tree.Deliver,
    "peers.*": config.Peer,
}


def test_the_configuration_is_that_of_the_program() -> None:
    true = [
        (f"{section}.{key}", _written(about))
        for section, table in SECTIONS.items()
        for key, about in config.tree.keys(table).items()
    ]
    _agree("configuration", [row[:2] for row in _rows("configuration")], true)


def _written(about: Any) -> str:
    """A default as the statement writes it: nothing for none."""
    if about.is_required():
        return "required"
    value = about.get_default()
    if isinstance(value, bool):
        return str(value).lower()
    if value in (None, ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_profiles_are_those_of_the_program() -> None:
    def word(value: object) -> str:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

    keys = next(iter(NAMED.values())).model_dump()
    true = [(key, *(word(profile.model_dump()[key]) for profile in NAMED.values())) for key in keys]
    _agree("profiles", _rows("profiles"), true)
    assert f"| key | {' | '.join(NAMED)} |" in _text()


# --- Security ---


def test_the_versions_and_suites_of_tls_are_those_of_the_program() -> None:
    said = {version: re.findall(r"ECDHE-[A-Z0-9-]+", suites) for version, suites in _rows("tls")}
    assert sorted(said["TLS 1.2"]) == sorted(tls._SUITES)
    for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = tls._context(side)
        offered = [f"TLS {name[4]}.{name[6]}" for name in _versions(context)]
        _agree("tls", said, offered)


def _versions(context: ssl.SSLContext) -> list[str]:
    """Names of the versions that a context may speak: TLSv1_2 and so on."""
    most = context.maximum_version
    top = ssl.TLSVersion.TLSv1_3 if most is ssl.TLSVersion.MAXIMUM_SUPPORTED else most
    every = [one for one in ssl.TLSVersion if one.name.startswith("TLSv1_")]
    return [one.name for one in every if context.minimum_version <= one <= top]


def test_the_configuration_of_the_audit_trail_is_that_of_the_program() -> None:
    true = [
        (f"audit.{key}", _written(about)) for key, about in config.tree.keys(config.Audit).items()
    ]
    _agree("audit-configuration", [row[:2] for row in _rows("audit-configuration")], true)


def _coded(name: str) -> tuple[str, str]:
    code: codes.Code = getattr(codes, name)
    return code.value, code.meaning


def test_the_audit_events_are_those_of_the_program() -> None:
    calls = _calls(inspect.getsource(events), "Message")
    named = [{one.arg: one.value for one in call.keywords} for call in calls]
    true = [(str(codes.Kind[one["kind"].attr]), *_coded(one["event"].attr)) for one in named]
    _agree("audit-events", [row[:3] for row in _rows("audit-events")], true)


def test_the_audit_alerts_are_those_of_the_program() -> None:
    source = inspect.getsource(told) + inspect.getsource(deeds)
    every = {_coded(name) for name in re.findall(r"codes\.([A-Z_]+)", source)}
    alerts = {one for one in every if one[0] in map(str, range(110126, 110138))}  # CID 403
    _agree("audit-alerts", [row[:2] for row in _rows("audit-alerts")], alerts)


def test_what_is_said_of_the_transport_of_audit_messages_is_so() -> None:
    text = _text()
    assert f"PRI {syslog.PRIORITY}" in text
    assert f"MSGID {syslog.MESSAGE_ID}" in text
    assert f"{syslog.LONGEST_DATAGRAM:,} octets" in text
    assert f"longer than {audit_message._LONGEST_TEXT} characters" in text
    assert f"used for {audit_reporter._SETTLE_S:g} seconds or {audit_reporter._WINDOW:,}" in text
    assert f"up to {audit_reporter._LONGEST_PAUSE_S:g}" in text


# --- The document itself ---


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{file}::{name}"
        for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", _text())
        if not _defines(ROOT / file, name)
    ]
    assert missing == [], "deploy/conformance.md names tests that do not exist"


def _defines(file: Path, name: str) -> bool:
    return file.exists() and bool(
        re.search(rf"^ *def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    )


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https://)([^)]+)\)", _text())
    anchors = {_anchor(line) for line in _text().splitlines() if line.startswith("#")}
    lost = [
        link
        for link in links
        if (link[0] == "#" and link[1:] not in anchors)
        or (link[0] != "#" and not (STATEMENT.parent / link).exists())
    ]
    assert lost == []


def _anchor(heading: str) -> str:
    words = heading.strip("# ").lower()
    return re.sub(r"[^\w -]", "", words).replace(" ", "-")


def test_the_sections_are_those_of_the_template() -> None:
    numbers = [line.split()[1] for line in _text().splitlines() if re.match(r"## \d", line)]
    assert numbers == [str(n) for n in range(9)]
    annexes = re.findall(r"^## (A\.[A-Z]) ", _text(), re.MULTILINE)
    assert annexes == ["A.A", "A.B", "A.C", "A.D", "A.E"]
