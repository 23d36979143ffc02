"""One rule, three ways to run it: eager, packed, compiled; and in short formats."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from thalweg import optim
from thalweg.core import NonFiniteError
from thalweg.optim.engine import batches, flat

SHAPES = [(3, 4), (), (0, 3), (1,), (130, 130), (7, 2, 3), (300, 400)]

EVERY = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nu": 0.7}),
    (optim.PerturbedSGD, {"lr": 0.1, "momentum": 0.5}),
    (optim.SGLD, {"lr": 1e-3}),
    (optim.SGLD, {"lr": 1e-3, "precondition": True, "num_data": 10}),
    (optim.AdaGrad, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.AdaGradNorm, {"lr": 0.1}),
    (optim.RMSProp, {"lr": 0.1, "momentum": 0.5, "centered": True}),
    (optim.AcceleGrad, {"diameter": 4.0}),
    (optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.AdamW, {"lr": 0.1}),
    (optim.AMSGrad, {"lr": 0.1}),
    (optim.AMSGrad, {"lr": 0.1, "schedule": "constant", "bias_correction": True}),
]


def parameters(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in SHAPES
    ]


def run(optimizer, params, steps: int = 8, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            g = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.grad = g.to(p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


@pytest.mark.compile
@pytest.mark.parametrize("cls, hyper", EVERY)
@pytest.mark.parametrize(
    "dtype, tolerance",
    [
        pytest.param(torch.float64, 1e-13, marks=pytest.mark.slow),
        (torch.float32, 2e-6),
    ],
)
def test_eager_and_compiled_agree(cls, hyper, dtype, tolerance):
    results = []
    for compiled in (False, True):
        params = parameters(dtype)
        generator = torch.Generator().manual_seed(3)
        optimizer = cls(params, **hyper, compile=compiled, generator=generator)
        results.append(run(optimizer, params))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cls, hyper", EVERY)
def test_packing_does_not_change_the_result(cls, hyper, monkeypatch):
    results = []
    for small in (0, batches.SMALL):
        monkeypatch.setattr(batches, "SMALL", small)
        params = parameters(torch.float64)
        optimizer = cls(params, **hyper, generator=torch.Generator().manual_seed(3))
        results.append(run(optimizer, params))
    for alone, packed in zip(*results, strict=True):
        torch.testing.assert_close(packed, alone, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("cls, hyper", EVERY)
def test_pieces_do_not_change_the_result(cls, hyper, monkeypatch):
    results = []
    for piece in (1000, 2**30):
        monkeypatch.setattr(flat, "EAGER_PIECE", piece)
        params = parameters(torch.float64)
        optimizer = cls(params, **hyper, generator=torch.Generator().manual_seed(3))
        results.append(run(optimizer, params))
    for pieces, one in zip(*results, strict=True):
        torch.testing.assert_close(pieces, one, rtol=1e-14, atol=1e-14)


@pytest.mark.compile
def test_one_compilation_serves_schedules_shapes_models_and_values():
    before = len(flat._compiled)
    for seed, shapes in enumerate([[(4, 3), (200, 100)], [(7,), (500, 60), (90, 200)]]):
        params = [nn.Parameter(torch.randn(s)) for s in shapes]
        optimizer = optim.Adam(params, lr=0.1 / (seed + 1), betas=(0.8, 0.99), compile=True)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        for _ in range(3):
            run(optimizer, params, steps=1)
            scheduler.step()
    assert len(flat._compiled) - before <= 1


@pytest.mark.compile
def test_the_compiled_loop_stays_inside_its_tensor():
    # A loop fixed to one size would write past the end; the neighbours in memory would show it.
    block = torch.zeros(3 * 50_000)
    params = [nn.Parameter(block[i * 50_000 : (i + 1) * 50_000]) for i in range(3)]
    optimizer = optim.Adam([params[1]], lr=0.1, compile=True)
    params[1].grad = torch.ones(50_000)
    optimizer.step()
    assert bool((params[1] != 0).all())
    assert not bool(params[0].any() or params[2].any())


@pytest.mark.compile
def test_autograd_notices_a_compiled_update():
    p = nn.Parameter(torch.randn(50_000))
    loss = (p**2).sum()
    optimizer = optim.SGD([p], lr=0.1, compile=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compile_decides_from_the_size_of_the_model():
    small = optim.Adam([nn.Parameter(torch.zeros(10))])
    large = optim.Adam([nn.Parameter(torch.zeros(2**18))])
    assert not small.uses_compiler()
    assert large.uses_compiler()
    assert not optim.Adam([nn.Parameter(torch.zeros(2**18))], compile=False).uses_compiler()
    small.add_param_group({"params": [nn.Parameter(torch.zeros(2**18))]})
    assert small.uses_compiler()


def test_without_a_compiler_large_models_run_eagerly(monkeypatch):
    from thalweg.optim.engine import base

    monkeypatch.setattr(base, "compiler_available", lambda kind: False)
    p = nn.Parameter(torch.zeros(2**18))
    optimizer = optim.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert not optimizer.uses_compiler()
    assert bool((p < 0).all())


@pytest.mark.parametrize("cls, hyper", EVERY)
def test_state_is_the_slots_and_a_step_and_nothing_else_remains(cls, hyper):
    params = [nn.Parameter(torch.randn(200, 100)), nn.Parameter(torch.randn(30))]
    optimizer = cls(params, **hyper)
    run(optimizer, params, steps=2)
    entries = sum(p.numel() for p in params)
    slots = len(optimizer.slots_of(optimizer.param_groups[0]))
    scalars = optimizer.state_bytes() - 4 * slots * entries
    rng = optimizer.state[params[0]].get("rng_state", torch.empty(0)).numel()
    assert 0 < scalars - rng <= 8 * len(params) * (1 + len(optimizer.shared))

    def large() -> set[int]:
        gc.collect()
        found = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
        return {id(t) for t in found if t.numel() >= 20_000 and t._base is None}

    before = large()
    optimizer.step()
    assert large() <= before


def test_packed_state_is_a_view_per_parameter_and_survives_reshuffling():
    a, b, c = (nn.Parameter(torch.randn(5)) for _ in range(3))
    twin = [nn.Parameter(p.detach().clone()) for p in (a, b, c)]
    optimizer, reference = optim.Adam([a, b, c], lr=0.1), torch.optim.Adam(twin, lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for present in [(1, 1, 1), (1, 0, 1), (0, 1, 0), (1, 1, 1), (1, 1, 0), (1, 1, 1)]:
        for p, q, use in zip((a, b, c), twin, present, strict=True):
            g = torch.randn(5, generator=generator)
            p.grad, q.grad = (g, g.clone()) if use else (None, None)
        optimizer.step()
        reference.step()
    for p, q in zip((a, b, c), twin, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
        assert float(optimizer.state[p]["step"]) == float(reference.state[q]["step"])


def test_a_state_tensor_replaced_by_hand_is_used():
    p, q = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = optim.SGD([p, q], lr=1.0, momentum=0.5)
    for t in (p, q):
        t.grad = torch.zeros(3)
    optimizer.step()
    optimizer.state[q]["momentum_buffer"] = torch.full((3,), 2.0)
    optimizer.step()
    assert p.tolist() == [0.0] * 3
    assert q.tolist() == [-1.0] * 3


def test_a_parameter_moved_to_other_memory_is_followed():
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer = optim.SGD(params, lr=1.0)
    for p in params:
        p.grad = torch.ones(3)
    optimizer.step()
    params[0].data = torch.full((3,), 5.0)
    optimizer.step()
    assert params[0].tolist() == [4.0] * 3


class TestShortFormats:
    def test_nearest_loses_small_updates_and_the_remedies_do_not(self):
        # 4000 steps of 2^-12 from 1: each is 1/32 of the distance between neighbours at 1.
        reached = {}
        for rounding in ("nearest", "stochastic", "compensated"):
            p = nn.Parameter(torch.ones(500, dtype=torch.bfloat16))
            generator = torch.Generator().manual_seed(0)
            optimizer = optim.SGD([p], lr=2.0**-12, rounding=rounding, generator=generator)
            p.grad = torch.full_like(p, -1.0)
            for _ in range(4000):
                optimizer.step()
            reached[rounding] = float(p.detach().float().mean())
        exact = 1 + 4000 * 2.0**-12
        assert reached["nearest"] == 1.0
        assert abs(reached["compensated"] - exact) <= 2.0**-7
        # each entry is a random walk of 4000 rounded steps; the mean of 500 is within 5 deviations
        assert abs(reached["stochastic"] - exact) <= 5 * 0.09 / 500**0.5

    def test_decay_and_move_are_one_expression(self):
        # torch decays first: in bfloat16 1 * (1 - 2^-10) rounds back to 1, and the decay is lost.
        p = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        optimizer = optim.AdamW([p], lr=2.0**-10, weight_decay=1.0, rounding="compensated")
        for _ in range(64):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        exact = (1 - 2.0**-10) ** 64
        assert float((p.detach().float() - exact).abs().max()) <= 2.0**-8

    @pytest.mark.parametrize("rounding", ["nearest", "stochastic", "compensated"])
    @pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.compile)])
    def test_state_is_float32_and_resumes_bitwise(self, rounding, compiled):
        def fresh():
            params = [nn.Parameter(p.bfloat16()) for p in parameters(torch.float32)]
            return params, optim.Adam(params, lr=0.1, rounding=rounding, compile=compiled)

        params, optimizer = fresh()
        run(optimizer, params, steps=3)
        assert optimizer.state[params[0]]["exp_avg"].dtype is torch.float32
        others, loaded = fresh()
        for p, q in zip(params, others, strict=True):
            q.data.copy_(p.data)
        loaded.load_state_dict(optimizer.state_dict())
        for a, b in zip(run(optimizer, params, seed=5), run(loaded, others, seed=5), strict=True):
            assert torch.equal(a, b)

    def test_float16_runs_and_the_remedies_are_refused(self):
        p = nn.Parameter(torch.ones(4, dtype=torch.float16))
        optimizer = optim.Adam([p], lr=0.1)
        p.grad = torch.ones_like(p)
        optimizer.step()
        torch.testing.assert_close(p.float(), torch.full((4,), 0.9), rtol=1e-3, atol=1e-3)
        with pytest.raises(ValueError, match=r"rounding='stochastic' is for bfloat16 parameters"):
            optim.Adam([p], rounding="stochastic")


class TestScopes:
    class RowNormalized(optim.Tensorwise):
        slots = ("momentum_buffer",)

        def __init__(self, params, lr=0.1, **how):
            super().__init__(params, {"lr": lr}, **how)

        @staticmethod
        def rule(p, g, momentum_buffer, *, lr):
            momentum_buffer = 0.9 * momentum_buffer + g / g.norm()
            return p - lr * momentum_buffer, momentum_buffer

    class Whitened(optim.Matrixwise):
        slots = ()

        def __init__(self, params, lr=0.1, **how):
            super().__init__(params, {"lr": lr}, **how)

        @staticmethod
        def rule(p, g, *, lr):
            u, _, vh = torch.linalg.svd(g, full_matrices=False)
            return (p - lr * u @ vh,)

    @pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.compile)])
    def test_tensorwise_sees_whole_parameters(self, compiled):
        params = [nn.Parameter(torch.zeros(3, 5)), nn.Parameter(torch.zeros(4))]
        optimizer = self.RowNormalized(params, lr=0.5, compile=compiled)
        for p in params:
            p.grad = 7 * torch.ones_like(p)
        optimizer.step()
        for p in params:
            torch.testing.assert_close(p.detach().norm(), torch.tensor(0.5))

    def test_matrixwise_stacks_equal_shapes_and_flattens_the_rest(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(4, 3), (4, 3), (6, 2, 2)]
        params = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        start = [p.detach().clone() for p in params]
        optimizer = self.Whitened(params, lr=1.0)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        for p, p0 in zip(params, start, strict=True):
            move = (p0 - p.detach()).reshape(p.shape[0], -1)
            singular = torch.linalg.svdvals(move)
            torch.testing.assert_close(singular, torch.ones_like(singular))

    def test_matrixwise_refuses_vectors(self):
        with pytest.raises(ValueError, match=r"must have at least 2 dimensions, got parameter 0"):
            self.Whitened([nn.Parameter(torch.zeros(3))])

    def test_bfloat16_roundings_reach_other_scopes(self):
        for rounding in ("stochastic", "compensated"):
            p = nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16))
            optimizer = self.RowNormalized([p], lr=1e-2, rounding=rounding)
            for _ in range(20):
                p.grad = torch.ones_like(p)
                optimizer.step()
            assert bool((p < 1).any())


class TestInput:
    def test_a_gradient_that_is_not_finite_is_named(self):
        model = nn.Linear(2, 2)
        optimizer = optim.Adam(model.named_parameters(), check_finite=True)
        model.weight.grad = torch.zeros(2, 2)
        model.bias.grad = torch.tensor([0.0, float("nan")])
        before = model.weight.detach().clone()
        with pytest.raises(NonFiniteError, match="gradient of parameter 'bias'"):
            optimizer.step()
        assert torch.equal(model.weight, before)

    def test_expanded_parameters_are_refused(self):
        with pytest.raises(ValueError, match="must not be expanded"):
            optim.SGD([nn.Parameter(torch.zeros(1).expand(3))], lr=0.1)

    def test_keywords_of_the_engine_are_checked(self):
        p = nn.Parameter(torch.zeros(2))
        with pytest.raises(ValueError, match=r"rounding must be one of .* \(did you mean"):
            optim.Adam([p], rounding="stochastc")
        with pytest.raises(ValueError, match="compile must be one of"):
            optim.Adam([p], compile="yes")
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
            optim.SGLD([p], generator=0)
        with pytest.raises(TypeError, match="constraint must be a set"):
            optim.AdaGrad([p], constraint=3)

    def test_a_group_with_bad_values_is_not_added(self):
        optimizer = optim.Adam([nn.Parameter(torch.zeros(2))])
        with pytest.raises(ValueError, match=r"lr must be >= 0, got -1"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": -1})
        assert len(optimizer.param_groups) == 1


def test_an_optimizer_can_be_collected():
    p = nn.Parameter(torch.zeros(3))
    optimizer = optim.Adam([p])
    p.grad = torch.ones(3)
    optimizer.step()
    seen = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert seen() is None


@pytest.mark.compile
def test_a_compiler_without_the_processors_vector_instructions_is_found_out(monkeypatch):
    import torch._inductor.compile_fx as inductor
    from torch._inductor import config, cpu_vec_isa

    from thalweg.optim.engine.kernel import Compiled
    from thalweg.optim.engine.update import in_place

    trusted = []
    generate = inductor.compile_fx_inner

    def old_compiler(*arguments, **how):
        trusted.append(config.cpp.vec_isa_ok)
        if config.cpp.vec_isa_ok:
            raise RuntimeError("unrecognized command-line option '-mavx512f'")
        return generate(*arguments, **how)

    monkeypatch.setattr(inductor, "compile_fx_inner", old_compiler)

    def rule(p, g, *, lr):
        return (p - 3 * lr * g,)

    p, g = torch.ones(2**16), torch.ones(2**16)
    compiled = Compiled(in_place(rule, False, "nearest", {}), (0, 0, 0), ["lr"], [p, g])
    assert trusted == [True, None]
    compiled([p, g], compiled.scalars([0.25]))
    assert p.unique().tolist() == [0.25]
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 1  # probed, by the second try


@pytest.mark.compile
def test_trusted_vector_instructions_are_probed_for_others():
    from torch._inductor import config, cpu_vec_isa

    from thalweg.optim.engine.kernel import Compiled
    from thalweg.optim.engine.update import in_place

    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    p, g = torch.ones(2**16), torch.ones(2**16)
    Compiled(
        in_place(lambda p, g, *, lr: (p - 5 * lr * g,), False, "nearest", {}),
        (0, 0, 0),
        ["lr"],
        [p, g],
    )
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 0
    assert config.cpp.vec_isa_ok is None
    assert config.use_joint_graph_passes


def test_questions_of_the_compiler_that_equal_lengths_answer():
    import sympy

    from thalweg.optim.engine.kernel import _holds_for_equal_lengths

    n, m = sympy.symbols("n m", integer=True, positive=True)
    assert _holds_for_equal_lengths(sympy.Eq(n, m))
    assert _holds_for_equal_lengths(sympy.Or(sympy.Eq(n, 1), sympy.Eq(m, n)))
    assert not _holds_for_equal_lengths(sympy.Eq(n, 1))
    assert not _holds_for_equal_lengths(sympy.Ne(n, m))
    assert not _holds_for_equal_lengths(n > 5)
    assert not _holds_for_equal_lengths(n >= m)
    assert not _holds_for_equal_lengths(sympy.Eq(sympy.Mod(n, 2), 0))
