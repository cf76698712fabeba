# cython: language_level=3
"""
Messages out of libpq's buffer, many for one call from Python.

psycopg makes four objects for each message; at a hundred thousand a second that is a good part of a processor. libpq
and the connection stay psycopg's: `libpq.py` hands in the addresses of two functions of the very library that psycopg
has loaded, and the connection's own pointer (`pgconn_ptr`, which psycopg gives out for the purpose). Optional:
`libpq.py` does the same without it.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uintptr_t

ctypedef int (*GetCopyData)(void *connection, char **buffer, int asynchronous) noexcept
ctypedef void (*FreeMemory)(void *memory) noexcept

cdef enum:
    # From here on a message stays in the memory that libpq gave it. Smaller ones are copied: Python's allocator is
    # quicker than malloc, and an object around foreign memory is one more.
    KEPT_BYTES = 64 * 1024


cdef class _Message:
    """Memory of libpq's, to be read through a memoryview."""

    cdef char *data
    cdef Py_ssize_t size
    cdef FreeMemory free

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)

    def __dealloc__(self):
        self.free(self.data)


cdef class CopyData:
    """
    Args:
        get_copy_data: address of PQgetCopyData.
        free_memory: address of PQfreemem, of the same library.
    """

    cdef GetCopyData get
    cdef FreeMemory free

    def __init__(self, uintptr_t get_copy_data, uintptr_t free_memory):
        if not get_copy_data or not free_memory:
            raise ValueError("an address is 0")
        self.get = <GetCopyData> get_copy_data
        self.free = <FreeMemory> free_memory

    def take(self, uintptr_t connection, list frames not None, Py_ssize_t max_frames, Py_ssize_t max_bytes):
        """
        Append what is there, without waiting, until there are `max_frames`, or one brings the bytes to `max_bytes`.

        Args:
            connection: address of the PGconn, open and in copy-both mode.
            frames: for the messages, each with memory of its own.
            max_frames: that the list may have.
            max_bytes: that are taken in this call.

        Returns:
            What libpq said last (1 enough, 0 no more is there, -1 the copy has ended, -2 an error), and the bytes taken.
        """
        cdef char *data = NULL
        cdef int length
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t room = max_frames - len(frames)
        if not connection:
            return -2, 0
        while room > 0 and size < max_bytes:
            length = self.get(<void *> connection, &data, 1)
            if length <= 0:
                return length, size
            frames.append(self.keep(data, length))
            room -= 1
            size += length
        return 1, size

    cdef object keep(self, char *data, Py_ssize_t size):
        cdef _Message message
        if size < KEPT_BYTES:
            try:
                return PyBytes_FromStringAndSize(data, size)
            finally:
                self.free(data)
        try:
            message = _Message.__new__(_Message)
        except MemoryError:
            self.free(data)
            raise
        message.data = data
        message.size = size
        message.free = self.free
        return memoryview(message)
