"""The proofs of the gan family: points of a known Gaussian, real digits and drawn faces, made from noise.

Distances are between held-out images and generated ones in the features of the small network, which is trained on the
dataset; a held-out set's own total variance is 1,000.
"""

from __future__ import annotations

from functools import partial

from tests.builders.digits import write_digits
from tests.builders.faces import write_celeba
from tests.builders.points import write_gaussian
from tests.proofs.proof import Bound, Broken, Proof

FID, FID_SHARE = "eval/fid@small", "eval/fid_share@small"

# As many held-out points that their own covariance is known to a percent.
_points = partial(write_gaussian, val=20_000)
_digits = partial(write_digits, size=16)

PROOFS = (
    Proof(
        "gan/vanilla",
        _points,
        (Bound("eval/covariance_error", 0.08, "max"), Bound("eval/mean_error", 0.2, "max")),
        control=Broken("tests.proofs.spoilt_gan:VanillaOnNoise"),
    ),
    Proof(
        "gan/cgan",
        _digits,
        (Bound("eval/class_agreement", 0.95), Bound(FID, 50, "max")),
        control=Broken("tests.proofs.spoilt_gan:CganWithLabelsShuffled"),
    ),
    Proof(
        "gan/dcgan",
        write_celeba,
        (Bound(FID_SHARE, 0.05, "max"),),
        control=Broken("tests.proofs.spoilt_gan:DcganOnNoise"),
        family="images",
    ),
    Proof(
        "gan/lapgan",
        _digits,
        (Bound("eval/fid_of_coarse@small", 0.8, "max"), Bound(FID, 45, "max"), Bound("eval/classes", 10)),
        control=Broken("tests.proofs.spoilt_gan:LapganWithoutDetail"),
    ),
    Proof(
        "gan/stylegan2",
        _digits,
        (
            Bound(FID, 150, "max"),
            # Of which class the classifier takes an untrained picture for is chance: now on this side, now on that.
            Bound("eval/mixing", 0.2, beats_baseline=False),
            Bound("eval/spread_falls", 1, beats_baseline=False),
        ),
        control=Broken("tests.proofs.spoilt_gan:StyleGan2WithDeafLayers"),
    ),
)
