"""Quality: how far the model as it is served is from itself in float32 throughout, on real text.

Perplexity of both, mean KL divergence and top-1 agreement (as llama.cpp's perplexity tool defines them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octavo.bench.machine import describe_machine
from octavo.bench.prose import Prose, read_prose
from octavo.bench.quality_spec import QualitySpec
from octavo.bench.statistics import Ratio, paired_ratio
from octavo.build import TextParts, build_quality_comparison, build_text
from octavo.config import EngineConfig
from octavo.errors import ConfigError

# Characters read for each token wanted: more than tokens of prose have, so that the text is enough.
_CHARS_PER_TOKEN = 8
# What low-bit products may cost, for the table: as decided for the starter model.
GOALS = {"perplexity_change": 0.005, "mean_kl": 0.01, "top1_agreement": 0.97}


@dataclass(frozen=True, kw_only=True)
class FormQuality:
    """One form of the model beside the reference.

    Attributes:
        weights, kv: formats of the matrices and of keys and values.
        perplexity: exp of the mean negative log-probability of the text's tokens.
        perplexity_ratio: over the reference's; its interval is of the windows' ratios.
        mean_kl, max_kl: KL(reference || this form) in nats, of the rows.
        top1_agreement: share of rows whose likeliest token is the reference's.
    """

    weights: str
    kv: str
    perplexity: float
    perplexity_ratio: float
    perplexity_ratio_by_window: Ratio
    mean_kl: float
    max_kl: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """Attributes:
    num_tokens: that were scored.
    forms: in the order of the spec's formats.
    """

    model_name: str
    kernels: str
    spec: QualitySpec
    prose: Prose
    num_tokens: int
    num_windows: int
    reference_perplexity: float
    forms: list[FormQuality]

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": "quality",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "model": self.model_name,
            "kernels": self.kernels,
            "spec": asdict(self.spec) | {"text": None if self.spec.text is None else self.prose.source},
            "text": {
                "source": self.prose.source,
                "licence": self.prose.licence,
                "sha256": self.prose.sha256,
            },
            "num_tokens": self.num_tokens,
            "num_windows": self.num_windows,
            "reference": {
                "weights": "float32",
                "kv": "float32",
                "perplexity": round(self.reference_perplexity, 6),
            },
            "goals": GOALS,
            "forms": [asdict(form) for form in self.forms],
        }


def run_quality(
    config: EngineConfig, spec: QualitySpec, *, on_tokens: Callable[[int, int], None] | None = None
) -> QualityReport:
    """Load the model once for the reference and once for each form, and let all read the text.

    Args:
        on_tokens: called after each window with (tokens scored, tokens in all).

    Raises:
        ModelLoadError, ConfigError: the model cannot be loaded, or its context is shorter than a window.
        ConfigError: the text has fewer tokens.
        RequestError: the text holds what is no character.
    """
    text = build_text(config.model)
    if spec.window > text.description.spec.max_positions:
        raise ConfigError(
            f"--window must be at most {text.description.spec.max_positions}, the model's own limit, "
            f"not {spec.window}"
        )
    prose = read_prose(
        None if spec.text is None else Path(spec.text), min_chars=_CHARS_PER_TOKEN * spec.num_tokens
    )
    windows = list(make_windows(text, prose.text, spec))
    num_tokens = sum(len(window) - 1 for window in windows)
    if num_tokens < spec.num_tokens:
        raise ConfigError(f"--num-tokens {spec.num_tokens}: the text has no more than {num_tokens}")
    comparison = build_quality_comparison(
        config, kv_cache_dtypes=spec.kv_cache_dtypes, max_window=spec.window
    )
    sums, num_read = [], 0
    for window in windows:
        sums.append(comparison.read(window, num_given=1))
        num_read += len(window) - 1
        if on_tokens is not None:
            on_tokens(num_read, num_tokens)
    reference, *forms = zip(*sums, strict=True)
    losses = [one.loss / one.num_rows for one in reference]
    mean_loss = sum(one.loss for one in reference) / num_tokens
    qualities = []
    for (weights, kv), windows_of_form in zip(comparison.format_names[1:], forms, strict=True):
        form_loss = sum(one.loss for one in windows_of_form) / num_tokens
        form_losses = [one.loss / one.num_rows for one in windows_of_form]
        qualities.append(
            FormQuality(
                weights=weights,
                kv=kv,
                perplexity=math.exp(form_loss),
                perplexity_ratio=math.exp(form_loss - mean_loss),
                perplexity_ratio_by_window=paired_ratio(
                    [math.exp(loss) for loss in form_losses], [math.exp(loss) for loss in losses]
                ),
                mean_kl=sum(one.kl for one in windows_of_form) / num_tokens,
                max_kl=max(one.max_kl for one in windows_of_form),
                top1_agreement=sum(one.num_agreeing for one in windows_of_form) / num_tokens,
            )
        )
    return QualityReport(
        model_name=text.description.source.name,
        kernels=comparison.kernels_name,
        spec=spec,
        prose=prose,
        num_tokens=num_tokens,
        num_windows=len(windows),
        reference_perplexity=math.exp(mean_loss),
        forms=qualities,
    )


def make_windows(text: TextParts, prose: str, spec: QualitySpec) -> Iterator[list[int]]:
    """Cut the text; each window begins with BOS where the model expects one. All but the first is scored.

    Ends after `spec.num_tokens` scored tokens, or with the text.
    """
    token_ids = text.tokenizer.encode(prose, add_special_tokens=False)
    bos = text.tokenizer.bos_token_id
    prefix = [bos] if bos is not None and text.tokenizer.encode("a")[:1] == [bos] else []
    position, num_left = 0, spec.num_tokens
    while num_left > 0:
        num_scored = min(spec.window - 1, num_left)
        window = prefix + token_ids[position : position + num_scored + 1 - len(prefix)]
        if len(window) < 2:
            return
        yield window
        position += len(window) - len(prefix)
        num_left -= len(window) - 1
