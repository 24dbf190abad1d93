import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from gatewise.errors import ConfigError, RunError
from gatewise.gates.report import write_report

CONFIG = """\
format = 1

[data]
tokenizer = "char"

[model]
hidden_size = 8

[training]
epochs = 4
learning_rate = 0.01
clip_norm = 1.0
"""
ENVIRONMENT = {
    "gatewise": "0.1.0",
    "processor": "A Processor",
    "threads": 2,
    "native_kernel": None,
    "started": "2026-11-20T18:50:23+00:00",
    "text": "python-topics",
    "characters": 465048,
}
TENSORS = {"embedding.weight": np.zeros((30, 4), np.float32), "output.bias": np.zeros(30, np.float32)}


def line(step: int, split: str, loss_nats: float) -> dict:
    """A line of metrics.jsonl, ten steps an epoch, a hundred steps a second."""
    common = {
        "step": step,
        "epoch": math.ceil(step / 10),
        "split": split,
        "loss_nats": loss_nats,
        "seconds": step / 100,
    }
    common |= {"perplexity": math.exp(loss_nats), "bits_per_char": loss_nats / math.log(2)}
    if split == "validation":
        return common
    return common | {"tokens_per_second": 80000.0, "learning_rate": 0.01, "gradient_norm": 0.5 + 9 / step}


METRICS = [
    line(0, "validation", 3.4),
    line(10, "train", 2.2),
    line(10, "validation", 2.0),
    line(20, "train", 1.6),
    line(20, "validation", 1.5),
    line(30, "train", 1.3),
    line(30, "validation", 1.4),
    line(40, "train", 1.1),
    line(40, "validation", 1.6),
]
SAMPLES = [
    {"step": 10 * epoch, "epoch": epoch, "prompt": "The ", "text": text}
    for epoch, text in enumerate(["qzx\nvv", "teh of", "the off", "function", "object"])
]


def write_run(path: Path, metrics: list[dict] = METRICS, samples: list[dict] = SAMPLES, config: str = CONFIG) -> Path:
    """A whole run folder, as a training leaves it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.toml").write_text(config)
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in metrics))
    (path / "samples.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in samples))
    safetensors.numpy.save_file(TENSORS, path / "model.safetensors")
    return path


class Page(HTMLParser):
    """What a browser makes of a page: its elements, attributes and the text below each element with an id or class."""

    VOID = ("meta", "link", "br", "img", "use", "path", "rect")

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.source = write_report(run).read_text("utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.quotes: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag == "blockquote":
            self.quotes.append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings[-1] += data
        if "blockquote" in self._open:
            self.quotes[-1] += data

    @property
    def words(self) -> str:
        """The text with every stretch of white space as one space."""
        return " ".join(self.text.split())


@pytest.fixture
def page(tmp_path) -> Page:
    return Page(write_run(tmp_path / "demo"))


def test_summary(page):
    assert (
        "A character model with one GRU layer of 8 units and 150 parameters was trained on python-topics (465,048 "
        "characters) for 40 steps (epoch 4 of 4) in 0.4 s, at 80,000 tokens per second. On the validation text, which "
        "it was not trained on, its perplexity is 4.06 (2.02 bits per character), down from 30.0 untrained: the choice "
        "of each next character is narrowed to about 4.1 equally likely ones. After step 30 its perplexity there rose "
        "again, to 4.95, as it began to learn the training text by heart; the saved model is the one of step 30."
    ) in page.words


def test_sections(page):
    assert page.headings == [
        "Language model of python-topics",
        "How it learned",
        "What it wrote",
        "Configuration",
        "Size",
        "Speed",
        "Environment",
    ]
    assert page.tags.count("svg") == 5, "the learning curve wide and narrow, gradient norm, learning rate, speed"
    assert "best checkpoint, step 30" in page.words
    assert "clipped above 1 " in page.words
    assert "30 (best) 3 3.67 4.06 2.02 0.3 s" in page.words, "the table of validations"
    assert "20 November 2026, 18:50 UTC" in page.words


def test_samples_in_order_with_prompt_and_perplexity(page):
    assert page.quotes == [f"Given: The  Written: {sample['text']}" for sample in SAMPLES]
    assert '<span class="prompt">The </span>' in page.source
    when = re.findall(r"<h3>Step (\d+)</h3>\s*<p>([^<]*)</p>\s*<p>perplexity <b>([^<]*)</b>", page.source)
    assert when == [
        ("0", "before training", "30.0"),
        ("10", "epoch 1", "7.39"),
        ("20", "epoch 2", "4.48"),
        ("30", "epoch 3", "4.06"),
        ("40", "epoch 4", "4.95"),
    ]


def test_configuration_marks_what_is_not_default(page):
    changed = re.findall(r'<code class="changed">([^<]*)</code> <small>([^<]*)</small>', page.source)
    assert changed == [("8", "default 256"), ("4", "default 10"), ("0.01", "default 0.002")]
    assert "Peak learning rate." in page.text


def test_sizes(page):
    assert "150 parameters in 2 tensors: 600 B in model.safetensors." in page.words
    assert "embedding.weight 30 × 4 F32 120 480 B 80.0%" in page.words


def test_environment(page):
    assert "processor A Processor" in page.words
    assert "characters 465,048" in page.words
    assert "native kernel" not in page.words, "it is null: nothing to tell"


def test_the_page_loads_and_runs_nothing(page):
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(link == "data:," or link.startswith("#") for link in links)
    assert not re.search(r"https?:|@import|url\((?!#)|\bon\w+=", page.source)
    assert "default-src 'none'" in page.source


def test_ids_are_unique_and_links_have_targets(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    targets |= {word for name, value in page.attributes if name == "aria-labelledby" for word in value.split()}
    assert targets <= set(ids)


def test_every_drawing_says_what_it_shows(page):
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels[1] == (
        "Perplexity against steps. Training: 9.03 to 3.00, steps 10 to 40. Validation: 30.0 to 4.95, steps 0 to 40. "
        "Best validation: 4.06 at step 30."
    )
    assert len(labels) == 6, "the sections, five drawings"


def test_texts_of_users_are_escaped(tmp_path):
    attack = "<script>alert(1)</script>\"'&amp;</blockquote></code>"
    config = CONFIG + f"sample_prompt = {json.dumps(attack)}\n"
    run = write_run(
        tmp_path / "<b>run", samples=[{"step": 10, "epoch": 1, "prompt": attack, "text": attack}], config=config
    )
    (run / "environment.json").write_text(json.dumps({"text": attack, attack: [attack]}))
    safetensors.numpy.save_file({attack: TENSORS["output.bias"]}, run / "model.safetensors")
    page = Page(run)
    assert "script" not in page.tags
    assert "b" not in page.tags[: page.tags.index("dl")]
    assert page.quotes == [f"Given: {attack} Written: {attack}"]
    assert page.headings[0] == f"Language model of {attack}"
    assert "<script" not in page.source


def test_characters_that_no_page_can_hold_are_shown(tmp_path):
    samples = [{"step": 10, "epoch": 1, "prompt": "\x00", "text": "\x1b[31m\ttab\r\nhalf \ud83d pair\n\n"}]
    page = Page(write_run(tmp_path, samples=samples))
    assert page.quotes == ["Given: \u2400 Written: \u241b[31m\ttab\u240d\nhalf ? pair"]


def test_many_samples_are_thinned_and_the_best_is_among_them(tmp_path):
    steps = range(0, 2000, 10)
    metrics = [line(step, "validation", 1.0 if step == 1230 else 2.0) for step in steps]
    page = Page(write_run(tmp_path, metrics, [{"step": s, "epoch": 1, "prompt": "", "text": f"at {s}"} for s in steps]))
    written = [int(quote.split()[-1]) for quote in page.quotes]
    assert len(written) <= 15
    assert written == sorted(written)
    assert {0, 1230, 1990} <= set(written)
    assert f"{len(written)} of 200 samples; all are in samples.jsonl)" in page.words


def test_without_validation(tmp_path):
    metrics = [entry for entry in METRICS if entry["split"] == "train"]
    config = CONFIG.replace("[data]", "[data]\nvalidation_fraction = 0.0")
    page = Page(write_run(tmp_path, metrics, config=config))
    assert (
        "Its perplexity on the training text is 3.00. No text was kept for validation, so nothing here says how well "
        "it does on a new one."
    ) in page.words
    assert "training perplexity 3.00" in page.words, "beside the last sample"
    assert "best" not in page.words
    assert "epoch 4 of 4" in page.words
    assert "table" not in page.source.partition("What it wrote</h2>")[0].partition("<body>")[2]


def test_without_validation_yet_and_with_max_steps(tmp_path):
    page = Page(write_run(tmp_path, METRICS[1:2], config=CONFIG + "max_steps = 1000\n"))
    assert "for 10 steps (epoch 1) in 0.1 s" in page.words


def test_one_line_of_metrics(tmp_path):
    page = Page(write_run(tmp_path, METRICS[1:2], []))
    assert "Its perplexity on the training text is 9.03. It has not been validated yet." in page.words
    assert "What it wrote" not in page.headings
    assert page.tags.count("svg") == 5


def test_before_the_first_step(tmp_path):
    page = Page(write_run(tmp_path, METRICS[:1], SAMPLES[:1]))
    assert (
        "150 parameters is to be trained on python-topics (465,048 characters). No step has been recorded yet. On the "
        "validation text, which it was not trained on, its perplexity is 30.0 (4.91 bits per character): the choice of "
        "each next character is narrowed to about 30 equally likely ones."
    ) in page.words
    assert "Speed" not in page.headings


def test_before_the_first_line_of_metrics(tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)
    page = Page(tmp_path)
    assert page.headings == ["Language model of a text", "Configuration"]
    assert (
        "A character model with one GRU layer of 8 units is to be trained on a text. No step has been recorded yet."
    ) in page.words


def test_half_a_last_line_is_left_out(tmp_path):
    run = write_run(tmp_path)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "epo')
    assert "for 40 steps" in Page(run).words


def test_very_many_lines_make_a_small_page(tmp_path):
    metrics = [line(step, "train", 1 + 1 / step) for step in range(1, 30_000)]
    page = Page(write_run(tmp_path, metrics))
    assert len(page.source) < 300_000


def test_without_matplotlib_the_page_says_how_to_get_the_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(write_run(tmp_path))
    assert "svg" not in page.tags
    assert (
        "The curves are not drawn, because matplotlib is not installed. To draw them, run "
        'pip install "gatewise[plots]" and write the report again.'
    ) in page.words
    assert "30 (best)" in page.words, "the figures are there as a table"
    assert len(page.quotes) == len(SAMPLES)


def test_writing_leaves_no_trace_in_matplotlib_and_needs_no_torch(tmp_path):
    program = (
        "import sys; from gatewise.gates.report import write_report; assert 'matplotlib' not in sys.modules\n"
        f"write_report({str(write_run(tmp_path))!r}); import matplotlib\n"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules\n"
        "assert matplotlib.rcParams['svg.fonttype'] == matplotlib.rcParamsDefault['svg.fonttype']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_same_run_gives_the_same_page(tmp_path):
    run = write_run(tmp_path)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
    assert write_report(run) == run / "report.html"


@pytest.mark.parametrize(
    ("name", "contents", "error", "message"),
    [
        ("config.toml", "format = 2\n", RunError, "written by a newer gatewise (format 2, this one reads 1)"),
        ("config.toml", "format = 1\n[model]\nhiden_size = 1\n", ConfigError, 'unknown key "model.hiden_size"'),
        ("metrics.jsonl", "{}}\n", RunError, "line 1 is damaged: Extra data: line 1 column 3 (char 2)"),
        ("environment.json", "{", RunError, "damaged: Expecting property name enclosed in double quotes"),
        ("model.safetensors", "short", RunError, "damaged: Error while deserializing header: header too small"),
    ],
)
def test_damaged_runs(tmp_path, name, contents, error, message):
    run = write_run(tmp_path)
    (run / name).write_text(contents)
    with pytest.raises(error) as caught:
        write_report(run)
    assert str(caught.value).startswith(f"{run / name}: ")
    assert message in str(caught.value)
    assert not (run / "report.html").exists()


def test_no_run(tmp_path):
    with pytest.raises(RunError) as caught:
        write_report(tmp_path / "nowhere")
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: no such run folder"


def evaluation(low: float, high: float, baseline: float) -> dict:
    """evaluation.json of a language model."""
    metrics = {key: {"value": (low + high) / 2, "low": low, "high": high} for key in ("loss_nats", "bits_per_char")}
    surprises = [{"before": "def <f>", "tokens": ["(", "\x07", "", "x"], "nats": [0.5, 12.0, 0.0, 3.5]}]
    found = {"examples": 46504, "metrics": metrics, "baseline": {"loss_nats": baseline}, "surprises": surprises}
    return {"validation": found}


def test_beside_a_table_of_pairs(tmp_path):
    run = write_run(tmp_path / "demo")
    (run / "evaluation.json").write_text(json.dumps(evaluation(1.3, 1.5, 2.3)))
    page = Page(run)
    assert "Whoever knows only which character follows which has 9.97 there. After step 30" in page.words
    assert "Validation, 46,504 tokens" in page.words
    assert "loss 1.400 nats 1.300 nats to 1.500 nats 2.300 nats" in page.words
    (run / "evaluation.json").write_text(json.dumps(evaluation(1.3, 1.5, 1.45)))
    assert "which has 4.26 there. It is no better than that." in Page(run).words


def test_surprises(tmp_path):
    run = write_run(tmp_path / "demo")
    (run / "evaluation.json").write_text(json.dumps(evaluation(1.3, 1.5, 2.3)))
    page = Page(run)
    assert page.quotes[-1].strip() == "def <f>(\u2407x"
    costs = [value for name, value in page.attributes if name == "style" and "--share" in value][:3]
    assert costs == ["--share: 5%", "--share: 100%", "--share: 35%"]
    assert "perplexity 54.6" in page.words  # of a mean of 4 nats
    assert page.headings[1:5] == ["How good it is", "How it learned", "What it wrote", "What surprised it"]
