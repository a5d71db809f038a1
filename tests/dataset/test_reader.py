"""The dataset CSV becomes images and a split, or one line that says what is wrong with it."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.dataset import read_dataset
from featurestore.dataset.reader import RESERVED, scan_folder
from featurestore.errors import DatasetError
from featurestore.images import IMAGE_SUFFIXES

BY_HASH = "CASE WHEN md5_number_lower(filename) % 10 = 0 THEN 'test' ELSE 'train' END"


def write(folder: Path, content: str | bytes, name: str = "dataset.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, *, filename_column: str = "filename", split: str = "subset") -> str:
    """Read a CSV that can't be used; the message is one line and gives away no folder."""
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, filename_column=filename_column, split=split)
    message = str(caught.value)
    assert "\n" not in message
    assert "Possible" not in message
    assert "\udce9" not in message
    assert not path.is_file() or str(path.parent) not in message
    assert caught.value.__cause__ is None
    return message


# What is read


def test_rows_columns_and_types_are_those_of_the_csv(tmp_path: Path) -> None:
    table = read_dataset(
        write(tmp_path, "year,filename,subset,title\n1503,b.jpg,train,Lisa\n,a.jpg,test,\n1889.5,c.jpg,val,é\n")
    )
    assert table.column_names == ["filename", "subset", "year", "title"]
    assert table["filename"].to_pylist() == ["b.jpg", "a.jpg", "c.jpg"]
    assert table["subset"].to_pylist() == ["train", "test", "val"]
    assert table["year"].to_pylist() == [1503, None, 1889.5]
    assert table["title"].to_pylist() == ["Lisa", None, "é"]
    assert table.schema.field("filename").type == table.schema.field("subset").type == pa.string()


def test_a_type_is_detected_from_all_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,train,{i}\n" for i in range(60_000))
    table = read_dataset(write(tmp_path, f"filename,subset,year\n{rows}last.jpg,test,unknown\n"))
    assert table.schema.field("year").type == pa.string()
    assert table["filename"].to_pylist() == [f"{i}.jpg" for i in range(60_000)] + ["last.jpg"]


def test_a_filename_of_digits_stays_as_it_is_written(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "FileName,year\n001,1\n002,2\n"), split="'train'")
    assert table.to_pydict() == {"filename": ["001", "002"], "subset": ["train"] * 2, "year": [1, 2]}


@pytest.mark.parametrize(
    "content",
    [
        "filename,subset,n\na;b.jpg,train,1\n",
        'filename;subset;n\n"a;b.jpg";train;1\n',
        "filename\tsubset\tn\na;b.jpg\ttrain\t1\n",
        "filename|subset|n\na;b.jpg|train|1\n",
        b"\xef\xbb\xbffilename,subset,n\r\na;b.jpg,train,1\r\n",
        b'\xef\xbb\xbf"filename","subset","n"\n"a;b.jpg","train","1"\n',
        "\r\n\r\nfilename,subset,n\r\na;b.jpg,train,1",
        " filename , subset ,n\na;b.jpg,train,1\n\n",
    ],
)
def test_separators_marks_and_line_ends(tmp_path: Path, content: str | bytes) -> None:
    table = read_dataset(write(tmp_path, content))
    assert table.to_pydict() == {"filename": ["a;b.jpg"], "subset": ["train"], "n": [1]}


@pytest.mark.parametrize(
    "content", ["filename\na.jpg\nb;c.jpg\n", 'filename\n a.jpg\n"b,c.jpg"', "Filename\r\na b\r\nc\r\n"]
)
def test_a_single_column(tmp_path: Path, content: str) -> None:
    table = read_dataset(write(tmp_path, content), split="'train'")
    assert table.column_names == ["filename", "subset"]
    assert table.num_rows == 2


def test_quoted_values_may_hold_anything(tmp_path: Path) -> None:
    table = read_dataset(
        write(tmp_path, 'filename,subset,title\n"a, b.jpg",train,"one\ntwo, ""three"""\n#c.jpg,test,"q\\"\n')
    )
    assert table["filename"].to_pylist() == ["a, b.jpg", "#c.jpg"]
    assert table["title"].to_pylist() == ['one\ntwo, "three"', "q\\"]


def test_the_path_of_the_csv_means_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "subset=test"
    folder.mkdir()
    write(folder, "filename\nwrong.jpg\n", "data1.csv")
    table = read_dataset(write(folder, "filename\na.jpg\n", "data[1].csv"), split="'train'")
    assert table.to_pydict() == {"filename": ["a.jpg"], "subset": ["train"]}


def test_strange_column_names_are_kept(tmp_path: Path) -> None:
    table = read_dataset(
        write(
            tmp_path,
            'filename,subset,"we""ird; DROP TABLE csv",,été,rowid,__row,"a\nb"\na,train,1,2,3,4,5,6\n',
        )
    )
    assert table.column_names == [
        "filename",
        "subset",
        'we"ird; DROP TABLE csv',
        "column3",
        "été",
        "rowid",
        "__row",
        "a\nb",
    ]
    assert [column[0].as_py() for column in table.columns[2:]] == [1, 2, 3, 4, 5, 6]


def test_a_column_called_like_the_row_number_does_not_change_the_order(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "filename,subset,__row,__ROW_\na,train,2,0\nb,test,1,0\n"))
    assert table["subset"].to_pylist() == ["train", "test"]
    assert table["__row"].to_pylist() == [2, 1]


def test_columns_that_differ_only_by_case_are_all_kept(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "Filename,filename,subset,Title,TITLE\na,b,train,c,d\n"))
    assert [column[0].as_py() for column in table.columns] == ["a", "train", "b", "c", "d"]
    assert len({name.lower() for name in table.column_names}) == 5


# Which columns are ours


def test_columns_named_like_ours_are_renamed(tmp_path: Path) -> None:
    others = [name for name in RESERVED if name not in ("filename", "subset")]
    content = f"filename,subset,{','.join(others).upper()},csv_status\na,train{',1' * len(others)},2\n"
    table = read_dataset(write(tmp_path, content))
    renamed = [f"csv_{name.upper()}" for name in others]
    renamed[renamed.index("csv_STATUS")] = "csv_csv_STATUS"
    assert table.column_names == ["filename", "subset", *renamed, "csv_status"]
    assert table["csv_status"].to_pylist() == [2]


def test_another_filename_column_is_kept_beside_ours(tmp_path: Path) -> None:
    path = write(tmp_path, "Path,filename,subset\na.jpg,A,test\n")
    table = read_dataset(path, filename_column="path", split="CASE filename WHEN 'A' THEN 'train' ELSE 'test' END")
    assert table.to_pydict() == {
        "filename": ["a.jpg"],
        "subset": ["train"],
        "Path": ["a.jpg"],
        "csv_filename": ["A"],
        "csv_subset": ["test"],
    }


def test_the_split_may_say_filename_when_no_column_is_called_so(tmp_path: Path) -> None:
    path = write(tmp_path, "path,n\n001,1\n2.jpg,2\n")
    table = read_dataset(path, filename_column="path", split="CASE FileName WHEN '001' THEN 'test' ELSE 'train' END")
    assert table.to_pydict() == {
        "filename": ["001", "2.jpg"],
        "subset": ["test", "train"],
        "path": ["001", "2.jpg"],
        "n": [1, 2],
    }


# The split


def test_the_split_is_computed_for_each_row_in_the_order_of_the_csv(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5000)]
    path = write(tmp_path, "filename\n" + "\n".join(names) + "\n")
    hashed = read_dataset(path, split=BY_HASH)
    assert 300 < hashed["subset"].to_pylist().count("test") < 700
    rank = "row_number() OVER (ORDER BY md5(filename))"
    ranked = read_dataset(path, split=f"if({rank} = 1, 'train', {rank} || '') -- a window reorders the rows")
    assert hashed["filename"].to_pylist() == ranked["filename"].to_pylist() == names
    few = read_dataset(write(tmp_path, "filename\n77.jpg\n0.jpg\n1.jpg\n2.jpg\n"), split=BY_HASH)
    assert few["subset"].to_pylist() == [hashed["subset"][i].as_py() for i in (77, 0, 1, 2)]
    ranks = [1 if rank == "train" else int(rank) for rank in ranked["subset"].to_pylist()]
    assert sorted(ranks) == list(range(1, 5001)) != ranks


@pytest.mark.parametrize("split", ["subset", " SUBSET\n", '"subset"'])
def test_the_column_subset_is_not_kept_twice(tmp_path: Path, split: str) -> None:
    table = read_dataset(write(tmp_path, "filename,Subset\na,train\n"), split=split)
    assert table.to_pydict() == {"filename": ["a"], "subset": ["train"]}


@pytest.mark.parametrize(
    ("split", "why"),
    [
        ("(SELECT content FROM read_text('/etc/hostname'))", "disabled by configuration"),
        ("(SELECT filename FROM '/etc/passwd')", "does not exist"),
        ("(SELECT file FROM glob('/*') LIMIT 1)", "disabled by configuration"),
        ("(SELECT message FROM python_table)", "python_table does not exist"),
    ],
)
def test_the_split_reaches_nothing_outside_the_csv(tmp_path: Path, split: str, why: str) -> None:
    python_table = pa.table({"message": ["train"]})
    assert python_table.num_rows
    assert why in refused(write(tmp_path, "filename\na.jpg\n"), split=split)


@pytest.mark.parametrize(
    "split",
    [
        "",
        "'train'), (1",
        "'train'; DROP TABLE csv",
        "'train' AS x, 2",
        "'train' AS x",
        "'train', 'test'",
        "'train' FROM csv",
        "'train') FROM csv --",
        "'train' WHERE false",
        "SELECT 'train'",
        "'train",
        "'train' /*",
        "COLUMNS(*)",
        "unnest(['train', 'test'])",
        "count(*)",
        "?",
        "'caf\udce9'",
    ],
)
def test_the_split_is_one_expression_with_one_value_for_each_row(tmp_path: Path, split: str) -> None:
    message = refused(write(tmp_path, "filename,n\na.jpg,1\nb.jpg,2\n"), split=split)
    assert message.startswith("The split can't be evaluated: ")
    assert message.endswith("It must be one SQL expression over the columns of the CSV: filename, n.")


@pytest.mark.parametrize(
    ("split", "hint"),
    [
        (
            "CASE WHEN artist = 'x' AND year > 1900 THEN 'test' ELSE 'train' END",
            'TRY_CAST("year" AS BIGINT) for year, or',
        ),
        ("CASE WHEN year % 2 = 0 THEN 'test' ELSE 'train' END", 'TRY_CAST("year" AS BIGINT) for year, or'),
        (
            "CASE WHEN artist = 'x' AND CAST(year AS INT) > 1900 THEN 'test' END",
            'TRY_CAST("year" AS BIGINT) for year, or',
        ),
        (
            "CASE WHEN year > 1 AND artist > 1 THEN 'test' END",
            'BIGINT) for year and TRY_CAST("artist" AS BIGINT) for art',
        ),
        ("CASE WHEN strftime(year, '%Y') = '1900' THEN 'test' END", None),
    ],
)
def test_a_split_that_takes_text_for_a_number(tmp_path: Path, split: str, hint: str | None) -> None:
    message = refused(write(tmp_path, "filename,year,artist\na.jpg,c. 1900,x\nb.jpg,1901,y\n"), split=split)
    assert "\n" not in message
    if hint is None:
        assert "TRY_CAST" not in message
    else:
        assert hint in message
        assert "--type year=BIGINT. It must be one SQL expression" in message


def test_a_split_that_names_an_unknown_column(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "filename,style\na.jpg,x\n"), split="CASE\n WHEN stile = 'x' THEN 'test' END")
    assert "CASE WHEN stile = 'x' THEN 'test' END -- Binder Error: Referenced column \"stile\" not found" in message
    assert "columns of the CSV: filename, style." in message
    assert "^" not in message


def test_no_column_subset(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "filename,style\na.jpg,x\n"))
    assert "no column 'subset'. Its columns are: filename, style." in message
    assert f'--split "{BY_HASH}"' in message


@pytest.mark.parametrize("nothing", ["", '" "', "\u00a0"])
def test_a_row_without_subset(tmp_path: Path, nothing: str) -> None:
    message = refused(write(tmp_path, f"filename,subset\na.jpg,train\nb.jpg,{nothing}\nc.jpg,{nothing}\n"))
    assert "gives no subset for 2 images, for example 'b.jpg': subset" in message
    assert "coalesce" in message
    assert "no subset for 1 image, for" in refused(write(tmp_path, f"filename,subset\na.jpg,train\nb.jpg,{nothing}\n"))
    assert "CASE ... ELSE" in message


@pytest.mark.parametrize("word", ["Train", "train ", "\u00a0TRAIN"])
def test_a_subset_that_is_nearly_train(tmp_path: Path, word: str) -> None:
    message = refused(write(tmp_path, f'filename,subset\na.jpg,train\nb.jpg,"{word}"\nc.jpg,test\n'))
    assert (
        f"gives {word!r} (1 image, for example 'b.jpg'), which differs from 'train' only by case or blanks" in message
    )


@pytest.mark.parametrize(
    ("split", "what", "example"),
    [
        (
            "fold < 2",
            "gives BOOLEAN instead of words (3 true, 1 false images)",
            "CASE CAST(fold < 2 AS VARCHAR) WHEN 'true'",
        ),
        ("fold", "gives BIGINT instead of words (2 1, 1 0, 1 3 images)", "CASE CAST(fold AS VARCHAR) WHEN '1'"),
        ("day", "gives DATE instead of words (4 2020-01-02 images)", "WHEN '2020-01-02' THEN 'train' ELSE 'test' END"),
        ("kind", "makes no image 'train' (3 training, 1 it's images)", "WHEN 'training' THEN 'train' ELSE 'test' END"),
    ],
)
def test_a_split_without_train_is_refused_with_what_it_gives(
    tmp_path: Path, split: str, what: str, example: str
) -> None:
    day = "2020-01-02"
    rows = f"a,0,training,{day}\nb,1,training,{day}\nc,1,it's,{day}\nd,3,training,{day}\n"
    path = write(tmp_path, f"filename,fold,kind,day\n{rows}")
    message = refused(path, split=split)
    assert what in message
    assert example in message
    hint = message.rpartition('--split "')[2].removesuffix('".')
    assert "train" in read_dataset(path, split=hint)["subset"].to_pylist()


def test_a_dataset_of_test_images_only_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "filename,subset\na,test\nb,test\n"))
    assert "makes no image 'train' (2 test images)" in message
    assert message.endswith(f'--split "{BY_HASH}".')


@pytest.mark.parametrize(
    ("values", "train"),
    [
        (["dev", "dev", "Training"], "Training"),
        (["held-out", "held-out", "x", "Val", "Val"], "x"),
        (['say "$HOME" `id` \\x', "test"], 'say "$HOME" `id` \\x'),
        (["dev", "Validation", "test"], None),
        (["x" * 51], None),
        (["x  y"], None),
        (["hey!"], None),
    ],
)
def test_the_split_that_is_proposed(tmp_path: Path, values: list[str], train: str | None) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "my subset"), *enumerate(values)])
    option = refused(path, split='"my subset"').rpartition("for example ")[2].removesuffix(".")
    shell = ["bash", "-c", f'printf "%s\\n" {option}']
    flag, split = subprocess.run(shell, check=True, capture_output=True, text=True).stdout.splitlines()
    assert flag == "--split"
    if train is None:
        assert split == BY_HASH
    else:
        subsets = read_dataset(path, split=split)["subset"].to_pylist()
        assert subsets == ["train" if value == train else "test" for value in values]


def test_a_split_with_many_values_counts_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "filename\n" + "\n".join(map(str, range(9))) + "\n")
    assert "(1 0, 1 1, 1 2, 1 3, 1 4, and 4 more values images)" in refused(path, split="filename")


# Filenames


def test_filenames_are_normalised_and_the_spelling_of_the_csv_is_kept(tmp_path: Path) -> None:
    written = ["z.jpg", "./a.jpg", "x//b.jpg", "x/../c.jpg", "..d/e.jpg", "x/./f.jpg", ".g", "h...jpg", "i/"]
    rows = "".join(f"{name},train,{i}\n" for i, name in enumerate(written))
    table = read_dataset(write(tmp_path, f"filename,subset,n\n{rows}"))
    normal = ["z.jpg", "a.jpg", "x/b.jpg", "c.jpg", "..d/e.jpg", "x/f.jpg", ".g", "h...jpg", "i"]
    assert table.to_pydict() == {
        "filename": normal,
        "subset": ["train"] * 9,
        "csv_filename": written,
        "n": list(range(9)),
    }


def test_the_spelling_of_the_csv_gives_way_to_a_column_of_that_name(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "filename,subset,csv_filename\n./a,train,x\n"))
    assert table.to_pydict() == {
        "filename": ["a"],
        "subset": ["train"],
        "csv_csv_filename": ["./a"],
        "csv_filename": ["x"],
    }


def test_the_spelling_of_another_filename_column_stands_there_already(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "path,subset\n./a,train\n"), filename_column="path")
    assert table.to_pydict() == {"filename": ["a"], "subset": ["train"], "path": ["./a"]}


@pytest.mark.parametrize(
    ("filename", "why"),
    [
        ("/etc/a.jpg", "'/etc/a.jpg' is absolute"),
        ("../x.jpg", "'../x.jpg' leaves the image folder"),
        ("a/../../x.jpg", "'a/../../x.jpg' leaves the image folder"),
        ("..", "'..' leaves the image folder"),
        ("a/..", "'a/..' is the image folder itself"),
        ("a\0b.jpg", "'a\\x00b.jpg' contains a NUL character"),
        ("", "has no filename (column 'filename')"),
        ("  ", "has no filename (column 'filename')"),
    ],
)
def test_a_filename_that_is_not_in_the_image_folder(tmp_path: Path, filename: str, why: str) -> None:
    message = refused(write(tmp_path, f"filename,subset\ngood.jpg,train\n./b.jpg,train\n{filename},test\n"))
    assert message.startswith("Row 3 of the CSV")
    assert why in message


def test_filenames_that_occur_twice(tmp_path: Path) -> None:
    content = "filename,subset\na.jpg,train\nb.jpg,train\nc.jpg,train\n./b.jpg,test\na.jpg,test\nb.jpg,test\n"
    message = refused(write(tmp_path, content))
    assert "2 filenames occur more than once in the CSV; the first is 'a.jpg', in rows 1 and 5" in message
    message = refused(write(tmp_path, "filename,subset\nx,train\nb.jpg,train\n./b.jpg,test\n"))
    assert "1 filename occurs more than once in the CSV; the first is 'b.jpg', in rows 2 and 3" in message


# A CSV that can't be read


def test_no_such_csv(tmp_path: Path) -> None:
    assert "nowhere.csv does not exist" in refused(tmp_path / "nowhere.csv")
    assert "is not a file" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
def test_an_empty_csv(tmp_path: Path, content: bytes) -> None:
    assert "dataset.csv is empty" in refused(write(tmp_path, content))


@pytest.mark.parametrize("content", ["filename,subset", "filename,subset\r\n"])
def test_a_header_without_rows(tmp_path: Path, content: str) -> None:
    assert "dataset.csv has no rows" in refused(write(tmp_path, content))


def test_a_header_that_has_no_end(tmp_path: Path) -> None:
    message = refused(write(tmp_path, f"filename,{'x' * csv.field_size_limit()}y\na.jpg,1\n"))
    assert message.startswith("Can't read the header of dataset.csv: field larger than field limit")
    assert message.endswith(". Is it a CSV, and readable?")


def test_no_such_filename_column(tmp_path: Path) -> None:
    message = refused(write(tmp_path, 'path;"sub\nset"\na.jpg;train\n'))
    assert "dataset.csv has no column 'filename'. Its columns are: path, sub set. Name the one" in message
    assert "--filename-column" in message


@pytest.mark.parametrize("before", [1, 150_000])
def test_latin_1_is_refused(tmp_path: Path, before: int) -> None:
    rows = "".join(f"{i}.jpg,train\n" for i in range(before))
    message = refused(write(tmp_path, f"filename,subset\n{rows}café.jpg,test\n".encode("latin-1")))
    assert f"not UTF-8: the first wrong byte is in line {before + 2} (a value" in message
    assert "iconv -f latin1 -t utf8 dataset.csv" in message


def test_a_header_in_latin_1_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "filename,subset,été\na.jpg,train,1\n".encode("latin-1")))
    assert "not UTF-8: the first wrong byte is in the header" in message


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32LE"),
        ("utf-32-be", "UTF-32BE"),
    ],
)
def test_wider_encodings_are_named(tmp_path: Path, encoding: str, name: str) -> None:
    message = refused(write(tmp_path, "filename,subset\na.jpg,train\n".encode(encoding)))
    assert f"dataset.csv is not UTF-8: it is {name}. Convert it" in message
    assert f"iconv -f {name.lower()} -t utf8 dataset.csv" in message


def test_a_header_with_a_nul_is_refused(tmp_path: Path) -> None:
    assert "its header has a NUL character" in refused(write(tmp_path, "filename,sub\0set\na.jpg,train\n"))


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"PK\x03\x04...", "a zip file, as workbooks of Excel (.xlsx)", "Save the sheet as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old workbook of Excel (.xls)", "Save the sheet as CSV UTF-8"),
        (b"ARROW1\0\0", "an Arrow (Feather) file", "Write the table as Parquet"),
        (b"BZh91AY&SY", "compressed with bzip2", "compress it with gzip or zstd"),
        (b"\xfd7zXZ\0", "compressed with xz", "compress it with gzip or zstd"),
    ],
)
def test_what_is_no_dataset_is_named_for_what_it_is(tmp_path: Path, content: bytes, what: str, hint: str) -> None:
    message = refused(write(tmp_path, content))
    assert message.startswith(f"dataset.csv is {what}")
    assert hint in message


@pytest.mark.parametrize("before", [1, 150_000])
@pytest.mark.parametrize(("row", "fields"), [("x.jpg,test,more", 3), ("x.jpg", 1)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_row_with_a_wrong_number_of_fields(tmp_path: Path, before: int, row: str, fields: int, end: str) -> None:
    lines = ["", "filename,subset", *(f"{i}.jpg,train" for i in range(before)), row, "z.jpg,test", ""]
    message = refused(write(tmp_path, end.join(lines)))
    assert f"line {before + 3} (a value that spans lines counted as one) has {fields} fields" in message
    assert "where the header has 2" in message


def test_nothing_is_skipped_that_stands_before_the_header(tmp_path: Path) -> None:
    assert "Its columns are: My paintings." in refused(write(tmp_path, "My paintings\nfilename,subset\na.jpg,train\n"))


def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    message = refused(write(tmp_path, 'filename,subset\na.jpg,train\n"b.jpg,train\nc.jpg,test\n'))
    assert "line 3 (a value that spans lines counted as one) has a double quote that is not closed" in message


def test_mixed_line_ends_are_read(tmp_path: Path) -> None:
    content = b'\n\r\nfilename,subset,t\na.jpg,train,x\r\nb.jpg,test,5" y\r"c,""d.jpg",test,"1\r\n2\r3\n4"\n\n'
    table = read_dataset(write(tmp_path, content))
    assert table.to_pydict() == {
        "filename": ["a.jpg", "b.jpg", 'c,"d.jpg'],
        "subset": ["train", "test", "test"],
        "t": ["x", '5" y', "1\r\n2\r3\n4"],
    }


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("b.jpg,test,more", "line 3 (a value that spans lines counted as one) has 3 fields where the header has 2"),
        ('"b.jpg"x,test', "line 3 is not a line of a CSV: ',' expected after '\"'"),
        ('"b.jpg,test', "is not a line of a CSV: unexpected end of data"),
    ],
)
def test_what_is_wrong_between_mixed_line_ends_is_said(tmp_path: Path, row: str, what: str) -> None:
    assert what in refused(write(tmp_path, f"filename,subset\r\na.jpg,train\n{row}\nc.jpg,test\n"))


def test_a_byte_that_is_not_utf_8_between_mixed_line_ends_is_said(tmp_path: Path) -> None:
    message = refused(write(tmp_path, b"filename,subset\r\na.jpg,train\ncaf\xe9.jpg,test\r"))
    assert "not UTF-8: the first wrong byte is in line 3" in message


@pytest.mark.parametrize(
    ("header", "position", "shown"),
    [
        ("\u200bfilename,subset", 1, "\\u200bfilename"),
        ("\ufeff\ufefffilename,subset", 1, "\\ufefffilename"),
        ("filename,subset,title\u200e", 3, "title\\u200e"),
        ("filename,subset,\u00adtitle", 3, "\\xadtitle"),
    ],
)
def test_a_character_that_can_not_be_seen_is_named(tmp_path: Path, header: str, position: int, shown: str) -> None:
    message = refused(write(tmp_path, f"{header}\na.jpg,train{',x' * (position == 3)}\n"))
    assert f"the name of column {position} begins or ends with a character that can't be seen: '{shown}'" in message
    assert message.isascii()


def test_an_invisible_character_within_a_name_is_shown_and_may_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "file\u200bname,subset\na.jpg,train\n")
    assert "Its columns are: file\\u200bname, subset." in refused(path)
    assert read_dataset(path, filename_column="file\u200bname")["filename"].to_pylist() == ["a.jpg"]


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\nsep=;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_excels_line_that_names_the_separator_is_honoured(tmp_path: Path, first: str, end: str) -> None:
    lines = [first, "filename;subset;a,b", "x.jpg;train;1,5", ""]
    table = read_dataset(write(tmp_path, end.join(lines)))
    assert table.to_pydict() == {"filename": ["x.jpg"], "subset": ["train"], "a,b": ["1,5"]}


def test_a_separator_that_none_would_guess(tmp_path: Path) -> None:
    table = read_dataset(write(tmp_path, "sep=^\nfilename^subset\na,b.jpg^train\n"))
    assert table.to_pydict() == {"filename": ["a,b.jpg"], "subset": ["train"]}


def test_fields_beyond_the_header_are_refused_even_if_empty(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "filename,subset\na.jpg,train,\nb.jpg,test,,,\n"))
    assert "its rows differ in their number of fields" in message


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    message = refused(write(tmp_path, f'filename,subset\na.jpg,"{"x" * 3_000_000}"\n'))
    assert "is longer than 2000000 bytes" in message
    assert len(message) < 400


def test_a_csv_under_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    assert "of the dataset is not UTF-8. Rename it." in refused(
        write(tmp_path, "filename\na.jpg\n", os.fsdecode(b"caf\xe9.csv"))
    )


# A folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_images_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/z.png", "a/b/c.webp", "a.tif", "é.jpeg", "notes.txt", "jpg", "a/dataset.csv")
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "a/.thumbs/b.jpg")
    (tmp_path / "folder.jpg").mkdir()
    table = scan_folder(tmp_path)
    names = ["a.tif", "a/b/c.webp", "a/z.png", "b.JPG", "é.jpeg"]
    assert table.to_pydict() == {"filename": names, "subset": ["train"] * 5}
    assert table.schema.types == [pa.string(), pa.string()]


def test_a_folder_gives_every_format_that_opencv_reads(tmp_path: Path) -> None:
    touch(tmp_path, *(f"image{suffix}" for suffix in IMAGE_SUFFIXES))
    assert scan_folder(tmp_path).num_rows == 16


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    images = tmp_path / "images"
    touch(images, "z/a.jpg")
    touch(tmp_path, "elsewhere/b.jpg", "beside.jpg")
    (images / "again").symlink_to(images / "z")
    (images / "zz").symlink_to(images / "z")
    (images / "z/loop").symlink_to(images)
    (images / "above").symlink_to(tmp_path)
    (images / "more").symlink_to(tmp_path / "elsewhere")
    (images / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert scan_folder(images)["filename"].to_pylist() == ["gone.jpg", "more/b.jpg", "z/a.jpg"]


def test_a_link_that_leads_to_itself_is_no_end_of_the_scan(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    for name in ("loop", "loop.jpg", "folder"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    assert scan_folder(tmp_path)["filename"].to_pylist() == ["a.jpg", "loop.jpg"]


def test_a_folder_that_can_not_be_scanned(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg", "empty/notes.txt")
    with pytest.raises(DatasetError, match=r"image folder .*/nowhere does not exist\."):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"image folder .*/file\.jpg is not a folder\."):
        scan_folder(tmp_path / "file.jpg")
    with pytest.raises(DatasetError, match=r"empty holds no image: no file ends in one of \.jpg "):
        scan_folder(tmp_path / "empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "closed/a.jpg")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(DatasetError, match=r"^Can't list .*/closed: Permission denied\. Make it readable"):
        scan_folder(tmp_path)
    (tmp_path / "closed").chmod(0o700)


def test_a_file_name_that_is_not_utf_8(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(DatasetError, match=r"The file name b'caf\\xe9\.jpg' is not UTF-8\. Rename it\."):
        scan_folder(tmp_path)
