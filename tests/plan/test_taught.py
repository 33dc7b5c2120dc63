import pytest
from torchvision.models import squeezenet1_1

from compressnet.errors import PlanError, RecipeError
from compressnet.plan import make_plan, taught_layers
from compressnet.recipe import read_recipe


def test_globs_mean_layers_of_any_depth() -> None:
    model = squeezenet1_1()
    assert taught_layers(model, ["features.?"]) == [f"features.{n}" for n in range(10)]
    assert taught_layers(model, ["features.3.squeeze", "*.9.expand1x1"]) == [
        "features.3.squeeze",
        "features.9.expand1x1",
    ]
    assert taught_layers(model, []) == []


def test_a_layer_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"'features\.33' matches no layer; did you mean 'features\.3'\?"):
        taught_layers(squeezenet1_1(), ["features.3", "features.33"])


def test_layers_to_be_taught_are_mistakes_of_the_recipe_with_their_keys() -> None:
    distill = {"features": ["conv1", "convy2"], "attention": "layer*"}
    recipe = {"model": {"name": "lenet5"}, "layers": [], "finetune": {"distill": distill}}
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(recipe))
    text = str(caught.value)
    assert "finetune.distill.features: 'convy2' matches no layer; did you mean 'conv2'?" in text
    assert "finetune.distill.attention: 'layer*' matches no layer; it has conv1, " in text
