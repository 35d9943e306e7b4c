"""Configs of the recipes for text. The defaults are the sizes of the papers or of their reference code. Torch-free."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Section
from workers.families.sections import Optim, Schedule, SupervisedConfig

MAX_TOKENS = 65_536
"""Of a vocabulary: a token travels to the network as two numbers below 256, which every precision holds exactly."""


class VocabConfig(Section):
    """What the network reads and writes: the most frequent tokens of the training text."""

    tokeniser: Literal["char", "word"] = Field(
        "word", description="char: a letter a token. word: words, marks of punctuation and ends of lines."
    )
    size: int = Field(
        30_000, ge=8, le=MAX_TOKENS, description="Most tokens, four special ones among them; rarer ones are unknown."
    )
    min_count: int = Field(1, ge=1, le=1_000_000, description="Tokens that are rarer than this are unknown.")
    lowercase: bool = Field(False, description="Whether case is dropped, of what is learned and of what is asked.")


class TextEval(Section):
    """What an evaluation looks at."""

    batch_size: int = Field(32, ge=1, le=4096, description="Texts, or places of a text, that are read side by side.")
    num_samples: int = Field(4, ge=1, le=24, description="Texts of each sheet that is drawn.")


class LmData(Section):
    """How the text is cut into batches: as many places of it side by side, read on from step to step."""

    batch_size: int = Field(20, ge=1, le=4096, description="Places of the text that are read side by side.")
    bptt: int = Field(35, ge=1, le=4096, description="Tokens a step, through which gradients flow back.")


class LmModel(Section):
    """The recurrent network."""

    cell: Literal["rnn", "lstm", "gru"] = Field("lstm", description="Elman's cell with tanh, LSTM or GRU.")
    embedding: int = Field(200, ge=1, le=4096, description="Numbers that stand for a token.")
    hidden: int = Field(200, ge=1, le=4096, description="Units of a layer.")
    layers: int = Field(2, ge=1, le=8, description="Recurrent layers, one over the other.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout of what enters and leaves every layer.")
    tied: bool = Field(False, description="Whether tokens are read and written by the same weights.")

    @model_validator(mode="after")
    def _tied_weights_have_one_shape(self) -> Self:
        if self.tied and self.embedding != self.hidden:
            text = f"model.tied needs model.embedding ({self.embedding}) to equal model.hidden ({self.hidden})"
            raise ValueError(f"{text}: set one to the other, or tied to false")
        return self


class LmOptim(Optim):
    """The optimizer: plain SGD with a high rate, and short gradients."""

    lr: float = Field(20.0, gt=0, le=100, description="Peak learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of SGD; the first beta of AdamW.")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Weight decay; biases and norms have none.")
    max_grad_norm: float | None = Field(0.25, gt=0, description="Longer gradients are shortened to this length.")


class RnnLmConfig(SupervisedConfig):
    """A recurrent language model: the next token, from all before it."""

    data: LmData = LmData()
    vocab: VocabConfig = VocabConfig()
    model: LmModel = LmModel()
    optim: LmOptim = LmOptim()
    schedule: Schedule = Schedule(name="cosine")
    eval: TextEval = TextEval(batch_size=10)

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"batch_size": 32, "bptt": 64},
            "vocab": {"tokeniser": "char"},
            "model": {"embedding": 32, "hidden": 128, "layers": 1, "dropout": 0.0},
            "optim": {"name": "adamw", "lr": 0.01, "momentum": 0.9, "max_grad_norm": 1.0},
            "limits": {
                "max_steps": 3000,
                "checkpoint_every_steps": 1000,
                "evaluate_every_steps": 500,
                "sample_every_steps": 500,
                "log_every_steps": 50,
            },
        }
    }


class PairsData(Section):
    """How pairs of texts become batches."""

    batch_size: int = Field(64, ge=1, le=4096, description="Pairs a step.")
    max_tokens: int = Field(
        96, ge=2, le=1024, description="Tokens of a text with its end; pairs with a longer one are left out."
    )


class TransformerModel(Section):
    """The encoder and the decoder."""

    width: int = Field(512, ge=4, le=4096, description="Numbers that stand for a token; the paper's d_model.")
    heads: int = Field(8, ge=1, le=64, description="Heads of attention; they share the width evenly.")
    feed_forward: int = Field(2048, ge=4, le=16_384, description="Inner width of the feed-forward layers.")
    encoder_layers: int = Field(6, ge=1, le=24, description="Layers of the encoder.")
    decoder_layers: int = Field(6, ge=1, le=24, description="Layers of the decoder.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of embeddings and of every sublayer.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads or self.width % 2:
            text = f"model.width ({self.width}) must be even and a multiple of model.heads ({self.heads})"
            raise ValueError(f"{text}: use {2 * self.heads * max(1, round(self.width / self.heads / 2))}")
        return self


class TransformerLoss(Section):
    """The loss."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the truth that is spread over all tokens.")


class TransformerOptim(Optim):
    """Adam, as the paper has it."""

    name: Literal["sgd", "adamw"] = Field("adamw", description="SGD with momentum, or AdamW.")
    lr: float = Field(7e-4, gt=0, le=10, description="Peak learning rate; the paper's is (width * warm-up)^-0.5.")
    beta2: float = Field(0.98, ge=0, lt=1, description="The second beta of AdamW; lower follows the gradient faster.")
    eps: float = Field(1e-9, gt=0, le=1, description="What AdamW adds to its denominator.")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Weight decay; biases and norms have none.")


class TransformerEval(TextEval):
    """What an evaluation looks at."""

    num_decoded: int = Field(
        200, ge=1, le=100_000, description="Held-out texts that are translated, one token after another."
    )
    beams: int = Field(
        4,
        ge=1,
        le=16,
        description="Hypotheses that a translation follows, held out or served; 1 takes the best token each time.",
    )
    length_penalty: float = Field(
        0.6, ge=0, le=5, description="How far longer translations are forgiven; 0: not at all."
    )
    bleu_tokeniser: Literal["13a", "intl", "zh", "char"] = Field(
        "13a",
        description="How BLEU cuts texts, by sacrebleu's names. 13a: as papers do. intl: by Unicode's marks of punctuation. "
        "zh: for Chinese. char: by letters, for what has no words.",
    )


class TransformerConfig(SupervisedConfig):
    """The Transformer that reads one text and writes another."""

    data: PairsData = PairsData()
    vocab: VocabConfig = VocabConfig(size=37_000)
    model: TransformerModel = TransformerModel()
    loss: TransformerLoss = TransformerLoss()
    optim: TransformerOptim = TransformerOptim()
    schedule: Schedule = Schedule(name="inverse_sqrt", warmup_steps=4000)
    eval: TransformerEval = TransformerEval()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"batch_size": 64, "max_tokens": 32},
            "model": {"width": 64, "heads": 4, "feed_forward": 128, "encoder_layers": 2, "decoder_layers": 2},
            "optim": {"lr": 3e-3},
            # The paper's rate hardly falls within so few steps: what they end with would be a matter of luck.
            "schedule": {"name": "cosine", "warmup_steps": 200},
            "limits": {
                "max_steps": 1000,
                "checkpoint_every_steps": 500,
                "evaluate_every_steps": 500,
                "sample_every_steps": 500,
                "log_every_steps": 20,
            },
        }
    }


class Word2VecData(Section):
    """How words and their neighbours are drawn."""

    batch_size: int = Field(512, ge=1, le=65_536, description="Pairs of a word and a neighbour a step.")
    window: int = Field(5, ge=1, le=64, description="Farthest neighbour; each pair draws its own reach up to it.")
    negatives: int = Field(5, ge=1, le=64, description="Words of noise beside each true neighbour.")
    noise_power: float = Field(0.75, ge=0, le=1, description="Noise is drawn by the frequency to this power.")
    subsampling: float = Field(
        1e-4, ge=0, le=1, description="Words that are more frequent than this are passed over at times; 0: never."
    )


class Word2VecModel(Section):
    """The vectors."""

    width: int = Field(100, ge=2, le=2048, description="Numbers of a vector.")


class Word2VecOptim(Optim):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = Field("adamw", description="SGD with momentum, or AdamW.")
    lr: float = Field(2e-3, gt=0, le=10, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Weight decay; biases and norms have none.")


class Word2VecEval(TextEval):
    """What an evaluation looks at."""

    batch_size: int = Field(4096, ge=1, le=65_536, description="Held-out pairs that are scored.")
    num_samples: int = Field(12, ge=1, le=24, description="Words whose nearest ones are drawn.")
    analogies: tuple[tuple[str, str, str, str], ...] = Field(
        (),
        max_length=20_000,
        description='Questions such as ["man", "king", "woman", "queen"]: the fourth is to the third as the second to the first.',
    )


class Word2VecConfig(SupervisedConfig):
    """Vectors of words, from the company they keep."""

    data: Word2VecData = Word2VecData()
    vocab: VocabConfig = VocabConfig(min_count=5, lowercase=True)
    model: Word2VecModel = Word2VecModel()
    optim: Word2VecOptim = Word2VecOptim()
    schedule: Schedule = Schedule(name="linear")
    eval: Word2VecEval = Word2VecEval()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"subsampling": 0.0},
            "vocab": {"min_count": 1, "lowercase": True},
            "model": {"width": 32},
            "optim": {"lr": 0.08},
            "limits": {
                "max_steps": 1000,
                "checkpoint_every_steps": 500,
                "evaluate_every_steps": 500,
                "sample_every_steps": 500,
                "log_every_steps": 20,
            },
        }
    }

    @model_validator(mode="after")
    def _words_are_words(self) -> Self:
        if self.vocab.tokeniser != "word":
            raise ValueError("vocab.tokeniser must be 'word': letters have no meaning of their own")
        return self
