import subprocess
import sys

import pytest
from completions import completions

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.metrics import registry

BUILT_IN = {
    "distinct_1": "completions", "distinct_2": "completions", "distinct_3": "completions",
    "relevance": "completions", "repetition": "completions", "sentiment": "completions",
    "weddings": "completions", "entropy": "logits", "kl": "logits", "relative_kl": "logits",
    "reverse_kl": "logits", "total_variation": "logits",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch):
    metrics.lookup("kl")
    monkeypatch.setattr(registry, "_registered", {**registry._registered})


@pytest.mark.parametrize(("name", "kind"), BUILT_IN.items())
def test_a_built_in_metric_has_the_name_it_is_looked_up_by_and_a_kind(name, kind):
    assert al.metrics.lookup(name).name == name
    assert al.metrics.lookup(name).kind == kind


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

    length.name, length.kind = "length", "completions"
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

    nameless.name, nameless.kind = 3, "completions"
    with pytest.raises(al.MetricError, match="its name is 3"):
        metrics.lookup(nameless)


def test_a_metric_states_its_kind():
    class Length:
        name = "length"

        def __call__(self, given):
            return [float(len(c.text)) for c in given]

    for metric in ([Length()], ["weddings", Length()]):
        with pytest.raises(al.MetricError, match=r'Length states no kind: write Length.kind = "c'):
            al.score(completions("a"), metric)
    Length.kind = "completion"
    with pytest.raises(al.MetricError, match="states the kind 'completion': write"):
        metrics.lookup(Length())
    Length.kind = "completions"
    assert al.score(completions("abc"), [Length()])["length"].tolist() == [3.0]


def test_kind_decides_how_a_metric_is_called_whatever_its_arguments_are(model):
    class Any:
        name, kind = "any", "logits"

        def __call__(self, *args, **kwargs):
            return [float(len(args))] * len(args[0])

    result = al.sweep(model, ("Love", "Hate"), "I", layers=[1], metrics=Any(), progress=False)
    assert set(result.frame["value"]) == {2.0}
    with pytest.raises(al.MetricError, match="any reads log-probabilities, not text"):
        al.score(completions("a"), [Any()])


def test_a_registered_function_is_found_by_name_wherever_metrics_are_taken():
    @metrics.register("length", kind="completions", version=2)
    def length(given):
        return [float(len(c.text)) for c in given]

    assert metrics.lookup("length") is length
    assert (length.name, length.kind, length.version) == ("length", "completions", 2)
    assert not hasattr(length, "share")
    assert al.score(completions("abc"), "length")["length"].tolist() == [3.0]


def test_a_registered_class_is_made_without_arguments_and_keeps_what_it_states():
    @metrics.register("starts", kind="completions", share=True)
    class Starts:
        def __init__(self, letter="a"):
            self.letter = letter

        def __call__(self, given):
            return [float(c.text.startswith(self.letter)) for c in given]

    metric = metrics.lookup("starts")
    assert (metric.letter, metric.name, metric.kind, metric.share) == (
        "a", "starts", "completions", True,
    )  # fmt: skip

    @metrics.register("ends", kind="logits")
    class Ends(Starts):
        name, kind = "ends_by_its_own_account", "completions"

    assert (metrics.lookup("ends").name, metrics.lookup("ends").kind) == (
        "ends_by_its_own_account", "completions",
    )  # fmt: skip


def test_a_metric_that_is_made_can_be_registered():
    love = metrics.register("love")(metrics.WordCount(["love"], name="love"))
    assert metrics.lookup("love") is love == metrics.WordCount(["love"], name="love")


@pytest.mark.parametrize("name", ["kl", "length"])
def test_a_name_is_registered_once_unless_it_is_to_be_replaced(name):
    def length(given):
        return [float(len(c.text)) for c in given]

    def other(given):
        return [0.0 for _ in given]

    if name == "length":
        metrics.register(name, kind="completions")(length)
    with pytest.raises(al.MetricError, match=f"a metric '{name}' is registered already"):
        metrics.register(name, kind="completions")(other)
    assert metrics.lookup(name) is not other
    metrics.register(name, kind="completions", replace=True)(other)
    assert metrics.lookup(name) is other


def test_what_states_no_kind_is_not_registered():
    with pytest.raises(al.MetricError, match=r'length states no kind: .*length.kind = "logits"'):

        @metrics.register("length")
        def length(given):
            return []

    with pytest.raises(al.MetricError, match="unknown metric 'length'"):
        metrics.lookup("length")


@pytest.mark.slow
def test_a_name_of_a_built_in_metric_is_taken_before_any_was_looked_up():
    code = """
import actadd_lens as al
try:
    al.metrics.register("weddings", kind="completions")(lambda given: [])
except al.MetricError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'weddings' is registered already" in run.stdout


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_resolves(name):
    assert getattr(metrics, name) is not None
    assert name in dir(metrics)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute Sentimnt"):
        _ = metrics.Sentimnt


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'vaderSentiment', 'sentence_transformers', 'numpy'}"
    code = f"import sys, actadd_lens.metrics; print({heavy} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "metric",
    [metrics.weddings, metrics.WordCount(["a"]), metrics.Sentiment(), metrics.Repetition(),
     metrics.DistinctN(1), metrics.DistinctN(2, name="bigrams")],
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


@pytest.mark.parametrize(
    "make",
    [lambda **name: metrics.WordCount(["a"], **name), lambda **name: metrics.DistinctN(1, **name),
     lambda **name: metrics.ContainsAny(["a"], **name), metrics.Repetition, metrics.Sentiment,
     metrics.Relevance, lambda **name: metrics.Toxicity("m", **name), metrics.KL, metrics.ReverseKL,
     metrics.Entropy, metrics.RelativeKL, metrics.TotalVariation,
     lambda **name: metrics.TokenLogProb(1, **name), lambda **name: metrics.TokenRank(1, **name),
     lambda **name: metrics.LogitDifference((0, 1), **name),
     lambda **name: metrics.Effectiveness(1, **name), lambda **name: metrics.Disruption(1, **name)],
)  # fmt: skip
def test_every_metric_takes_a_name(make):
    assert make().name
    assert make(name="mine").name == "mine"
    assert make(name="mine") != make()
    assert hash(make()) == hash(make())
