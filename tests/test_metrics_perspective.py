"""The Perspective client against a local server, which answers as it is told to."""

import json
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from completions import completions

import actadd_lens as al
from actadd_lens.metrics import Perspective, perspective

KEY = "AIzaSyNobodyMaySeeThis"


@dataclass
class Reply:
    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def score(value, attribute="TOXICITY"):
    return Reply(
        200, json.dumps({"attributeScores": {attribute: {"summaryScore": {"value": value}}}})
    )


def refusal(status, message="no", **headers):
    return Reply(status, json.dumps({"error": {"message": message}}), headers)


class Service:
    """Gives its replies in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self):
        self.replies = [score(0.5)]
        self.asked, self.headers, self.times = [], [], []
        self.ended = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                service.times.append(time.monotonic())
                service.headers.append(dict(self.headers))
                service.asked.append(
                    json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                )
                replies = service.replies
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                if reply == "silence":
                    service.ended.wait(5)
                    return
                if reply == "hang up":
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/analyze"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self):
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


@pytest.fixture
def slept(monkeypatch):
    """The waits between attempts, none of which is really waited for."""
    waits = []
    monkeypatch.setattr(perspective.time, "sleep", lambda s: waits.append(s) if s > 0.01 else None)
    return waits


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch):
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)


def make(service, **options):
    quick = {"queries_per_second": 1e6, "timeout": 5.0, "attempts": 3, **options}
    return Perspective(KEY, url=service.url, **quick)


def failure(metric):
    """The message of the error, in which no key may be, nor in what caused it."""
    with pytest.raises(al.MetricError) as caught:
        metric(completions(" you idiot"))
    error = caught.value
    while error is not None:
        assert KEY not in str(error) + repr(error)
        error = error.__cause__ or error.__context__
    return str(caught.value)


def test_completions_are_scored_one_by_one(service):
    service.replies = [score(0.25), score(0.75)]
    assert make(service)(completions(" you friend", " you idiot")) == [0.25, 0.75]
    assert [asked["comment"]["text"] for asked in service.asked] == [" you friend", " you idiot"]
    assert service.asked[0] == {
        "comment": {"text": " you friend"},
        "languages": ["en"],
        "requestedAttributes": {"TOXICITY": {}},
        "doNotStore": True,
    }


def test_the_key_goes_into_a_header(service, monkeypatch):
    make(service)(completions("a"))
    assert service.headers[0]["X-Goog-Api-Key"] == KEY
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "other")
    Perspective(url=service.url)(completions("a"))
    assert service.headers[1]["X-Goog-Api-Key"] == "other"


def test_another_attribute_and_language(service):
    service.replies = [score(0.125, "INSULT")]
    assert make(service, attribute="INSULT", language="de")(completions("a")) == [0.125]
    assert service.asked[0]["requestedAttributes"] == {"INSULT": {}}
    assert service.asked[0]["languages"] == ["de"]


def test_nothing_is_sent_for_an_empty_completion(service):
    assert make(service)([]) == []
    assert make(service)(completions("", " \n")) == [0, 0]
    assert service.asked == []
    assert make(service)(completions("", "a")) == [0, 0.5]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_service_is_asked_again(service, slept, status):
    service.replies = [refusal(status), refusal(status), score(0.75)]
    assert make(service)(completions("a")) == [0.75]
    assert slept == [1, 2]


def test_the_wait_is_the_one_the_service_names_if_longer(service, slept):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    service.replies = [
        refusal(429, **{"Retry-After": "7"}),
        refusal(503, **{"Retry-After": soon}),
        refusal(503, **{"Retry-After": "0"}),
        refusal(503, **{"Retry-After": "later"}),
        score(0.5),
    ]
    assert make(service, attempts=5)(completions("a")) == [0.5]
    assert slept == [7, pytest.approx(40, abs=3), 4, 8]


def test_a_wait_beyond_patience_is_an_error_at_once(service, slept):
    service.replies = [refusal(429, "quota used up", **{"Retry-After": "86400"})]
    assert "after 1 attempt: it answered 429: quota used up" in failure(make(service))
    assert slept == []


def test_a_service_that_stays_down_is_given_up(service, slept):
    service.replies = [Reply(500, "<html>oops")]
    said = failure(make(service))
    assert "after 3 attempts: it answered 500: <html>oops" in said
    assert "try again later" in said
    assert len(service.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_told_in_the_services_words_and_not_repeated(service, slept, status):
    service.replies = [refusal(status, f"the key {KEY} may not do this")]
    said = failure(make(service))
    assert f"it answered {status}: the key (key) may not do this" in said
    assert "a text of 10 characters" in said
    assert len(service.asked) == 1


@pytest.mark.parametrize("body", ["{", "[]", '{"attributeScores": {}}', "null", '"a"', "<html>"])
def test_an_answer_without_a_score_is_shown(service, body):
    service.replies = [Reply(200, body)]
    said = failure(make(service))
    assert "answered without a score for TOXICITY" in said
    assert repr(body) in said


def test_a_key_that_is_echoed_is_not_shown(service):
    service.replies = [Reply(200, "." * 190 + KEY)]
    assert f"{'.' * 190}(key)" in failure(make(service))


def test_a_service_that_does_not_answer_is_asked_again_then_given_up(service, slept):
    service.replies = ["silence"]
    said = failure(make(service, timeout=0.1, attempts=2))
    assert "after 2 attempts: no answer within 0.1 s" in said
    assert len(service.asked) == 2


def test_a_service_that_hangs_up_is_asked_again(service, slept):
    service.replies = ["hang up", score(0.5)]
    assert make(service)(completions("a")) == [0.5]


def test_a_service_that_is_not_there(service, slept):
    metric = make(service)
    service.server.server_close()
    assert "after 3 attempts: it was not reached (ConnectionRefusedError" in failure(metric)


def test_the_key_does_not_follow_a_redirection(service):
    service.replies = [Reply(302, "", {"Location": f"{service.url}/elsewhere"}), score(0.5)]
    assert "it answered 302" in failure(make(service))
    assert len(service.asked) == 1


def test_queries_keep_their_distance_over_calls_and_metrics(service):
    for metric in (make(service, queries_per_second=20), make(service, queries_per_second=20)):
        metric(completions("a", "b"))
    gaps = [b - a for a, b in zip(service.times, service.times[1:], strict=False)]
    assert len(gaps) == 3
    assert min(gaps) > 0.03  # less than 1 / 20: the server's clock reads late now and then


def test_without_a_key_it_is_refused_when_made():
    with pytest.raises(al.MetricError, match="needs a key: pass key=, or set PERSPECTIVE_API_KEY"):
        Perspective()
    with pytest.raises(al.MetricError, match="PERSPECTIVE_API_KEY"):
        al.metrics.lookup("perspective")


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é"])
def test_a_key_that_cannot_be_one_is_refused_unseen(key):
    with pytest.raises(
        al.MetricError, match=f"key for the Perspective API, {len(key)} ch"
    ) as error:
        Perspective(key)
    assert KEY not in str(error.value)


def test_the_key_is_nowhere_to_be_seen():
    metric = Perspective(KEY)
    shown = [repr(metric), str(asdict(metric)), str(vars(metric)), repr(metric.__reduce_ex__(4))]
    assert not any(KEY in text for text in shown)
    assert metric == Perspective("another")
    assert hash(metric) == hash(Perspective("another"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attempts": 0}, "attempts is 0"),
        ({"queries_per_second": 0.0}, r"queries_per_second is 0\.0"),
        ({"queries_per_second": float("nan")}, "queries_per_second is nan"),
        ({"timeout": -1.0}, r"timeout is -1\.0"),
        ({"backoff": -1.0}, r"backoff is -1\.0"),
        ({"url": "ftp://host"}, "url has to begin with http"),
        ({"url": "commentanalyzer.googleapis.com"}, "url has to begin with http"),
        ({"url": f"https://host/?key={KEY}"}, "give that as key="),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(al.MetricError, match=said) as error:
        Perspective(KEY, **options)
    assert KEY not in str(error.value)


def test_a_changed_copy_needs_the_key_again(service):
    changed = replace(make(service), key=KEY, attribute="INSULT")
    service.replies = [score(0.5, "INSULT")]
    assert changed(completions("a")) == [0.5]
