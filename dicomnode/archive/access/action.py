"""What somebody can do on the page or the command line, and how it can end."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """The words for what can be done."""

    SIGN_IN = "sign in"
    SIGN_OUT = "sign out"
    ADD_PERSON = "add person"
    REMOVE_PERSON = "remove person"
    SET_ROLE = "set role"  # a provider gives somebody another one
    SET_PASSWORD = "set password"  # noqa: S105 - a word for what was done
    RETRY = "retry"
    CANCEL = "cancel"
    RUN = "run"
    SEND = "send"
    ECHO = "echo"
    CHECK = "check"
    RELOAD = "reload"
    LOOK = "look"  # at a study: whose data was seen by whom
    REFUSED = "refused"  # what somebody may not do


class Result(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
