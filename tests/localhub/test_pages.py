"""The pages, in a real browser."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.html
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_support import add, call
from huggingface_hub import HfApi
from playwright.sync_api import Page, sync_playwright
from support import CHROMIUM, needs_chromium

from hubkit.localhub import LocalHub, make_token
from hubkit.localhub.api.markdown import render
from hubkit.localhub.pages.rows import configs_of, read_rows

pytestmark = needs_chromium

CARD = """---
license: apache-2.0
tags: [hubkit, synthetic, distillation]
language: en
base_model: local/student
datasets: [local/nano-bench, someone/elsewhere]
configs:
- {config_name: other, data_files: "notes.jsonl"}
- config_name: raw
  default: true
  data_files:
  - {split: train, path: "raw/*.parquet"}
  - {split: test, path: ["raw/test/**"]}
- {config_name: gone, data_files: "nothing/*"}
---
# Nano traces

<p align="center"><img src="logo.png" width="40" onerror="document.title = 'owned'"></p>
<details><summary>More on it</summary>

From arXiv:2401.12345v2, see `local/student`, `no/repo` and https://example.org/paper.

</details>

How they were **made**: see [the recipe](recipe.yaml), [below](#columns), or [elsewhere](https://example.org/x).

| teacher | traces |
|---|--:|
| nano | 1,000 |

<script>document.title = 'owned'</script>
<img src=x onerror="document.title = 'owned'">
[click](javascript:document.title='owned') ![pixel](https://example.org/pixel.png)
[data](data:text/html,<script>document.title='owned'</script>)

## Columns

```python
load_dataset("local/nano-traces")
```
"""
HOSTILE = "<script>document.title = 'owned'</script>"


def parquet() -> bytes:
    table = pa.table(
        {
            "id": [f"p{i}" for i in range(100)],
            "messages": [[{"role": "user", "content": f"What is {i} + {i}? " + HOSTILE}] for i in range(100)],
            "correct": [i % 3 == 0 for i in range(100)],
            "reasoning": ["Let me think. " * 60] * 100,
            "ratio": [i / 7 for i in range(100)],
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub with a small release on it."""
    with LocalHub(tmp_path_factory.mktemp("pages") / "hub") as local:
        api = HfApi(endpoint=local.endpoint, token=local.token)
        for name, kind in (
            ("nano-traces", "dataset"),
            ("nano-bench", "dataset"),
            ("student", "model"),
            ("x", "model"),
        ):
            api.create_repo(f"local/{name}", repo_type=kind)
        api.create_repo("local/hidden", private=True)
        for name in ("nano-compare", "app"):
            api.create_repo(f"local/{name}", repo_type="space", space_sdk="gradio")
        add(api, "local/nano-compare", {"release.json": b"{}"}, repo_type="space")
        files: dict[str, bytes | str | None] = {"README.md": CARD.encode(), "recipe.yaml": HOSTILE.encode()}
        files |= {f"raw/{number}.parquet": parquet() for number in range(2)}
        files["raw/test/a.csv"] = f"q,a\n{HOSTILE},2\n".encode()
        add(api, "local/nano-traces", files, repo_type="dataset")
        add(api, "local/nano-traces", {"notes.jsonl": b'{"a": 1, "b": "two"}\n' * 3}, repo_type="dataset")
        add(api, "local/nano-bench", {"eval.yaml": b"tasks: [{id: nano}]"}, repo_type="dataset")
        result = b"- {dataset: {id: local/nano-bench, task_id: nano}, value: 41.2, source: {url: 'https://example.org'}}"
        add(api, "local/student", {".eval_results/nano.yaml": result, "model.safetensors": b"\0" * 5000})
        add(api, "local/student", {"config.json": b'{"a": 1}\n'})
        add(api, "local/student", {"config.json": f"{HOSTILE}\n".encode()}, create_pr=True)
        api.comment_discussion("local/student", 1, f"**Better** {HOSTILE}")
        slug = api.create_collection("A release", description="Traces and students").slug
        api.add_collection_item(slug, "local/student", "model", note="the student")
        yield local


def follow(page: Page, link: str) -> None:
    with page.expect_navigation():
        page.get_by_role("link", name=link).click()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: object, hub: LocalHub) -> Iterator[Page]:
    """A page that fails the test when it runs a stranger's script, or asks another host for anything."""
    context = browser.new_context(base_url=hub.endpoint)  # type: ignore[attr-defined]
    opened = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("dialog", lambda dialog: errors.append("dialog"))
    yield opened
    assert "owned" not in opened.title() and not errors
    # What the Content-Security-Policy blocked never left the browser; it is reported as asked for all the same.
    assert all(url.startswith((hub.endpoint, "data:,")) or url.endswith("/pixel.png") for url in asked)
    context.close()


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def test_lists(page: Page) -> None:
    page.goto("/")
    assert texts(page, "h1") == ["Models 2", "Datasets 2", "Spaces 2"]
    assert "local/hidden" not in page.content()
    page.get_by_label("Search").fill("STUD")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models?search=STUD")
    assert texts(page, ".cards b") == ["local/student"]
    page.goto("/local")
    assert len(texts(page, ".cards b")) == 6
    page.goto("/collections")
    assert texts(page, ".cards .quiet") == ["model · the student"]


def test_a_card_is_shown_and_is_harmless(page: Page) -> None:
    page.goto("/datasets/local/nano-traces")
    assert texts(page, "article h1") == ["Nano traces"] and texts(page, "article th") == ["teacher", "traces"]
    assert page.locator("article td.number").inner_text() == "1,000"  # the style it had is not allowed
    assert "license:apache-2.0" in texts(page, ".tags .chip")
    assert (
        page.locator("article script, article [onerror], a[href^='javascript'], a[href^='data']").count() == 0
    )
    assert HOSTILE in page.locator("article").inner_text()  # as text
    follow(page, "the recipe")
    page.wait_for_url("**/blob/main/recipe.yaml")
    assert texts(page, "pre.file") == [HOSTILE]
    page.goto("/datasets/local/nano-traces/resolve/main/recipe.yaml")  # as the browser itself shows it
    assert HOSTILE in page.locator("body").inner_text()


def test_files_and_history(page: Page) -> None:
    page.goto("/local/student")
    follow(page, "Files")
    assert texts(page, "td:first-child") == [
        ".eval_results/", ".gitattributes", "config.json", "model.safetensors",
    ]  # fmt: skip
    follow(page, "model.safetensors")
    assert "not text" in page.locator("main").inner_text()
    follow(page, "History")
    assert texts(page, "td:first-child") == ["add", "add", "initial commit"]
    page.locator("td:first-child a").first.click()
    assert '+{"a": 1}' in page.locator("pre.diff").inner_text()
    follow(page, "Community")
    page.get_by_role("link", name="add", exact=True).click()
    assert texts(page, "article strong") == ["Better"] and HOSTILE in page.locator("pre.diff").inner_text()


def test_links_and_safe_html_of_a_card(page: Page) -> None:
    page.goto("/datasets/local/nano-traces")
    article = page.locator("article")
    assert article.locator("p[align=center] img").get_attribute("src") == (
        "/datasets/local/nano-traces/resolve/main/logo.png"
    )
    details = article.locator("details")
    assert details.get_attribute("open") is None and not details.get_by_text("From").is_visible()
    page.get_by_text("More on it").click()
    links = {a.inner_text(): a.get_attribute("href") for a in details.locator("a").all()}
    assert links == {
        "arXiv:2401.12345v2": "https://arxiv.org/abs/2401.12345",
        "local/student": "/local/student",
        "https://example.org/paper": "https://example.org/paper",
    }
    chips = {a.inner_text(): a.get_attribute("href") for a in page.locator(".tags a").all()}
    assert chips["base_model:local/student"] == "/local/student"
    assert chips["dataset:local/nano-bench"] == "/datasets/local/nano-bench"
    assert chips["dataset:someone/elsewhere"] == "https://huggingface.co/datasets/someone/elsewhere"


def test_a_space_says_how_to_open_it(page: Page, hub: LocalHub) -> None:
    page.goto("/spaces/local/nano-compare")
    assert f"hubkit space open local/nano --hub {hub.folder}" in page.locator("aside pre").inner_text()
    page.goto("/spaces/local/app")
    assert "hf download local/app --repo-type space" in page.locator("aside pre").inner_text()


def test_rows_and_leaderboard(page: Page) -> None:
    page.goto("/datasets/local/nano-traces")
    follow(page, "Rows")
    main = page.locator("main")
    assert texts(page, "main h2") == ["raw · train"] and "Rows 1 to 20 of 200" in main.inner_text()
    assert texts(page, "nav[aria-label=Configs] a") == ["other", "raw", "gone"]
    assert HOSTILE in page.locator("tbody").inner_text()
    cell = page.locator("tbody tr").first.locator("td").nth(3)
    assert len(cell.inner_text()) < 160  # clipped, and opened by a click
    cell.locator("summary").click()
    assert len(cell.inner_text()) > 800
    for shown in ("Rows 21 to 40", "Rows 41 to 60", "Rows 61 to 80", "Rows 81 to 100", "Rows 101 to 120"):
        follow(page, "Next rows")
        assert shown in main.inner_text()
    assert texts(page, "tbody tr:first-child td")[0] == "p0"  # the second file begins
    follow(page, "Previous rows")
    assert texts(page, "tbody tr:first-child td")[0] == "p80"
    page.goto("/datasets/local/nano-traces/viewer?config=raw&split=train&row=190")
    assert "Rows 191 to 200 of 200" in main.inner_text() and not page.get_by_text("Next rows").count()
    follow(page, "test")
    assert texts(page, "tbody td") == [HOSTILE, "2"]
    follow(page, "other")
    assert texts(page, "thead th") == ["a", "b"] and page.locator("tbody tr").count() == 3
    follow(page, "gone")
    assert "no files" in main.inner_text()
    page.get_by_text("Data files").click()
    follow(page, "raw/1.parquet")
    assert "Rows 1 to 20 of 100" in main.inner_text()
    page.goto("/datasets/local/nano-bench/viewer")
    assert "No Parquet" in main.inner_text()
    page.goto("/datasets/local/nano-bench")
    follow(page, "Leaderboard")
    page.wait_for_url("**/leaderboard")
    assert texts(page, "tr:nth-child(1) td")[:3] == ["1", "local/student", "41.2"]


ATTACKS = [
    HOSTILE,
    "<img src=x onerror=\"document.title='owned'\">",
    "<svg onload=\"document.title='owned'\"><script>document.title='owned'</script></svg>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "<details open ontoggle=\"document.title='owned'\">x</details>",
    "<a href=\"java\tscript:document.title='owned'\">x</a>",
    "[x](javascript:document.title='owned')",
    "<a href=\" &#106;avascript:document.title='owned'\">x</a>",
    "<form action=/login><button formaction=\"javascript:document.title='owned'\">x</button></form>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=\"document.title='owned'\"></style></mglyph></math>",
    '<p style="position:fixed;inset:0" class="top">cover</p>',
    "</article></main><script>document.title='owned'</script>",
    "`{{ 7 * 7 }}` <base href=//example.org> <meta http-equiv=refresh content='0;url=//example.org'>",
    "https://example.org/\"onmouseover=\"document.title='owned'",
    "arXiv:2401.12345<script>document.title='owned'</script>",
    '<a href="//[x">y</a>',
]


@pytest.mark.parametrize("text", ATTACKS)
def test_no_text_becomes_more_than_text(text: str) -> None:
    html = render(text, "/local/x", find=lambda name: f"/{name}")
    tree = lxml.html.fragment_fromstring(html, create_parent="article")
    for element in tree.iter():
        assert element.tag not in (
            "script",
            "svg",
            "iframe",
            "form",
            "button",
            "style",
            "base",
            "meta",
            "math",
        )
        for name, value in element.attrib.items():
            assert not name.startswith("on") and name not in ("style", "srcdoc", "formaction"), html
            assert name != "href" or value.startswith(("https://", "http://", "/", "#")), html
            assert name != "class" or value == "number", html


def test_attacks_in_every_text_that_pages_show(page: Page, hub: LocalHub) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("local/hostile", repo_type="dataset")
    body = "\n\n".join(ATTACKS)
    line = " ".join(ATTACKS).replace("\t", " ")
    card = "---\n" + json.dumps(
        {"tags": ATTACKS, "configs": [{"config_name": ATTACKS[1], "data_files": "a.jsonl"}]}
    )
    rows = json.dumps({attack: attack for attack in ATTACKS})
    files = {"README.md": f"{card}\n---\n{body}".encode(), "a.jsonl": rows.encode()}
    add(api, "local/hostile", files, repo_type="dataset")
    api.create_discussion("local/hostile", title=line[:190], description=body, repo_type="dataset")
    slug = api.create_collection(ATTACKS[0], description=ATTACKS[1]).slug
    api.add_collection_item(slug, "local/hostile", "dataset", note=ATTACKS[2])
    for path in ("", "/viewer", "/blob/main/README.md", "/commits/main", "/discussions", "/discussions/1"):
        response = page.goto(f"/datasets/local/hostile{path}")
        assert response is not None and response.status == 200, path
        assert "owned" in page.locator("main").inner_text() or path == "/commits/main"
        assert page.locator("script, iframe, svg, form:not(.top form), [onerror], [style]").count() == 0, path
    page.goto("/collections")
    assert ATTACKS[0] in page.locator("main").inner_text()
    api.delete_collection(slug)
    api.delete_repo("local/hostile", repo_type="dataset")


@pytest.mark.parametrize(
    ("theme", "width"), [pytest.param("light", 1280, marks=pytest.mark.slow), ("dark", 390)]
)
def test_pages_fit_a_phone_and_axe_finds_nothing_serious(
    browser: Any, hub: LocalHub, theme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(
        base_url=hub.endpoint, viewport={"width": width, "height": 844}, color_scheme=theme, bypass_csp=True
    )
    page = context.new_page()
    data = "/datasets/local/nano-traces"
    paths = ["/", "/models", "/collections", "/local/student", "/local/student/tree/main", data, "/nothing"]
    paths += [f"{data}/viewer", f"{data}/blob/main/recipe.yaml", f"{data}/commits/main"]
    paths += ["/local/student/discussions", "/local/student/discussions/1", "/spaces/local/nano-compare"]
    paths += ["/datasets/local/nano-bench/leaderboard"]
    for path in paths:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        # No column is squeezed to a letter in a line.
        heights = page.locator(".list tr").evaluate_all(
            "rows => rows.map(r => r.getBoundingClientRect().height)"
        )
        assert max(heights, default=0) < 120, path
        found = [
            (fault["id"], node["html"][:200], node["failureSummary"])
            for fault in Axe().run(page).response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
        assert not found, (path, found)
    context.close()


def test_logged_in(browser: object, hub: LocalHub) -> None:
    token = make_token(hub.folder, "local", "read", "t", [])
    context = browser.new_context(  # type: ignore[attr-defined]
        base_url=hub.endpoint, http_credentials={"username": "local", "password": token}
    )
    page = context.new_page()
    page.goto("/login")
    assert page.url == f"{hub.endpoint}/" and "local/hidden" in page.content()
    page.goto("/local/hidden")
    assert "private" in texts(page, ".head .chip")
    context.close()
    # A form of another site would be sent with these credentials: they only read.
    basic = {"authorization": "Basic " + base64.b64encode(f"x:{hub.token}".encode()).decode()}
    body = {"fromRepo": "local/x", "toRepo": "local/stolen"}
    assert call(hub, "POST", "/api/repos/move", body, token=False, **basic)[0] == 401


@pytest.mark.parametrize(
    "path", ["/local/hidden", "/local/none", "/nobody", "/local/x/tree/main/none", "/a/b/c/d"]
)
def test_what_is_not_there(page: Page, path: str) -> None:
    response = page.goto(path)
    assert response is not None and response.status in (404, 501)
    assert texts(page, "h1") in (["404"], ["501"])


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"\xff\xfe\0", b"[1]\n2\n", b'{"a":' * 50_000, b"\0,\0\n" * 10]
)
def test_data_files_may_be_anything(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for first in (0, 5, 1 << 40):
        found = read_rows([tmp_path / "x"] * 2, [ending] * 2, first)
        assert found.why or len(found.rows) <= 20
        assert first == 0 or not found.rows or len(found.rows) < 20


@pytest.mark.parametrize(
    ("configs", "expected", "default"),
    [
        (None, {"default": {"train": ["a/1.parquet", "a/b/2.parquet", "c.csv"]}}, "default"),
        ("nonsense", {"default": {"train": ["a/1.parquet", "a/b/2.parquet", "c.csv"]}}, "default"),
        ([{"config_name": "x", "data_files": "a/*.parquet"}], {"x": {"train": ["a/1.parquet"]}}, "x"),
        (
            [{"config_name": "x", "data_files": "./a/**"}],
            {"x": {"train": ["a/1.parquet", "a/b/2.parquet"]}},
            "x",
        ),
        ([{"config_name": "x", "data_dir": "a/b"}], {"x": {"train": ["a/b/2.parquet"]}}, "x"),
        (
            [{"config_name": "x", "data_files": {"test": ["c.csv"]}}, {"config_name": "default"}],
            {"x": {"test": ["c.csv"]}, "default": {"train": ["a/1.parquet", "a/b/2.parquet", "c.csv"]}},
            "default",
        ),
        (
            [{"config_name": "x", "data_files": ["!c.csv", "#", "[", "../c.csv", "\n*", 3, None]}],
            {"x": {}},
            "x",
        ),
        ([3, {"config_name": 4}, {"config_name": "x", "data_files": [{"split": 1}]}], {"x": {}}, "x"),
    ],
)
def test_configs_of_a_card(configs: object, expected: object, default: str) -> None:
    paths = ["README.md", "c.csv", "a/b/2.parquet", "a/1.parquet"]
    assert configs_of({"configs": configs}, paths) == (expected, default)


def test_headers(hub: LocalHub) -> None:
    for path in ("/", "/local/student", "/datasets/local/nano-traces", "/nothing/here"):
        _, headers, _ = call(hub, "GET", path, token=False, accept="text/html")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
