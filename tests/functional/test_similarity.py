"""The streamed pass against a brute-force version in float64, at odd shapes, with ties, and on real embeddings."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmmlib.errors import InputError
from cmmlib.functional import _blocks, equal_texts, similarity
from cmmlib.functional._kernels.similarity_torch import TorchSteps
from cmmlib.functional.similarity import check_embeddings, similarity_pass
from cmmlib.functional.zero_shot import top_two

SCALE = 20.0
BF16_SIMILARITY = 1e-3  # bound on the error of a similarity; a margin errs by twice that at most
BF16_CMM = 2e-4  # bound on the error of the soft CMM, where the errors of many images cancel


@pytest.fixture(scope="module", params=["compiled", "torch"], autouse=True)
def steps(request):
    """Every test is run with both ways to go through a block; the second is for other devices, which are not here."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(similarity, "_steps", lambda device: TorchSteps)
        yield


def brute_force(images, heads, scale):
    """Every field of `Matches` from the whole [N, C] matrix of each prompt, in float64."""
    prompts = []
    for head in np.asarray(heads, float):
        s = np.asarray(images, float) @ head.T
        n, n_classes = s.shape
        first, second = np.argsort(-s, 1, kind="stable")[:, :2].T
        own = np.arange(n), first
        top, runner_up = s[own], s[np.arange(n), second]
        q = np.exp(scale * (s - top[:, None]))
        q /= q.sum(1, keepdims=True)
        q_second = q[np.arange(n), second]
        margin, q_margin = s - top[:, None], q - q[own][:, None]
        margin[own], q_margin[own] = top - runner_up, q[own] - q_second
        spread = s.std(1)
        m = min(n, max(1, round(n / n_classes)))
        retrieved = np.argsort(-s, 0, kind="stable")[:m]
        sums = q, q * margin, q * margin / np.where(spread > 0, spread, 1)[:, None], q * q_margin
        sums = [x.sum(0) for x in sums] + [np.take_along_axis(margin, retrieved, 0).sum(0)]
        prompts.append([first, second, top, top - runner_up, q[own], spread, *sums])
    return [np.stack(field) for field in zip(*prompts, strict=True)]


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def assert_same(passed, images, heads, scale=SCALE):
    expected = brute_force(images, heads, scale)
    sure = expected[3] > 1e-6
    for field, want in zip(fields(passed), expected, strict=False):
        got = getattr(passed, field.name).numpy()
        assert got.shape == want.shape, field.name
        if field.name == "prediction":
            np.testing.assert_array_equal(got[sure], want[sure])
        elif field.name != "rival":  # a rival is checked by its similarity: it may tie with the third
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5, err_msg=field.name)
    rival = np.stack([images.float().numpy() @ head.float().numpy().T for head in heads])
    rival = np.take_along_axis(rival, passed.rival.numpy()[:, :, None].astype(int), 2)[:, :, 0]
    np.testing.assert_allclose(rival, expected[2] - expected[3], atol=1e-5)
    assert (passed.rival != passed.prediction).all()
    assert passed.n_retrieved == min(len(images), max(1, round(len(images) / heads.shape[1])))


@pytest.mark.parametrize("n_classes", [2, 3, 63, 64, 65, 127, 128, 129, 130, 191, 192, 193, 333])
@pytest.mark.parametrize(("n", "block"), [(1, None), (101, 32), (64, 7)])
def test_every_field_equals_brute_force(n, n_classes, block):
    images, heads = unit(n, 24), unit(2, n_classes, 24, seed=1)
    assert_same(similarity_pass(images, heads, SCALE, block=block), images, heads)


@pytest.mark.parametrize("block", [1, 15, 16, 17, 4096, None])
def test_any_block_gives_the_same_sums(block):
    images, heads = unit(210, 16), unit(1, 129, 16, seed=1)
    assert_same(similarity_pass(images, heads, SCALE, block=block), images, heads)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 40), n_classes=st.integers(2, 150), n_prompts=st.integers(1, 3), block=st.integers(1, 80))
def test_any_shape_equals_brute_force(n, n_classes, n_prompts, block):
    images, heads = unit(n, 8, seed=n), unit(n_prompts, n_classes, 8, seed=n_classes)
    assert_same(similarity_pass(images, heads, SCALE, block=block), images, heads)


def test_prompts_take_turns_over_chunks_of_images(monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK_ROWS", 64)
    images, heads = unit(210, 16), unit(5, 9, 16, seed=1)
    assert_same(similarity_pass(images, heads, SCALE), images, heads)
    assert_same(similarity_pass(images, heads, SCALE, block=50), images, heads)


@pytest.mark.parametrize(("n", "n_classes"), [(200, 5), (600, 130), (700, 5)])
def test_images_in_order_of_similarity_are_retrieved(n, n_classes):
    """The most similar come last, or first: every block brings newcomers, or none."""
    images, heads = unit(n, 16), unit(1, n_classes, 16, seed=1)
    rising = (images @ heads[0, 0]).argsort()
    for order in (rising, rising.flip(0)):
        assert_same(similarity_pass(images[order], heads, SCALE, block=48), images[order], heads)


@settings(deadline=None, max_examples=60)
@given(n_classes=st.sampled_from([2, 5, 127, 128, 129, 200]), values=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_top_two_breaks_ties_to_the_lowest_class(n_classes, values, seed):
    s = torch.randint(values, (20, n_classes), generator=torch.Generator().manual_seed(seed)).float()
    kept = s.clone()
    first, second, top, runner_up = top_two(s)
    order = s.sort(dim=1, stable=True, descending=True)
    assert torch.equal(torch.stack([first, second], 1), order.indices[:, :2])
    assert torch.equal(torch.stack([top, runner_up], 1), order.values[:, :2])
    assert torch.equal(s, kept)


def test_top_two_takes_a_strided_input():
    s = unit(130, 40)
    assert torch.equal(top_two(s.T)[0], s.T.argmax(1))


@pytest.mark.parametrize("n_classes", [3, 64, 130, 200])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_duplicate_text_is_never_predicted_and_is_the_rival(n_classes, precision):
    images, heads = unit(333, 32), unit(1, n_classes, 32, seed=1)
    heads[0, -1] = heads[0, 0]
    passed = similarity_pass(images, heads, SCALE, precision=precision, block=50)
    assert not (passed.prediction == n_classes - 1).any()
    original = passed.prediction == 0
    assert original.any()
    assert (passed.rival[original] == n_classes - 1).all()
    assert (passed.margin[original] == 0).all()


@pytest.mark.parametrize("n_classes", [2, 7, 130])
def test_all_texts_alike(n_classes):
    passed = similarity_pass(unit(20, 8), unit(1, 1, 8, seed=1).expand(1, n_classes, 8), SCALE)
    assert (passed.prediction == 0).all()
    assert (passed.rival == 1).all()
    assert (passed.spread == 1).all()
    for key in ("margin", "soft_margin", "soft_scaled_margin", "retrieval_margin"):
        assert not getattr(passed, key).any()
    torch.testing.assert_close(passed.soft_mass, torch.full_like(passed.soft_mass, 20 / n_classes))


@pytest.mark.parametrize(("n", "n_classes"), [(60, 4), (400, 130), (700, 5)])
def test_all_images_alike(n, n_classes):
    images, heads = unit(1, 16).repeat(n, 1), unit(1, n_classes, 16, seed=1)
    assert_same(similarity_pass(images, heads, SCALE, block=25), images, heads)


@pytest.mark.parametrize("n_classes", [4, 128])
def test_a_tie_among_retrieved_images_goes_to_the_lowest_index(n_classes):
    """Images are one-hot, so products are exact. Class 0 ties on all images, of which only the first two count."""
    n = 2 * n_classes
    heads = torch.eye(n_classes)[None]
    images = torch.zeros(n, n_classes)
    images[:, 0] = 0.5
    images[torch.arange(n), 1 + torch.arange(n) % (n_classes - 1)] = torch.linspace(0.6, 0.9, n)
    passed = similarity_pass(images, heads, SCALE, block=5)
    assert passed.n_retrieved == 2
    assert passed.retrieval_margin[0, 0].item() == pytest.approx(0.5 - 0.6 + 0.5 - images[1, 2].item(), abs=1e-6)


@pytest.mark.parametrize("m", [1, 2, 63, 64, 65, 66, 69, 70, 150, 400])
@pytest.mark.parametrize("values", [3, 40, 10**6])
def test_the_first_of_equally_similar_images_are_retrieved(m, values):
    """Similarities of few values, negative ones and both zeros among them; m below, at and above the sorted row."""
    n, n_classes = 400, 3
    s = torch.randint(-values, values + 1, (n, n_classes), generator=torch.Generator().manual_seed(m)) / values
    s[s == 0] *= torch.tensor([1.0, -1.0]).repeat(n)[: int((s == 0).sum())]
    fields = {key: torch.zeros(n, dtype=torch.int32) for key in ("prediction", "rival")}
    fields |= {key: torch.zeros(n) for key in similarity.PER_IMAGE if key not in fields}
    fields |= {key: torch.zeros(n_classes, dtype=torch.float64) for key in similarity.PER_CLASS}
    made = similarity._steps(s.device)(fields, m, 1.0)
    for start in range(0, n, 33):
        made.add(s[start : start + 33].clone(), torch.zeros(len(s[start : start + 33])), start)
    value, image = made.retrieved()
    expected = np.argsort(-s.numpy(), 0, kind="stable")[:m].T
    np.testing.assert_array_equal(np.sort(image.numpy(), 1), np.sort(expected, 1))
    assert torch.equal(value, s.T.gather(1, image))


def test_half_precision_inputs():
    images, heads = unit(150, 32).half(), unit(2, 70, 32, seed=1).half()
    passed = similarity_pass(images, heads, SCALE, block=64)
    assert_same(passed, images, heads)
    assert passed.top_similarity.dtype == torch.float32


def test_inputs_are_left_alone():
    images, heads = unit(50, 8), unit(1, 140, 8, seed=1)
    kept = images.clone(), heads.clone()
    similarity_pass(images, heads, SCALE)
    assert torch.equal(images, kept[0])
    assert torch.equal(heads, kept[1])


@pytest.mark.parametrize(("value", "what"), [(torch.nan, "NaN"), (torch.inf, "Inf"), (-torch.inf, "Inf"), (0, "zero")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_bad_row_is_named(value, what, dtype):
    images, heads = unit(20, 8).to(dtype), unit(3, 5, 8, seed=1).to(dtype)
    images[[17, 19]] = heads[1, 4] = value
    with pytest.raises(InputError, match=rf"image_features row 17 has .*{what}"):
        similarity_pass(images, heads, SCALE)
    with pytest.raises(InputError, match=rf"text_features row \(1, 4\) has .*{what}"):
        similarity_pass(images[:17], heads, SCALE)


def test_a_single_nan_in_a_late_chunk_is_found():
    x = torch.ones(40_000, 2)
    x[39_999, 1] = torch.nan
    with pytest.raises(InputError, match="x row 39999 has NaN"):
        check_embeddings(x, "x")


def test_impossible_arguments_are_refused():
    images, heads = unit(4, 8), unit(1, 3, 8)
    with pytest.raises(InputError, match="two classes"):
        similarity_pass(images, heads[:, :1], SCALE)
    with pytest.raises(InputError, match="at least one image"):
        similarity_pass(images[:0], heads, SCALE)
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="logit_scale"):
            similarity_pass(images, heads, scale)
    with pytest.raises(InputError, match="block"):
        similarity_pass(images, heads, SCALE, block=0)


@pytest.fixture(scope="module")
def dtd(real_data):
    with np.load(real_data / "dtd_vitb32.npz", allow_pickle=False) as file:
        images, head = (torch.from_numpy(file[key]) for key in ("image_features", "text_features"))
    return images, head.reshape(1, *head.shape[-2:])


@pytest.mark.real
def test_predictions_on_dtd_do_not_depend_on_the_block(dtd):
    small, large = (similarity_pass(*dtd, 100.0, block=block) for block in (7, 4096))
    assert torch.equal(small.prediction, large.prediction)
    assert torch.equal(small.rival, large.rival)
    torch.testing.assert_close(small.soft_margin, large.soft_margin, rtol=1e-5, atol=1e-5)


@pytest.mark.real
def test_dtd_equals_brute_force(dtd):
    assert_same(similarity_pass(*dtd, 100.0), *dtd, scale=100.0)


@pytest.mark.real
def test_bf16_on_dtd_stays_within_its_bounds(dtd):
    exact, rounded = (similarity_pass(*dtd, 100.0, precision=precision) for precision in ("fp32", "bf16"))
    assert (exact.top_similarity - rounded.top_similarity).abs().max() < BF16_SIMILARITY
    assert (exact.margin - rounded.margin).abs().max() < 2 * BF16_SIMILARITY
    differs = exact.prediction != rounded.prediction
    assert (exact.margin[differs] < 2 * BF16_SIMILARITY).all()
    assert differs.float().mean() < 0.01
    cmm = [passed.soft_margin / passed.soft_mass for passed in (exact, rounded)]
    assert (cmm[0] - cmm[1]).abs().max() < BF16_CMM


@pytest.mark.parametrize("threads", [1, 2])
def test_inference_mode_changes_nothing(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    images, heads = unit(40, 8), unit(3, 5, 8)
    plain = similarity_pass(images, heads, 20.0)
    with torch.inference_mode():
        found = similarity_pass(images, heads, 20.0)
    assert found.prediction.equal(plain.prediction)
    assert found.soft_margin.equal(plain.soft_margin)


# ---------------------------------------------------------------- parts of the images, put together


def in_parts(images, heads, sizes, **more):
    """A pass for each part of the images, and all of them merged, from the left or from the right."""
    passes = [similarity_pass(part, heads, SCALE, n_images=len(images), **more) for part in images.split(sizes)]
    from_left = from_right = passes[0]
    for other in passes[1:]:
        from_left = from_left.merge(other)
    from_right = passes[-1]
    for other in reversed(passes[:-1]):
        from_right = other.merge(from_right)
    return from_left, from_right


def assert_equal_passes(one, other, atol):
    sure = one.margin > 10 * atol
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "rival" and atol > 1e-9:
            continue  # it may tie with the third, and rounding decides
        if field.name in ("prediction", "rival"):
            assert a[sure].equal(b[sure]), field.name
        elif field.name == "n_retrieved":
            assert a == b
        elif not field.name.startswith(("best_", "n_")):
            torch.testing.assert_close(a, b, rtol=atol, atol=atol)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(2, 60), c=st.integers(2, 9), p=st.integers(1, 3), tied=st.booleans())
def test_parts_add_up_to_the_whole(data, n, c, p, tied):
    images, heads = unit(n, 4), unit(p, c, 4, seed=1)
    if tied:  # many equal similarities, each without rounding: of equals the first image counts
        images, heads = images.sign() / 2, heads.sign() / 2
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=4)))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    whole = similarity_pass(images, heads, SCALE)
    from_left, from_right = in_parts(images, heads, sizes)
    assert_equal_passes(from_left, from_right, 1e-12)
    assert_equal_passes(from_left, whole, 1e-5)
    if tied:
        assert from_left.prediction.equal(whole.prediction)
        assert from_left.rival.equal(whole.rival)
        torch.testing.assert_close(from_left.retrieval_margin, whole.retrieval_margin, rtol=0, atol=1e-12)


def test_parts_of_more_images_than_a_class_has(steps):
    images, heads = unit(500, 16), unit(2, 3, 16, seed=1)
    assert_same(in_parts(images, heads, [17, 300, 1, 182])[0], images, heads)


def test_passes_that_do_not_belong_together_are_not_merged():
    images, heads = unit(20, 4), unit(2, 3, 4, seed=1)
    part = similarity_pass(images[:9], heads, SCALE, n_images=20)
    for other, said in (
        (similarity_pass(images[9:], heads, SCALE), "the same n_images"),
        (similarity_pass(images[9:], heads, SCALE, n_images=40), "the same n_images"),
        (similarity_pass(images[9:], heads[:1], SCALE, n_images=20), "prompts and classes"),
    ):
        with pytest.raises(InputError, match=said):
            part.merge(other)
    whole = part.merge(similarity_pass(images[9:], heads, SCALE, n_images=20))
    with pytest.raises(InputError, match="merge: the passes are of 29 images, more than their n_images, 20"):
        whole.merge(part)
    with pytest.raises(InputError, match="at least 20, got 9"):
        similarity_pass(images, heads, SCALE, n_images=9)


def test_equal_texts_have_equal_sums_and_others_hardly_ever():
    texts = unit(500, 32)
    texts[7], texts[9], texts[11] = texts[3], 0.0, -0.0
    sums = equal_texts._sums_of_bits(texts)
    assert sums[7] == sums[3]
    assert sums[9] == sums[11]
    assert len(sums.unique()) == 498
