# Types of the extension module; its source is `_copydata.pyx`.

class CopyData:
    def __init__(self, get_copy_data: int, free_memory: int) -> None: ...
    def take(
        self, connection: int, frames: list[memoryview | bytes], max_frames: int, max_bytes: int
    ) -> tuple[int, int]: ...
