import pytest
from PIL import Image

from compressnet.data.folders import open_folder, open_imagenet, open_unlabelled
from compressnet.data.sources import NO_LABEL
from compressnet.errors import DataError


def add(folder, classes=("cat", "dog"), each=3, suffix=".png"):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.new("RGB", (9, 8), (c, i, 0)).save(folder / name / f"{i}{suffix}")


def paths(source) -> set[str]:
    return {path for path, _ in source.images.samples}


@pytest.mark.parametrize(
    ("there", "part", "folder", "shared"),
    [
        (("train", "val", "test"), "train", "train", False),
        (("train", "val", "test"), "val", "val", False),
        (("train", "val", "test"), "test", "test", False),
        (("train", "val"), "train", "train", True),
        (("train", "val"), "val", "train", True),
        (("train", "val"), "test", "val", False),
        (("train", "test"), "val", "train", True),
        (("train", "test"), "test", "test", False),
        (("train",), "train", "train", True),
        (("val",), "test", "val", False),
        (("test",), "test", "test", False),
        (("val", "test"), "test", "test", False),
        ((), "train", "", True),
        ((), "val", "", True),
        ((), "test", "", False),
    ],
)
def test_each_part_comes_from_its_folder(tmp_path, there, part, folder, shared):
    for name in there or [""]:
        add(tmp_path / name)
    source = open_folder(tmp_path, part)
    assert paths(source) == {str(path) for path in (tmp_path / folder).rglob("*.png")}
    assert source.shared is shared
    assert source.classes == ["cat", "dog"]


def test_images_are_labelled_by_the_sorted_names_of_their_folders(tmp_path):
    add(tmp_path, classes=("b", "a", "C"))
    source = open_folder(tmp_path, "test")
    assert source.classes == ["C", "a", "b"]
    assert [source.images[i][1] for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.images[6][0].getpixel((0, 0)) == (0, 0, 0)  # b was written first


def test_images_are_found_in_nested_folders_and_by_any_case_of_their_suffix(tmp_path):
    add(tmp_path / "train", suffix=".JPG")
    (tmp_path / "train" / "cat" / "more").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "train" / "cat" / "more" / "x.bmp")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._0.jpg").write_text("a Mac was here")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(open_folder(tmp_path, "train").images) == 7


def test_a_test_part_without_some_classes_keeps_the_labels_of_train(tmp_path):
    add(tmp_path / "train", classes=("a", "b", "c"))
    add(tmp_path / "test", classes=("c",))
    source = open_folder(tmp_path, "test")
    assert source.classes == ["a", "b", "c"]
    assert {label for _, label in source.images.samples} == {2}


def test_a_test_part_with_further_classes_is_refused(tmp_path):
    add(tmp_path / "train", classes=("a", "b"))
    add(tmp_path / "test", classes=("a", "bee"))
    with pytest.raises(DataError, match="test: has classes that train has not: bee\n  every part must have"):
        open_folder(tmp_path, "test")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_missing_root_is_refused_with_the_layout(tmp_path, part):
    with pytest.raises(DataError, match=r"no: there is no such folder\n  .*ROOT/train/<class>"):
        open_folder(tmp_path / "no", part)


def test_an_empty_root_is_refused_with_the_layout(tmp_path):
    with pytest.raises(DataError, match="the folder is empty\n  the layout is ROOT/train/<class>"):
        open_folder(tmp_path, "test")


def test_a_file_as_root_is_refused(tmp_path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=r"a.zip: is a file, not a folder of images"):
        open_folder(tmp_path / "a.zip", "test")


def test_images_without_class_folders_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no class folders\n  the layout"):
        open_folder(tmp_path, "test")


def test_class_folders_without_images_are_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"train: has no images \(.jpg"):
        open_folder(tmp_path, "train")


def test_a_class_without_images_to_train_on_is_refused_by_its_name(tmp_path):
    add(tmp_path / "train")
    (tmp_path / "train" / "eel").mkdir()
    with pytest.raises(DataError, match="classes without images: eel\n  add images, or remove"):
        open_folder(tmp_path, "train")


@pytest.mark.parametrize("there", [("val",), ("test",), ("val", "test")])
@pytest.mark.parametrize("part", ["train", "val"])
def test_without_a_train_folder_there_is_nothing_to_train_on(tmp_path, there, part):
    for name in there:
        add(tmp_path / name)
    with pytest.raises(DataError, match=f"has only {' and '.join(there)}, so there is no {part} part"):
        open_folder(tmp_path, part)


def test_without_a_test_or_val_folder_there_is_nothing_to_evaluate_on(tmp_path):
    add(tmp_path / "train")
    with pytest.raises(DataError, match="has train, but neither test nor val to evaluate on"):
        open_folder(tmp_path, "test")


@pytest.mark.parametrize("kept", [0, 20, 200])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_an_unreadable_image_is_named(tmp_path, kept, suffix):
    add(tmp_path, suffix=suffix)
    path = tmp_path / "dog" / f"1{suffix}"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"dog/1{suffix}: unreadable image: .+\n  replace or remove the file"):
        open_folder(tmp_path, "test").images[4]


def test_an_image_deleted_meanwhile_is_named(tmp_path):
    add(tmp_path)
    source = open_folder(tmp_path, "test")
    (tmp_path / "dog" / "1.png").unlink()
    with pytest.raises(DataError, match=r"dog/1.png: unreadable image: .*No such file"):
        source.images[4]


@pytest.mark.parametrize(("part", "folder"), [("train", "train"), ("val", "train"), ("test", "val")])
def test_imagenet_is_evaluated_on_its_val_and_cut_out_of_its_train(tmp_path, part, folder):
    add(tmp_path / "train", ("n01", "n02"))
    add(tmp_path / "val", ("n01", "n02"))
    add(tmp_path / "test", ("unlabelled",))
    source = open_imagenet(tmp_path, part)
    assert paths(source) == {str(path) for path in (tmp_path / folder).rglob("*.png")}
    assert source.shared is (part != "test")
    assert source.classes == ["n01", "n02"]


def test_a_thousand_classes_of_imagenet_have_english_names(tmp_path):
    for i in range(1000):
        (tmp_path / "val" / f"n{i:08}").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "val" / "n00000999" / "a.png")
    source = open_imagenet(tmp_path, "test")
    assert source.classes[0] == "tench"
    assert source.images[0][1] == 999


@pytest.mark.parametrize(("part", "folder"), [("train", "train"), ("test", "val")])
def test_imagenet_without_a_folder_is_refused_with_the_layout(tmp_path, part, folder):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=f"has no folder {folder}\n  the layout is ROOT/train/<wnid>"):
        open_imagenet(tmp_path, part)


@pytest.mark.parametrize(
    ("there", "part", "folders", "shared"),
    [
        (("train", "val", "test"), "train", ("train",), False),
        (("train", "val", "test"), "val", ("val",), False),
        (("train", "val", "test"), "test", ("test",), False),
        (("train", "test", "more"), "train", ("train",), True),
        (("train", "test"), "val", ("train",), True),
        (("test", "2023", "2024"), "train", ("2023", "2024"), True),
        (("val", "2023", "2024"), "train", ("2023", "2024"), False),
        (("2023", "2024"), "val", ("2023", "2024"), True),
    ],
)
def test_each_part_of_images_without_labels_comes_from_its_folders(tmp_path, there, part, folders, shared):
    for name in there:
        add(tmp_path / name)
    source = open_unlabelled(tmp_path, part)
    assert paths(source) == {str(path) for name in folders for path in (tmp_path / name).rglob("*.png")}
    assert source.shared is shared
    assert source.classes == ()
    assert {label for _, label in source.images.samples} == {NO_LABEL}


def test_images_without_labels_may_lie_at_any_depth(tmp_path):
    add(tmp_path, classes=("a/b/c", "d", ""))
    (tmp_path / "notes.txt").write_text("no image")
    assert len(open_unlabelled(tmp_path, "train").images) == 9


@pytest.mark.parametrize(
    ("there", "part", "expected"),
    [
        ((), "train", r"the folder is empty\n  it takes ROOT with images at any depth"),
        (("empty",), "train", "has no images"),
        (("train",), "val", "train: has no images"),
        (("val", "test"), "train", "has no images"),
        (("train",), "test", "has no folder test"),
    ],
)
def test_images_that_are_not_there_are_told_with_the_layout(tmp_path, there, part, expected):
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=expected):
        open_unlabelled(tmp_path, part)
