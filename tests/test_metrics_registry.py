import subprocess
import sys

import pytest
from completions import completions

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.metrics import registry

KEY = "AIzaHidden"


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)


@pytest.mark.parametrize("name", registry._BUILT_IN)
def test_a_built_in_metric_has_the_name_it_is_looked_up_by(name):
    assert al.metrics.lookup(name).name == name


@pytest.mark.parametrize("name", ["sentiment", "weddings", "repetition", "distinct_2"])
def test_built_in_metrics_are_those_made_by_hand(name):
    by_hand = {
        "sentiment": metrics.Sentiment(),
        "weddings": metrics.weddings,
        "repetition": metrics.Repetition(),
        "distinct_2": metrics.DistinctN(2),
    }
    assert metrics.lookup(name) == by_hand[name]
    assert hash(metrics.lookup(name)) == hash(by_hand[name])


@pytest.mark.parametrize("metric", [metrics.Sentiment(), metrics.WordCount(["love"])])
def test_a_metric_passes_through(metric):
    assert metrics.lookup(metric) is metric


def test_a_callable_of_ones_own_with_a_name_passes_through():
    def length(given):
        return [float(len(c.text)) for c in given]

    length.name = "length"
    assert metrics.lookup(length) is length


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("sentimnt", "sentiment"), ("Weddings", "weddings"), ("distinct2", "distinct_2")],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_the_list(name, nearest):
    with pytest.raises(al.MetricError, match=f"unknown metric '{name}': did you mean '{nearest}'"):
        metrics.lookup(name)
    with pytest.raises(al.MetricError, match=r"are .*distinct_1, .*sentiment, .*weddings"):
        metrics.lookup("zzzz")


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (metrics.Sentiment, r"Sentiment is a class, not a metric: make one, Sentiment\(\.\.\.\)"),
        (len, "it is callable and its name is None"),
        (7, "it is not callable and its name is None"),
        (None, "not callable"),
    ],
)
def test_what_is_no_metric_is_refused(thing, said):
    with pytest.raises(al.MetricError, match=said):
        metrics.lookup(thing)


def test_a_name_that_is_no_string_is_refused():
    def nameless(_):
        return []

    nameless.name = 3
    with pytest.raises(al.MetricError, match="its name is 3"):
        metrics.lookup(nameless)


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_resolves(name):
    assert getattr(metrics, name) is not None
    assert name in dir(metrics)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sentimnt'"):
        _ = metrics.Sentimnt


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'vaderSentiment', 'sentence_transformers', 'numpy'}"
    code = f"import sys, actadd_lens.metrics; print({heavy} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "metric",
    [metrics.weddings, metrics.WordCount(["a"]), metrics.Sentiment(), metrics.Repetition(),
     metrics.DistinctN(1), metrics.Perspective(key=KEY)],
)  # fmt: skip
def test_what_holds_for_every_metric(metric):
    assert metric([]) == []
    assert metric == eval(repr(metric), vars(metrics))
    [alone], [_, among] = metric(completions("")), metric(completions("", ""))
    assert alone == pytest.approx(among, nan_ok=True)
    with pytest.raises(AttributeError):
        metric.name = "other"


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="lable"):
        metrics.Sentiment(lable="positive")
