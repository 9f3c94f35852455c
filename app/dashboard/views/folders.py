"""The results folders on the Runs page: what each holds, opened, verified, or put away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import trash
from byrote.dashboard.library import Library, identity_of
from byrote.dashboard.page import Drawing, View, go, opened_paths, page_link, panel, problem
from byrote.dashboard.query_params import State, link, read
from byrote.probes.results import Results
from byrote.probes.verify import Verified, digest, verify
from byrote.probes.wording import clean, counted, literal, size

DIGEST_CHARS = 12
PATH_CHARS = 600
_VERIFIED, _REMOVING, _NOTICE, _FAILED = (
    "folder_verified",
    "folder_removing",
    "folder_notice",
    "folder_failed",
)


def results(view: View, page: Drawing) -> None:
    """The table of results folders, and what can be done with one of them."""
    st.header("Results", anchor=False)
    page.table(
        results_frame(view), "results", caption="Every results folder here.", height="content",
        column_config={"numbers": st.column_config.NumberColumn(format="localized")},
    )  # fmt: skip
    with panel("the folder"):
        one_folder(view.library, view)


def results_frame(view: View) -> pd.DataFrame:
    """One row per results folder: what it holds, how large it is, and what is wrong with it."""
    rows = [_row(run) for run in view.library.runs.values()]
    rows += [
        {
            "run": clean(b.name),
            "status": "cannot be read",
            "folder": clean(b.path, limit=PATH_CHARS),
            "reason": clean(b.reason, limit=PATH_CHARS),
        }
        for b in view.library.broken
    ]
    return pd.DataFrame(rows)


def _row(run: Results) -> dict[str, Any]:
    """One folder; what cannot be read in it is said in its own row."""
    row: dict[str, Any] = {
        "run": run.run,
        "status": "imported, no samples" if run.imported else str(run.meta.get("status", "unknown")),
        "folder": clean(run.path, limit=PATH_CHARS),
    }
    try:
        return row | {
            "checkpoints": len(run.steps),
            "probes": len({probe for probe, _ in run.kinds}),
            "numbers": run.n_rows,
            "size": size(_bytes(run.path)),
            "digest": digest(run.path)[:DIGEST_CHARS],
            "byrote": str(((run.meta.get("provenance") or {}).get("versions") or {}).get("byrote", "")),
            "attention saved": "yes" if any((run.path / "arrays").glob("*/attention.safetensors")) else "no",
            "gaps": len(run.gaps),
            "folder": row.pop("folder"),
        }
    except (ByroteError, OSError) as error:
        return row | {"status": "cannot be read", "reason": clean(error, limit=PATH_CHARS)}


def one_folder(library: Library, view: View | None = None) -> None:
    """Choose a folder; open, verify or remove it.

    Args:
        library: its folders, those that cannot be read among them.
        view: what is looked at; None where no run can be.
    """
    names = _labels(library)
    _moved()
    if (failed := st.session_state.pop(_FAILED, None)) is not None:
        problem(failed.message, failed.help)
    if not names:
        return
    folders = list(names)
    if st.session_state.get("folder_chosen") not in folders:
        st.session_state["folder_chosen"] = folders[0] if view is None else view.run.path
    with st.container(horizontal=True, vertical_alignment="bottom", key="folder_controls"):
        folder = st.selectbox(
            "Results folder", folders, key="folder_chosen", width=320, format_func=lambda path: clean(names[path]),
        )  # fmt: skip
        run = next((run for run in library.runs.values() if run.path == folder), None)
        if view is not None and run is not None:
            page_link(view, "overview", "Open", icon=":material/open_in_new:", state=_state_of(view, run))
        clicked = st.button(
            "Verify",
            icon=":material/fact_check:",
            key="folder_verify",
            help="Reads every file; writes nothing",
        )
        st.button(
            "Remove", icon=":material/inventory_2:", key="folder_remove", on_click=_ask, args=(folder,),
            disabled=library.is_example, help="Asks for confirmation; moves the folder away, nothing is lost",
        )  # fmt: skip
    if st.session_state.get(_REMOVING) == folder:
        _confirm(folder)
    if clicked:
        _verify(folder)
    _verdict(folder)


def _moved() -> None:
    """Where the folder removed last is now, until it is brought back or another one is about to go."""
    target, folder = st.session_state.get(_NOTICE, (None, None))
    if target is None or not target.exists():
        return
    st.markdown(f":material/inventory_2: Moved to {literal(target, limit=600)}. To restore it:")
    st.code(clean(trash.back_again(target, folder), limit=1000), language="sh", wrap_lines=True)


def _labels(library: Library) -> dict[Path, str]:
    """What each folder is called in the list; its whole path where two are called the same."""
    names = {run.path: run.run for run in library.runs.values()}
    names |= {broken.path: f"{broken.name}, cannot be read" for broken in library.broken}
    n_of_name = Counter(names.values())
    return {path: name if n_of_name[name] == 1 else f"{name}: {path}" for path, name in names.items()}


def _state_of(view: View, run: Results) -> State:
    """What is looked at in a run, whose own steps and heads take the place of those it lacks."""
    return read(link(view.state, run=run.run), view.library).state


def _verify(folder: Path) -> None:
    trash.refuse_busy(folder)
    with st.spinner(f"Reading {clean(folder.name, limit=60)}"):
        before = _as_it_is(folder)
        st.session_state[_VERIFIED] = (folder, before, verify(folder))


def _as_it_is(folder: Path) -> tuple[Any, str]:
    """Another whenever any file changed that a verification reads much of: also one that was written over in place."""
    return identity_of(folder), digest(folder)


def _verdict(folder: Path) -> None:
    """What the last verification of this folder found, as long as the folder is as it was."""
    of, identity, found = st.session_state.get(_VERIFIED, (None, None, None))
    if of != folder or identity != _as_it_is(folder):
        return
    assert isinstance(found, Verified)
    name = literal(folder.name, limit=60)
    verdict = counted(len(found.findings), "finding") if found.findings else "No problems found"
    icon = ":material/report:" if found.findings else ":material/check_circle:"
    st.markdown(f"{icon} **{verdict} in {name}**")
    st.markdown("\n".join(f"- {literal(line, limit=600)}" for line in found.findings))
    st.caption(literal(f"Checked: {'; '.join(found.checked)}.", limit=1000))


def _ask(folder: Path) -> None:
    st.session_state[_REMOVING] = folder
    st.session_state.pop(_NOTICE, None)


def _confirm(folder: Path) -> None:
    """The second question names what goes and where to."""
    name = clean(folder.name, limit=60)
    with st.container(border=True):
        st.markdown(
            f"Remove **{literal(name)}**? It is moved to {literal(folder.parent / trash.REMOVED, limit=300)} "
            "and can be restored."
        )
        with st.container(horizontal=True):
            st.button(
                f"Remove {literal(name)}",
                key="folder_remove_yes",
                type="primary",
                on_click=_remove,
                args=(folder,),
            )
            st.button(
                "Keep it", key="folder_remove_no", on_click=lambda: st.session_state.pop(_REMOVING, None)
            )


def _remove(folder: Path) -> None:
    """A callback: move it, say where it is, and look at another run where this one was looked at."""
    st.session_state.pop(_REMOVING, None)
    try:
        target = trash.remove(folder, opened_paths())
    except ByroteError as error:
        st.session_state[_FAILED] = error
        return
    st.session_state[_NOTICE] = (target, folder)
    st.session_state.pop("folder_chosen", None)
    go()


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
