"""The models that ship: python -m experiments.ship hippocampus --data FOLDER, with masks/ of which all are learned.

The training is that of `implicit-atlas prepare --margin 0.05` and `implicit-atlas train`. It is kept in `runs/` and
gone on with where it was stopped; the model, with its card, goes into the package. With --card, that of the model that
is there is written anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments.cells.cell import RUNS
from experiments.cells.data import DEFAULT_DATA
from experiments.cells.tables import read_results
from experiments.cells.variants import MORE_WARPS
from implicit_atlas.atlas.methods import DEFAULT_METHOD
from implicit_atlas.card import model_card
from implicit_atlas.errors import InputError
from implicit_atlas.io import find_cases
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.store import open_store, prepare_folder
from implicit_atlas.shipped import FOLDER
from implicit_atlas.support.console import exit_status
from implicit_atlas.tasks.evaluate import evaluate_known
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config
from implicit_atlas.training.learning import best_device, train

MARGIN, STEPS = 0.05, 3000
LICENCE = (
    "CC-BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), as the data's. Attribute the Medical "
    "Segmentation Decathlon, and what is named above, when you pass on the weights or what you derive from them"
)
DATA = {
    "hippocampus": (
        "221 masks of Task04_Hippocampus of the Medical Segmentation Decathlon (Antonelli et al., Nature "
        "Communications 2022; data of Vanderbilt University Medical Center), CC-BY-SA 4.0: hippocampi of adults, "
        "healthy and with psychotic disorders, anterior and posterior part taken together, MRI of 1 mm"
    ),
    "liver": (
        "111 masks of the cases of Task03_Liver of the Medical Segmentation Decathlon (Antonelli et al., Nature "
        "Communications 2022), which are those of LiTS (Bilic et al., Medical Image Analysis 2023; 028 to 047 of "
        "3D-IRCADb), CC-BY-SA 4.0: livers of patients with tumours, tumours included, contrast CT with slices of "
        "0.7 to 5 mm"
    ),
}


def learned(organ: str, masks: Path, steps: int) -> TrainedAtlas:
    """The organ's atlas of all masks, from `runs/` where it was learned before."""
    run = RUNS / f"ship-{organ}"
    folder = run / "model.atlas"
    if not folder.exists():
        prepare_folder(masks, run / "shapes", PrepareConfig(margin=MARGIN))
        shapes = list(open_store(run / "shapes"))
        config = default_config(len(shapes), best_device(), steps=steps)
        atlas = train(shapes, config=config, run=run, resume=True, progress=_report)
        atlas.save(folder, "")
    return TrainedAtlas.load(folder)


def card(organ: str, atlas: TrainedAtlas, known: dict[str, Any], unseen: dict[str, Any]) -> str:
    """The model's README: facts, data, licence, and how well it says what it has learned.

    Args:
        organ: its name.
        atlas: of all masks.
        known: scores of these.
        unseen: the cell of an atlas of fewer of them, as `unseen_cell` finds it.
    """
    protocol, others = known["protocol"], unseen["unknown"]
    scores = (
        f"The {len(known['cases'])} training shapes by their training codes: {_mean(known)}. "
        f"{protocol['degrees_of_freedom']} numbers and the choice of a template a shape. It has seen all shapes that "
        "were at hand, so that this says nothing of unseen ones. An atlas of "
        f"{others['protocol']['training_shapes']} of them ({unseen['cell']['steps']} steps, no margin, fits of "
        f"{unseen['cell']['iterations']} iterations) was asked for "
        f"the {len(others['cases'])} others: {_mean(others)} (`docs/results.md`). NSD: "
        f"{protocol['nsd_definition']}, spacing 1, tolerance {protocol['tolerance_vox']:g} voxel of the margin-free "
        f"{protocol['resolution']}³ box grid of the true mask; distances in mm on the mask's own grid"
    )
    return model_card(atlas, organ, DATA[organ], LICENCE, scores)


def _mean(scored: dict[str, Any]) -> str:
    mean = scored["mean"]
    return (
        f"DSC {mean['dsc']:.2f} %, NSD {mean['nsd']:.2f} %, HD95 {mean['hd95_mm']:.2f} mm, "
        f"ASSD {mean['assd_mm']:.2f} mm"
    )


def unseen_cell(organ: str) -> dict[str, Any]:
    """The result of an atlas of `train` with the product's fit, of which unseen shapes were scored."""
    wanted = {
        "organ": organ,
        "subset": "train",
        "method": DEFAULT_METHOD,
        "variant": MORE_WARPS,
        "steps": STEPS,
    }
    found = [one for one in read_results() if wanted.items() <= one["cell"].items()]
    if not found:
        cell = f"{DEFAULT_METHOD}:{MORE_WARPS}"
        remedy = (
            f'Run: make paper ORGAN={organ} TABLE=2 ARGS="--steps {STEPS} --iterations 100 --only {cell}".'
        )
        raise InputError(organ, "has no scores of unseen shapes", remedy)
    return found[0]


def _report(share: float, text: str) -> None:
    print(f"{100 * share:3.0f} %  {text}", flush=True)


@exit_status
def main() -> None:
    """Train, score and put a model into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("organ", choices=sorted(DATA))
    parser.add_argument("--data", type=Path, help="folder with masks/")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--card", action="store_true", help="write the card of the model that ships anew")
    options = parser.parse_args()
    masks = (options.data or DEFAULT_DATA / options.organ) / "masks"
    folder, unseen = FOLDER / options.organ, unseen_cell(options.organ)
    atlas = TrainedAtlas.load(folder) if options.card else learned(options.organ, masks, options.steps)
    text = card(options.organ, atlas, evaluate_known(atlas, find_cases(masks).paths).to_json(), unseen)
    atlas.save(folder, text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
