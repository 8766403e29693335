"""Which network an ONNX file holds, by the shapes of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of network, known by the shapes of what goes in and comes out (None: any length)."""

    name: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...] | int  # only their number where exports differ in shape
    input_type: str = "tensor(float)"


YOLOX = Kind("a YOLOX person detector (yolox_l.onnx)", ((None, 3, None, None),), ((None, None, 85),))
YOLO_NAS = Kind("a YOLO-NAS person detector", ((None, 3, None, None),), 4, "tensor(uint8)")
DWPOSE = Kind(
    "a DWPose network of 133 points (dw-ll_ucoco_384.onnx)",
    ((None, 3, None, None),),
    ((None, 133, None), (None, 133, None)),
)
SCRFD = Kind("an SCRFD face detector (scrfd_10g_bnkps.onnx)", ((None, 3, None, None),), 9)
ARCFACE = Kind("an ArcFace recogniser (glintr100.onnx)", ((None, 3, 112, 112),), ((None, 512),))
KINDS = (YOLOX, YOLO_NAS, DWPOSE, SCRFD, ARCFACE)


def known_shape(sides: Sequence[object]) -> Shape:
    """The shape as onnxruntime states it, with None for every side that is free."""
    return tuple(side if isinstance(side, int) and side > 0 else None for side in sides)


def recognise(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], types: Sequence[str]) -> Kind | None:
    """The kind of network with these inputs and outputs (name -> shape) and onnxruntime types of the inputs."""
    return next((kind for kind in KINDS if _fits(kind, list(inputs.values()), list(outputs.values()), types)), None)


def _fits(kind: Kind, inputs: Sequence[Shape], outputs: Sequence[Shape], types: Sequence[str]) -> bool:
    if not _same_shapes(kind.inputs, inputs) or types[0] != kind.input_type:
        return False
    if isinstance(kind.outputs, int):
        return len(outputs) == kind.outputs
    return _same_shapes(kind.outputs, outputs)


def _same_shapes(patterns: Sequence[Shape], shapes: Sequence[Shape]) -> bool:
    return len(patterns) == len(shapes) and all(map(_same_shape, patterns, shapes))


def _same_shape(pattern: Shape, shape: Shape) -> bool:
    if not shape:  # some exports leave the whole shape open
        return True
    pairs = list(zip(pattern, shape, strict=False))
    return len(pattern) == len(shape) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def wrong_network(
    kind: Kind | None, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], expected: Sequence[Kind]
) -> str:
    """The end of a sentence about a file: what it is, and what was expected instead."""
    signature = f"inputs {_describe(inputs)}; outputs {_describe(outputs)}"
    what = kind.name if kind else f"a network that is not known here ({signature})"
    return f"{what}, but {' or '.join(one.name for one in expected)} is needed."


def _describe(shapes: Mapping[str, Shape]) -> str:
    sides = {name: ", ".join("?" if side is None else str(side) for side in shape) for name, shape in shapes.items()}
    return ", ".join(f"{name} [{text}]" for name, text in sides.items())
