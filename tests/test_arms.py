"""The studies' arms and the parameters that say which."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from torch import nn

from normlab import params, studies
from normlab.arms import Arm
from normlab.data import augment
from normlab.data.validation import Part
from normlab.errors import InputError
from normlab.network import networks
from normlab.studies import Compared, Study
from normlab.training import trials

COMMITTED = Path(__file__).parents[1] / "studies/params.yaml"
STUDIES = list(studies.load(COMMITTED))


@pytest.fixture
def base() -> params.Params:
    return params.load(COMMITTED.parents[1] / "params.yaml")


@pytest.fixture
def own() -> dict[str, Study]:
    return studies.load(COMMITTED)


def test_the_committed_file_is_read_as_it_is(own: dict[str, Study]) -> None:
    read = {name: study.model_dump(exclude_unset=True) for name, study in own.items()}
    assert read == YAML(typ="safe").load(COMMITTED)


@pytest.mark.parametrize(
    ("study", "place", "value"),
    [
        ("groups", "seeds", 0),
        ("groups", "seeds", [0, 1]),
        ("groups", "dataset", "digits"),
        ("groups", "arms", {}),
        ("groups", "arms", {"Four": {"variant": "gn"}}),
        ("groups", "arms.two.gn_groups", 0),
        ("groups", "arms.two.gn_groups", [2, 2]),
        ("groups", "arms.two.conv3_padding", 2),
        ("l1", "registered", []),
        ("l1", "registered", {"l1_accuracy": 1}),
        ("l1", "arms.e4.l1_lambda", -1),
        ("l1", "epochs", 0),
        ("norms", "train_size", 60001),
        ("norms", "folds", 1),
        ("batch_size", "over", {"batch_size": [2]}),
        ("batch_size", "over", {"batch_size": [2, 2]}),
        ("batch_size", "over", {"batch_size": [2, 60001]}),
        ("batch_size", "over", {"batchsize": [2, 8]}),
        ("reference", "recipe.momentum", 1),
        ("reference", "recipe.affine_scale", [2, 1]),
        ("reference", "arms.ln.ln_axes", ["chw", "rows"]),
    ],
)
def test_a_bad_value_gets_one_line(tmp_path: Path, study: str, place: str, value: object) -> None:
    values = YAML(typ="safe").load(COMMITTED)
    *sections, key = place.split(".")
    section, fields = values[study], Study.model_fields
    for name in sections:
        section = section[name]
        fields = Compared.model_fields
    section[key] = value
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        studies.load(path)
    expected = f"{path}: {study}.{place}: got {json.dumps(value)}, allowed: "
    assert str(refused.value) == expected + params.allowed_values(fields[key])


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    values = YAML(typ="safe").load(COMMITTED)
    values["l1"]["epoch"] = values["l1"].pop("epochs")
    values["norms"] = 3
    values["groups"]["arms"]["two"]["groups"] = 2
    del values["groups"]["arms"]["three"]["variant"]
    values["groups"]["arms"]["seven"] = 7
    values["batch_size"]["recipe"] = {"lrs": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        studies.load(path)
    known = f"a section of {', '.join(Compared.model_fields)}"
    assert sorted(str(refused.value).splitlines()) == [
        f"{path}: batch_size.recipe.lrs: unknown key (value 1), did you mean lr?",
        f"{path}: groups.arms.seven: got 7, allowed: {known}",
        f"{path}: groups.arms.three.variant: missing, allowed: a variant",
        f"{path}: groups.arms.two.groups: unknown key (value 2), did you mean gn_groups?",
        f"{path}: l1.epoch: unknown key (value 4), did you mean epochs?",
        f"{path}: l1.epochs: missing, allowed: a whole number from 1 to 1000",
        f"{path}: norms: got 3, allowed: a section of {', '.join(Study.model_fields)}",
    ]


@pytest.mark.parametrize("name", ["Groups", "_groups", "a.b", "model config", 41 * "a"])
def test_a_study_has_a_plain_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({name: YAML(typ="safe").load(COMMITTED)["norms"]}))
    with pytest.raises(InputError, match="allowed: a name that fits") as refused:
        studies.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["norms", "norms.rms", "no.gn", "l1.zero", "batch_size.gn", "gn"])
def test_an_arm_is_trained_where_another_study_trains_one(tmp_path: Path, place: str) -> None:
    path = tmp_path / "params.yaml"
    values = YAML(typ="safe").load(COMMITTED)
    values["groups"]["arms"]["four"]["trained_in"] = place
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        studies.load(path)
    assert str(refused.value).startswith(f"{path}: groups.arms.four.trained_in: got {place}, ")


@pytest.mark.parametrize("name", STUDIES)
def test_arms_have_names_of_their_own_and_change_what_there_is(
    name: str, base: params.Params, own: dict[str, Study]
) -> None:
    arms = studies.arms(own, name, base)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        assert set(arm.factors) <= {*params.Params.model_fields, *studies.NETWORK}
        assert arm.factors == arms[0].factors
        assert set(arm.changes) <= set(params.Params.model_fields)
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base), **arm.network)
        assert recipe.epochs == own[name].epochs


def test_the_arms_are_those_asked_for(base: params.Params, own: dict[str, Study]) -> None:
    named = {name: [arm.name for arm in studies.arms(own, name, base)] for name in STUDIES}
    assert named["norms"] == ["bn", "gn", "ln_channel", "ln_elementwise"]
    assert named["l1"] == ["zero", "e5", "e4", "e3", "e2"]
    sizes = (2, 8, 32, 128)
    assert named["batch_size"] == [f"{v}_{size}" for v in ("bn", "gn", "ln") for size in sizes]


def test_what_arms_go_over_is_crossed_and_labelled(tmp_path: Path, base: params.Params) -> None:
    section = YAML(typ="safe").load(COMMITTED)["norms"] | {
        "arms": {"gn": {"variant": "gn"}},
        "over": {"lr": [0.01, 0.02], "train_size": [1000, None]},
    }
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"tuned": section}))
    own = studies.load(path)
    arms = studies.arms(own, "tuned", base)
    assert [arm.name for arm in arms] == [
        *("gn_0.01_1000", "gn_0.01_None", "gn_0.02_1000", "gn_0.02_None")
    ]
    assert arms[0].label == "lr 0.01, train_size 1000"
    assert arms[0].columns == {
        **{"study": "tuned", "variant": "gn", "arm": "gn_0.01_1000"},
        **{"lr": 0.01, "train_size": 1000},
    }
    parts = {trial.arm.name: trial.part for trial in studies.planned(own, "tuned", base)}
    assert parts["gn_0.01_1000"] == Part(base.val_size, 1000)
    assert parts["gn_0.01_None"] == Part(base.val_size, None)


def test_every_layers_groups_are_as_the_page_says(base: params.Params, own: Any) -> None:
    """With seven, the layer of six channels has three groups, or six in an arm of its own."""
    found = {}
    for arm in studies.arms(own, "groups", base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        network = networks.build(arm.variant, **recipe.norm_params)
        found[arm.name] = [m.num_groups for m in network if isinstance(m, nn.GroupNorm)]
    assert found["one"] == [1] * 7
    assert found["four"] == [4, 4, 3, 4, 2, 2, 2]
    assert found["seven"] == [6, 4, 3, 6, 7, 7, 7]
    assert found["instance_layer"] == [6, 4, 6, 6, 7, 7, 7]
    assert found["instance"] == [12, 16, 6, 12, 14, 14, 14]


def test_an_arm_may_have_another_network_than_any_parameter_says(base: params.Params) -> None:
    network = {"ln_axes": ["chw", *["last"] * 6], "norm_place": "before_relu", "conv3_padding": 1}
    factors = ("ln_affine", "norm_place", "conv3_padding")
    arm = Arm("published", "ln", {"ln_affine": "elementwise"}, network, factors)
    columns = {"ln_affine": "elementwise", "norm_place": "before_relu", "conv3_padding": 1}
    assert arm.columns == {"study": "published", "variant": "ln", "arm": "ln"} | columns
    recipe = trials.recipe_of(arm.variant, partial(arm.value, base), **arm.network)
    assert recipe.norm_params == {"ln_affine": "elementwise"} | network
    built = networks.build(arm.variant, **recipe.norm_params)
    assert sum(networks.parameters_by_layer(built).values()) == 24_162
    usual = trials.recipe_of("ln", partial(getattr, base))
    assert usual.norm_params == {"ln_affine": base.ln_affine}


def test_the_learning_rate_is_in_proportion_to_the_batch_size(
    base: params.Params, own: dict[str, Study]
) -> None:
    for arm in studies.arms(own, "batch_size", base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        assert recipe.lr / recipe.batch_size == pytest.approx(base.lr / base.batch_size)
        assert not recipe.l1_lambda


def test_the_reference_study_has_its_recipe_and_its_networks(
    base: params.Params, own: dict[str, Study]
) -> None:
    """The figures of the write-up "Session 3 - PyTorch" (Team 6), and of its notebook."""
    sizes = {}
    for arm in studies.arms(own, "reference", base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base), **arm.network)
        learner = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.nesterov)
        assert learner == (20, 128, 0.015, 0.7, False)
        schedule = (recipe.lr_schedule, recipe.lr_step_epochs, recipe.lr_step_factor)
        assert schedule == ("step", 9, 0.1)
        assert recipe.augmentation == augment.Ranges(7, 0.15, (0.7, 1.3), 8)
        assert recipe.l1_lambda == (0.01 if arm.variant == "bn_l1" else None)
        network = networks.build(arm.variant, **recipe.norm_params)
        sizes[arm.name] = sum(networks.parameters_by_layer(network).values())
        assert network.get_submodule("conv3").padding == (int(arm.name != "ln_unpadded"),) * 2
        first = [name for name, _ in network.named_children()][1]
        published_ln = arm.name.startswith("ln") and arm.name != "ln_after_relu"
        assert first == ("norm1" if published_ln else "relu1")
        if arm.variant == "gn":
            groups = [m.num_groups for m in network if isinstance(m, nn.GroupNorm)]
            assert groups == [3, 4, 2, 3, 2, 2, 2]
    assert (sizes["bn_l1"], sizes["gn"], sizes["ln"]) == (7_946, 7_946, 24_162)


def test_each_trial_of_a_fold_sets_other_images_apart(base: params.Params, own: Any) -> None:
    planned = studies.planned(own, "reference", base)
    folds: dict[str, list[int]] = {}
    for trial in planned:
        folds.setdefault(trial.arm.name, []).append(trial.part.fold)
    assert all(found == list(range(12)) for found in folds.values())
    assert {trial.part.fold for trial in studies.planned(own, "norms", base)} == {0}


def registered(own: dict[str, Study], claims: dict[str, str], seeds: int) -> dict[str, Study]:
    """With the same for all studies."""
    changed = {"registered": claims, "seeds": seeds}
    return {name: study.model_copy(update=changed) for name, study in own.items()}


def test_without_registered_claims_all_arms_have_the_same_seeds(
    own: dict[str, Study], base: params.Params
) -> None:
    exploring = registered(own, {}, 3)
    for name in STUDIES:
        for arm in studies.arms(own, name, base):
            assert studies.seeds(exploring, arm, base) == [0, 1, 2]


def test_registered_claims_give_each_arm_seeds_of_its_own(
    own: dict[str, Study], base: params.Params
) -> None:
    claims = {"a": "0123456789abcdef", "b": "fedcba9876543210"}
    arms = studies.arms(own, "groups", base)
    many = registered(own, claims, 1000)
    drawn = [studies.seeds(many, arm, base) for arm in arms]
    together = [seed for seeds in drawn for seed in seeds]
    assert len(set(together)) >= len(together) - 1
    assert all(len(set(seeds)) == 1000 for seeds in drawn)
    assert min(together) >= 0
    assert 2**32 - 2**24 < max(together) < 2**32
    # More seeds are those of before and others; the order of the claims means nothing.
    assert studies.seeds(registered(own, claims, 3), arms[0], base) == drawn[0][:3]
    turned = dict(reversed(claims.items()))
    assert studies.seeds(registered(own, turned, 3), arms[0], base) == drawn[0][:3]
    for other in ({"a": "0123456789abcdef"}, claims | {"b": "fedcba9876543211"}):
        assert not {*studies.seeds(registered(own, other, 1000), arms[0], base)} & {*drawn[0]}


def test_an_arm_trained_elsewhere_has_the_seeds_it_has_there(
    own: dict[str, Study], base: params.Params
) -> None:
    (four,) = (arm for arm in studies.arms(own, "groups", base) if arm.name == "four")
    theirs = studies.origin(own, four, base)
    assert (theirs.study, theirs.name) == ("norms", "gn")
    assert studies.seeds(own, four, base) == studies.seeds(own, theirs, base)
    assert len(studies.seeds(own, four, base)) == own["norms"].seeds


def test_they_are_the_same_on_every_machine(own: dict[str, Study], base: params.Params) -> None:
    arm = studies.arms(own, "groups", base)[0]
    assert studies.seeds(registered(own, {"a": "0123456789abcdef"}, 2), arm, base) == [
        1685805440,
        1319095779,
    ]
