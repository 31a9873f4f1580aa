"""Client data in every form: reading gives what was written."""

import gzip
import json
import os

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.tasks.sources import small_files, written_forms
from tff_personalization.models import characters
from tff_personalization.tasks import registry, sources
from tff_personalization.tasks.sources import handwriting, pictures


def content(images, labels, names):
    """Examples in an order that depends only on their contents."""
    return sorted(
        (str(name), int(label), image.tobytes()) for image, label, name in zip(images, labels, names, strict=True)
    )


def load(path, num_classes=62):
    return sources.load(small_files.options(path, num_classes))


@pytest.mark.parametrize("form", written_forms.FORMS)
def test_what_is_read_is_what_was_written(form, tmp_path):
    images, labels, writer, is_test = written_forms.examples()
    archive = load(written_forms.write(form, tmp_path))
    names = archive.client if form not in ("mat", "idx") else [f"w{name}" for name in archive.client]
    assert content(archive.images, archive.labels, names) == content(images, labels, writer)
    assert ("split" in " ".join(archive.notes[1:])) == (form not in written_forms.SPLIT)
    if form in written_forms.SPLIT:
        held_back = content(images[is_test], labels[is_test], writer[is_test])
        mine = archive.is_test
        assert content(archive.images[mine], archive.labels[mine], np.array(names)[mine]) == held_back
    assert archive.held_out == (("w2",) if form == "leaf, by user" else ())
    assert "\n" not in archive.notes[0]


@pytest.mark.parametrize("form", ["leaf", "pictures"])
def test_the_second_start_reads_nothing_but_the_cache(form, tmp_path, monkeypatch):
    path = written_forms.write(form, tmp_path)
    before = load(path)
    for module in ("leaf", "pictures"):
        monkeypatch.setattr(f"tff_personalization.tasks.sources.{module}.gathering.Gathered", None)
    again = load(path)
    assert content(again.images, again.labels, again.client) == content(before.images, before.labels, before.client)
    assert again.notes == before.notes


def test_a_folder_of_the_train_part_is_read_with_the_test_part_beside_it(tmp_path):
    path = written_forms.write("leaf", tmp_path)
    assert load(path / "train").is_test.sum() == 12


@pytest.mark.parametrize("paper", [0, 255], ids=["bright ink", "dark ink"])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "LA", "RGBA", "I;16"])
def test_pictures_of_any_kind_are_turned_to_bright_ink_on_dark(mode, paper, tmp_path):
    levels = np.full((56, 40), paper, np.uint8)
    levels[10:46, 18:24] = 255 - paper
    picture = Image.fromarray(levels)
    if mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        picture = Image.new(mode, picture.size, (255 - paper,) * (len(mode) - 1) + (0,))
        picture.putalpha(Image.fromarray(np.where(levels == paper, 0, 255).astype(np.uint8)))
    else:
        picture = picture.convert(mode)
    (tmp_path / "a" / "1").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        picture.save(tmp_path / "a" / "1" / name)
    archive = load(tmp_path)
    assert archive.labels.tolist() == [1, 1]
    assert archive.images[0, 14, 14] > 200
    assert archive.images[0, :, :8].max() < 30
    assert ("bright background" in archive.notes[0]) == (paper == 255 or (mode in ("LA", "RGBA") and paper == 255))


def test_each_clients_polarity_is_found(tmp_path):
    images, labels, writer, _ = written_forms.examples()
    shown = np.where((writer == "w1")[:, None, None], 255 - images, images)
    archive = load(written_forms.pictures(tmp_path / "hands", shown, labels, writer))
    assert content(archive.images, archive.labels, archive.client) == content(images, labels, writer)
    assert "for 1 of them" in archive.notes[0]


@pytest.mark.parametrize("name", ["4a", "J", "upper_J", "j_upper", "19"])
def test_a_class_folder_may_be_called_in_several_ways(name, tmp_path):
    (tmp_path / "a" / name).mkdir(parents=True)
    for file in ("0.png", "1.png"):
        (tmp_path / "a" / name / file).write_bytes(written_forms.png(written_forms.examples()[0][0]))
    assert load(tmp_path).labels.tolist() == [19, 19]


def test_upright_idx_images_are_not_turned(tmp_path):
    images, labels, writer, is_test = written_forms.examples()
    root = written_forms.idx_files(tmp_path, images.transpose(0, 2, 1), labels, writer, is_test)
    archive = load(root)
    assert content(archive.images, archive.labels, [f"w{w}" for w in archive.client]) == content(images, labels, writer)
    assert "upright" in archive.notes[0]


def test_an_idx_file_that_is_there_unpacked_and_compressed_is_read_once(tmp_path):
    root = written_forms.write("idx", tmp_path)
    for path in root.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert len(load(root).labels) == len(load(root / "emnist-byclass-test-images-idx3-ubyte").labels) == 60


@pytest.mark.parametrize("form", ["mat", "idx"])
def test_a_part_without_some_of_the_letters_has_the_same_classes_as_the_other_part(form, tmp_path):
    labels = np.tile(np.arange(1, 27), 2)
    images = handwriting.draw(0, 0, labels + 9, 1.0)
    is_test = (np.arange(52) >= 26) & (labels != 26)
    writer = np.repeat(["w0"], 52)
    if form == "mat":
        path = written_forms.mat(tmp_path / "x.mat", images, labels, writer, is_test, mapping=None)
    else:
        path = written_forms.idx_files(tmp_path, images, labels, writer, is_test)
    archive = load(path)
    assert archive.labels[archive.is_test].tolist() == list(range(10, 35))
    assert set(archive.labels[~archive.is_test]) == set(range(10, 36))


def test_names_of_classes_are_read_in_the_same_way_in_all_of_a_table(tmp_path):
    """ "36" by itself could be the character 6, in hexadecimal ASCII; beside "1" it is the 36th class."""
    image = written_forms.png(written_forms.examples()[0][0])
    for name, labels in (("0", ["1"] * 3), ("1", ["36"] * 3)):
        table = pyarrow.table({"image": [image] * 3, "label": labels, "writer": ["a"] * 3})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert sorted(load(tmp_path).labels) == [1, 1, 1, 36, 36, 36]


def test_a_validation_part_that_is_not_read_is_named(tmp_path, caplog):
    path = written_forms.write("saved to disk", tmp_path)
    load(path)
    assert not caplog.text
    (path / "test").rename(path / "validation")
    assert len(load(path).labels) == 48
    assert f"{path}: not read, because their names say neither train nor test: validation/data-0" in caplog.text


def test_what_the_datasets_library_keeps_beside_a_saved_table_is_not_read(tmp_path):
    path = written_forms.write("saved to disk", tmp_path)
    for part in ("train", "test"):
        (path / part / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (path / part / "cache-1f00.arrow").write_bytes((path / part / "data-00000-of-00001.arrow").read_bytes())
    assert len(load(path).labels) == 60


@pytest.mark.parametrize("form", ["leaf", "saved to disk"])
def test_folders_may_be_symbolic_links_and_a_folder_is_read_once(form, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    path = written_forms.write(form, tmp_path / "elsewhere")
    for part in ("train", "test"):
        (tmp_path / "data" / part).symlink_to(path / part)
    (path / "test" / "circle").symlink_to(tmp_path / "data")
    archive = load(tmp_path / "data")
    assert (len(archive.labels), archive.is_test.sum()) == (60, 12)


def test_pictures_in_hidden_folders_are_not_read(tmp_path):
    path = written_forms.write("pictures", tmp_path)
    (path / ".thumbnails").mkdir()
    (path / ".thumbnails" / "1.png").write_bytes(written_forms.png(written_forms.examples()[0][0]))
    assert len(load(path).labels) == 60


@pytest.mark.parametrize("form", ["pictures", "saved to disk"])
def test_links_to_the_folder_itself_do_not_hang_the_reader(form, tmp_path):
    path = written_forms.write(form, tmp_path)
    for name in ("again", "and_again"):
        (path / name).symlink_to(path)
    assert len(load(path).labels) == 60


def test_idx_files_may_be_in_a_folder_below(tmp_path):
    below = tmp_path / "EMNIST" / "raw"  # as torchvision leaves them
    below.mkdir(parents=True)
    written_forms.write("idx", below)
    assert len(load(tmp_path).labels) == 60


def test_the_names_of_idx_files_may_be_in_upper_case(tmp_path):
    path = written_forms.write("idx", tmp_path)
    for file in path.iterdir():
        file.rename(path / file.name.upper())
    archive = load(path)
    assert (len(archive.clients), len(archive.labels), archive.is_test.sum()) == (3, 60, 12)


@pytest.mark.parametrize("form", ["pictures", "leaf, one file"])
def test_a_client_whose_name_is_not_utf_8_is_refused(form, tmp_path):
    path = written_forms.write(form, tmp_path)
    if form == "pictures":
        (path / "w0").rename(os.fsdecode(os.fsencode(path) + b"/J\xfcrgen"))
    else:
        path.write_text(path.read_text().replace('"w0"', '"J\\udcfcrgen"'))
    small_files.refusal(load, path, names=[path.name, r"J\udcfcrgen", "not UTF-8", "rename it"])


def test_images_without_writers_need_a_partition(tmp_path):
    images, labels, *_ = written_forms.examples()
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    small_files.refusal(load, tmp_path / "x.npz", names=["'writer'", "--partition"])


@pytest.mark.parametrize(("first", "classes"), [(1, "ABCDEFGHIJ"), (0, "ABCDEFGHIJ")])
def test_labels_may_begin_at_one_where_the_classes_say_so(first, classes, tmp_path):
    labels = np.arange(20) % 10
    images = small_files.arrays(count=20)["images"]
    np.savez(tmp_path / "x.npz", images=images, labels=labels + first, writer=["a"] * 20, classes=list(classes))
    assert load(tmp_path / "x.npz").labels.tolist() == (labels + 10).tolist()


def test_pixels_of_zero_and_one_are_refused(tmp_path):
    arrays = small_files.arrays()
    np.savez(tmp_path / "x.npz", **{**arrays, "images": arrays["images"] // 128})
    small_files.refusal(load, tmp_path / "x.npz", names=["0 and 1 only", "255"])


@pytest.mark.parametrize("scale", [1.0, 255])
def test_a_client_of_leaf_with_only_the_integers_0_and_1_has_the_scale_of_the_others(scale, tmp_path):
    images, labels, writer, _ = written_forms.examples()
    paper = (1 - images.reshape(-1, 784) / 255).round()  # black and white
    pixels = {name: (scale * paper[writer == name]).astype(type(scale)).tolist() for name in ("w0", "w1", "w2")}
    pixels["w0"] = paper[writer == "w0"].astype(int).tolist()  # as JavaScript writes 1.0
    data = {name: {"x": x, "y": labels[writer == name].tolist()} for name, x in pixels.items()}
    archive = load(written_forms.leaf(tmp_path / "x.json", images, labels, writer, user_data=data))
    ink = 255 * (1 - paper.reshape(-1, 28, 28)).astype(np.uint8)
    if scale == 255:
        ink[writer == "w0"] = 255 - paper[writer == "w0"].reshape(-1, 28, 28)  # as dark as they say
    assert content(archive.images, archive.labels, archive.client) == content(ink, labels, writer)


def load_text(path):
    return sources.load(small_files.options(path, len(characters.CLASSES)), registry.TASKS["shakespeare"].sources)


def test_shakespeare_in_leafs_form_is_one_text_again(tmp_path):
    text = "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer " * 3
    windows = {"x": [text[i : i + 80] for i in range(len(text) - 80)], "y": list(text[80:])}
    path = tmp_path / "all_data.json"
    path.write_text(
        json.dumps(
            {"users": ["A", "B"], "num_samples": [len(windows["y"])] * 2, "user_data": dict.fromkeys("AB", windows)}
        )
    )
    archive = load_text(path)
    x, _ = characters.to_sequences([text.encode()])
    np.testing.assert_array_equal(np.unique(archive.x[archive.client == "A"], axis=0), np.unique(x, axis=0))
    assert archive.is_test.any()


def test_shakespeare_in_tffs_hdf5(tmp_path):
    for part, said in (("train", ["Ay.", "No."]), ("test", ["Well."])):
        with h5py.File(tmp_path / f"shakespeare_{part}.h5", "w") as file:
            for role in ("A", "B"):
                file[f"examples/{role}/snippets"] = np.array(said, object)
    archive = load_text(tmp_path / "shakespeare_train.h5")
    assert archive.clients == ("A", "B")
    assert archive.is_test.tolist() == [False] * 4 + [True] * 2


def test_a_role_in_two_files_of_a_part_has_the_text_of_both(tmp_path):
    for number, said in enumerate((["Ay."], ["No."])):
        with h5py.File(tmp_path / f"x_train_{number}.h5", "w") as file:
            file["examples/A/snippets"] = np.array(said, object)
    text, _ = characters.to_sequences([b"Ay.", b"No."])
    np.testing.assert_array_equal(load_text(tmp_path).x, text)


def test_a_table_without_pyarrow_names_the_command(tmp_path, monkeypatch):
    path = written_forms.write("feather", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    small_files.refusal(load, path, names=["pip install", f"pyarrow=={pyarrow.__version__}"])


def test_a_folder_that_lacks_one_of_its_numbered_files_is_refused(tmp_path):
    path = written_forms.write("parquet", tmp_path)
    (path / "train-00001-of-00002.parquet").unlink()
    small_files.refusal(load, path, names=[path / "train", "1 of its 2 files are there", "give the path of one file"])
    assert len(load(path / "train-00000-of-00002.parquet").labels) > 0


def test_text_that_is_not_utf_8_is_refused_with_the_word(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("path,client,label\n0.png,J\u00fcrgen,0\n", encoding="latin-1")
    small_files.refusal(load, path, names=[path, "save it as UTF-8"])


def test_half_of_an_emoji_is_another_character(tmp_path):
    said = {"x": ["\udc00" + "a" * 79], "y": ["b"]}  # as a window over JavaScript's characters begins
    text = json.dumps({"users": ["A"], "num_samples": [1], "user_data": {"A": said}})
    (tmp_path / "x.json").write_text(text)
    x, _ = characters.to_sequences([b"\xff" * 3 + b"a" * 79 + b"b"])
    np.testing.assert_array_equal(load_text(tmp_path / "x.json").x, x)


def test_a_row_after_a_client_of_two_lines_is_named_by_its_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('path,client,label\n0.png,"a\nb",0\n\n0.png,a,\n')
    small_files.refusal(load, path, names=[f"{path}, line 5: 3 cells are expected, and none empty"])


def test_a_picture_of_one_pixel_is_read():
    assert pictures.read("x", written_forms.png(np.zeros((1, 1), np.uint8))).shape == (28, 28)
