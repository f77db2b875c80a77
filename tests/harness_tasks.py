"""Tasks of lm-evaluation-harness on questions of our own, as definitions and data in a folder."""

import json
from pathlib import Path

import numpy as np

from bonsai_core.utilities.questions import Question

COUNT = 24
_COMMON = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/questions.jsonl
  cache_dir: {folder}/cache
test_split: test
doc_to_text: "{{{{context}}}}"
metadata:
  version: 3
"""
_CHOICE = """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
# The harness calls the log-likelihood of a target perplexity before it is aggregated.
_LIKELIHOOD = """
output_type: loglikelihood
doc_to_target: " {{choices[answer]}}"
metric_list:
  - metric: perplexity
    aggregation: AGGREGATION
    higher_is_better: HIGHER
"""
_GROUP = """
group: tiny_group
task: [tiny_choice, tiny_likelihood]
aggregate_metric_list:
  - metric: acc
"""


def questions(seed: int = 0) -> list[Question]:
    """Random words; choices of unlike lengths, which stand behind a space as the harness has it."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlu"))
    words = ["".join(random.choice(letters, size=random.integers(2, 8))) for _ in range(60)]
    return [
        Question(
            context=" ".join(random.choice(words, size=6)),
            choices=[f" {' '.join(random.choice(words, size=count))}" for count in (1, 2, 2, 3)],
            answer=int(random.integers(4)),
        )
        for _ in range(COUNT)
    ]


def tasks_folder(folder: Path) -> Path:
    """Write tiny_choice, tiny_likelihood (a mean), tiny_perplexity and tiny_group."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        question.model_dump() | {"choices": [choice[1:] for choice in question.choices]}
        for question in questions()
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mean = _LIKELIHOOD.replace("AGGREGATION", "mean").replace("HIGHER", "true")
    bootstrapped = _LIKELIHOOD.replace("AGGREGATION", "perplexity").replace("HIGHER", "false")
    write_task(folder, "tiny_choice", _CHOICE)
    write_task(folder, "tiny_likelihood", mean)
    write_task(folder, "tiny_perplexity", bootstrapped)
    (folder / "tiny_group.yaml").write_text(_GROUP)
    return folder


def write_task(folder: Path, name: str, rest: str = _CHOICE, data: str = "") -> None:
    """Write one definition; `data` stands in place of the path of the data."""
    text = _COMMON.format(name=name, folder=folder) + rest
    if data:
        text = text.replace(f"{folder}/questions.jsonl", data)
    (folder / f"{name}.yaml").write_text(text)
