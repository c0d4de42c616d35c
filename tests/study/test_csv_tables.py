"""Tables as Excel, LibreOffice, pandas and people save them: the same rows, or one line that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lus_cli.errors import LusError
from lus_cli.study.annotations import read_annotations, read_findings
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.ids import VideoId

PLAIN = "patient,exam,area,score\nMüller,1,L1,2\nAna,1,L2,0\n"
SCORES = {VideoId("Müller", "1", "L1"): 2, VideoId("Ana", "1", "L2"): 0}
SEMICOLONS = PLAIN.replace(",", ";")
TABS = PLAIN.replace(",", "\t")


def scores(folder: Path, content: bytes, name: str = "scores.csv") -> dict[VideoId, int]:
    path = folder / name
    path.write_bytes(content)
    return read_annotations(path)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        SEMICOLONS.encode(),
        SEMICOLONS.replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.replace("\n", "\r").encode(),
        TABS.encode(),
        TABS.encode("utf-16"),
        b"\xfe\xff" + TABS.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        ("sep=;\r\n" + SEMICOLONS).encode(),
        ('"sep=;"\n' + SEMICOLONS).encode(),
        ("sep=|\n" + PLAIN.replace(",", "|")).encode(),
        SEMICOLONS.replace("2", "2,0").replace("L2,0", "L2").encode(),
        PLAIN.replace(",2\n", ",2.0\n").encode(),
        PLAIN.replace(",2\n", ',"2,0"\n').encode(),
        PLAIN.replace("patient,exam", " Patient ,EXAM").replace("score", "Score ").encode(),
        PLAIN.replace("patient", '"patient"').replace("Ana", '"Ana"').encode(),
        PLAIN.replace("Ana", "\u00a0Ana\u200b").encode(),
        SEMICOLONS.replace("\n", ";;;\n").encode(),
        (SEMICOLONS + ";;;;\n;;;;\n\n").encode(),
        ("\n\n" + PLAIN).encode(),
        # Spaces before quotes, by people; ="1", by programs that write for Excel.
        PLAIN.replace(",1,L", ', "1", "L').replace(",2", '", "2"').replace(",0", '",0').encode(),
        SEMICOLONS.replace(";1;", ';="1";').replace(";2\n", ';"=""2"""\n').encode(),
        PLAIN.replace("patient", '="patient"').encode(),
        # Excel leaves empty cells at the end of later rows out.
        PLAIN.replace("score\n", "score,comment\n").encode(),
    ],
)
def test_a_table_is_read_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    assert scores(tmp_path, content) == SCORES


@pytest.mark.parametrize(
    "text",
    [
        "Müller/1/L1;2\nAna/1/L2;0\n",
        "Müller/1/L1;2;;\nAna/1/L2;0;;\n;;;\n",
        '"Müller/1/L1";"2"\r\n"Ana/1/L2";"0"\r\n',
        '"Müller/1/L1;2"\n"Ana/1/L2;0"\n',
        "Müller/1/L1,2\nAna/1/L2,0\n",
        "Müller/1/L1\t2,0\nAna/1/L2\t0,0\n",
        "sep=;\nMüller/1/L1;2\nAna/1/L2;0\n",
        "\u00a0Müller/1/L1 ; 2\u00a0\nAna/1/L2;0",
        SEMICOLONS,
        TABS,
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lines_are_read_however_they_were_saved(tmp_path: Path, text: str, encoding: str) -> None:
    assert scores(tmp_path, text.encode(encoding), "Annotations.txt") == SCORES


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "mac-roman"])
def test_letters_that_cannot_be_told_name_the_line_and_the_way_to_save(
    tmp_path: Path, encoding: str
) -> None:
    with pytest.raises(LusError, match=r"line 2: it is not valid UTF-8.*`CSV UTF-8"):
        scores(tmp_path, SEMICOLONS.encode(encoding))


@pytest.mark.parametrize("name", ["s.xlsx", "s.xls", "s.ods", "s.numbers"])
def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path, name: str) -> None:
    with pytest.raises(LusError, match="is a spreadsheet, not a table of text: save it as CSV"):
        scores(tmp_path, b"anything", name)


def test_a_score_that_is_missing_in_r_is_to_be_left_empty(tmp_path: Path) -> None:
    with pytest.raises(LusError, match=r"line 4: invalid score 'NA'.*the cell .* is empty"):
        scores(tmp_path, f"{PLAIN}Ana,1,L3,NA\n".encode())
    assert scores(tmp_path, f"{PLAIN}Ana,1,L3,\n".encode()) == SCORES


@pytest.mark.parametrize("number", ["1.23457E+11", "1,23457E+11", "2e+05"])
@pytest.mark.parametrize("column", ["patient", "exam", "area"])
def test_a_number_that_a_spreadsheet_shortened_is_no_id(
    tmp_path: Path, column: str, number: str
) -> None:
    """Two patients of 12 digits can have one such number."""
    cells = {"patient": "P1", "exam": "1", "area": "L1"} | {column: number}
    text = "patient;exam;area;score\n" + ";".join([*cells.values(), "2"])
    with pytest.raises(LusError) as caught:
        scores(tmp_path, text.encode())
    assert f"line 2: {column} {number} is a number that a spreadsheet shortened" in str(
        caught.value
    )
    assert f"format the column {column} as text" in caught.value.remedy


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("patient,exam,area,score,score", "'score' and 'score'"),
        ("patient,exam,area,Score,score ", "'Score' and 'score'"),
        ("patient,Patient,exam,area,score", "'patient' and 'Patient'"),
        ("patient,exam,area,score,a lines,a_lines", "'a lines' and 'a_lines'"),
    ],
)
def test_two_columns_of_one_name_are_an_error(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(LusError, match=f"has 2 columns with the same name: {message}"):
        scores(tmp_path, f"{header}\n1,1,1,1,2,3\n".encode())


def test_findings_have_no_column_twice_either(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("patient,exam,area,a_lines,A_lines,b_lines\n1,1,1,yes,no,\n")
    with pytest.raises(LusError, match="2 columns with the same name"):
        read_findings(tmp_path / "f.csv")


def test_lines_are_counted_from_the_top_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('sep=;\na;b\n"1\n2";3\n4;5\n')
    rows = list(csv_rows(path, read_text(path, ""), ("a", "b")))
    assert rows == [(4, {"a": "1\n2", "b": "3"}), (5, {"a": "4", "b": "5"})]


@pytest.mark.parametrize("comment", ['"unsure', '"unsure" ?'])
@pytest.mark.parametrize("later", ["", '"good"'])
def test_a_quote_that_is_not_closed_takes_no_rows(tmp_path: Path, comment: str, later: str) -> None:
    table = f"patient,exam,area,score,comment\n1,1,1,1,\n2,1,1,2,{comment}\n3,1,1,3,{later}\n"
    with pytest.raises(LusError, match=r"line 3: .*begins with a double quote ends with one"):
        scores(tmp_path, table.encode())
    read = scores(tmp_path, table.replace(comment, '"un""sure, or\nnot"').encode())
    assert list(read.values()) == [1, 2, 3]


def test_a_cell_that_is_needed_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="line 3: the row does not have 4 cells"):
        scores(tmp_path, b"patient,exam,area,score\n1,1,1,1\n1,1,2\n")
    with pytest.raises(LusError, match=r"line 2: the row does not have 4 cells.*double quotes"):
        scores(tmp_path, b"patient,exam,area,score\n1,1,1,1,0\n")
