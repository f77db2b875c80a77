"""`bonsai up`: everything in the foreground, until the user stops it."""

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console

from client.embedded.errors import EmbeddedStackError
from client.embedded.port import require_free_port
from client.process_tree import ProcessTree, TreeSettings


def run_up(data: Path, port: int, workers: int, device: str, host: str = "127.0.0.1") -> int:
    """Returns the exit code when the user has stopped it, or when something cannot go on."""
    wish = StopWish()
    settings = TreeSettings(data.expanduser().resolve(), host, port, workers, device)
    tree = ProcessTree(settings, _speaker(), stopping=lambda: wish.made)
    exit_code = 0
    try:
        wish.listen()
        try:
            require_free_port(host, port)
            tree.run()
        except EmbeddedStackError as error:
            _speaker(stderr=True)(str(error))
            exit_code = 1
        tree.stop()
    except KeyboardInterrupt:
        wish.ignore()
        tree.kill()
        return 130
    except BaseException:
        tree.kill()
        raise
    finally:
        wish.restore()
    return exit_code


def _speaker(*, stderr: bool = False) -> Callable[[str], None]:
    console = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)

    def say(line: str) -> None:
        # A terminal that was closed must not keep the tree from stopping in order.
        with contextlib.suppress(OSError):
            console.print(line)

    return say


class StopWish:
    """Ctrl-C, SIGTERM or a closed terminal: the first is a wish, the second interrupts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.made = False
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}

    def listen(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, self._hear)

    def ignore(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.made:
            raise KeyboardInterrupt
        self.made = True
