"""The vocabulary of audit messages: codes of PS3.16 and of RFC 3881, and the node's own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


@dataclass(frozen=True)
class Code:
    """A coded value (PS3.15 A.5.1.1, CodedValueType)."""

    value: str
    scheme: str
    meaning: str


class Kind(StrEnum):
    """The words of the configuration for kinds of messages."""

    APPLICATION = "application"
    TRANSFER = "transfer"
    ACCESS = "access"
    DELETION = "deletion"
    PROCEDURE = "procedure"
    QUERY = "query"
    AUTHENTICATION = "authentication"
    SECURITY = "security"
    LOG_USED = "log-used"


class Outcome(IntEnum):
    """EventOutcomeIndicator (PS3.15 Table A.5.2-1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


# CID 400, Audit Event ID.
APPLICATION_ACTIVITY = _dcm("110100", "Application Activity")
AUDIT_LOG_USED = _dcm("110101", "Audit Log Used")
BEGIN_TRANSFERRING = _dcm("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = _dcm("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm("110104", "DICOM Instances Transferred")
STUDY_DELETED = _dcm("110105", "DICOM Study Deleted")
PROCEDURE_RECORD = _dcm("110111", "Procedure Record")
QUERY = _dcm("110112", "Query")
SECURITY_ALERT = _dcm("110113", "Security Alert")
USER_AUTHENTICATION = _dcm("110114", "User Authentication")

# CID 401, Audit Event Type Code, and of it CID 403, Security Alert Type Code.
APPLICATION_START = _dcm("110120", "Application Start")
APPLICATION_STOP = _dcm("110121", "Application Stop")
LOGIN = _dcm("110122", "Login")
LOGOUT = _dcm("110123", "Logout")
NODE_AUTHENTICATION = _dcm("110126", "Node Authentication")
SOFTWARE_CONFIGURATION = _dcm("110131", "Software Configuration")
USE_OF_RESTRICTED_FUNCTION = _dcm("110132", "Use of Restricted Function")
AUDIT_RECORDING_STOPPED = _dcm("110133", "Audit Recording Stopped")
SECURITY_ROLES_CHANGED = _dcm("110136", "Security Roles Changed")
USER_SECURITY_ATTRIBUTES_CHANGED = _dcm("110137", "User security Attributes Changed")

# CID 402, Audit Active Participant Role ID Code.
APPLICATION = _dcm("110150", "Application")
DESTINATION = _dcm("110152", "Destination Role ID")
SOURCE = _dcm("110153", "Source Role ID")

# CID 404, Audit Participant Object ID Type Code, and of RFC 3881 5.5.4.
STUDY_INSTANCE_UID = _dcm("110180", "Study Instance UID")
SOP_CLASS_UID = _dcm("110181", "SOP Class UID")
NODE_ID = _dcm("110182", "Node ID")
PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
URI = Code("12", "RFC-3881", "URI")

#: The scheme of the codes that only this node has.
_OWN = "99DICOMNODE"


def role(word: str) -> Code:
    """The role of who has an account of the page: viewer, operator or administrator."""
    return Code(word, _OWN, word.capitalize())


def act(word: str) -> Code:
    """What an operator did with a job: retry, cancel, run or send."""
    return Code(word, _OWN, word.capitalize())
