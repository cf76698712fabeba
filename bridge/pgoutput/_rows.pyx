# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, nonecheck=False
"""
Programs executed by compiled code: the same events as `Plan.encode` gives, in a tenth of the generated code's time.

Optional: `compiled.py` does the same where this was not built, and the same tests run over both. Nothing is decided
here: what becomes of a column says the program (`program.py`), what a stream may look like the assembler. `Reader`
takes the rows, Begins and Commits of a burst of frames in one go; whatever is unusual about one of them, it hands the
frame to the assembler, untouched.

Memory safety rests on three rules. A frame is read through pointers only after `_walk` has seen that the whole of its
tuples lies within it. Everything is written through `_put` and its like, which make room first. While a frame's pointers
are in use its buffer is held, and so is the scratch memory, even if a Python encoder runs meanwhile.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_FromLongLong
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from bridge.change import Event, Transaction
from bridge.pgoutput.frames import clock_text, to_unix_seconds
from bridge.pgoutput.glance import Glance, Reading
from bridge.pgoutput.program import GAVE_UP, NotHereError, Program
from bridge.pgoutput.values import Form
from bridge.triggers.filter.matcher import ABSENT

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *(*tp_alloc)(PyTypeObject *, Py_ssize_t) except NULL
    void Py_INCREF(object)
    void Py_DECREF(object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)
    void PyObject_GC_UnTrack(void *)
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    int PyList_Append(object, object) except -1

ctypedef const uint8_t *Text

# Names that C finds without asking the module.
cdef object _Event = Event
cdef object _Transaction = Transaction
cdef object _to_unix_seconds = to_unix_seconds
cdef object _gave_up = GAVE_UP


# What is read -------------------------------------------------------------------------------------------------------

# XLogData's header of 25 bytes, then tag, OID, tuple kind and number of columns; a row's first column begins here.
cdef enum:
    ROW_KEY = 25
    FIRST_COLUMN = 33
    BEGIN_BYTES = 46
    COMMIT_BYTES = 51

# Sizes of a span that is no text.
cdef enum:
    NULL_VALUE = -1
    UNCHANGED = -2

cdef struct Span:
    # The text of one column, within the frame.
    Text text
    Py_ssize_t size


cdef inline uint32_t _u32(Text p) noexcept nogil:
    return (<uint32_t> p[0] << 24) | (<uint32_t> p[1] << 16) | (<uint32_t> p[2] << 8) | p[3]


cdef inline uint64_t _u64(Text p) noexcept nogil:
    return (<uint64_t> _u32(p) << 32) | _u32(p + 4)


cdef Text _walk(Text p, Text end, Py_ssize_t columns, Span *spans) noexcept nogil:
    """Find a tuple's columns; returns where it ends, or NULL if it does not parse. `spans` may be NULL."""
    cdef Py_ssize_t i
    cdef Span span
    cdef uint32_t size
    for i in range(columns):
        if p >= end:
            return NULL
        if p[0] == c't':
            if end - p < 5:
                return NULL
            size = _u32(p + 1)
            if size > <uint32_t> 0x7FFFFFFF or <Py_ssize_t> size > end - p - 5:
                return NULL
            span.text = p + 5
            span.size = size
            p += 5 + span.size
        elif p[0] == c'n':
            span.text = NULL
            span.size = NULL_VALUE
            p += 1
        elif p[0] == c'u':
            span.text = NULL
            span.size = UNCHANGED
            p += 1
        else:
            return NULL
        if spans is not NULL:
            spans[i] = span
    return p


cdef bint _steps_over(Text frame, Py_ssize_t size) noexcept nogil:
    """Whether a row that nobody wants is framed as it should be."""
    cdef Text end = frame + size
    cdef Text p
    cdef Py_ssize_t columns
    if size < FIRST_COLUMN:
        return False
    columns = (<Py_ssize_t> frame[31] << 8) | frame[32]
    p = _walk(frame + FIRST_COLUMN, end, columns, NULL)
    if p is NULL:
        return False
    if frame[25] == c'U' and frame[30] != c'N':
        if end - p < 3 or p[0] != c'N' or p[1] != frame[31] or p[2] != frame[32]:
            return False
        p = _walk(p + 3, end, columns, NULL)
    return p == end


cdef inline bint _same(Span a, Span b) noexcept nogil:
    return a.size == b.size and (a.size <= 0 or memcmp(a.text, b.text, a.size) == 0)


include "_text.pxi"


# Programs -----------------------------------------------------------------------------------------------------------

cdef enum Encoding:
    AS_DIGITS
    AS_FLOAT
    AS_TRUTH
    AS_PLAIN
    AS_STRING
    AS_DOCUMENT
    AS_TIMESTAMP
    AS_TIMESTAMPTZ
    BY_CALL  # by the type's encoder in Python

_ENCODINGS = {
    Form.NUMBER: AS_DIGITS,
    Form.FLOAT: AS_FLOAT,
    Form.BOOL: AS_TRUTH,
    Form.PLAIN: AS_PLAIN,
    Form.TEXT: AS_STRING,
    Form.JSON: AS_DOCUMENT,
    Form.TIMESTAMP: AS_TIMESTAMP,
    Form.TIMESTAMPTZ: AS_TIMESTAMPTZ,
}

cdef struct Column:
    Encoding encoding
    bint in_record
    bint in_keys
    bint may_be_unchanged
    # Owned by RowWriter.names.
    Text name
    Py_ssize_t name_bytes


cdef class RowWriter:
    """Executes one program: a frame's bytes in, an `Event` out. A `RowEncoder`."""

    cdef Column *columns
    cdef Py_ssize_t count
    cdef Py_ssize_t *ordering
    cdef Py_ssize_t ordering_count
    cdef bint has_old_row
    cdef bint has_keys
    cdef bytes key  # of frames that this is for
    cdef tuple names
    cdef tuple encoders
    cdef bytes before_record
    cdef bytes metadata
    cdef bytes unavailable
    cdef bytes key_prefix
    cdef object table_key
    cdef object table
    cdef object action

    def __cinit__(self):
        self.columns = NULL
        self.ordering = NULL

    def __dealloc__(self):
        PyMem_Free(self.columns)
        PyMem_Free(self.ordering)

    def __init__(self, program: Program):
        cdef Py_ssize_t i
        cdef Column *column
        plan = program.plan
        steps = program.steps
        if self.columns is not NULL:
            raise TypeError("a RowWriter is initialised once")
        self.count = len(steps)
        self.columns = <Column *> PyMem_Malloc(max(self.count, 1) * sizeof(Column))
        self.ordering_count = len(program.ordering)
        self.ordering = <Py_ssize_t *> PyMem_Malloc(max(self.ordering_count, 1) * sizeof(Py_ssize_t))
        if self.columns is NULL or self.ordering is NULL:
            raise MemoryError
        self.has_old_row = program.has_old_row
        self.has_keys = any(step.in_keys for step in steps)
        self.key = program.key
        self.names = tuple(step.column.json_name for step in steps)
        self.encoders = tuple(step.column.encode for step in steps)
        self.before_record = program.before_record
        self.metadata = plan.metadata
        self.unavailable = program.unavailable
        self.key_prefix = plan.key_prefix
        self.table_key = plan.table_key
        self.table = plan.table
        self.action = program.action
        for i in range(self.count):
            step = steps[i]
            column = &self.columns[i]
            column.encoding = _ENCODINGS.get(step.column.value_type.form, BY_CALL)
            column.in_record = step.in_record
            column.in_keys = step.in_keys
            column.may_be_unchanged = program.kind[:1] == b"U" and (
                self.has_old_row or step.may_be_absent or not step.wanted
            )
            name = <bytes?> self.names[i]
            column.name = <Text> PyBytes_AS_STRING(name)
            column.name_bytes = PyBytes_GET_SIZE(name)
        for i in range(self.ordering_count):
            self.ordering[i] = program.ordering[i].column.index

    def __call__(self, frame, ordinal, stamp):
        """The event of one row, or `NotHereError`."""
        cdef Py_buffer view
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        try:
            event = self.write(<Text> view.buf, view.len, ordinal, stamp)
        finally:
            PyBuffer_Release(&view)
        if event is None:
            raise NotHereError
        return event

    cdef object write(self, Text frame, Py_ssize_t size, int64_t ordinal, tuple stamp):
        """The event, or None for giving up; an encoder in Python may raise."""
        cdef Text end = frame + size
        cdef Text p
        cdef Py_ssize_t i
        cdef Span *new
        cdef Span *old = NULL
        cdef Scratch *s
        if size < FIRST_COLUMN or memcmp(frame + ROW_KEY, PyBytes_AS_STRING(self.key), 8) != 0 or ordinal < 0:
            return None
        s = _checkout(2 * self.count)
        try:
            new = s.spans
            p = frame + FIRST_COLUMN
            if self.has_old_row:
                old = s.spans + self.count
                p = _walk(p, end, self.count, old)
                if p is NULL or end - p < 3 or p[0] != c'N' or p[1] != frame[31] or p[2] != frame[32]:
                    return None
                p += 3
            if _walk(p, end, self.count, new) != end:
                return None
            for i in range(self.count):
                if old is not NULL and old[i].size == UNCHANGED:
                    return None
                if new[i].size == UNCHANGED:
                    if not self.columns[i].may_be_unchanged:
                        return None
                    if old is not NULL:
                        new[i] = old[i]
            return self.event(s, new, old, ordinal, stamp)
        finally:
            _checkin(s)

    cdef object event(self, Scratch *s, Span *new, Span *old, int64_t ordinal, tuple stamp):
        cdef bytes id_prefix = <bytes?> stamp[1]
        cdef bytes event_id, body
        cdef object key, old_key
        cdef PyObject *made
        cdef Py_ssize_t id_at
        _put(s, b'{"id":"', 7)
        id_at = s.used
        _put_bytes(s, id_prefix)
        _put_number(s, <uint64_t> ordinal, 10)
        event_id = PyBytes_FromStringAndSize(<char *> s.out + id_at, s.used - id_at)
        if not self.put_rest(s, new, old, ordinal, stamp):
            return None
        body = PyBytes_FromStringAndSize(<char *> s.out, s.used)
        old_key = None
        if not self.ordering_count:
            key = self.table_key
        else:
            key = self.ordering_key(s, new)
            if old is not NULL and self.order_differs(new, old):
                old_key = self.ordering_key(s, old)
        made = (<PyTypeObject *> _Event).tp_alloc(<PyTypeObject *> _Event, 9)
        event = <object> made
        Py_DECREF(event)
        _set(event, 0, event_id)
        _set(event, 1, stamp[0])
        _set(event, 2, ordinal)
        _set(event, 3, key)
        _set(event, 4, old_key)
        _set(event, 5, self.table)
        _set(event, 6, self.action)
        _set(event, 7, body)
        _set(event, 8, False)
        # Of all these only the transaction is a container, and it holds numbers: no cycle can go through an event. The
        # collector would visit each of a hundred thousand in hand again and again.
        PyObject_GC_UnTrack(made)
        return event

    cdef int put_rest(self, Scratch *s, Span *new, Span *old, int64_t ordinal, tuple stamp) except -1:
        """The body from the id's closing quote on; 0 for giving up. `plan.py` has its layout."""
        cdef Py_ssize_t i
        cdef Column *column
        cdef bint first = True
        cdef bint keys_differ = False
        _put_bytes(s, self.before_record)
        for i in range(self.count):
            column = &self.columns[i]
            if column.in_record and new[i].size != UNCHANGED:
                if not self.put_member(s, i, new[i], first):
                    return 0
                first = False
        if old is NULL:
            _put(s, b'},"changes":null,', 17)
        else:
            _put(s, b'},"changes":{', 13)
            first = True
            for i in range(self.count):
                if self.columns[i].in_record and not _same(new[i], old[i]):
                    if not self.put_member(s, i, old[i], first):
                        return 0
                    first = False
            _put(s, b'},', 2)
        _put_bytes(s, self.metadata)
        _put_bytes(s, <bytes?> stamp[2])
        _put_number(s, <uint64_t> ordinal, 0)
        _put_bytes(s, <bytes?> stamp[3])
        if not self.put_keys(s, new):
            return 0
        _put(s, b',"old_keys":', 12)
        if old is not NULL and self.has_keys:
            for i in range(self.count):
                if self.columns[i].in_keys and not _same(new[i], old[i]):
                    keys_differ = True
                    break
        if keys_differ:
            if not self.put_keys(s, old):
                return 0
        else:
            _put(s, b'null', 4)
        _put(s, b',"unavailable":[', 16)
        _put_bytes(s, self.unavailable)
        first = PyBytes_GET_SIZE(self.unavailable) == 0
        for i in range(self.count):
            column = &self.columns[i]
            if column.in_record and new[i].size == UNCHANGED:
                if not first:
                    _put_byte(s, c',')
                _put(s, column.name, column.name_bytes)
                first = False
        _put(s, b'],', 2)
        return 1

    cdef int put_keys(self, Scratch *s, Span *row) except -1:
        cdef Py_ssize_t i
        cdef bint first = True
        _put_byte(s, c'{')
        if self.has_keys:
            for i in range(self.count):
                if self.columns[i].in_keys:
                    if not self.put_member(s, i, row[i], first):
                        return 0
                    first = False
        _put_byte(s, c'}')
        return 1

    cdef inline int put_member(self, Scratch *s, Py_ssize_t i, Span value, bint first) except -1:
        cdef Column *column = &self.columns[i]
        _reserve(s, column.name_bytes + 2)
        if not first:
            s.out[s.used] = c','
            s.used += 1
        memcpy(s.out + s.used, column.name, column.name_bytes)
        s.used += column.name_bytes
        s.out[s.used] = c':'
        s.used += 1
        return self.put_value(s, i, value)

    cdef int put_value(self, Scratch *s, Py_ssize_t i, Span value) except -1:
        """One column's JSON as `values.py` defines it; 0 for giving up."""
        cdef Encoding encoding = self.columns[i].encoding
        cdef Text text = value.text
        cdef Py_ssize_t size = value.size
        cdef uint8_t *out
        if size < 0:
            _put(s, b'null', 4)
            return 1
        if encoding == AS_DIGITS:
            if not _is_number(text, size):
                return 0
            _put(s, text, size)
        elif encoding == AS_STRING:
            return _put_string(s, text, size)
        elif encoding == AS_PLAIN:
            _put_quoted(s, text, size)
        elif encoding == AS_TRUTH:
            if size != 1:
                return 0
            if text[0] == c't':
                _put(s, b'true', 4)
            elif text[0] == c'f':
                _put(s, b'false', 5)
            else:
                return 0
        elif encoding == AS_FLOAT:
            if not size:
                return 0
            if text[size - 1] <= c'9':
                _put(s, text, size)
            else:
                _put_quoted(s, text, size)
        elif encoding == AS_DOCUMENT:
            if not _is_utf8(text, text + size):
                return 0
            _put(s, text, size)
        elif encoding == AS_TIMESTAMP:
            # `2026-11-22 05:37:00.5`, not infinity, BC or a year of five digits
            if size < 11 or text[size - 1] > c'9' or text[10] != c' ':
                return self.call_encoder(s, i, text, size)
            _put_quoted(s, text, size)
            s.out[s.used - size - 1 + 10] = c'T'
        elif encoding == AS_TIMESTAMPTZ:
            # `2026-11-22 05:37:00.5+00`, likewise
            if size < 14 or text[10] != c' ' or memcmp(text + size - 3, b'+00', 3) != 0:
                return self.call_encoder(s, i, text, size)
            _reserve(s, size)
            out = s.out + s.used
            out[0] = c'"'
            memcpy(out + 1, text, size - 3)
            out[11] = c'T'
            out[size - 2] = c'Z'
            out[size - 1] = c'"'
            s.used += size
        else:
            return self.call_encoder(s, i, text, size)
        return 1

    cdef int call_encoder(self, Scratch *s, Py_ssize_t i, Text text, Py_ssize_t size) except -1:
        _put_bytes(s, <bytes?> self.encoders[i](PyBytes_FromStringAndSize(<char *> text, size)))
        return 1

    cdef object ordering_key(self, Scratch *s, Span *row):
        """Built behind the body, which is finished."""
        cdef Py_ssize_t at = s.used
        cdef Py_ssize_t n
        cdef Span value
        _put_bytes(s, self.key_prefix)
        for n in range(self.ordering_count):
            value = row[self.ordering[n]]
            if value.size < 0:
                _put(s, b'\0n', 2)
            else:
                _put(s, b'\0v', 2)
                _put(s, value.text, value.size)
        key = PyBytes_FromStringAndSize(<char *> s.out + at, s.used - at)
        s.used = at
        return key

    cdef bint order_differs(self, Span *new, Span *old) noexcept:
        cdef Py_ssize_t n
        for n in range(self.ordering_count):
            if not _same(new[self.ordering[n]], old[self.ordering[n]]):
                return True
        return False


cdef inline void _set(object event, Py_ssize_t i, object value) noexcept:
    Py_INCREF(value)
    PyTuple_SET_ITEM(event, i, value)


def compile_row(plan, kind):
    """As `compiled.compile_row`."""
    return RowWriter(Program(plan, kind))


def step_over_row(frame, ordinal, stamp):
    """As `compiled.step_over_row`."""
    cdef Py_buffer view
    cdef bint fine
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    fine = _steps_over(<Text> view.buf, view.len)
    PyBuffer_Release(&view)
    if not fine:
        raise NotHereError


cdef object _step_over_row = step_over_row


include "_glance.pxi"


# The stream ---------------------------------------------------------------------------------------------------------

cdef class Reader:
    """
    The rows, Begins and Commits of a stream, for one assembler; the rest goes to the assembler's own `_take`.

    While it works it holds the assembler's state (ordinal, transaction, stamp and what hangs on them). The assembler has
    it again before anything of its own is called; only the ordinal, which is handed along, may then be behind.
    """

    cdef object assembler
    cdef bint holds
    cdef bint ahead  # of what the assembler has, since a Begin or a Commit
    # The assembler's
    cdef int64_t ordinal
    cdef int64_t counted
    cdef object transaction
    cdef tuple stamp
    cdef dict ready
    cdef dict writers
    cdef dict careful
    cdef dict no_writers
    cdef object received_end
    cdef uint64_t received_end_lsn
    cdef uint64_t commit_lsn
    cdef uint64_t skip_until
    # The writer of the last row's key: rows of one table come together.
    cdef uint64_t last_key
    cdef tuple last_writer
    # The second of the last commit as text: many commit in one.
    cdef int64_t last_second
    cdef bytes last_second_text

    def __init__(self, assembler, dict no_writers not None):
        self.assembler = assembler
        self.no_writers = no_writers

    def consume(self, frames):
        """Take frames in order, as `Assembler.consume` says."""
        self.hold()
        try:
            for frame in frames:
                self.take(frame)
        finally:
            if self.holds:
                self.give_back()

    cdef int hold(self) except -1:
        """Copy the assembler's state."""
        assembler = self.assembler
        self.ordinal = assembler._ordinal
        self.counted = assembler._counted
        self.transaction = assembler.transaction
        self.stamp = assembler._stamp
        self.ready = assembler._ready
        self.writers = assembler._writers
        self.careful = assembler._careful
        self.received_end = assembler.received_end_lsn
        self.received_end_lsn = self.received_end
        self.skip_until = assembler._skip_until
        self.commit_lsn = 0 if self.transaction is None else self.transaction.commit_lsn
        self.last_writer = None
        self.holds = True
        self.ahead = False
        return 0

    cdef int give_back(self) except -1:
        self.holds = False
        self.tell()
        return 0

    cdef int tell(self) except -1:
        """Let the assembler have what is held here, which goes on to hold."""
        assembler = self.assembler
        self.ahead = False
        assembler._ordinal = self.ordinal
        assembler._counted = self.counted
        assembler.transaction = self.transaction
        assembler._stamp = self.stamp
        assembler._ready = self.ready
        assembler.received_end_lsn = self.received_end
        return 0

    cdef int take(self, object frame) except -1:
        cdef Py_buffer view
        cdef bint taken
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        try:
            taken = self.take_fast(frame, <Text> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if not taken:
            self.give_back()
            self.assembler._take(bytes(frame))
            self.hold()
        return 0

    cdef bint take_fast(self, object frame, Text p, Py_ssize_t size) except -1:
        """Whether the frame was one of those that are taken here."""
        cdef tuple writer
        if size <= ROW_KEY or p[0] != c'w':
            return False
        if p[25] == c'B':
            return size == BEGIN_BYTES and self.begin(p)
        if p[25] == c'C':
            return size == COMMIT_BYTES and not p[26] and self.commit(p)
        if size < FIRST_COLUMN or self.transaction is None:
            return False
        writer = self.writer_of(p)
        if writer is None:
            return False
        self.row(writer, frame, p, size)
        self.ordinal += 1
        return True

    cdef tuple writer_of(self, Text p):
        cdef uint64_t key
        cdef PyObject *found
        memcpy(&key, p + ROW_KEY, 8)
        if self.last_writer is None or key != self.last_key:
            found = PyDict_GetItemWithError(self.ready, PyBytes_FromStringAndSize(<char *> p + ROW_KEY, 8))
            if found is NULL:
                return None
            self.last_writer = <tuple?> <object> found
            self.last_key = key
        return self.last_writer

    cdef int row(self, tuple writer, object frame, Text p, Py_ssize_t size) except -1:
        encode = writer[0]
        event = None
        if type(encode) is RowWriter:
            try:
                event = (<RowWriter> encode).write(p, size, self.ordinal, self.stamp)
            except _gave_up:
                event = None
        elif encode is _step_over_row:
            if _steps_over(p, size):
                return 0
        else:
            self.last_writer = None  # whatever it is, it may change what writes the next row
            if self.ahead:
                self.tell()
            try:
                event = encode(bytes(frame), self.ordinal, self.stamp)
            except _gave_up:
                pass
            else:
                if event is None:
                    return 0
        if event is None:
            self.last_writer = None
            self.give_back()
            self.assembler._write_plainly(bytes(frame))
            self.hold()
            return 0
        for inbox in <tuple> writer[1]:
            PyList_Append(inbox, event)
        return 0

    cdef bint begin(self, Text p) except -1:
        """False where something is wrong with it, which the assembler then says."""
        cdef uint64_t final_lsn = _u64(p + 26)
        cdef int64_t committed_at = <int64_t> _u64(p + 34)
        cdef uint32_t xid = _u32(p + 42)
        cdef bytes times
        if self.transaction is not None:
            return False
        times = self.time_text(committed_at)
        if times is None:
            return False
        self.transaction = _Transaction(final_lsn, self.received_end, _to_unix_seconds(committed_at), xid)
        self.stamp = _stamp(self.transaction, final_lsn, times, xid)
        self.commit_lsn = final_lsn
        self.ordinal = 0
        self.ready = self.careful if final_lsn <= self.skip_until else self.writers
        self.last_writer = None
        self.ahead = True
        return True

    cdef bytes time_text(self, int64_t clock):
        """As `frames.clock_text`; None for a time that no calendar has."""
        cdef int64_t second = clock // 1000000
        cdef int64_t rest = clock % 1000000
        cdef Scratch *s
        if rest < 0:  # division here is C's
            second -= 1
            rest += 1000000
        if self.last_second_text is None or second != self.last_second:
            try:
                text = clock_text(clock)
            except OverflowError:
                return None
            self.last_second_text = text.partition(".")[0].encode("ascii")
            self.last_second = second
        s = _checkout(0)
        try:
            _put_bytes(s, self.last_second_text)
            _put_byte(s, c'.')
            _put_number(s, <uint64_t> rest, 6)
            _put_byte(s, c'Z')
            return PyBytes_FromStringAndSize(<char *> s.out, s.used)
        finally:
            _checkin(s)

    cdef bint commit(self, Text p) except -1:
        """False where something is wrong with it, which the assembler then says."""
        cdef uint64_t commit_lsn = _u64(p + 27)
        cdef uint64_t end_lsn = _u64(p + 35)
        if self.transaction is None or commit_lsn != self.commit_lsn or end_lsn <= commit_lsn:
            return False
        if end_lsn > self.received_end_lsn:
            self.received_end_lsn = end_lsn
            self.received_end = end_lsn
        self.transaction = None
        self.counted += self.ordinal
        self.ordinal = 0
        self.ready = self.no_writers
        self.ahead = True
        return True


cdef tuple _stamp(object transaction, uint64_t commit_lsn, bytes times, uint32_t xid):
    """As `plan.make_stamp`."""
    cdef Scratch *s = _checkout(0)
    cdef Py_ssize_t lsn_at, times_at
    cdef int shift
    cdef const char *hex_digits = "0123456789ABCDEF"
    try:
        for shift in range(60, -4, -4):
            _put_byte(s, hex_digits[(commit_lsn >> shift) & 15])
        _put_byte(s, c'-')
        lsn_at = s.used
        _put_number(s, commit_lsn, 0)
        _put(s, b',"commit_idx":', 14)
        times_at = s.used
        _put(s, b',"commit_timestamp":"', 21)
        _put_bytes(s, times)
        _put(s, b'","transaction_id":', 19)
        _put_number(s, xid, 0)
        _put(s, b',"keys":', 8)
        return (
            transaction,
            PyBytes_FromStringAndSize(<char *> s.out, lsn_at),
            PyBytes_FromStringAndSize(<char *> s.out + lsn_at, times_at - lsn_at),
            PyBytes_FromStringAndSize(<char *> s.out + times_at, s.used - times_at),
        )
    finally:
        _checkin(s)
