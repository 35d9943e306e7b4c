"""Every recipe by name, as strings, so that the control plane can list and validate without torch.

Adding a recipe is one line here, one config class and one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from workers.families.config import RecipeConfig

if TYPE_CHECKING:
    from workers.families.base import Handler, Recipe


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the parts of one recipe live, as `module:attribute`, and which dataset families it reads."""

    config: str
    recipe: str
    handler: str
    summary: str
    datasets: tuple[str, ...] = ()
    """Empty: only datasets of the recipe's own family."""
    metric: str = ""
    """The figure that picks the best checkpoint, less what judged it (`@...`), as `Recipe.metric` says; empty where the
    config chooses one."""
    metric_mode: Literal["max", "min"] = "max"
    """Whether the figure that picks the best checkpoint is better when it is larger; `Recipe.metric_mode` says the same."""
    needs_labels: bool = False
    """Whether it trains on labelled images only, where datasets of its families may have none."""
    serves_embeddings: bool = False
    """Whether its handler answers every picture with an `embedding`, which is what galleries compare."""

    def load_config(self) -> type[RecipeConfig]:
        config: type[RecipeConfig] = _load(self.config)
        return config

    def load_recipe(self) -> type[Recipe[Any, Any]]:
        recipe: type[Recipe[Any, Any]] = _load(self.recipe)
        return recipe

    def load_handler(self) -> type[Handler]:
        handler: type[Handler] = _load(self.handler)
        return handler


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


_DETECTION = "workers.families.detection"
_SEGMENTATION = "workers.families.segmentation"
_CLASSIFICATION = "workers.families.classification"
_GAN = "workers.families.gan"
_REPRESENTATION = "workers.families.representation"
_STYLE = "workers.families.style"
_TEXT = "workers.families.text"
_PICTURES = ("classification", "images", "face")
_FACE = "workers.families.face"
_TRANSLATION = "workers.families.translation"

CATALOG: dict[str, Entry] = {
    "classification/mnist_fc": Entry(
        config=f"{_CLASSIFICATION}.config:MnistConfig",
        recipe=f"{_CLASSIFICATION}.recipes:MnistFc",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="A fully connected network for 28 x 28 grey digits; 159,410 parameters.",
        metric="eval/accuracy",
    ),
    "classification/mnist_cnn": Entry(
        config=f"{_CLASSIFICATION}.config:MnistConfig",
        recipe=f"{_CLASSIFICATION}.recipes:MnistCnn",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Two convolutions for 28 x 28 grey digits; 3,720 parameters.",
        metric="eval/accuracy",
    ),
    "classification/train": Entry(
        config=f"{_CLASSIFICATION}.config:TrainConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Train",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Any classifier of torchvision or timm.",
        metric="eval/accuracy",
    ),
    "classification/finetune": Entry(
        config=f"{_CLASSIFICATION}.config:FinetuneConfig",
        recipe=f"{_CLASSIFICATION}.finetune:Finetune",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="A trained classifier, or the encoder of representation/mae, tuned to other images.",
        metric="eval/accuracy",
    ),
    "classification/vit": Entry(
        config=f"{_CLASSIFICATION}.config:VitConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Vit",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Vision Transformer: patches as words (Dosovitskiy et al. 2021).",
        metric="eval/accuracy",
    ),
    "classification/mobilenet": Entry(
        config=f"{_CLASSIFICATION}.config:MobileConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Mobile",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="MobileNet: depthwise separable convolutions (Howard et al. 2017).",
        metric="eval/accuracy",
    ),
    "detection/yolo_v1": Entry(
        config=f"{_DETECTION}.config:YoloV1Config",
        recipe=f"{_DETECTION}.yolo_v1:YoloV1",
        handler=f"{_DETECTION}.handler:DetectionHandler",
        summary="YOLO v1: one grid of boxes in one pass (Redmon et al. 2016).",
        metric="eval/ap50",
    ),
    "detection/ssd": Entry(
        config=f"{_DETECTION}.config:SsdConfig",
        recipe=f"{_DETECTION}.ssd:Ssd",
        handler=f"{_DETECTION}.handler:DetectionHandler",
        summary="SSD: default boxes on several feature maps (Liu et al. 2016).",
        metric="eval/ap50",
    ),
    "face/siamese": Entry(
        config=f"{_FACE}.config:SiameseConfig",
        recipe=f"{_FACE}.siamese:Siamese",
        handler=f"{_FACE}.handler:FaceHandler",
        summary="Siamese network: one encoder for both faces of a pair (Koch et al. 2015).",
        serves_embeddings=True,
        metric="eval/accuracy",
    ),
    "face/triplet": Entry(
        config=f"{_FACE}.config:TripletConfig",
        recipe=f"{_FACE}.triplet:Triplet",
        handler=f"{_FACE}.handler:FaceHandler",
        summary="FaceNet: triplets mined in each batch (Schroff et al. 2015); ArcFace as another loss.",
        serves_embeddings=True,
        metric="eval/accuracy",
    ),
    "segmentation/fcn": Entry(
        config=f"{_SEGMENTATION}.config:FcnConfig",
        recipe=f"{_SEGMENTATION}.fcn:Fcn",
        handler=f"{_SEGMENTATION}.handler:SegmentationHandler",
        summary="FCN: a classifier made convolutional, with skips (Long et al. 2015).",
        metric="eval/miou",
    ),
    "segmentation/torchvision": Entry(
        config=f"{_SEGMENTATION}.config:ReadyConfig",
        recipe=f"{_SEGMENTATION}.ready:Ready",
        handler=f"{_SEGMENTATION}.handler:SegmentationHandler",
        summary="FCN, DeepLab v3 and LR-ASPP on ResNet and MobileNet bodies, as torchvision builds them.",
        metric="eval/miou",
    ),
    "gan/vanilla": Entry(
        config=f"{_GAN}.config:VanillaConfig",
        recipe=f"{_GAN}.vanilla:Vanilla",
        handler=f"{_GAN}.handler:GanHandler",
        summary="The first GAN: fully connected, for a Gaussian of points or small images (Goodfellow et al. 2014).",
        datasets=("points", *_PICTURES),
        metric_mode="min",
    ),
    "gan/cgan": Entry(
        config=f"{_GAN}.config:CganConfig",
        recipe=f"{_GAN}.cgan:Cgan",
        handler=f"{_GAN}.handler:GanHandler",
        summary="Conditional GAN: samples of the class asked for (Mirza and Osindero 2014).",
        datasets=("classification", "images"),
        metric="eval/fid",
        metric_mode="min",
        needs_labels=True,
    ),
    "gan/dcgan": Entry(
        config=f"{_GAN}.config:DcganConfig",
        recipe=f"{_GAN}.dcgan:Dcgan",
        handler=f"{_GAN}.handler:GanHandler",
        summary="DCGAN: all convolutions (Radford et al. 2016).",
        datasets=_PICTURES,
        metric="eval/fid",
        metric_mode="min",
    ),
    "gan/lapgan": Entry(
        config=f"{_GAN}.config:LapganConfig",
        recipe=f"{_GAN}.lapgan:Lapgan",
        handler=f"{_GAN}.handler:GanHandler",
        summary="LAPGAN: from coarse to fine, a GAN a level (Denton et al. 2015).",
        datasets=_PICTURES,
        metric="eval/fid",
        metric_mode="min",
    ),
    "gan/stylegan2": Entry(
        config=f"{_GAN}.config:StyleganConfig",
        recipe=f"{_GAN}.stylegan2:StyleGan2",
        handler=f"{_GAN}.handler:GanHandler",
        summary="StyleGAN2: a style for every layer (Karras et al. 2020).",
        datasets=_PICTURES,
        metric="eval/fid",
        metric_mode="min",
    ),
    "gan/celeba_fc": Entry(
        config=f"{_GAN}.config:CelebaFcConfig",
        recipe=f"{_GAN}.vanilla:CelebaFc",
        handler=f"{_GAN}.handler:GanHandler",
        summary="The lesson's fully connected GAN of faces: 46,712,513 parameters, most of them memory.",
        datasets=_PICTURES,
        metric="eval/fid",
        metric_mode="min",
    ),
    "gan/celeba_conv": Entry(
        config=f"{_GAN}.config:CelebaConvConfig",
        recipe=f"{_GAN}.dcgan:CelebaConv",
        handler=f"{_GAN}.handler:GanHandler",
        summary="The lesson's convolutional GAN of faces: a fifth of the memory.",
        datasets=_PICTURES,
        metric="eval/fid",
        metric_mode="min",
    ),
    "translation/colorize": Entry(
        config=f"{_TRANSLATION}.pictures_config:ColorizeConfig",
        recipe=f"{_TRANSLATION}.colorize:Colorize",
        handler=f"{_TRANSLATION}.colorize_handler:ColorizeHandler",
        summary="pix2pix from lightness to colour: grey pictures in their likely colours (Isola et al. 2017).",
        datasets=_PICTURES,
        metric="eval/ab_l1",
        metric_mode="min",
    ),
    "translation/srgan": Entry(
        config=f"{_TRANSLATION}.srgan_config:SrganConfig",
        recipe=f"{_TRANSLATION}.srgan:Srgan",
        handler=f"{_TRANSLATION}.srgan_handler:SrganHandler",
        summary="Super-resolution: SRResNet, and SRGAN once the game begins (Ledig et al. 2017).",
        datasets=_PICTURES,
        metric="eval/psnr",
    ),
    "translation/inpaint": Entry(
        config=f"{_TRANSLATION}.pictures_config:InpaintConfig",
        recipe=f"{_TRANSLATION}.inpaint:Inpaint",
        handler=f"{_TRANSLATION}.inpaint_handler:InpaintHandler",
        summary="Context encoder: fills what is missing of a picture (Pathak et al. 2016).",
        datasets=_PICTURES,
        metric="eval/hole_mse",
        metric_mode="min",
    ),
    "gan/find_units": Entry(
        config=f"{_GAN}.units_config:FindUnitsConfig",
        recipe=f"{_GAN}.find_units:FindUnits",
        handler=f"{_GAN}.handler:GanHandler",
        summary="Which hidden units of a trained generator draw what (Radford et al. 2016, section 6.3.2).",
        datasets=_PICTURES,
        metric="eval/attribute_accuracy",
    ),
    "translation/pix2pix": Entry(
        config=f"{_TRANSLATION}.config:Pix2pixConfig",
        recipe=f"{_TRANSLATION}.pix2pix:Pix2pix",
        handler=f"{_TRANSLATION}.handler:PairedHandler",
        summary="pix2pix: pictures to pictures, learned from pairs (Isola et al. 2017).",
        datasets=("pairs",),
        metric="eval/l1",
        metric_mode="min",
    ),
    "translation/cyclegan": Entry(
        config=f"{_TRANSLATION}.config:CycleganConfig",
        recipe=f"{_TRANSLATION}.cyclegan:Cyclegan",
        handler=f"{_TRANSLATION}.handler:TwoWayHandler",
        summary="CycleGAN: two domains without pairs, there and back again (Zhu et al. 2017).",
        datasets=("domains",),
        metric="eval/patches",
        metric_mode="min",
    ),
    "translation/discogan": Entry(
        config=f"{_TRANSLATION}.config:DiscoganConfig",
        recipe=f"{_TRANSLATION}.discogan:Discogan",
        handler=f"{_TRANSLATION}.handler:TwoWayHandler",
        summary="DiscoGAN: two domains without pairs, by discriminators' features (Kim et al. 2017).",
        datasets=("domains",),
        metric="eval/patches",
        metric_mode="min",
    ),
    "translation/bicyclegan": Entry(
        config=f"{_TRANSLATION}.config:BicycleganConfig",
        recipe=f"{_TRANSLATION}.bicyclegan:Bicyclegan",
        handler=f"{_TRANSLATION}.many_handler:ManyHandler",
        summary="BicycleGAN: many answers to one picture, each of a code (Zhu et al. 2017b).",
        datasets=("pairs",),
        metric="eval/l1",
        metric_mode="min",
    ),
    "representation/mae": Entry(
        config=f"{_REPRESENTATION}.config:MaeConfig",
        recipe=f"{_REPRESENTATION}.mae:Mae",
        handler=f"{_REPRESENTATION}.mae_handler:MaeHandler",
        summary="Masked autoencoder: a transformer that finds what most of an image hides (He et al. 2022).",
        datasets=_PICTURES,
        metric="eval/masked_mse",
        metric_mode="min",
    ),
    "representation/vae": Entry(
        config=f"{_REPRESENTATION}.config:VaeConfig",
        recipe=f"{_REPRESENTATION}.vae:Vae",
        handler=f"{_REPRESENTATION}.vae_handler:VaeHandler",
        summary="Variational autoencoder: an image as a Gaussian of causes, and back (Kingma and Welling 2014).",
        datasets=_PICTURES,
        metric="eval/elbo",
    ),
    "text/rnn_lm": Entry(
        config=f"{_TEXT}.config:RnnLmConfig",
        recipe=f"{_TEXT}.rnn_lm:RnnLm",
        handler=f"{_TEXT}.lm_handler:LmHandler",
        summary="A recurrent language model, LSTM, GRU or Elman's, that goes on with a text (Mikolov et al. 2010).",
        metric="eval/perplexity",
        metric_mode="min",
    ),
    "text/transformer": Entry(
        config=f"{_TEXT}.config:TransformerConfig",
        recipe=f"{_TEXT}.transformer:TextTransformer",
        handler=f"{_TEXT}.transformer_handler:TransformerHandler",
        summary="The Transformer: one text into another, with an encoder and a decoder (Vaswani et al. 2017).",
        datasets=("parallel_text",),
        metric="eval/token_accuracy",
    ),
    "text/word2vec": Entry(
        config=f"{_TEXT}.config:Word2VecConfig",
        recipe=f"{_TEXT}.word2vec:Word2Vec",
        handler=f"{_TEXT}.words_handler:WordsHandler",
        summary="word2vec: vectors of words by skip-gram with negative sampling (Mikolov et al. 2013).",
        metric="eval/loss",
        metric_mode="min",
    ),
    "style/fast": Entry(
        config=f"{_STYLE}.config:FastConfig",
        recipe=f"{_STYLE}.fast:Fast",
        handler=f"{_STYLE}.handler:StyleHandler",
        summary="Fast style transfer: a network that paints in one pass (Johnson et al. 2016).",
        datasets=("domains",),
        metric="eval/loss",
        metric_mode="min",
    ),
    "style/gatys": Entry(
        config=f"{_STYLE}.config:GatysConfig",
        recipe=f"{_STYLE}.gatys:Gatys",
        handler=f"{_STYLE}.finished:FinishedHandler",
        summary="Style transfer as an optimisation: the picture is what is learned (Gatys et al. 2016).",
        datasets=("domains",),
        metric="eval/loss",
        metric_mode="min",
    ),
}


def family_of(recipe: str) -> str:
    """Return the family part of `family/recipe`."""
    return recipe.partition("/")[0]


def metric_mode(recipe: str) -> str:
    """Return whether a larger or a smaller figure is better; of recipes that only a later version trains, larger."""
    entry = CATALOG.get(recipe)
    return "max" if entry is None else entry.metric_mode
