"""BLEU of translations (Papineni et al. 2002), by sacrebleu, whose signature says all that the figure depends on.

Only evaluations need the library, so it is imported by the first of them: neither schemas nor serving wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


@dataclass(frozen=True, slots=True)
class Bleu:
    """How texts are cut and compared. `tokeniser` is a name of sacrebleu's; without case, that of both sides is dropped."""

    tokeniser: str
    has_case: bool

    def score(self, translations: Sequence[str], references: Sequence[str]) -> float:
        """Return the BLEU of a corpus, from 0 to 100; the texts are as people write them, a reference to each."""
        metric = self._metric()
        return float(metric.corpus_score(list(translations), [list(references)]).score)

    def signature(self) -> str:
        """Return what papers state beside the figure: references, case, tokeniser, smoothing and sacrebleu's version."""
        metric = self._metric()
        # One that scored nothing does not know how many references a text has.
        metric.corpus_score(["a"], [["a"]])
        return str(metric.get_signature())

    def _metric(self) -> BLEU:
        from sacrebleu.metrics.bleu import BLEU

        # Effective order: in a corpus of texts shorter than four tokens, runs of four count neither for nor against.
        return BLEU(tokenize=self.tokeniser, lowercase=not self.has_case, effective_order=True)
