"""Every operation of the page, asked in ways that nobody thought of (Schemathesis).

Whatever is asked, by somebody who may everything or by nobody: the node does not fail, and browsers
are told what they may do with the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis
import paged
import provider as providers
import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from paged import Pages
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import OpenApiSchema

from dicomnode.archive.access import people
from dicomnode.archive.work import jobs
from dicomnode.web import guard, security, signing
from dicomnode.web.studies import Filter

#: Examples for each operation, each kind of data, and each of those who ask.
EXAMPLES = 8
#: What takes long enough to be asked less often: every bundle is compared with its lock.
FEW = {"POST /configuration/check": 2, "GET /live": 3}
#: What the form to sign in belongs to.
TOKEN = "a-token-of-somebody-who-has-not-signed-in"
#: What says of itself that it is not ready, or has enough listeners.
MAY_BE_UNAVAILABLE = {"GET /readyz", "GET /live", "GET /sign-in/oidc", "GET /sign-in/oidc/answer"}

#: What answers with the address of another site.
TO_THE_PROVIDER = {"GET /sign-in/oidc", "GET /sign-out/oidc"}
#: What is answered at the door, and what has to guess there: a password, or a state.
GUESSES = {"POST /sign-in", "GET /sign-in/oidc/answer"}
TURNED_AWAY = {401, 403}


@dataclass(frozen=True, kw_only=True)
class Api:
    """A page that is served, with studies in every state, and the schema of its operations."""

    pages: Pages
    address: str
    schema: OpenApiSchema

    def session(self, who: str) -> tuple[dict[str, str], dict[str, str]]:
        """Cookies and headers of somebody who has just signed in."""
        if who == "nobody":
            return {"dicomnode-form": TOKEN}, {}
        token, now = security.new_token(), self.pages.clock.now
        with self.pages.database.write() as tx:
            people.begin(tx, token, name=who, address="127.0.0.1", at=now, ends_at=now + 3600)
        return {"dicomnode": token, "dicomnode-form": TOKEN}, {
            security.HEADER: security.word_of(token)
        }


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("page")
    with providers.provider() as provider:
        web = providers.settings(provider, folder, public_url="http://127.0.0.1")
        with paged.pages(folder, web=web) as pages:
            provider.clock = pages.clock
            studies = paged.sample(pages.database, pages.here.data_dir)
            schema = _schema(pages, studies)
            with paged.served(pages) as address:
                yield Api(pages=pages, address=address, schema=schema)


def _schema(pages: Pages, studies: Mapping[str, str]) -> OpenApiSchema:
    """The schema of the application, with what it takes and does not say.

    The application reads its forms, and the filters of the studies, itself. Names that are there
    lead deeper than any that is made up.
    """
    configuration = pages.here.configuration
    with pages.database.read() as tx:
        job_ids = [one.id for uid in studies.values() for one in jobs.of_study(tx, uid)]
    known = {
        "uid": list(studies.values()),
        "job_id": job_ids,
        "name": [*configuration.peers, "administrator"],
        "model": list(configuration.models),
        "destination": list(configuration.peers),
    }
    document = pages.application._inner.openapi()
    filters = [_parameter("query", name, known) for name in Filter().url]
    headers = [_parameter("header", name, known) for name in ("X-Part", "Origin", "Sec-Fetch-Site")]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            given = operation.setdefault("parameters", [])
            for parameter in given:
                parameter["schema"] = _known_or_any(parameter, known)
            given += [*headers, _parameter("cookie", "theme", known)]
            if path in {"/studies", "/studies-list"}:
                given += filters
            if method == "post":
                operation["requestBody"] = _form(known, has_word=path == "/sign-in")
    return schemathesis.openapi.from_dict(document)


def _parameter(place: str, name: str, known: Mapping[str, list[str]]) -> dict[str, Any]:
    made = {"in": place, "name": name, "required": False, "schema": {"type": "string"}}
    return {**made, "schema": _known_or_any(made, known)}


def _known_or_any(parameter: Mapping[str, Any], known: Mapping[str, list[str]]) -> dict[str, Any]:
    schema: dict[str, Any] = parameter["schema"]
    names = known.get(parameter["name"])
    return {"anyOf": [{"enum": names}, schema]} if names else schema


def _form(known: Mapping[str, list[str]], *, has_word: bool) -> dict[str, Any]:
    """Everything that a form may have; the word of a session comes in a header."""
    fields = {
        name: _known_or_any({"name": name, "schema": {"type": "string"}}, known)
        for name in ("model", "destination", "live", "name", "password", "next")
    }
    body: dict[str, Any] = {"schema": {"type": "object", "properties": fields}}
    if has_word:
        fields[security.FIELD] = {"enum": [security.word_of(TOKEN)]}
        body["schema"]["required"] = [security.FIELD]
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    return {"content": dict.fromkeys(kinds, body)}


def _operations(schema: OpenApiSchema) -> Iterator[Any]:
    for found in schema.get_all_operations():
        yield found.ok()


def _routes(application: Any) -> Iterator[str]:
    """Every route, however the framework nests its routers."""
    stack = list(application.routes)
    while stack:
        one = stack.pop()
        if isinstance(one, APIRoute):
            yield from (f"{method} {one.path}" for method in one.methods)
        else:
            inner = getattr(one, "original_router", one)
            stack += getattr(inner, "routes", None) or []


def test_the_schema_has_every_operation_of_the_application(api: Api) -> None:
    asked = {one.label for one in _operations(api.schema)}
    assert asked == set(_routes(api.pages.application._inner))
    assert len(asked) > 30


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("who", ["administrator", "nobody"])
def test_nothing_that_is_asked_makes_the_node_fail(
    api: Api, subtests: pytest.Subtests, who: str, mode: GenerationMode
) -> None:
    answered: dict[str, Counter[int]] = {}
    for operation in _operations(api.schema):
        with subtests.test(operation=operation.label):
            answered[operation.label] = _ask(api, operation, who, mode)
    if mode is GenerationMode.POSITIVE:
        assert set(answered) == set(_routes(api.pages.application._inner))
    if mode is GenerationMode.POSITIVE and who == "administrator":
        # What turns everybody away at the door would not have been tried.
        away = {label for label, seen in answered.items() if seen.keys() <= TURNED_AWAY}
        assert away <= GUESSES


def _ask(api: Api, operation: Any, who: str, mode: GenerationMode) -> Counter[int]:
    """Ask in many ways; returns how often there was which status."""
    seen: Counter[int] = Counter()

    @hypothesis.settings(
        max_examples=FEW.get(operation.label, EXAMPLES),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        cookies, headers = api.session(who)
        given = {**(case.cookies or {}), **cookies}
        arguments = case.as_transport_kwargs(base_url=api.address, headers=headers)
        arguments["cookies"] = given
        # The stream has no end: what it begins with is enough.
        with requests.Session() as session:
            session.trust_env = False
            with session.request(**arguments, stream=True, allow_redirects=False) as answer:
                _judge(case, answer)
                seen[answer.status_code] += 1

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # there is nothing to get wrong
    return seen


def _judge(case: Any, answer: requests.Response) -> None:
    label, asked = case.operation.label, case.as_curl_command()
    may_be = {503} if label in MAY_BE_UNAVAILABLE else set()
    assert answer.status_code < 500 or answer.status_code in may_be, asked
    for name, value in guard.HEADERS.items():
        assert answer.headers.get(name) == value, (name, asked)
    assert answer.headers["Cache-Control"] == "no-store", asked
    if label not in TO_THE_PROVIDER:
        assert signing.local(answer.headers.get("Location", "/x")) != "/", asked
