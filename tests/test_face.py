"""Face detection, alignment and identity, with the tiny networks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from choreo.pose.face import (
    TEMPLATE_112,
    TEMPLATE_512,
    FaceAnalyser,
    Faces,
    align_112,
    align_512,
    arcface_input,
    fallback_matrix,
    scrfd_decode,
    scrfd_input,
    similarity,
)
from choreo.pose.openpose_boxes import face_box, hand_boxes

from .figures import DETECTOR, FACE_DETECTOR, RECOGNISER, Figure, draw

SIZE = (190, 330)
LEFT, RIGHT = Figure((75, 95), 170, tint=1), Figure((245, 95), 170, tint=0)
FACE_JOINTS = [23 + point for point in (20, 24, 40, 56, 60)]  # the discs that the tiny detector takes as landmarks


@pytest.fixture(scope="module")
def analyser():
    with FaceAnalyser(FACE_DETECTOR, RECOGNISER, "cpu") as analyser:
        yield analyser


@pytest.fixture(scope="module")
def picture():
    return draw(SIZE, [LEFT, RIGHT])


def moved(points, angle, scale, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return points @ turn.T + shift


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_faces_are_found_best_first_with_their_points(analyser, picture):
    faces = analyser.find(picture)
    assert len(faces) == 2 and faces.scores[0] > faces.scores[1]
    for index, figure in enumerate((RIGHT, LEFT)):
        np.testing.assert_allclose(faces.landmarks[index], figure.joints()[FACE_JOINTS], atol=2)
        head = np.array(figure.centre) + np.array([[-0.19, -0.5], [0.19, -0.155]]) * figure.height
        np.testing.assert_allclose(faces.boxes[index].reshape(2, 2), head, atol=3)


def test_released_channel_order_finds_nothing_of_these_coloured_faces(analyser, picture):
    assert len(analyser.find(picture, channel_order="released")) == 0
    with pytest.raises(ValueError, match="channel_order"):
        analyser.find(picture, channel_order="rgb")


def test_identity_is_raw_and_tells_people_apart(analyser, picture):
    faces = analyser.find(picture)
    right, left = (analyser.embed(picture, points) for points in faces.landmarks)
    elsewhere = draw((220, 260), [Figure((120, 110), 190, tint=0)])
    again = analyser.embed(elsewhere, analyser.find(elsewhere).landmarks[0])

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert right.shape == (512,) and np.linalg.norm(right) > 10
    assert cosine(right, again) > cosine(right, left)


def test_analyser_without_recogniser_only_finds(picture):
    with FaceAnalyser(FACE_DETECTOR, provider="cpu") as finder:
        points = finder.find(picture).landmarks[0]
        with pytest.raises(ValueError, match="without a recogniser"):
            finder.embed(picture, points)


def test_wrong_networks_are_refused():
    with pytest.raises(ValueError, match=r"YOLOX person detector.*SCRFD"):
        FaceAnalyser(DETECTOR, RECOGNISER, "cpu")


def test_number_and_ranking_of_faces():
    boxes = np.array([[0, 0, 10, 10], [45, 45, 54, 54], [0, 0, 60, 60]], np.float32)
    faces = Faces(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros((3, 5, 2), np.float32))
    assert faces.best(1, (100, 100)).scores.tolist() == pytest.approx([0.7 if 3600 - 2 * 800 > 81 else 0.8])
    assert faces.best(2, (100, 100), "max").scores.tolist() == pytest.approx([0.7, 0.9])
    assert faces.best(1, (300, 300)).scores.tolist() == pytest.approx([0.8])
    assert faces.best(3, (100, 100)) is faces and faces.best(0, (100, 100)) is faces
    assert faces.largest() == 2
    with pytest.raises(ValueError, match="metric"):
        faces.best(1, (100, 100), "min")


@pytest.mark.parametrize("shape", [(50, 100), (100, 50), (640, 640)])
def test_scrfd_input_keeps_the_ratio_on_black(shape):
    blob, scale = scrfd_input(np.full((*shape, 3), 255, np.uint8), (320, 256))
    lit = blob[0, 0] > 0
    height, width = lit.any(1).sum(), lit.any(0).sum()
    assert blob.shape == (1, 3, 256, 320)
    assert (height, width) == pytest.approx((shape[0] * scale, shape[1] * scale), abs=1)
    assert height == 256 or width == 320
    assert set(np.unique(blob)) == {np.float32(-127.5 / 128), np.float32(127.5 / 128)}


def test_anchors_have_no_half_cell_offset():
    outputs = [np.zeros((n * n * 2, k), np.float32) for k in (1, 4, 10) for n in (8, 4, 2)]
    row = (3 * 4 + 2) * 2 + 1  # stride 16, cell x=2 y=3, second anchor
    outputs[1][row], outputs[4][row], outputs[7][row, :2] = 0.8, 1, (0.5, -0.5)
    faces = scrfd_decode(outputs, 2.0, (64, 64))
    np.testing.assert_allclose(faces.boxes, [[8, 16, 24, 32]])
    np.testing.assert_allclose(faces.landmarks[0, 0], [20, 20])
    assert len(scrfd_decode(outputs, 2.0, (64, 64), min_score=0.81)) == 0


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.7, 2.5), (-2.9, 0.3)])
def test_similarity_undoes_any_turn_scale_and_shift(angle, scale):
    points = moved(TEMPLATE_112, angle, scale, (30, -12))
    np.testing.assert_allclose(apply(similarity(points, TEMPLATE_112), points), TEMPLATE_112, atol=1e-9)


def test_similarity_never_mirrors_and_refuses_a_spot():
    mirrored = TEMPLATE_112 * (-1, 1)
    matrix = similarity(mirrored, TEMPLATE_112)
    assert np.linalg.det(matrix[:, :2]) > 0
    with pytest.raises(ValueError, match="one spot"):
        similarity(np.ones((5, 2)), TEMPLATE_112)


def test_fallback_lets_go_of_an_outlier_and_similarity_does_not():
    points = moved(TEMPLATE_512, 0.3, 0.4, (50, 20))
    points[4] += 60
    good = apply(fallback_matrix(points), points)[:4]
    np.testing.assert_allclose(good, TEMPLATE_512[:4], atol=1)
    assert np.abs(apply(similarity(points, TEMPLATE_512), points)[:4] - TEMPLATE_512[:4]).max() > 5


def test_alignments_fill_the_outside_as_published():
    red = np.zeros((60, 60, 3), np.uint8)
    red[..., 0] = 200
    points = moved(TEMPLATE_112, 0, 0.3, (35, 35))  # the face reaches beyond the lower right corner
    assert align_112(red, points)[-1, -1].tolist() == [0, 0, 0]
    assert align_512(red, points)[-1, -1].tolist() == [132, 133, 135]
    assert align_112(red, points)[20, 20].tolist() == [200, 0, 0]


def test_alignment_is_that_of_opencv_and_exact_where_opencv_rounds():
    smooth = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (200, 200, 3), dtype=np.uint8), (0, 0), 4)
    points = moved(TEMPLATE_112, 0.4, 0.6, (80, 50))
    matrix = similarity(points, TEMPLATE_112)
    opencv = cv2.warpAffine(smooth, matrix, (112, 112), flags=cv2.INTER_LINEAR)
    assert np.abs(align_112(smooth, points).astype(int) - opencv).max() <= 1
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 200, axis=1).repeat(3, axis=2)
    face = align_112(ramp, points)
    rows = np.mgrid[0:112, 0:112].transpose(1, 2, 0)[..., ::-1] @ cv2.invertAffineTransform(matrix)[1, :2]
    np.testing.assert_array_equal(
        face[30:80, 30:80, 0], np.rint(rows + cv2.invertAffineTransform(matrix)[1, 2])[30:80, 30:80]
    )


def test_arcface_input_squeezes_other_sizes():
    face = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    blob = arcface_input(face)
    assert blob.shape == (1, 3, 112, 112) and blob.dtype == np.float32
    small = cv2.resize(face, (112, 112), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(blob[0, 0], (small[..., 0] - 127.5) / 127.5, atol=1e-6)


def body(**joints):
    points, visible = np.zeros((18, 2)), np.zeros(18, bool)
    for name, point in joints.items():
        index = int(name[1:])
        points[index], visible[index] = point, True
    return points, visible


def test_hand_boxes_need_the_whole_arm_and_stay_in_the_picture():
    arm = {"j5": (100, 100), "j6": (130, 100), "j7": (160, 100)}
    assert hand_boxes(*body(**arm), (400, 400)) == [(147, 77, 45, True)]
    assert hand_boxes(*body(**arm), (400, 175)) == [(147, 77, 27, True)]
    assert hand_boxes(*body(**arm), (400, 160)) == []
    assert hand_boxes(*body(j5=(100, 100), j7=(160, 100)), (400, 400)) == []


def test_openpose_face_box():
    face = {"j0": (200, 200), "j14": (190, 195)}
    assert face_box(*body(**face), (400, 400)) == (170, 170, 60)
    assert face_box(*body(**face), (400, 199)) == (170, 170, 29)
    assert face_box(*body(j0=(200, 200)), (400, 400)) is None
    assert face_box(*body(j14=(200, 200)), (400, 400)) is None
