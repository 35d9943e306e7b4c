"""The proofs of the text family: English letter by letter, rows of letters from behind, and a grammar's analogies."""

from __future__ import annotations

from tests.builders.english import write_english
from tests.builders.grammar import questions, write_grammar
from tests.builders.reversals import write_reversals
from tests.proofs.proof import Bound, Broken, Proof, Run

BITS = "eval/bits_per_character"

PROOFS = (
    Proof(
        "text/rnn_lm",
        write_english,
        # Counting pairs of letters gives 3.34 bits, counting threes 2.49.
        (
            Bound(BITS, 1.95, "max"),
            Bound(BITS, 2.15, "max", of="rnn"),
            Bound(BITS, 0.0, "max", over="rnn"),
        ),
        control=Broken("tests.proofs.spoilt_text:LmThatForgets"),
        # As many units; half the LSTM's rate suits a plain cell better.
        runs={"rnn": Run(overrides={"model": {"cell": "rnn"}, "optim": {"lr": 0.005}})},
    ),
    Proof(
        "text/transformer",
        write_reversals,
        (Bound("eval/exact_match", 0.95), Bound("eval/bleu", 95.0)),
        control=Broken("tests.proofs.spoilt_text:TransformerThatLooksAhead"),
    ),
    Proof(
        "text/word2vec",
        write_grammar,
        (Bound("eval/analogy_accuracy", 0.90),),
        control=Broken("tests.proofs.spoilt_text:WordsAmongStrangers"),
        overrides={"eval": {"analogies": [list(one) for one in questions()]}},
    ),
)
