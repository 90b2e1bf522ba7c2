"""The pages, in a real browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_support import add, call
from huggingface_hub import HfApi
from playwright.sync_api import Page, sync_playwright
from support import CHROMIUM, needs_chromium

from hubkit.localhub import LocalHub, make_token
from hubkit.localhub.pages.rows import first_rows

pytestmark = needs_chromium

CARD = """---
license: apache-2.0
tags: [hubkit, synthetic, distillation]
language: en
---
# Nano traces

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
        api.create_repo("local/compare", repo_type="space", space_sdk="gradio")
        files = {"README.md": CARD.encode(), "raw/train.parquet": parquet(), "recipe.yaml": HOSTILE.encode()}
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
    assert texts(page, "h1") == ["Models 2", "Datasets 2", "Spaces 1"]
    assert "local/hidden" not in page.content()
    page.get_by_label("Search").fill("STUD")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models?search=STUD")
    assert texts(page, ".cards b") == ["local/student"]
    page.goto("/local")
    assert len(texts(page, ".cards b")) == 5
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


def test_rows_and_leaderboard(page: Page) -> None:
    page.goto("/datasets/local/nano-traces")
    follow(page, "Rows")
    assert texts(page, "thead th") == ["a", "b"] and page.locator("tbody tr").count() == 3
    follow(page, "raw/train.parquet")
    page.wait_for_url("**/viewer?file=**")
    assert "First 20 rows of 100" in page.locator("main").inner_text()
    assert HOSTILE in page.locator("tbody").inner_text()
    page.goto("/datasets/local/nano-bench")
    follow(page, "Leaderboard")
    page.wait_for_url("**/leaderboard")
    assert texts(page, "tr:nth-child(1) td")[:3] == ["1", "local/student", "41.2"]


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
    found = first_rows(tmp_path / "x", ending)
    assert found.why or len(found.rows) <= 20


def test_headers(hub: LocalHub) -> None:
    for path in ("/", "/local/student", "/datasets/local/nano-traces", "/nothing/here"):
        _, headers, _ = call(hub, "GET", path, token=False, accept="text/html")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
