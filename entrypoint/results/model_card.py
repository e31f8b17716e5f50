"""model_card.md: what the model is, how good it is and how it is used, with the front matter of Hugging Face's hub.

The format of the front matter is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import json
import re
from typing import Any

from entrypoint import workspace
from entrypoint.data.annotations import Dataset
from entrypoint.data.records import RecordsManifest
from entrypoint.results import report_tables as tables
from entrypoint.results.cards import template
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import files, version
from entrypoint.training import plan, start_checkpoint
from entrypoint.training.metrics import Metrics
from entrypoint.workspace import Workspace

# What has a meaning in Markdown or HTML.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+.!|~$&:-])")


def write(work: Workspace, dataset: Dataset, recorded: RecordsManifest, metrics: MetricsDocument) -> None:
    """Writes the card into WORK_DIR."""
    analysis = metrics.analysis
    page = template("model_card.md.j2", text=plain, code=without_ticks)
    card = page.render(
        front_matter=front_matter(work.settings.model, metrics),
        model=work.settings.model,
        labels=dataset.labels,
        start=start_checkpoint.load(work) if work.start.exists() else None,
        metrics=metrics,
        interval=analysis.bootstrap.map if analysis and analysis.bootstrap else None,
        point=metrics.recommended,
        records=recorded,
        rows=tables.label_rows(dataset, recorded, metrics),
        plan=plan.load(work),
        exports=[each for each in tables.export_rows(work, analysis) if not each.parity.is_failure],
        data_sha256=workspace.output_of("tf_record", work) or recorded.digest(),
        version=version.describe(),
    )
    files.write_text(work.model_card, card)


def front_matter(model: str, metrics: Metrics) -> str:
    """Returns the front matter as YAML: every value is written as JSON, which YAML contains."""
    fields: dict[str, Any] = {
        "library_name": "tensorflow",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "tensorflow", "tf-object-detection-api"],
        "metrics": ["mAP"],
    }
    results = [
        {"type": "mAP", "name": name, "value": round(value, 4)}
        for name, value in (("mAP (IoU 0.50 to 0.95)", metrics.summary.map), ("mAP@0.5", metrics.summary.map50))
        if value is not None
    ]
    if results:
        task = {"type": "object-detection", "name": "Object detection"}
        data = {"type": "custom", "name": "Validation photos of the bucket", "split": "validation"}
        fields["model-index"] = [{"name": model, "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())


def plain(text: str) -> str:
    """Returns a text from outside in one line, in which nothing has a meaning in Markdown."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def without_ticks(text: str) -> str:
    """Returns a text for a code span: in one line, without the mark that ends the span."""
    return " ".join(text.split()).replace("`", "'")
