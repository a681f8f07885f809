import json
import math

import pytest

from relin.studies.frequency.settings import FrequencySpec
from relin.study import GridSpec, SpecError, read_spec, shipped
from relin.study._registry import find

SPECS = {name: find(name).settings for name in shipped()}


@pytest.fixture
def written(tmp_path):
    def write(text, name="study.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_shipped_studies_are_valid_for_every_data_set_they_name():
    assert len(SPECS) == 10
    for name in shipped():
        assert read_spec(name).study == name
        if not issubclass(SPECS[name], GridSpec):
            assert read_spec(name, "fashion-mnist").data == "fashion-mnist"
            continue
        assert read_spec(name, "mnist1d").steps == 3000
        names = [condition.name for condition in read_spec(name).all_conditions()]
        assert names[0] == "every-1"
        assert len(names) == len(set(names))
    assert read_spec("frequency").periods == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, math.inf]
    assert read_spec("frequency", "mnist1d").steps == 3000
    assert read_spec("frequency", "digits").margin == 0.5


def test_every_number_and_every_list_has_a_largest():
    def looked_at(schema, place):
        """Every part of a schema, without the options of networks, which these check."""
        for part in schema.get("anyOf", []):
            yield from looked_at(part, place)
        if "type" in schema:
            yield place, schema
        if "items" in schema:
            yield from looked_at(schema["items"], f"{place}.items")

    seen = 0
    for spec in SPECS.values():
        for name, schema in spec.model_json_schema()["properties"].items():
            for place, part in looked_at(schema, name):
                seen += part["type"] in ("integer", "number", "array")
                if "periods.items" not in place:  # a validator of their own bounds these
                    assert part["type"] not in ("integer", "number") or {"maximum", "exclusiveMaximum"} & set(part), (
                        place
                    )
                assert part["type"] != "array" or "maxItems" in part, place
    assert seen > 100


def test_every_setting_is_explained():
    assert all(field.description for spec in SPECS.values() for field in spec.model_fields.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('methods = ["evry-4"]', r"methods: The schedule must be every-K .* got 'evry-4'"),
        ("sparse_periods = [2.5]", "sparse_periods: a period must be a whole number"),
        ('study = "stability"\nparts = ["clip"]', "parts: "),
        ('study = "essential"\nfrozen_after = [0]', r"frozen_after\.0: .*greater than or equal to 1"),
        ('study = "timing"\nplacements = ["never"]', r"placements\.0: .*early"),
        ('study = "timing"\nperiods = [1]', "there is no setting periods"),
    ],
)
def test_wrong_settings_of_one_study_are_refused(written, text, message):
    with pytest.raises(SpecError, match=message):
        read_spec(written(text))


def test_methods_are_each_named_once():
    spec = FrequencySpec(periods=[1, 4, math.inf], sparse_periods=[4], tolerances=[0.1], methods=["every-4", "until-3"])
    names = [condition.name for condition in spec.all_conditions()]
    assert names == ["every-1", "every-4", "never", "every-4+sparse", "when-error-0.1", "until-3"]


def test_overrides_win_over_the_settings_of_the_data_set_and_of_the_file(written):
    name = written("steps = 5\nmargin = 2.0\n[by_data.digits]\nsteps = 6\n")
    assert read_spec(name).steps == 6
    assert read_spec(name, "mnist1d").steps == 5
    assert read_spec(name, overrides={"steps": 7, "margin": 3.0}).steps == 7
    assert read_spec(name, overrides={"data": "mnist1d"}).steps == 5
    assert read_spec(written("[by_data.parity-20-3]\nsteps = 8\n"), "parity-20-3").steps == 8


def test_options_of_the_files_network_are_not_those_of_another():
    assert read_spec("frequency", overrides={"model": "cnn"}).model_options == {}
    assert read_spec("frequency", overrides={"model": "mlp"}).model_options == {"width": 64, "depth": 2}


def test_settings_survive_json(written):
    spec = read_spec("frequency", overrides={"periods": ["inf", 4, 1, 4]})
    assert spec.periods == [1, 4, math.inf]
    text = json.dumps(spec.model_dump(mode="json"))
    assert FrequencySpec.model_validate_json(text) == spec
    assert read_spec(written(text, "spec.json")) == spec


def test_smaller_rates_take_more_steps_at_equal_distance():
    fields = {"steps": 100, "learning_rates": [0.4, 0.1, 0.001], "max_steps": 1000}
    equal = FrequencySpec(**fields)
    assert [equal.steps_at(rate) for rate in equal.learning_rates] == [100, 100, 100]
    distance = FrequencySpec(**fields, comparison="equal-distance")
    assert [distance.steps_at(rate) for rate in distance.learning_rates] == [100, 400, 1000]
    reference = FrequencySpec(**fields, comparison="equal-distance", reference_rate=0.2)
    assert [reference.steps_at(rate) for rate in reference.learning_rates] == [100, 200, 1000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 4", r"there is no setting stepz \(did you mean steps\?\)"),
        ("wibble = 4", r"there is no setting wibble \(the settings are study, data"),
        ("steps = 0", "steps: .*greater than or equal to 1"),
        ("steps = 4000000000", "steps: .*less than or equal"),
        ("periods = [4]", "periods must include 1"),
        ("periods = [1, 2.5]", "a period must be a whole number of at least 1"),
        ("periods = [1, 0]", "a period must be a whole number of at least 1"),
        ("periods = [1, 1e18]", "a period must be a whole number of at least 1 and at most 1000000000"),
        ("seeds = 5000", r"seeds: .*less than or equal to 1000 \(got 5000\)"),
        ("learning_rates = [1e39]", r"learning_rates\.0: .*less than or equal to 1000000"),
        (f"learning_rates = {[0.1] * 101}", "learning_rates: .*at most 100 items"),
        ('methods = ["early-200000"]', "methods: The schedule must be"),
        ('model = "mpl"', "model: the networks are mlp, cnn"),
        ("model_options = {widht = 3}", "model_options: mlp has no option widht; its options are width, depth"),
        ('data = "text:"', r"data: the data sets are .* \(got 'text:'\)"),
        ('data = "table:a.csv#"', "data: the data sets are"),
        (f"steps = {10**6 * [1]}", r"steps: .*\(got \[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, \.\.\.\]\)"),
        ("periods = [1, nan]", "a period must be a whole number"),
        ("learning_rates = []", "at least one learning rate"),
        ("learning_rates = [0.1, -0.1]", r"learning_rates\.1: .*greater than or equal to 0.000000001"),
        ("learning_rates = [inf]", r"learning_rates\.0: .*finite"),
        ("tolerances = [0]", r"tolerances\.0: .*greater than or equal to 0.000000001"),
        ("momentum = 1", "momentum: .*less than 1"),
        ("momentum = nan", "momentum: "),
        ("margin = nan", "margin: "),
        ("seeds = 1", "seeds: .*at least|seeds: .*greater than or equal to 2"),
        ("batch_size = -1", "batch_size: .*greater than or equal to 1"),
        ('data = "dogits"', "data: the data sets are digits, mnist1d"),
        ("data = [1]", "data: "),
        ('loss = "hinge"', "loss: .*cross-entropy"),
        ('study = "other"', "There is no study 'other'; the studies are damping, .*, width"),
        ('comparison = "equal-distance"\nsteps = 20000', "max_steps must be at least steps, 20000, got 10000"),
        ("by_data = 3", r"by_data holds a table for each data set, such as \[by_data\.digits\], got 3"),
        ("[by_data.dogits]\nsteps = 3", "by_data holds a table for each data set.*got dogits"),
        ("steps = [", r"is not valid TOML \(.*\); correct it there"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(written, text, message):
    with pytest.raises(SpecError, match=message) as refusal:
        read_spec(written(text))
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_several_mistakes_are_told_together(written):
    with pytest.raises(SpecError, match=r"seeds: .*; steps: "):
        read_spec(written("steps = 0\nseeds = 0"))


def test_files_that_cannot_be_read_are_refused(written, tmp_path):
    with pytest.raises(SpecError, match=r"no study named 'frequncy'; name one of damping, essential, frequency"):
        read_spec("frequncy")
    with pytest.raises(SpecError, match=r"cannot be read \(No such file or directory\); check its path"):
        read_spec(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(SpecError, match=r"cannot be read \(Is a directory\)"):
        read_spec(str(tmp_path / "folder.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not text in UTF-8"):
        read_spec(str(tmp_path / "bytes.toml"))
    with pytest.raises(SpecError, match="not valid JSON"):
        read_spec(written("{", "spec.json"))
    with pytest.raises(SpecError, match="holds no settings"):
        read_spec(written("[1]", "list.json"))
