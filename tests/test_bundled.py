"""What the bundled model is for: vectors that are known to work on it, and controls that do not."""

import json
import re
from pathlib import Path

import pytest

import actadd_lens as al
from actadd_lens.models.base import Bridge
from actadd_lens.statistics import proportion
from actadd_lens.testbed.tasks import CHECKPOINT, TASKS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def testbed() -> Bridge:
    return al.load_model("testbed", device="cpu")


@pytest.fixture(scope="module")
def weddings(testbed) -> al.SteeringVector:
    layer, _ = al.testbed.recommended("topic")
    return al.SteeringVector.from_pair(testbed, al.testbed.pairs["topic"], layer)


def figures(path: Path) -> list[str]:
    return [line["figure"] for line in json.loads(path.read_text())["lines"]]


def test_the_document_says_what_the_evaluation_found():
    document = (DOCS / "testbed.md").read_text()
    table = document[document.index("| figure |") : document.index('The task "topic" reads')]
    cells = [row.split(" | ")[1] for row in table.strip().splitlines()[2:]]
    assert cells == figures(CHECKPOINT / "evaluation.json")


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_table_of_seeds_is_that_of_their_evaluations(seed):
    path = CHECKPOINT / "evaluation.json" if seed == 1 else DOCS / "seeds" / f"{seed}.json"
    lines = json.loads(path.read_text())["lines"]
    shares = {kind: [line["figure"].split(" ")[0] for line in lines if line["what"] == f"  {kind}"]
              for kind in ("clean", "steered")}  # fmt: skip
    row = re.search(rf"^\| {seed} \|.*", (DOCS / "testbed.md").read_text(), re.M)
    found = re.findall(r"(\d+) \((\d+)\)", row[0])
    assert found == list(zip(shares["steered"], shares["clean"], strict=True))


def test_it_knows_the_words_of_its_tasks(testbed):
    for task in TASKS.values():
        assert al.testbed.recommended(task.name)[0] in range(1, testbed.cfg.n_layers - 1)
        assert task.pair.tokens(testbed).shape[0] == 2
    for word in ("Love", "Hate", " weddings"):
        assert len(testbed.to_tokens(word, prepend_bos=False)[0]) == 1, word


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["topic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sentiment", "register"))]
)
def test_it_is_steered_where_it_is_said_to_be(testbed, name):
    """The 95% interval of the steered run is above those of the clean, negated and random runs."""
    task = TASKS[name]
    layer, coefficient = al.testbed.recommended(name)
    vector = coefficient * al.SteeringVector.from_pair(testbed, task.pair, layer)
    texts = al.testbed.prompts(task.prompts, "test", 60)

    def share(steering):
        completions = al.generate(testbed, texts, steering, max_new_tokens=24)
        return proportion([task.success(c.text) for c in completions])

    steered = share(vector)
    for control in (None, -vector, vector.random_like(0)):
        assert share(control).high < steered.low


@pytest.mark.slow
def test_texts_on_the_topic_get_likelier_and_others_do_not(testbed, weddings):
    texts = al.testbed.documents(300, seed=0)
    labels = ["on" if al.testbed.topic(text) == "weddings" else "off" for text in texts]

    def ratios(vector):
        frame = al.perplexity_ratio(testbed, texts, vector, labels=labels)
        return al.ratio_summary(frame, by="label").set_index("label")

    steered, random = ratios(weddings), ratios(weddings.random_like(0))
    assert steered.loc["on", "high"] < 1 < steered.loc["off", "low"]
    assert random.loc["on", "high"] > 1


def test_the_steered_words_come_out_on_top(testbed, weddings):
    prompt = "Anna sang the song. Ben talked about"
    shift = al.next_token_shift(testbed, prompt, 6 * weddings)
    top = [token.strip() for token in shift["token"][:5]]
    assert {al.testbed.topic(f"Ben talked about {token}") for token in top} == {"weddings"}
    control = al.next_token_shift(testbed, prompt, 6 * weddings.random_like(0))
    assert control["kl_contribution"].sum() < 0.01 * shift["kl_contribution"].sum()


def test_facts_are_recalled_behind_a_sentence_that_takes_the_vector(testbed, weddings):
    asked = [(f"Everything was rather plain. {question}", answer)
             for question, answer in al.testbed.facts()]  # fmt: skip
    completions = al.generate(
        testbed, [text for text, _ in asked], 6 * weddings, max_new_tokens=4, temperature=0
    )
    recalled = [
        c.text.split()[0].rstrip(".") == answer
        for c, (_, answer) in zip(completions, asked, strict=True)
    ]
    assert sum(recalled) >= 0.95 * len(recalled)
