"""What the pages show, and what can be done on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from paged import FIRST, NOW, RULE, Pages, act, arrive, decide, pages, sample
from sqlalchemy import make_url

from dicomnode import config, inquiry
from dicomnode.archive.access import audit
from dicomnode.archive.asked import accounts
from dicomnode.archive.work import deliveries, in_force, jobs
from dicomnode.archive.work.deliveries import Delivery
from dicomnode.archive.work.jobs import Job
from dicomnode.job import DeliveryState, JobState
from dicomnode.web import shown, studies
from dicomnode.web.studies import Filter


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pages]:
    with pages(tmp_path) as made:
        yield made


@pytest.fixture
def found(web: Pages) -> dict[str, str]:
    return sample(web.database, web.here.data_dir)


def job_of(web: Pages, uid: str) -> Job:
    with web.database.read() as tx:
        return jobs.of_study(tx, uid)[-1]


def sent(web: Pages, job: str) -> dict[str, Delivery]:
    with web.database.read() as tx:
        return {one.destination: one for one in deliveries.of_job(tx, job)}


def shown_in(text: str) -> list[str]:
    """The studies of a list, in their order."""
    return re.findall(r'<tr id="s([\d.]+)">', text)


def test_a_node_that_has_received_nothing_says_so(web: Pages) -> None:
    text = web.as_("viewer").get("/studies").text
    assert "No study has arrived." in text
    assert "<b>0</b> received" in text


def test_the_list_is_newest_first_and_tells_what_matters(web: Pages, found: dict[str, str]) -> None:
    text = web.as_("viewer").get("/studies").text
    assert shown_in(text)[:2] == [found["receiving"], FIRST]
    assert len(shown_in(text)) == 10
    row = text.split(f'id="s{FIRST}"')[1].split("</tr>")[0]
    for told in ("delivered", "Lindqvist, Astrid", "P-20425", "MR", "mr1", RULE, "11 min ago"):
        assert told in row


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("q=lindqvist", ["first"]),
        ("q=LINDQVIST, as", ["first"]),
        ("q=Lindqvist^Astrid", ["first"]),
        ("q=p-203", ["refused", "not applicable", "held", "pending", "predicting",
                     "delivering", "receiving"]),
        ("q=a-77", ["first"]),
        ("q=müller", ["missing-slices"]),
        ("q=1.2.826.0.1.3680043.8.498.4", ["refused"]),
        ("q=astrid", []),
        ("q=%25", []),
        ("outcome=failed", ["missing-slices", "refused", "held"]),
        ("outcome=failed&q=tanaka", ["refused"]),
        ("outcome=nonsense&q=tanaka", ["refused"]),
        ("modality=CT", []),
        ("modality=MR&q=okafor", ["delivered"]),
        ("from=2199-01-01", []),
        ("to=1999-01-01", []),
        ("from=nonsense&q=okafor", ["delivered"]),
        ("from=0001-01-01&to=9999-12-31&q=okafor", ["delivered"]),
    ],
)  # fmt: skip
def test_studies_are_found(
    web: Pages, found: dict[str, str], question: str, answers: list[str]
) -> None:
    text = web.as_("viewer").get(f"/studies?{question}").text
    assert set(shown_in(text)) == {found[one] for one in answers}


def test_the_live_part_keeps_to_what_is_looked_for(web: Pages, found: dict[str, str]) -> None:
    browser = web.as_("viewer")
    text = browser.get("/studies?q=okafor&outcome=delivered").text
    (live,) = re.findall(r'data-live="([^"]+)"', text)
    assert live.startswith("/studies-list?")
    part = browser.get(live.replace("&amp;", "&")).text
    assert shown_in(part) == [found["delivered"]]


def test_a_long_list_has_pages_in_both_directions(web: Pages) -> None:
    with web.database.write() as tx:
        for number in range(120):
            # Three at each moment: the order does not depend on time alone.
            arrive(tx, f"1.2.3.{number:03}", at=NOW - 10 * (number // 3), PatientID=f"P{number}")
    browser = web.as_("viewer")
    seen, path = [], "/studies?modality=MR"
    while path:
        text = browser.get(path).text
        seen.append(shown_in(text))
        path = link(text, "next")
    assert [len(one) for one in seen] == [50, 50, 20]
    assert len({uid for one in seen for uid in one}) == 120
    assert link(text, "next") == ""
    back = browser.get(link(text, "prev")).text
    assert shown_in(back) == seen[1]
    assert shown_in(browser.get(link(back, "prev")).text) == seen[0]


def link(text: str, rel: str) -> str:
    found = re.findall(rf'rel="{rel}" href="([^"]+)"', text)
    return found[0].replace("&amp;", "&") if found else ""


@pytest.mark.parametrize("place", ["x", "_", "nan_1.2", "1e999_1.2", "1_", "1_" + "9" * 500])
def test_a_place_that_is_none_is_passed_by(web: Pages, found: dict[str, str], place: str) -> None:
    assert web.as_("viewer").get("/studies", params={"older": place}).status_code == 200


def test_a_filter_goes_into_a_url_and_comes_back() -> None:
    given = {"q": "doe", "outcome": "failed", "modality": "MR", "from": "2026-01-01", "to": ""}
    asked = Filter.of(given)
    assert Filter.of(asked.url) == asked
    assert not asked.is_empty
    assert Filter.of({"older": "1_2"}).is_empty
    assert "doe" not in repr(asked)


def test_the_page_of_a_study_tells_its_way(web: Pages, found: dict[str, str]) -> None:
    text = web.as_("viewer").get(f"/studies/{FIRST}").text
    for told in (
        "Lindqvist, Astrid", "1953-04-12", "A-77120", "every clause holds", "cuda:0", "infer",
        "2.1 s", "Delivery to pacs confirmed", "mr1 opened an association", "T1 Hippo_crop",
        "picture.png", "Study complete, revision 1",
    ):  # fmt: skip
        assert told in text
    assert "csrf" not in text.split('<div class="columns">')[1]  # a viewer has nothing to press


def test_a_rule_that_did_not_apply_is_explained(web: Pages, found: dict[str, str]) -> None:
    text = web.as_("viewer").get(f"/studies/{found['not applicable']}").text
    assert "SeriesDescription matches /(?i)hippo.?crop/" in text
    assert "PD_SAG_FS" in text
    assert "No rule asked for an answer." in text


def test_who_looks_at_a_study_is_written_down_once(web: Pages, found: dict[str, str]) -> None:
    browser = web.as_("viewer")
    browser.get(f"/studies/{FIRST}")
    browser.get(f"/studies/{FIRST}/part")
    with web.database.read() as tx:
        lines = [one for one in audit.newest(tx, limit=9) if one.action == "look"]
    assert [(one.person, one.subject) for one in lines] == [("viewer", FIRST)]


def test_who_looks_at_a_study_without_its_page_is_written_down_too(
    web: Pages, found: dict[str, str]
) -> None:
    (job,) = re.findall(
        r'src="(/jobs/\w+/picture.png)"', web.as_("operator").get(f"/studies/{FIRST}").text
    )
    for path in (job, f"/studies/{FIRST}/part"):
        browser = web.as_("viewer")
        assert browser.get(path).status_code == 200
        assert browser.get(path).status_code == 200
    with web.database.read() as tx:
        lines = [one for one in audit.newest(tx, limit=99) if one.action == "look"]
    assert [(one.person, one.subject) for one in lines] == [
        ("viewer", FIRST),
        ("viewer", FIRST),
        ("operator", FIRST),
    ]


def test_a_study_that_is_not_there_is_not_found(web: Pages) -> None:
    browser = web.as_("viewer")
    assert browser.get("/studies/1.2.3").status_code == 404
    assert browser.get("/studies/1.2.3/part").status_code == 404


def test_an_operator_retries_what_failed(web: Pages, found: dict[str, str]) -> None:
    browser, job = web.as_("operator"), job_of(web, found["missing-slices"])
    answer = act(browser, f"/jobs/{job.id}/retry")
    assert answer.headers["location"] == f"/studies/{found['missing-slices']}?done=retry"
    assert "The job is taken up again." in browser.get(answer.headers["location"]).text
    assert job_of(web, found["missing-slices"]).state is JobState.PENDING
    # Twice is once.
    assert act(browser, f"/jobs/{job.id}/retry").headers["location"].endswith("?done=no")
    with web.database.read() as tx:
        lines = [one for one in audit.newest(tx, limit=9) if one.action == "retry"]
        assert accounts.account(tx).failed == 2
    assert [one.outcome for one in lines] == ["refused", "done"]
    assert lines[0].subject == f"job {job.id} of {found['missing-slices']}"


def test_who_retries_on_the_command_line_is_written_down_too(
    web: Pages, found: dict[str, str]
) -> None:
    study = found["missing-slices"]
    for _ in range(2):
        inquiry.retry(web.here.configuration, study, person="root", now=NOW)
    with web.database.read() as tx:
        lines = [one for one in audit.newest(tx, limit=9) if one.action == "retry"]
    assert [(one.person, one.address, one.subject, one.outcome) for one in lines] == [
        ("root", "", f"study {study}", "refused"),
        ("root", "", f"study {study}", "done"),
    ]


def test_what_only_failed_to_arrive_is_only_sent_again(web: Pages, found: dict[str, str]) -> None:
    job = job_of(web, found["refused"])
    act(web.as_("operator"), f"/jobs/{job.id}/retry")
    assert job_of(web, found["refused"]).state is JobState.DELIVERING
    assert sent(web, job.id)["pacs"].state is DeliveryState.PENDING


def test_an_operator_cancels_what_waits_and_nothing_else(web: Pages, found: dict[str, str]) -> None:
    browser = web.as_("operator")
    act(browser, f"/jobs/{job_of(web, found['pending']).id}/cancel")
    cancelled = job_of(web, found["pending"])
    assert (cancelled.state, cancelled.reason) == (JobState.FAILED, "cancelled")
    running = job_of(web, found["predicting"])
    answer = act(browser, f"/jobs/{running.id}/cancel")
    assert answer.headers["location"].endswith("?done=no")
    assert "not possible any more" in browser.get(answer.headers["location"]).text
    assert job_of(web, found["predicting"]).state is JobState.PREDICTING


def test_results_are_sent_to_one_more_destination(web: Pages, found: dict[str, str]) -> None:
    browser, job = web.as_("operator"), job_of(web, FIRST)
    assert "<option>research</option>" in browser.get(f"/studies/{FIRST}").text
    act(browser, f"/jobs/{job.id}/send", destination="research")
    new = sent(web, job.id)["research"]
    # Nothing was made for its profile: it gets everything.
    assert (new.state, new.profile) == (DeliveryState.PENDING, "")
    assert job_of(web, FIRST).state is JobState.DELIVERING
    again = act(browser, f"/jobs/{job.id}/send", destination="research")
    assert again.headers["location"].endswith("?done=no")
    for destination in ("mr1", "nobody", ""):
        assert act(browser, f"/jobs/{job.id}/send", destination=destination).status_code == 422


def test_a_bundle_that_took_the_place_of_a_jobs_own_can_be_run(
    web: Pages, found: dict[str, str]
) -> None:
    """The sample's jobs were made for a bundle that is none of the configuration's."""
    browser, job = web.as_("operator"), job_of(web, FIRST)
    assert "<option>hippocampus</option>" in browser.get(f"/studies/{FIRST}").text
    act(browser, f"/jobs/{job.id}/run", model="hippocampus")
    new = job_of(web, FIRST)
    assert (new.rule, new.model) == ("by hand: hippocampus", "hippocampus")
    assert new.model_digest == web.here.models["hippocampus"].digest != job.model_digest


def test_another_model_is_run_on_the_same_images(web: Pages, found: dict[str, str]) -> None:
    browser, job = web.as_("operator"), job_of(web, FIRST)
    act(browser, f"/jobs/{job.id}/run", model="pneumonia")
    new = job_of(web, FIRST)
    assert (new.rule, new.model, new.state) == ("by hand: pneumonia", "pneumonia", JobState.PENDING)
    assert list(new.inputs.values()) == list(job.inputs.values())
    assert new.model_digest == web.here.models["pneumonia"].digest
    again = act(browser, f"/jobs/{job.id}/run", model="pneumonia")
    assert again.headers["location"].endswith("?done=no")
    assert act(browser, f"/jobs/{job.id}/run", model="nothing").status_code == 422
    assert "by hand: pneumonia" in browser.get(f"/studies/{FIRST}").text


def test_a_job_that_is_not_there_is_not_found(web: Pages) -> None:
    assert act(web.as_("operator"), f"/jobs/{'0' * 32}/retry").status_code == 404


def test_the_accounting_adds_up_and_every_number_leads_to_its_studies(
    web: Pages, found: dict[str, str]
) -> None:
    browser = web.as_("viewer")
    text = browser.get("/accounting").text
    links = re.findall(r'<a href="(/studies[^"]*)">(?:<b>)?(\d+)', text)
    assert len(links) == 20
    for path, number in links:
        listed = shown_in(browser.get(path.replace("&amp;", "&")).text)
        assert len(listed) == int(number), path


def test_a_day_begins_at_midnight_of_this_machine() -> None:
    from datetime import date, datetime

    day = studies.today(NOW)
    assert datetime.fromtimestamp(studies.midnight(day)).astimezone().hour == 0
    assert studies.today(studies.midnight(date(2026, 3, 1))) == date(2026, 3, 1)


def test_the_models_say_what_they_are(web: Pages, found: dict[str, str]) -> None:
    text = web.as_("viewer").get("/models").text
    for told in (
        "Hippocampus volumetry", "RESEARCH USE ONLY", web.here.models["hippocampus"].digest,
        "Seconds of", "infer", "What its makers say of it", "never", "label map",
    ):  # fmt: skip
        assert told in text


def test_a_bundle_that_cannot_be_used_says_why(web: Pages) -> None:
    from dataclasses import replace

    from dicomnode.errors import Misconfigured
    from dicomnode.web import app

    fault = Misconfigured("lock-missing", "There is no lock.")
    web.application = app.make(replace(web.here, bundles={"hippocampus": fault}))
    assert "lock-missing: There is no lock." in web.as_("viewer").get("/models").text


def test_the_peers_say_who_was_seen_and_what_is_in_the_way(
    web: Pages, found: dict[str, str]
) -> None:
    text = web.as_("viewer").get("/peers").text
    for told in ("mr1", "11 min ago", "destination-refused", "unknown-peer", "sends only"):
        assert told in text
    assert "Echo</button>" not in text
    assert "Echo</button>" in web.as_("operator").get("/peers").text


def test_an_echo_says_why_a_peer_does_not_answer(web: Pages) -> None:
    browser = web.as_("operator")
    text = act(browser, "/peers/research/echo").text
    assert "does not answer" in text
    with web.database.read() as tx:
        line = audit.newest(tx, limit=1)[0]
    assert (line.action, line.subject, line.outcome) == ("echo", "research", "failed")
    assert act(browser, "/peers/mr1/echo").status_code == 404  # it has no port


def test_the_workers_say_what_runs_and_what_waits(web: Pages, found: dict[str, str]) -> None:
    text = web.as_("viewer").get("/workers").text
    for told in ("gpu1:4711", "cuda:0", "delivers", found["predicting"], found["pending"]):
        assert told in text
    assert "9.0 GiB of 80.0 GiB" in text
    assert "Nothing runs." not in text


def test_the_configuration_masks_passwords() -> None:
    url = "postgresql+psycopg://node:s3cr3t@db/node"
    assert config.masked(url) == "postgresql+psycopg://node:••••••@db/node"
    assert config.masked("redis://:s3cr3t@host:6379/0") == "redis://:••••••@host:6379/0"
    assert config.masked("sqlite:///data/node.db") == "sqlite:///data/node.db"
    assert "s3cr3t" not in config.masked("http://user:s3cr3t@[bad/")


@pytest.mark.parametrize(
    "password", ["/s3cr3t", "?s3cr3t", "#s3cr3t", "1/s3cr3t", "s3cr3t", "%2Fs3cr3t"]
)
def test_what_the_database_takes_for_a_password_is_masked(password: str) -> None:
    written = f"postgresql+psycopg://node:{password}@db/node"
    assert make_url(written).password == unquote(password)
    assert config.masked(written) == "postgresql+psycopg://node:••••••@db/node"


def test_a_password_behind_the_question_mark_is_masked() -> None:
    written = "postgresql+psycopg://node@db/node?sslmode=require&password=s3cr3t&sslpassword=s3cr3t"
    told = "postgresql+psycopg://node@db/node?sslmode=require&password=••••••&sslpassword=••••••"
    assert config.masked(written) == told
    for plain in ("postgresql+psycopg://node@db:5432/node?sslmode=require", "https://a.b:8443/c"):
        assert config.masked(plain) == plain


def test_the_configuration_is_shown_as_it_is_written_and_without_its_secrets(web: Pages) -> None:
    secrets = """
[database]
url = "postgresql+psycopg://node:s3cr3t@db/node"
[queue]
broker = "redis://:s3cr3t@host:6379/0"
[alerts.webhook]
url = "https://hooks.example/s3cr3t"
"""
    file = web.here.file.with_name("secret.toml")
    file.write_text(web.here.file.read_text() + secrets)
    web.here.change(config.load(file, {}), web.here.bundles)
    text = web.as_("administrator").get("/configuration").text
    assert "s3cr3t" not in text
    for told in (
        "postgresql+psycopg://node:••••••@db/node",
        "<code>MR1</code>",
        "Modality = &#34;MR&#34;; SeriesDescription",
        '<code>port</code></td><td data-label="Value"><code>0</code>',
    ):
        assert told in text, told


def test_the_configuration_and_its_check_are_shown(web: Pages) -> None:
    browser = web.as_("administrator")
    text = browser.get("/configuration").text
    for told in (
        "routes.&#34;hippocampus volumetry&#34;",
        "SeriesDescription",
        "session_hours",
        "Name of a model below",
    ):
        assert told in text
    checked = act(browser, "/configuration/check").text
    assert "problem" in checked


def test_a_changed_file_is_shown_applied_once_it_was_seen_and_written_down(web: Pages) -> None:
    browser = web.as_("administrator")
    written = web.here.file.read_text()
    web.here.file.write_text(written.replace("port = 4243", "port = 4244"))
    shown_to_me = act(browser, "/configuration/check").text
    assert "1 change in the file" in shown_to_me
    assert "peers.research.port" in shown_to_me
    word = re.search(r'name="shown" value="(\w+)"', shown_to_me)
    assert word is not None
    web.here.file.write_text(written.replace("port = 4243", "port = 4245"))
    again = act(browser, "/configuration/apply", shown=word[1]).text
    assert "changed since it was shown" in again
    assert web.here.configuration.peers["research"].port == 4243
    word = re.search(r'name="shown" value="(\w+)"', again)
    assert word is not None
    assert "Applied." in act(browser, "/configuration/apply", shown=word[1]).text
    assert web.here.configuration.peers["research"].port == 4245
    trail = browser.get("/audit").text
    assert "peers.research.port: 4243 → 4245" in trail
    web.here.file.write_text("no TOML")
    faulty = act(browser, "/configuration/apply", shown=word[1]).text
    assert "The file has errors, and nothing has changed" in faulty


def test_a_change_says_before_what_would_fail_and_what_would_go(
    web: Pages, found: dict[str, str]
) -> None:
    assert found
    written = web.here.file.read_text()
    start, end = written.index("[peers.pacs]"), written.index("[peers.research]")
    without = written[:start] + written[end:].replace('send_to = ["pacs"]', 'send_to = ["mr1"]')
    without = without.replace('ae_title = "MR1"', 'ae_title = "MR1"\nport = 104')
    start, end = without.index("[models.hippocampus]"), without.index("[models.pneumonia]")
    other = without[:start] + without[end:].replace('model = "hippocampus"', 'model = "pneumonia"')
    web.here.file.write_text(other + "\n[disk]\nkeep_delivered_days = 0.01\n")
    assert web.here.reload is not None
    proposal = web.here.reload.propose()
    assert {one.code for one in proposal.problems if one.level == "error"} == set()
    codes = {one.code: one.message for one in proposal.problems}
    assert "would fail: 1." in codes["peer-in-use"]
    assert "would fail: " in codes["model-in-use"]
    assert "within the hour: 1," in codes["studies-would-go"]
    assert proposal.may_be_applied


def test_what_would_be_removed_is_shown_for_any_number_of_days(
    web: Pages, found: dict[str, str]
) -> None:
    assert found
    browser = web.as_("viewer")
    assert "Nothing is ever removed" in browser.get("/retention").text
    asked = browser.get("/retention?days=7.5").text
    assert "kept for 7.5 days" in asked
    assert "no result of it was delivered" in asked
    assert browser.get("/retention?days=many").status_code == 422
    assert '<a href="/retention">' in browser.get("/workers").text


def test_a_worker_that_is_behind_says_why(web: Pages, found: dict[str, str]) -> None:
    assert found
    why = "its file cannot be used (syntax)"
    with web.database.write() as tx:
        in_force.report(tx, owner="gpu1:4711", serial=1, digest="", behind=why)
    assert why in web.as_("viewer").get("/workers").text


def test_the_trail_is_paged_and_can_be_one_persons(web: Pages) -> None:
    browser = web.as_("administrator")
    with web.database.write() as tx:
        for number in range(150):
            audit.write(tx, audit.Action.LOOK, at=NOW, person="viewer", subject=f"1.2.{number}")
    first = browser.get("/audit").text
    assert first.count("<tr>") == 101
    (older,) = re.findall(r'href="(/audit[^"]*before[^"]*)"', first)
    assert browser.get(older.replace("&amp;", "&")).text.count("<tr>") == 52
    only = browser.get("/audit?person=administrator").text
    assert "1.2.149" not in only
    assert browser.get("/audit?before=x").status_code == 422


def test_people_are_listed_with_their_sessions(web: Pages) -> None:
    web.as_("viewer")
    text = web.as_("administrator").get("/people").text
    for told in ("viewer", "operator", "administrator", "just now", "dicomnode users add"):
        assert told in text


def test_the_theme_that_was_chosen_stays(web: Pages) -> None:
    browser = web.as_("viewer")
    assert "data-theme" not in browser.get("/studies").text
    browser.cookies.set("theme", "dark")
    assert '<html lang="en" data-theme="dark">' in browser.get("/studies").text
    browser.cookies.set("theme", 'x" onload="', domain="node.example")
    assert "onload" not in browser.get("/studies").text


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(None, "\u2013"), (0.0421, "42 ms"), (8.74, "8.7 s"), (180, "3 min"), (9000, "2.5 h"),
     (400_000, "5 d")],
)  # fmt: skip
def test_lengths_of_time_are_written_for_people(seconds: float | None, written: str) -> None:
    assert shown.seconds(seconds) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**30, "1.0 GiB")],
)
def test_sizes_are_written_for_people(value: float, written: str) -> None:
    assert shown.size(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [("DOE^JANE^A", "DOE, JANE A"), ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"), ("", ""),
     ("^Jane", "Jane"), ("doe jane", "doe jane")],
)  # fmt: skip
def test_names_are_written_for_people(value: str, written: str) -> None:
    assert shown.name_of_person(value) == written


def test_a_decision_of_several_series_tells_what_needs_an_eye(web: Pages) -> None:
    with web.database.write() as tx:
        arrive(tx, "1.2.3", at=NOW - 10)
        decide(tx, "1.2.3", outcome="held", rule="two")
        decide(tx, "1.2.3", outcome="not_applicable", rule="one")
    text = web.as_("viewer").get("/studies").text
    row = text.split('id="s1.2.3"')[1].split("</tr>")[0]
    assert re.findall(r'<li class="(\w+)">', row) == ["quiet", "bad"]
