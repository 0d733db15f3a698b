"""The structure of audit messages (PS3.15 A.5.1), as RELAX NG: what a message must look like."""

from __future__ import annotations

from functools import cache

from lxml import etree


def _attribute(name: str, content: str = "<text/>", *, optional: bool = False) -> str:
    made = f'<attribute name="{name}">{content}</attribute>'
    return f"<optional>{made}</optional>" if optional else made


def _values(*values: str) -> str:
    return "<choice>" + "".join(f"<value>{one}</value>" for one in values) + "</choice>"


def _data(kind: str) -> str:
    return f'<data type="{kind}"/>'


def _element(name: str, *content: str, times: str = "") -> str:
    made = f'<element name="{name}">{"".join(content) or "<empty/>"}</element>'
    return f"<{times}>{made}</{times}>" if times else made


_TOKEN = _data("token")
_MANY, _SOME, _ONE_OR_NONE = "zeroOrMore", "oneOrMore", "optional"

_CODE = (
    _attribute("csd-code", _TOKEN)
    + _attribute("codeSystemName", _TOKEN)
    + _attribute("displayName", _TOKEN, optional=True)
    + _attribute("originalText", _TOKEN)
)
_CODE_OF_SOURCE = (
    _attribute("csd-code", _TOKEN)
    + "<optional>"
    + _attribute("codeSystemName", _TOKEN)
    + _attribute("displayName", _TOKEN, optional=True)
    + _attribute("originalText", _TOKEN)
    + "</optional>"
)

_EVENT = _element(
    "EventIdentification",
    _attribute("EventActionCode", _values("C", "R", "U", "D", "E"), optional=True),
    _attribute("EventDateTime", _data("dateTime")),
    _attribute("EventOutcomeIndicator", _values("0", "4", "8", "12")),
    _element("EventID", _CODE),
    _element("EventTypeCode", _CODE, times=_MANY),
    _element("EventOutcomeDescription", "<text/>", times=_ONE_OR_NONE),
)

_PARTICIPANT = _element(
    "ActiveParticipant",
    _attribute("UserID"),
    _attribute("AlternativeUserID", optional=True),
    _attribute("UserName", optional=True),
    _attribute("UserIsRequestor", _data("boolean")),
    _attribute("NetworkAccessPointID", _TOKEN, optional=True),
    _attribute("NetworkAccessPointTypeCode", _values(*map(str, range(1, 6))), optional=True),
    _element("RoleIDCode", _CODE, times=_MANY),
    _element("MediaIdentifier", _element("MediaType", _CODE), times=_ONE_OR_NONE),
    times=_SOME,
)

_SOURCE = _element(
    "AuditSourceIdentification",
    _attribute("AuditEnterpriseSiteID", _TOKEN, optional=True),
    _attribute("AuditSourceID", _TOKEN),
    _element("AuditSourceTypeCode", _CODE_OF_SOURCE, times=_MANY),
)

_DESCRIPTION = _element(
    "ParticipantObjectDescription",
    _element("MPPS", _attribute("UID", _TOKEN), times=_MANY),
    _element("Accession", _attribute("Number", _TOKEN), times=_MANY),
    _element(
        "SOPClass",
        _element("Instance", _attribute("UID", _TOKEN), times=_MANY),
        _attribute("UID", _TOKEN, optional=True),
        _attribute("NumberOfInstances", _data("integer")),
        times=_MANY,
    ),
    _element(
        "ParticipantObjectContainsStudy",
        _element("StudyIDs", _attribute("UID", _TOKEN), times=_MANY),
        times=_ONE_OR_NONE,
    ),
    _element("Encrypted", _data("boolean"), times=_ONE_OR_NONE),
    _element("Anonymized", _data("boolean"), times=_ONE_OR_NONE),
    times=_MANY,
)

_SUBJECT = _element(
    "ParticipantObjectIdentification",
    _attribute("ParticipantObjectID", _TOKEN),
    _attribute("ParticipantObjectTypeCode", _values("1", "2", "3", "4"), optional=True),
    _attribute("ParticipantObjectTypeCodeRole", _values(*map(str, range(1, 27))), optional=True),
    _attribute("ParticipantObjectDataLifeCycle", _values(*map(str, range(1, 16))), optional=True),
    _attribute("ParticipantObjectSensitivity", _TOKEN, optional=True),
    _element("ParticipantObjectIDTypeCode", _CODE),
    "<choice>",
    _element("ParticipantObjectName", _TOKEN),
    _element("ParticipantObjectQuery", _data("base64Binary")),
    "</choice>",
    _element(
        "ParticipantObjectDetail",
        _attribute("type", _TOKEN),
        _attribute("value", _data("base64Binary")),
        times=_MANY,
    ),
    _DESCRIPTION,
    times=_MANY,
)

_GRAMMAR = (
    '<grammar xmlns="http://relaxng.org/ns/structure/1.0"'
    ' datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes"><start>'
    f"{_element('AuditMessage', _EVENT, _PARTICIPANT, _SOURCE, _SUBJECT)}</start></grammar>"
)


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.fromstring(_GRAMMAR))


def parsed(body: str | bytes) -> etree._Element:
    """A message that is as the schema wants it.

    Raises:
        AssertionError: It is not.
    """
    root = etree.fromstring(body.encode() if isinstance(body, str) else body)
    schema = _schema()
    assert schema.validate(root), f"{schema.error_log}\n{body!r}"
    return root
