"""What an evaluation looks at. Torch-free: components compute keys from it."""

from typing import Annotated, Literal

from wfm.config import AtLeastZero, Config, Count, Natural, Seed, Share, added
from wfm.evaluation.metric import PLUG_INS
from wfm.registry import Named


class SubsetConfig(Config):
    """Bounds of the subsets."""

    rate_action: str = "camera_orbit_rate"
    "Name of the action that turns the camera."
    rate_unit: str = "deg/s"
    "Its unit, for the text."
    fixed_rate_low: AtLeastZero = 20.0
    "Least |rate| of the fixed_rate subset [deg/s]."
    fixed_rate_high: AtLeastZero = 60.0
    "Greatest |rate| of the fixed_rate subset [deg/s]."
    rate_tolerance: AtLeastZero = 0.5
    "A rate is held when it varies by no more than this within the window [deg/s]."
    change_tolerance: AtLeastZero = 0.05
    "An action changes when it varies by more than this, in units of the action spec's scale."


class ObjectsConfig(Config):
    """How objects are found again by their colour."""

    hue_tolerance_degrees: AtLeastZero = 18.0
    "Greatest distance in hue from the object's own colour [degrees]."
    least_saturation: Share = 0.35
    "Least HSV saturation of a pixel of an object, 0..1."
    least_value: Share = 0.15
    "Least HSV value of a pixel of an object, 0..1."
    least_pixels: Count = 5
    "Smallest blob that counts as an object [px of the evaluated frame]."
    least_area_share: AtLeastZero = 0.25
    "Least area of a blob in a prediction, as a share of the object's area in the true frame."
    placed_within_px: AtLeastZero = 4.0
    "An object stands where it should within this distance [px of the evaluated frame]."


class EvaluationConfig(Config):
    """One evaluation of one model's videos."""

    split: Literal["test", "val"] = "test"
    "Choices are made on val; test is looked at once."
    resamples: Count = 2000
    "Resamples of the parametric bootstrap behind the intervals."
    seed: Seed = 0
    "Its seed."
    flow_gap_frames: Count = 4
    "Frames between the two pictures of a flow in the camera-motion error."
    examples: Natural = 8
    "Windows written as side-by-side mp4."
    metrics: Annotated[tuple[str, ...], Named(PLUG_INS)] = added(())
    "Metrics of other packages that are measured beside ours: names of their entry points in the group wfm.metrics."
    subsets: SubsetConfig = SubsetConfig()
    "Bounds of the subsets."
    objects: ObjectsConfig = ObjectsConfig()
    "How objects are found again."
