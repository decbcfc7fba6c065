"""The playground: attack the decoy of a bundle in a browser, and see who is fooled. It shows M's label: for the operator's own machine."""

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from torch import Tensor

from luring import data
from luring.attacks import ATTACKS, preset
from luring.bundle import Bundle
from luring.data import Split
from luring.errors import InputError
from luring.guard import Detector
from luring.serve import panels
from luring.serve.attempt import Look, attempt, end_all, followed, look
from luring.serve.drawing import from_canvas, from_file
from luring.types import Shape

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("luring")

TEST, DRAWN, FILE = "A test image", "Draw one", "A picture file"
LOOKED_AT = 100
"""Test images at most among which the first is sought."""
SHOW_EVERY = 0.15
"""Seconds between two pictures of a running attack."""
ENDS_WITHIN = 10.0
"""Seconds that an attack is waited for which is wanted no longer: it ends after its step."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
UPLOAD = "16mb"
SCROLL = "() => { if (innerWidth < 800) document.querySelector('#said').scrollIntoView(); }"
"""On a narrow screen what is said lies below."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio's page has both in it.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "frame-ancestors 'none'",
    )
)
"""The browser asks nobody but this server."""


@dataclass(frozen=True, eq=False)
class Playground:
    """What is played with.

    Attributes:
        loaded: the bundle's networks.
        detector: its guard, or bare agreement.
        own: whether the guard is the bundle's.
        test: images to choose from, if there are any.
        eps: that is set at first.
    """

    loaded: Bundle
    detector: Detector
    own: bool
    test: Split | None
    eps: float

    @property
    def shape(self) -> Shape:
        """Of an image."""
        channels, height, width = map(int, self.loaded.config["shape"])
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""
        return tuple(map(str, self.loaded.config["classes"]))

    def given(self, source: str, number: int | None, drawing: str | None, file: str | None) -> tuple[Tensor, int]:
        """The image that was chosen, and the label to attack: its own, or, where nobody knows it, M's.

        Raises:
            InputError: nothing was chosen, or it is no picture.
        """
        if source == TEST and self.test is not None:
            place = number or 0
            if not 0 <= place < len(self.test.labels):
                raise InputError(
                    f"there is no test image {place}: give a number from 0 to {len(self.test.labels) - 1}."
                )
            return self.tested(place), int(self.test.labels[place])
        if source == DRAWN:
            image = from_canvas(drawing, self.shape)
        elif file:
            image = from_file(Path(file), self.shape)
        else:
            raise InputError("no picture is chosen yet: choose a file.")
        return image, int(look(self.loaded, self.detector, image).m.argmax())

    def tested(self, place: int) -> Tensor:
        """A test image, [channels, height, width], in [0, 1]."""
        assert self.test is not None
        return data.to_float(self.test.images[place : place + 1])[0]

    def shown(self, label: int, looks: list[Look], step: int = -1) -> tuple[str, str]:
        """What is said, and what is seen, of one of the looks."""
        told = (label, self.classes, looks[0], looks[step])
        return panels.said(*told, self.detector, own=self.own), panels.seen(*told)

    def first(self) -> int:
        """A test image to begin with: the first that M and M∘P answer rightly and the guard lets through; else 0."""
        if self.test is None:
            return 0
        for place, label in enumerate(self.test.labels[:LOOKED_AT].tolist()):
            one = look(self.loaded, self.detector, self.tested(place))
            if not one.flagged and int(one.m.argmax()) == int(one.mop.argmax()) == label:
                return place
        return 0


def blocks(play: Playground) -> Any:
    """The page, as Gradio's blocks.

    Raises:
        InputError: Gradio is missing.
    """
    # Before Gradio is imported: it would tell its makers that it was.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'luring[play]'.") from error

    def out_of(label: int, looks: list[Look]) -> tuple[Any, ...]:
        step = gr.Slider(maximum=max(1, len(looks) - 1), value=len(looks) - 1, interactive=len(looks) > 1)
        return (label, looks), *play.shown(label, looks), step

    def refused(error: InputError) -> tuple[Any, ...]:
        return None, panels.refusal(str(error)), "", gr.Slider(maximum=1, value=0, interactive=False)

    turns: dict[str, int] = {}
    at_work: dict[str, threading.Event] = {}

    # Not Gradio's `cancels`: while one is under way the page drops a click on Attack, and it may end the attack after the one it was meant for.
    def end(request: gr.Request) -> int:
        """What this page asked for before is wanted no longer; what is at work for it ends first, having said its last."""
        session = str(request.session_hash)
        turns[session] = turn = turns.get(session, 0) + 1
        if (over := at_work.get(session)) is not None:
            over.wait(ENDS_WITHIN)
        return turn

    def halt(request: gr.Request) -> None:
        end(request)

    def leave(request: gr.Request) -> None:
        turns.pop(str(request.session_hash), None)

    def begin(request: gr.Request, *chosen: Any) -> tuple[Any, ...]:
        end(request)
        try:
            image, label = play.given(*chosen)
        except InputError as error:
            return refused(error)
        return out_of(label, [look(play.loaded, play.detector, image)])

    def run(request: gr.Request, turn: int, name: str, eps: float, *chosen: Any) -> Generator[tuple[Any, ...]]:
        session, last = str(request.session_hash), monotonic()

        def unwanted() -> bool:
            return turns.get(session) != turn

        def now() -> bool:
            nonlocal last
            if monotonic() - last < SHOW_EVERY and not unwanted():
                return False
            last = monotonic()
            return True

        at_work[session] = over = threading.Event()
        try:
            image, label = play.given(*chosen)
            steps = attempt(play.loaded, play.detector, preset(name, eps=eps), image, label)
            with closing(followed(steps, now=now)) as seen_so_far:
                for looks in seen_so_far:
                    if unwanted():
                        return
                    yield out_of(label, looks)
        except InputError as error:
            yield refused(error)
        finally:
            over.set()

    def back(found: tuple[int, list[Look]] | None, step: float) -> tuple[str, str]:
        if found is None:
            return "", ""
        label, looks = found
        return play.shown(label, looks, min(int(step), len(looks) - 1))

    def describe(name: str) -> str:
        known = ATTACKS[name]
        return f"{known.does} ({known.source}); it knows the decoy's {known.knows}"

    def redescribe(name: str) -> Any:
        return gr.Dropdown(info=describe(name))

    with gr.Blocks(title="Luring: playground", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Who is fooled?</h1><p>An adversary attacks the decoy M∘P. See what that does to the classifier M behind the lure P.</p>"
        )
        found, turn = gr.State(None), gr.State(0)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                sources = ([TEST] if play.test is not None else []) + [DRAWN, FILE]
                source = gr.Radio(sources, value=sources[0], label="What is attacked")
                most = len(play.test.labels) - 1 if play.test is not None else 0
                number = gr.Number(
                    play.first(),
                    label=f"Number of the test image, 0 to {most}",
                    precision=0,
                    minimum=0,
                    maximum=most,
                    visible=play.test is not None,
                )
                drawing = gr.HTML(
                    "",
                    html_template=_text("drawing.html"),
                    js_on_load=_text("drawing.js"),
                    visible=True if play.test is None else "hidden",
                    elem_id="drawing",
                )
                file = gr.UploadButton("Choose a picture file", file_types=["image"], visible=False)
                attacked = gr.Dropdown(list(ATTACKS), value="mim", label="Attack", info=describe("mim"))
                eps = gr.Slider(
                    0.0, 1.0, value=play.eps, step=0.005, label="ε, the largest change of a pixel", buttons=[]
                )
                with gr.Row():
                    start = gr.Button("Attack", variant="primary", elem_id="attack")
                    stop = gr.Button("Stop", elem_id="stop", min_width=80)
            with gr.Column(scale=3, min_width=320):
                said = gr.HTML("", html_template='<div role="status">${value}</div>', elem_id="said")
                step = gr.Slider(
                    0, 1, value=0, step=1, label="Step of the attack", interactive=False, buttons=[], elem_id="step"
                )
                seen = gr.HTML("", elem_id="seen")

        chosen = [source, number, drawing, file]
        out = [found, said, seen, step]
        quiet: Any = {"show_progress": "hidden", "api_visibility": "private"}

        def shows(what: str) -> tuple[Any, Any, Any]:
            return (
                gr.Number(visible=what == TEST),
                gr.HTML(visible=True if what == DRAWN else "hidden"),
                gr.UploadButton(visible=what == FILE),
            )

        start.click(end, None, turn, concurrency_limit=None, **quiet).then(
            run, [turn, attacked, eps, *chosen], out, concurrency_limit=1, trigger_mode="always_last", **quiet
        )
        stop.click(halt, concurrency_limit=None, **quiet)
        source.change(shows, source, [number, drawing, file], **quiet).then(begin, chosen, out, **quiet)
        for changed in (number.change, drawing.change, file.upload, page.load):
            changed(begin, chosen, out, **quiet)
        page.unload(leave)
        attacked.input(redescribe, attacked, attacked, **quiet)
        start.click(None, js=SCROLL)
        step.input(back, [found, step], [said, seen], trigger_mode="always_last", **quiet)
    return page


def application(play: Playground, hosts: list[str]) -> "FastAPI":
    """The page's ASGI application, which answers only requests for one of `hosts`: no other site's name may lead a browser here."""
    page = blocks(play)
    import gradio as gr
    from fastapi import FastAPI, Request, Response
    from gradio.themes import Base
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    theme = Base(
        primary_hue="blue",
        font=["system-ui", "Segoe UI", "Roboto", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    # White on the lighter blue of the theme would not be contrast enough.
    blue = {"button_primary_background_fill": "*primary_700", "button_primary_background_fill_hover": "*primary_800"}
    theme = theme.set(**blue, **{f"{name}_dark": colour for name, colour in blue.items()})
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def confined(request: Request, call_next: Any) -> Response:  # pyright: ignore[reportUnusedFunction]
        response: Response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["referrer-policy"] = "no-referrer"
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css=_text("play.css"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=UPLOAD,
        show_error=False,
    )


def serve(play: Playground, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT.

    Raises:
        InputError: Gradio is missing, or the port cannot be had.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{host}:{port} cannot be listened on: give another --host or --port.") from error
    with listening, tempfile.TemporaryDirectory(prefix="luring-play-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        app = application(play, [*LOOPBACK, "[::1]"] if host in LOOPBACK else ["*"])
        import uvicorn

        where = f"[{host}]" if ":" in host else host
        log.info("the playground is at http://%s:%d; Ctrl-C ends it", where, listening.getsockname()[1])
        # An open page keeps a stream open, which would be waited for.
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        # Gradio's streams still answer when they are closed; asyncio would print that as an error.
        logging.getLogger("asyncio").addFilter(
            lambda record: "closing of asynchronous generator" not in str(record.msg)
        )
        try:
            with suppress(KeyboardInterrupt):  # the way to end it
                uvicorn.Server(config).run([listening])
        finally:
            end_all()


def _text(name: str) -> str:
    return (files("luring.serve") / name).read_text(encoding="utf-8")
