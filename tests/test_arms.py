"""The studies' arms and the parameters that say which."""

import json
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from torch import nn

from normlab import params, studies
from normlab.arms import Arm
from normlab.data import augment
from normlab.errors import InputError
from normlab.network import networks
from normlab.training import trials
from tests.pipeline.copies import change

COMMITTED = Path(__file__).parents[1] / "studies/params.yaml"
STUDIES = list(studies.STUDIES)


@pytest.fixture
def base() -> params.Params:
    return params.load(COMMITTED.parents[1] / "params.yaml")


@pytest.fixture
def own() -> studies.Settings:
    return params.load(COMMITTED, studies.Settings)


def test_the_committed_file_is_valid_and_complete(own: studies.Settings) -> None:
    assert own.model_dump() == YAML(typ="safe").load(COMMITTED)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("groups", "gn_groups", []),
        ("groups", "gn_groups", [4]),
        ("groups", "gn_groups", [2, 1]),
        ("groups", "gn_groups", [0, 1]),
        ("groups", "seeds", 0),
        ("groups", "seeds", [0, 1]),
        ("l1", "registered", []),
        ("l1", "registered", {"l1_accuracy": 1}),
        ("l1", "l1_lambda", [0, 0]),
        ("l1", "l1_lambda", [-1, 0]),
        ("l1", "epochs", 0),
        ("layer_norm", "train_size", 60001),
        ("batch_size", "batch_size", [2, 60001]),
        ("replication", "gn_groups", [3, 4]),
        ("replication", "momentum", 1),
        ("replication", "affine_scale", [2, 1]),
    ],
)
def test_a_bad_value_gets_one_line(tmp_path: Path, section: str, key: str, value: object) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text())
    change(path, {section: {key: value}})
    with pytest.raises(InputError) as refused:
        params.load(path, studies.Settings)
    of_section = params.section_of(studies.Settings.model_fields[section])
    assert of_section is not None
    allowed = params.allowed_values(of_section.model_fields[key])
    expected = f"{path}: {section}.{key}: got {json.dumps(value)}, allowed: {allowed}"
    assert str(refused.value) == expected


def test_sections_and_keys_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    values = YAML(typ="safe").load(COMMITTED)
    values["group"] = values.pop("groups")
    values["l1"]["epoch"] = values["l1"].pop("epochs")
    values["layer_norm"] = 3
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        params.load(path, studies.Settings)
    assert sorted(str(refused.value).splitlines()) == [
        f'{path}: group: unknown key (value {{"gn_groups": [1, 2, 3, 4, 7, 16], '
        '"seeds": 10, "register...), did you mean groups?',
        f"{path}: groups: missing, allowed: a section of seeds, registered, epochs, train_size, "
        "gn_groups",
        f"{path}: l1.epoch: unknown key (value 6), did you mean epochs?",
        f"{path}: l1.epochs: missing, allowed: a whole number from 1 to 1000",
        f"{path}: layer_norm: got 3, allowed: a section of seeds, registered, epochs, train_size",
    ]


@pytest.mark.parametrize("name", STUDIES)
def test_arms_have_names_of_their_own_and_change_what_there_is(
    name: str, base: params.Params, own: studies.Settings
) -> None:
    arms = studies.arms(name, own, base)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        assert set(arm.factors) <= set(params.Params.model_fields) | set(arm.network)
        assert arm.factors == arms[0].factors
        assert set(arm.changes) <= set(params.Params.model_fields)
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        assert recipe.epochs == getattr(own, name).epochs


def test_the_arms_are_those_asked_for(base: params.Params, own: studies.Settings) -> None:
    named = {name: [s.name for s in studies.arms(name, own, base)] for name in STUDIES}
    assert named["groups"] == ["1", "2", "3", "4", "7", "16"]
    assert named["l1"] == ["0", "1e-05", "0.0001", "0.001", "0.01"]
    assert named["layer_norm"] == ["bn", "gn", "ln_channel", "ln_elementwise"]
    sizes = (2, 4, 8, 16, 32, 128)
    assert named["batch_size"] == [f"{v}_{size}" for v in ("bn", "gn", "ln") for size in sizes]
    assert named["replication"] == ["bn_l1", "gn", "ln"]


def test_an_arm_may_have_another_network_than_any_parameter_says(base: params.Params) -> None:
    network = {"ln_axes": ["chw", *["last"] * 6], "norm_place": "before_relu", "conv3_padding": 1}
    factors = ("ln_affine", "norm_place", "conv3_padding")
    arm = Arm("published", "ln", {"ln_affine": "elementwise"}, network, factors)
    columns = {"ln_affine": "elementwise", "norm_place": "before_relu", "conv3_padding": 1}
    assert arm.columns == {"study": "published", "variant": "ln"} | columns
    recipe = trials.recipe_of(arm.variant, partial(arm.value, base), **arm.network)
    assert recipe.norm_params == {"ln_affine": "elementwise"} | network
    built = networks.build(arm.variant, **recipe.norm_params)
    assert sum(networks.parameters_by_layer(built).values()) == 24_162
    usual = trials.recipe_of("ln", partial(getattr, base))
    assert usual.norm_params == {"ln_affine": base.ln_affine}


def test_the_learning_rate_is_in_proportion_to_the_batch_size(
    base: params.Params, own: studies.Settings
) -> None:
    for arm in studies.arms("batch_size", own, base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        assert recipe.lr / recipe.batch_size == pytest.approx(base.lr / base.batch_size)
        assert not recipe.l1_lambda


def test_the_replication_is_the_references_recipe(
    base: params.Params, own: studies.Settings
) -> None:
    """The figures of the write-up "Session 3 - PyTorch" (Team 6)."""
    for arm in studies.arms("replication", own, base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        learner = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.nesterov)
        assert learner == (20, 128, 0.015, 0.7, False)
        schedule = (recipe.lr_schedule, recipe.lr_step_epochs, recipe.lr_step_factor)
        assert schedule == ("step", 9, 0.1)
        assert recipe.augmentation == augment.Ranges(7, 0.15, (0.7, 1.3), 8)
        assert recipe.l1_lambda == (0.01 if arm.variant == "bn_l1" else None)
        network = networks.build(arm.variant, **recipe.norm_params)
        if arm.variant == "gn":
            groups = [m.num_groups for m in network if isinstance(m, nn.GroupNorm)]
            assert groups == [3, 4, 2, 3, 2, 2, 2]
        if arm.variant == "ln":
            assert sum(networks.parameters_by_layer(network).values()) == 55_546


def test_without_registered_claims_all_arms_have_the_same_seeds(
    own: studies.Settings, base: params.Params
) -> None:
    open_ones = own.model_copy(
        update={name: getattr(own, name).model_copy(update={"registered": {}}) for name in STUDIES}
    )
    for name in STUDIES:
        expected = list(range(getattr(own, name).seeds))
        for arm in studies.arms(name, open_ones, base):
            assert studies.seeds(open_ones, arm) == expected


def registered(own: studies.Settings, claims: dict[str, str], seeds: int) -> studies.Settings:
    section = own.groups.model_copy(update={"registered": claims, "seeds": seeds})
    return own.model_copy(update={"groups": section})


def test_registered_claims_give_each_arm_seeds_of_its_own(
    own: studies.Settings, base: params.Params
) -> None:
    claims = {"a": "0123456789abcdef", "b": "fedcba9876543210"}
    arms = studies.arms("groups", own, base)
    many = registered(own, claims, 1000)
    drawn = [studies.seeds(many, arm) for arm in arms]
    together = [seed for seeds in drawn for seed in seeds]
    assert len(set(together)) >= len(together) - 1
    assert all(len(set(seeds)) == 1000 for seeds in drawn)
    assert min(together) >= 0
    assert 2**32 - 2**24 < max(together) < 2**32
    # More seeds are those of before and others; the order of the claims means nothing.
    assert studies.seeds(registered(own, claims, 3), arms[0]) == drawn[0][:3]
    turned = dict(reversed(claims.items()))
    assert studies.seeds(registered(own, turned, 3), arms[0]) == drawn[0][:3]
    for other in ({"a": "0123456789abcdef"}, claims | {"b": "fedcba9876543211"}):
        assert not {*studies.seeds(registered(own, other, 1000), arms[0])} & {*drawn[0]}


def test_they_are_the_same_on_every_machine(own: studies.Settings, base: params.Params) -> None:
    arm = studies.arms("groups", own, base)[0]
    assert studies.seeds(registered(own, {"a": "0123456789abcdef"}, 2), arm) == [
        1966589611,
        3195859982,
    ]
