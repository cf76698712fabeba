# Glances (`glance.py`), executed: a part of `_rows.pyx`, whose rules of memory safety hold here.

cdef enum How:
    AS_TEXT
    AS_UNESCAPED
    AS_INTEGER
    AS_BOOL
    AS_PRESENT
    CONVERTED

_HOW = {
    Reading.TEXT: AS_TEXT,
    Reading.PLAIN: AS_UNESCAPED,
    Reading.DIGITS: AS_INTEGER,
    Reading.TRUTH: AS_BOOL,
    Reading.PRESENCE: AS_PRESENT,
    Reading.CONVERTED: CONVERTED,
}

cdef object _ABSENT = ABSENT

cdef struct Asked:
    # One question, but for what are objects.
    Py_ssize_t index
    bint of_changes
    How how


cdef class Look:
    """Executes one glance: a frame's bytes to the conjunctions that are met, or may be."""

    cdef Asked *asked
    cdef Py_ssize_t count
    cdef Py_ssize_t columns
    cdef bint has_old_row
    cdef bint takes_unchanged
    cdef bytes key  # of frames that this is for
    cdef object everything
    cdef tuple asked_by
    cdef tuple converters
    cdef tuple answers
    cdef tuple otherwise
    cdef tuple predicates
    cdef tuple tables

    def __cinit__(self):
        self.asked = NULL

    def __dealloc__(self):
        PyMem_Free(self.asked)

    def __init__(self, glance: Glance):
        cdef Py_ssize_t i
        questions = glance.questions
        if self.asked is not NULL:
            raise TypeError("a Look is initialised once")
        self.count = len(questions)
        self.columns = glance.columns
        self.asked = <Asked *> PyMem_Malloc(max(self.count, 1) * sizeof(Asked))
        if self.asked is NULL:
            raise MemoryError
        for i in range(self.count):
            question = questions[i]
            if not 0 <= question.index < self.columns:
                raise IndexError("a question about a column that is not there")
            self.asked[i].index = question.index
            self.asked[i].of_changes = question.of_changes and glance.has_old_row
            self.asked[i].how = _HOW[question.reading]
        self.has_old_row = glance.has_old_row
        self.takes_unchanged = glance.takes_unchanged
        self.key = glance.key
        self.everything = glance.everything
        self.asked_by = tuple([question.asked_by for question in questions])
        self.converters = tuple([question.convert for question in questions])
        self.answers = tuple([question.answers for question in questions])
        self.otherwise = tuple([question.otherwise for question in questions])
        self.predicates = tuple([question.predicates for question in questions])
        self.tables = tuple([question.tables for question in questions])

    def __call__(self, frame):
        """The conjunctions; raises `NotHereError`, and what a converter raises."""
        cdef Py_buffer view
        cdef Scratch *s = NULL
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        try:
            s = _checkout(2 * self.columns)
            return self.look(s, <Text> view.buf, view.len)
        finally:
            if s is not NULL:
                _checkin(s)
            PyBuffer_Release(&view)

    cdef object look(self, Scratch *s, Text frame, Py_ssize_t size):
        cdef Text end = frame + size
        cdef Text p
        cdef Span *new = s.spans
        cdef Span *old = NULL
        cdef Span span
        cdef Asked *asked
        cdef Py_ssize_t i
        cdef PyObject *found
        if size < FIRST_COLUMN or memcmp(frame + ROW_KEY, PyBytes_AS_STRING(self.key), 8) != 0:
            raise NotHereError
        p = frame + FIRST_COLUMN
        if self.has_old_row:
            old = s.spans + self.columns
            p = _walk(p, end, self.columns, old)
            if p is NULL or end - p < 3 or p[0] != c'N' or p[1] != frame[31] or p[2] != frame[32]:
                raise NotHereError
            p += 3
        if _walk(p, end, self.columns, new) != end:
            raise NotHereError
        for i in range(self.columns):
            if old is not NULL and old[i].size == UNCHANGED:
                raise NotHereError
            if new[i].size == UNCHANGED:
                if not self.takes_unchanged:
                    raise NotHereError
                if old is not NULL:
                    new[i] = old[i]
        left = self.everything
        for i in range(self.count):
            if not left & self.asked_by[i]:
                continue
            asked = &self.asked[i]
            span = new[asked.index]
            if asked.of_changes:
                if _same(span, old[asked.index]):
                    span.size = UNCHANGED
                else:
                    span = old[asked.index]
            if span.size == UNCHANGED:
                value = _ABSENT
            elif span.size == NULL_VALUE:
                value = None
            else:
                value = self.read(i, asked.how, span)
            found = PyDict_GetItemWithError(<dict> self.answers[i], value)
            answer = <object> self.otherwise[i] if found is NULL else <object> found
            if span.size >= 0:
                for accepts, bits in <tuple> self.predicates[i]:
                    if bits & left and accepts(value):
                        answer = answer | bits
                for table, bits in <tuple> self.tables[i]:
                    if bits & left:
                        answer = answer | table(value)
            left = left & answer
        return left

    cdef object read(self, Py_ssize_t i, How how, Span span):
        """A value as `glance.py` says that it is read."""
        cdef uint64_t magnitude = 0
        cdef Text p = span.text
        cdef Text end = p + span.size
        if how == AS_TEXT:
            return PyUnicode_DecodeUTF8(<const char *> span.text, span.size, NULL)
        if how == AS_UNESCAPED:
            if _skip_plain(p, end) == end:
                return PyUnicode_DecodeUTF8(<const char *> span.text, span.size, NULL)
        elif how == AS_INTEGER:
            if p < end and p[0] == c'-':
                p += 1
            # At most 19 digits, which 64 bits hold; no zero before others, and none that is negative.
            if 0 < end - p <= 19 and (p[0] != c'0' or span.size == 1):
                while p < end and c'0' <= p[0] <= c'9':
                    magnitude = magnitude * 10 + (p[0] - c'0')
                    p += 1
                if p == end:
                    if span.text[0] != c'-':
                        if magnitude <= <uint64_t> 0x7FFFFFFFFFFFFFFF:
                            return PyLong_FromLongLong(<int64_t> magnitude)
                    elif magnitude <= <uint64_t> 0x8000000000000000:
                        return PyLong_FromLongLong(<int64_t> (0 - magnitude))
        elif how == AS_BOOL:
            if span.size == 1:
                if p[0] == c't':
                    return True
                if p[0] == c'f':
                    return False
        elif how == AS_PRESENT:
            return True
        else:
            return self.converters[i](PyBytes_FromStringAndSize(<char *> span.text, span.size))
        raise NotHereError


def compile_glance(glance):
    """As `look.compile_glance`."""
    return Look(glance)
