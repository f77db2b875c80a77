"""Whether an error means that there is no room for a file."""

import errno
import re

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_WORDS = re.compile(r"os error (\d+)")


def no_room(error: BaseException | None) -> bool:
    """Whether a full disk, a quota or a limit of file sizes is behind an error.

    Libraries written in Rust, such as safetensors, raise errors of their own with the system's
    number in the text.
    """
    while error is not None:
        numbers = {int(found) for found in _IN_WORDS.findall(str(error))}
        if isinstance(error, OSError) and error.errno is not None:
            numbers.add(error.errno)
        if numbers & _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False
