"""A release to look at: what compression removed from the traces, and what the students made of it.

    a table of problems with a mark for each student; their outputs side by side; a trace beside its shorter forms;
    the results; a blind vote; the students themselves, to be asked

Runs as a Space and locally. release.json beside this file names the datasets, or HUBKIT_EVALS the evaluations alone;
HF_ENDPOINT chooses the Hub. HUBKIT_VOTES names a dataset to keep votes in, with a HF_TOKEN that may write to it.
Nothing of hubkit is imported, so these files are all that the Space needs: `data` reads a release, `view` knows what
fits a visitor's filters, `cards` and `results` make HTML with `text`, which everything goes through that comes from a
dataset or a model; `ask` and `votes` are the tabs of these names.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gradio as gr
from ask import ask_tab
from cards import comparison, problem_list, state, trace_list, trace_view
from data import Evaluations, Row, Traces, settings, traces_of
from results import results_page
from text import DELIMITERS, esc
from view import SHOW, SORT, View, find, find_traces, settle, shown_students
from votes import blind_view, cast, draw_pair, tally_text

LIST_JS = """
element.addEventListener('click', event => {
  const hit = event.target.closest('[data-key], [data-page], [data-students], [data-answer]');
  if (hit) trigger('select', {...hit.dataset});
});
watch('value', () => compare.follow(element));
"""

# One function per tab. Each gives what an address sets in it: components, and their values for a query.

Opening = tuple[list[Any], Callable[[dict[str, str]], list[Any]]]
QUIET: Row = {"show_progress": "hidden", "trigger_mode": "always_last"}
EACH: Row = {"show_progress": "hidden", "trigger_mode": "multiple"}
"""For steps: each press of a key counts, also while the one before is on its way."""


def saver(button: Any, export: Callable[..., str], given: list[Any], name: str) -> None:
    """A button that saves text made here as a file of the visitor's."""
    text = gr.Textbox(visible=False)
    made = button.click(export, given, text, show_progress="hidden")
    made.then(None, text, js=f"t => compare.save('{name}', t, 'application/json')")


def buttons(elem_id: str, *labels: str) -> list[Any]:
    """Small buttons in a row; the arrow keys press .previous and .next."""
    with gr.Row(elem_id=elem_id):
        return [
            gr.Button(text, size="sm", min_width=90, elem_classes=re.sub(r"\W", "", text).lower())
            for text in labels
        ]


def filter_boxes(data: Evaluations) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What chooses problems and students, by its name in the address; and the values that each may have."""
    students = list(data.students.values())
    allowed = {"benchmark": list(dict.fromkeys(data.benchmark))}
    for name in ("base", "variant", "level", "method", "seed", "teacher"):
        allowed[name] = list(dict.fromkeys(str(row[name]) for row in students if row.get(name) is not None))
    if any(row["variant"] is None for row in students):
        allowed["variant"].append("untrained")
    boxes: dict[str, Any] = {"p": gr.State(data.keys[0] if data.keys else ""), "set": gr.State(0)}
    boxes["answer"] = gr.State(0)
    with gr.Row():
        boxes["q"] = gr.Textbox(label="Search", scale=3, min_width=180, elem_id="search")
        for name, texts in (("show", SHOW), ("sort", SORT)):
            choices = [(text, key) for key, text in texts.items()]
            label = {"show": "Show", "sort": "Order"}[name]
            boxes[name] = gr.Dropdown(choices, value=choices[0][1], label=label, scale=2, min_width=180)
    with gr.Accordion("Filters", open=False):
        with gr.Row():
            for name, values in allowed.items():
                boxes[name] = gr.CheckboxGroup(
                    values, label=name.capitalize(), elem_id=f"filter-{name}", visible=len(values) > 1
                )
        with gr.Row():
            for name, label in (("students", "Only these students"), ("right", "Right"), ("wrong", "Wrong")):
                allowed[name] = data.names
                boxes[name] = gr.Dropdown(
                    data.names, value=[], multiselect=True, label=label, scale=2, min_width=190
                )
            boxes["least"] = gr.Number(None, label="Tokens from", min_width=110)
            boxes["most"] = gr.Number(None, label="Tokens to", min_width=110)
    return {part.name: boxes[part.name] for part in fields(View)}, allowed


def compare_tab(release: Row, data: Evaluations) -> tuple[list[Any], Opening]:
    """Problems, and what the students answered. Also gives the filters, which the blind votes use."""
    boxes, allowed = filter_boxes(data)
    chosen = list(boxes.values())
    start = View(p=data.keys[0] if data.keys else "")
    listing = gr.HTML(problem_list(data, start), elem_id="list", js_on_load=LIST_JS)
    back, on, lucky, as_json, as_png = buttons(
        "compare-move", "← Previous", "Next →", "Random", "Save JSON", "Save PNG"
    )
    side = gr.Markdown(
        comparison(data, start), elem_id="side", sanitize_html=False, latex_delimiters=DELIMITERS
    )
    seen = [boxes["p"], boxes["set"], boxes["answer"], listing, side]

    def draw(view: View) -> list[Any]:
        """The problem that is shown stays where the filters still have it; else the first takes its place."""
        settle(data, view)
        found, _ = find(data, view)
        if found and data.at.get(view.p) not in found:
            view.p = data.keys[found[0]]
        return [view.p, view.set, view.answer, problem_list(data, view), comparison(data, view)]

    def move(by: int | None, *given: Any) -> list[Any]:
        view = View.of(given)
        found, _ = find(data, view)
        here = data.at.get(view.p, -1)
        if found and by is None:
            view.p = data.keys[random.choice(found)]  # noqa: S311
        elif here in found:
            view.p = data.keys[found[min(max(found.index(here) + (by or 0), 0), len(found) - 1)]]
        return draw(view)

    def select(event: gr.EventData, *given: Any) -> list[Any]:
        view, hit = View.of(given), event._data
        if hit.get("key") in data.at:
            view.p = hit["key"]
        elif "students" in hit or "answer" in hit:
            view.set = int(hit.get("students", view.set))
            view.answer = int(hit.get("answer", view.answer))
            return draw(view)
        else:
            return [*[gr.skip()] * 3, problem_list(data, view, int(hit.get("page") or 0)), gr.skip()]
        return [view.p, gr.skip(), gr.skip(), problem_list(data, view), comparison(data, view)]

    def export(*given: Any) -> str:
        view = View.of(given)
        found = data.outputs(data.at.get(view.p, 0), shown_students(data, view), None)
        about = {"release": release.get("recipe"), "evals": release["evals"], "view": asdict(view)}
        return json.dumps({**about, "outputs": found}, indent=2, ensure_ascii=False)

    # One event for all: of two, the answer to the first could come last. What is pasted is no `input` of a text box.
    narrowing = [boxes[part.name] for part in fields(View)[3:]]
    changes = [box.change if box is boxes["q"] else box.input for box in narrowing]
    gr.on(changes, lambda *given: draw(View.of(given)), chosen, seen, **QUIET)
    listing.select(select, chosen, seen, **EACH)
    for button, by in ((back, -1), (on, 1), (lucky, None)):
        button.click(functools.partial(move, by), chosen, seen, **EACH)
    saver(as_json, export, chosen, "comparison.json")
    as_png.click(None, js="() => compare.png('#side', 'comparison.png')")

    def opened(query: dict[str, str]) -> list[Any]:
        view = View.read(query, allowed)
        settle(data, view)
        found, _ = find(data, view)
        if view.p not in data.at:
            view.p = data.keys[found[0]] if found else start.p
        return [*view.values(), problem_list(data, view), comparison(data, view)]

    return chosen, ([*chosen, listing, side], opened)


def traces_tab(tab: Any, release: Row, data: Evaluations) -> Opening:
    """Traces of the training problems. They load when the tab is opened first: they are the bulk of a release."""
    repos: dict[str, str] = release["traces"]
    first = next(iter(repos.values()))
    orders = {
        "order": "As published",
        "saved": "Most tokens saved",
        "share": "Shortest share of raw",
        "least": "Least compressed",
    }
    key = gr.State("")
    with gr.Row():
        repo = gr.Dropdown(
            list(repos.items()), value=first, label="Teacher", visible=len(repos) > 1, min_width=160
        )
        config = gr.Dropdown([], label="Against", allow_custom_value=True, min_width=220, elem_id="against")
        text = gr.Textbox(label="Search", scale=2, min_width=150)
        sort = gr.Dropdown([(v, k) for k, v in orders.items()], value="order", label="Order", min_width=180)
    listing = gr.HTML("<p class='note'>Loading the traces …</p>", elem_id="trace-list", js_on_load=LIST_JS)
    back, on, as_json, as_png = buttons("trace-move", "← Previous", "Next →", "Save JSON", "Save PNG")
    view = gr.Markdown(elem_id="trace", sanitize_html=False, latex_delimiters=DELIMITERS)
    asked = [key, repo, config, text, sort]
    seen = [key, config, listing, view]

    def load_from(name: str) -> str:
        return name if name in repos.values() else first

    def load(name: str) -> Traces:
        name = load_from(name)
        return traces_of(name, release.get("trace_revisions", {}).get(name), tuple(data.variants))

    def draw(by: int, page: int | None, now: str, name: str, against: str, q: str, by_what: str) -> list[Any]:
        traces = load(name)
        others = [other for other in traces.configs if other != "raw"] or ["raw"]
        against = against if against in others else others[0]
        found = [traces.keys[number] for number in find_traces(traces, against, q or "", by_what)]
        if found and now not in found:
            now = found[0]
        elif found:
            now = found[min(max(found.index(now) + by, 0), len(found) - 1)]
        teacher = next(teacher for teacher, repo in repos.items() if repo == load_from(name))
        at = {"t": now, "tc": against, "tq": q, "ts": "" if by_what == "order" else by_what}
        at["tt"] = "" if repos[teacher] == first else teacher
        table = state(at) + trace_list(data, traces, against, q or "", by_what, now, page)
        against_box = gr.Dropdown(choices=others, value=against)
        return [now, against_box, table, trace_view(data, traces, against, now)]

    def select(event: gr.EventData, now: str, *rest: Any) -> list[Any]:
        page = event._data.get("page")
        return draw(0, None if page is None else int(page), event._data.get("key") or now, *rest)

    def export(now: str, name: str, *_: Any) -> str:
        traces = load(name)
        forms = {config: row for config in traces.configs if (row := traces.row(config, now))}
        return json.dumps({"dataset": name, "traces": forms}, indent=2, ensure_ascii=False)

    stay = functools.partial(draw, 0, None)
    tab.select(stay, asked, seen)
    changes = [box.change if box is text else box.input for box in asked[1:]]
    gr.on(changes, stay, asked, seen, **QUIET)  # one event for all, as in compare_tab
    for button, by in ((back, -1), (on, 1)):
        button.click(functools.partial(draw, by, None), asked, seen, **EACH)
    listing.select(select, asked, seen, **EACH)
    saver(as_json, export, asked, "trace.json")
    as_png.click(None, js="() => compare.png('#trace', 'trace.png')")

    def opened(query: dict[str, str]) -> list[Any]:
        by_what = query.get("ts") if query.get("ts") in orders else "order"
        which = repos.get(query.get("tt", ""), first)
        return [query.get("t", ""), which, query.get("tc", ""), query.get("tq", "")[:200], by_what]

    return asked, opened


def results_tab(tab: Any, data: Evaluations) -> None:
    """Drawn when the tab is opened first: the figure, in four forms, would hold up the first page."""
    drawn = gr.State(False)
    results = gr.HTML("<p class='note'>Loading the results …</p>", elem_id="results")
    save = gr.Button("Save PNG", size="sm")
    save.click(None, js="() => compare.png('#results', 'results.png')")

    def draw(there: bool) -> list[Any]:
        return [True, gr.skip() if there else results_page(data)]

    tab.select(draw, drawn, [drawn, results], show_progress="hidden")


def blind_tab(tab: Any, data: Evaluations, chosen: list[Any]) -> None:
    gr.HTML(
        "<p class='note'>Two students answered the same problem. Which answer is better? Names, lengths and verdicts "
        "come after the vote. The first tab’s filters choose problems and students.</p>"
    )
    pair, tally = gr.State(None), gr.State({})
    with gr.Row():
        votes = {
            vote: gr.Button(text, min_width=110)
            for vote, text in (("a", "A is better"), ("same", "No difference"), ("b", "B is better"))
        }
        again = gr.Button("Next pair", variant="primary", min_width=110)
    blind = gr.Markdown(elem_id="blind", sanitize_html=False, latex_delimiters=DELIMITERS)
    score = gr.HTML(tally_text({}), elem_id="score")

    def next_pair(*given: Any) -> list[Any]:
        found = draw_pair(data, View.of(given))
        return [found, blind_view(data, found)]

    def first_pair(now: Row | None, *given: Any) -> list[Any]:
        return [gr.skip(), gr.skip()] if now else next_pair(*given)

    again.click(next_pair, chosen, [pair, blind], show_progress="hidden")
    tab.select(first_pair, [pair, *chosen], [pair, blind], show_progress="hidden")
    for vote, button in votes.items():
        count = functools.partial(cast, data, vote)
        button.click(count, [pair, tally], [blind, pair, tally, score], show_progress="hidden")


def build(release: Row, data: Evaluations) -> gr.Blocks:
    """The page over one release."""
    title = f"{release.get('recipe') or release['evals']}: students side by side"
    openings: list[Opening] = []

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(
            f"<h1 class='title'>{esc(title)}</h1><p class='note'>{esc(release.get('description', ''))}</p>"
            f"<p class='headline'>{esc(data.report.get('headline', ''))}</p>",
            elem_id="about",
        )
        theme = gr.Button("Light / dark", size="sm", elem_id="theme")
        theme.click(None, js="() => compare.theme()")

        def tab(label: str) -> Any:
            name = label.lower()
            made = gr.Tab(label, id=name)
            made.select(None, js=f"() => compare.tab('{'' if name == 'compare' else name}')")
            return made

        with gr.Tabs(elem_id="tabs"):
            with tab("Compare"):
                chosen, opening = compare_tab(release, data)
                openings.append(opening)
            if release.get("traces"):
                with tab("Traces") as one:
                    openings.append(traces_tab(one, release, data))
            with tab("Results") as one:
                results_tab(one, data)
            with tab("Blind") as one:
                blind_tab(one, data, chosen)
            if release.get("models"):
                with tab("Ask"):
                    ask_tab(release, data)

        def open_link(request: gr.Request) -> list[Any]:
            """The state that stands in the address; without one the page came with its start."""
            query = {k: v for k, v in dict(request.query_params).items() if not k.startswith("__")}
            if not query:
                return [gr.skip()] * len(set_by_link)
            return [value for _, opened in openings for value in opened(query)]

        set_by_link = [part for parts, _ in openings for part in parts]
        link = page.load(open_link, None, set_by_link, show_progress="hidden")
        link.then(None, js="() => compare.open()")  # a tab that opens looks at what was set
    return page


def main() -> None:
    here = Path(__file__).parent
    release = settings()
    try:
        page = build(release, Evaluations(release))
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    # A Space sets GRADIO_SERVER_NAME; anywhere else the page is for this machine alone.
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        share=False,
        ssr_mode=False,  # on the Hub a Node server would come between, which is not what is tested
        css=(here / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(here / 'page.js').read_text(encoding='utf-8')}</script>",
        # Named fonts would be fetched from a font service.
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
            block_label_text_color="*neutral_800",
            block_title_text_color="*neutral_800",
            block_title_text_color_dark="*neutral_100",
            block_title_background_fill="none",
            block_title_background_fill_dark="none",
            block_title_padding="0",
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_dark="*primary_600",
        ),
        footer_links=[],
        quiet=True,
    )


if __name__ == "__main__":
    main()
