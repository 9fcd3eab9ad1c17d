"""The file that shows a run: nothing in its data is markup, its policy lets it run only itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ui_stories import HOSTILE

from nano_vm.cli import main
from nano_vm.ui import page as pages
from nano_vm.ui.page import NotBuilt, embedded, page

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(JSON)
def test_embedded_data_is_json_that_ends_no_element(data: Any) -> None:
    text = embedded(data)
    assert json.loads(text) == data
    assert not re.search("[<>&\u2028\u2029]", text)


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "DIST", tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "app.js").write_text("a='</script><SCRIPT><!--'")
    (tmp_path / "assets" / "app.css").write_text("b{c:d}")
    return tmp_path


def test_the_policy_allows_the_pages_own_script_and_nothing_else(dist: Path) -> None:
    html = page("a <b>", {"runs": ["</script>"]})
    script = html.partition("</script>\n<script>")[2].partition("</script></body>")[0]
    assert script == r"a='\x3c/script>\x3cSCRIPT>\x3c!--'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html
    assert "<title>a &lt;b&gt;</title>" in html
    assert html.lower().count("</script>") == 2


def test_a_style_sheet_that_ends_its_element_is_refused(dist: Path) -> None:
    (dist / "assets" / "app.css").write_text("</STYLE>")
    with pytest.raises(AssertionError, match="style sheet"):
        page("t", {})


def test_pages_that_are_not_built_are_told(
    stories: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pages, "DIST", tmp_path / "nowhere")
    with pytest.raises(NotBuilt, match="make ui"):
        page("t", {})
    file = tmp_path / "run.html"
    assert main(["export", "refund-2001", "--store", stories, "-o", str(file)]) == 1
    assert "not built" in capsys.readouterr().err
    assert not file.exists()


# --- the command ---


def test_export_wants_a_file(stories: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "refund-2001", "--store", stories]) == 2
    assert "-o run.html" in capsys.readouterr().err


def test_export_prints_what_the_file_would_show(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "refund-2001", "--store", stories, "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["status"] == "success"
    assert view["chart"]["entry"] == "analyze"
    assert view["lost"] == []
    assert view["taken"]["guard > fetch : then"] == 1
    assert "guard > reject : otherwise" not in view["taken"]
    assert view["taken"]["score/high > score/high/pass : otherwise"] == 15
    fetched = next(step for step in view["steps"] if step["path"] == "fetch")
    assert '"huge":12345678901234567890' in fetched["output"]
    refund = next(step for step in view["steps"] if step["path"] == "refund")
    assert [attempt["error"]["type"] for attempt in refund["attempts"]] == ["GatewayDown"] * 2
    assert refund["effect"] == "irreversible"


def test_a_redacted_export_holds_nothing_that_was_said(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id in ("refund-2002", "refund-2003", "refund-2005"):
        command = ["export", run_id, "--store", stories, "--json", "--redact"]
        assert main(command) == 0
        text = capsys.readouterr().out
        said = ("- damaged goods", "crack", "149.9", "no price", "gateway", "hacked", "A-200")
        assert [part for part in said if part in text] == []
        view = json.loads(text)
        assert view["taken"]["guard > fetch : then"] == 1
        assert view["cost"] == "0.000078"
        assert view["content"] is False
        # by which whoever guesses what was said sees that the guess is right
        assert view["digest"] is None
        assert main([*command[:-1]]) == 0
        assert json.loads(capsys.readouterr().out)["digest"] not in text


def test_a_trace_without_its_program_has_no_graph_and_says_so(
    stories: str, dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "refund-2001", "--store", stories, "--json"]) == 0
    trace = json.loads(capsys.readouterr().out)["trace"]
    file = tmp_path / "run.json"
    file.write_text(json.dumps(trace))
    assert main(["export", str(file), "-o", str(tmp_path / "run.html")]) == 0
    assert "does not hold its program" in capsys.readouterr().err
    other = tmp_path / "other.yaml"
    other.write_text("name: other\nsteps: [{id: a, type: set, values: {x: 1}}]\n")
    command = ["export", str(file), "-o", str(tmp_path / "run.html"), "--program", str(other)]
    assert main(command) == 0
    assert "another program" in capsys.readouterr().err
