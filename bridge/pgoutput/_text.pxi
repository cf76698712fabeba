# Writing JSON into scratch memory; the part of `_rows.pyx` that knows neither rows nor the stream.
#
# What it writes is what `values.py` and orjson write: the same escapes, and no text that is not UTF-8.

# Memory -------------------------------------------------------------------------------------------------------------

cdef enum:
    KEPT_BYTES = 1 << 20  # scratch memory that has grown beyond this is given back after the row

cdef struct Scratch:
    # Memory in which one event is put together.
    uint8_t *out
    Py_ssize_t used
    Py_ssize_t room
    Span *spans
    Py_ssize_t spans_room

# The one that is not in use, or NULL. Under the GIL taking it and putting it back can't be interrupted.
cdef Scratch *_spare = NULL


cdef Scratch *_checkout(Py_ssize_t spans) except NULL:
    global _spare
    cdef Scratch *scratch = _spare
    cdef void *grown
    _spare = NULL
    if scratch is NULL:
        scratch = <Scratch *> PyMem_Malloc(sizeof(Scratch))
        if scratch is NULL:
            raise MemoryError
        scratch.out = NULL
        scratch.spans = NULL
        scratch.room = scratch.spans_room = 0
    scratch.used = 0
    if scratch.spans_room < spans:
        grown = PyMem_Realloc(scratch.spans, spans * sizeof(Span))
        if grown is NULL:
            _checkin(scratch)
            raise MemoryError
        scratch.spans = <Span *> grown
        scratch.spans_room = spans
    return scratch


cdef void _checkin(Scratch *scratch) noexcept:
    global _spare
    if _spare is NULL and scratch.room <= KEPT_BYTES:
        _spare = scratch
        return
    PyMem_Free(scratch.out)
    PyMem_Free(scratch.spans)
    PyMem_Free(scratch)


cdef int _grow(Scratch *s, Py_ssize_t more) except -1:
    cdef Py_ssize_t room = s.used + more
    cdef void *grown
    room += (room >> 1) + 256
    grown = PyMem_Realloc(s.out, room)
    if grown is NULL:
        raise MemoryError
    s.out = <uint8_t *> grown
    s.room = room
    return 0


cdef inline int _reserve(Scratch *s, Py_ssize_t more) except -1:
    if s.room - s.used < more:
        _grow(s, more)
    return 0


cdef inline int _put(Scratch *s, const void *text, Py_ssize_t size) except -1:
    _reserve(s, size)
    memcpy(s.out + s.used, text, size)
    s.used += size
    return 0


cdef inline int _put_byte(Scratch *s, uint8_t byte) except -1:
    _reserve(s, 1)
    s.out[s.used] = byte
    s.used += 1
    return 0


cdef inline int _put_bytes(Scratch *s, bytes text) except -1:
    return _put(s, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline int _put_quoted(Scratch *s, Text text, Py_ssize_t size) except -1:
    _reserve(s, size + 2)
    s.out[s.used] = c'"'
    memcpy(s.out + s.used + 1, text, size)
    s.out[s.used + 1 + size] = c'"'
    s.used += size + 2
    return 0


cdef int _put_number(Scratch *s, uint64_t number, int width) except -1:
    """Decimal digits, with zeros before them up to `width`, which is 20 at most."""
    cdef uint8_t digits[20]
    cdef int at = 20
    while number or at == 20:
        at -= 1
        digits[at] = c'0' + <uint8_t> (number % 10)
        number //= 10
    while 20 - at < width:
        at -= 1
        digits[at] = c'0'
    return _put(s, digits + at, 20 - at)


# Strings ------------------------------------------------------------------------------------------------------------

# Bytes that JSON strings don't take as they are, by what is done: 1 escape, 2 look whether it is UTF-8.
cdef uint8_t _special[256]
# After a backslash; `u` means four hexadecimal digits.
cdef uint8_t _escapes[256]


cdef void _fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        _special[byte] = 2 if byte >= 0x80 else 1 if byte < 0x20 else 0
        _escapes[byte] = c'u'
    _special[c'"'] = _special[c'\\'] = 1
    _escapes[c'"'] = c'"'
    _escapes[c'\\'] = c'\\'
    _escapes[8] = c'b'
    _escapes[9] = c't'
    _escapes[10] = c'n'
    _escapes[12] = c'f'
    _escapes[13] = c'r'


_fill_tables()


cdef inline bint _continues(uint8_t byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef Py_ssize_t _utf8_bytes(Text p, Text end) noexcept nogil:
    """
    How many bytes the character at `p` has, one that is not ASCII; 0 if it is not UTF-8.

    The Unicode Standard, table 3-7 (Well-Formed UTF-8 Byte Sequences): no surrogates, nothing longer than it need be.
    """
    cdef uint8_t first = p[0]
    cdef Py_ssize_t left = end - p
    if first < 0xC2 or left < 2:
        return 0
    if first < 0xE0:
        return 2 if _continues(p[1]) else 0
    if first < 0xF0:
        if left < 3 or not _continues(p[1]) or not _continues(p[2]):
            return 0
        if (first == 0xE0 and p[1] < 0xA0) or (first == 0xED and p[1] > 0x9F):
            return 0
        return 3
    if first > 0xF4 or left < 4 or not _continues(p[1]) or not _continues(p[2]) or not _continues(p[3]):
        return 0
    if (first == 0xF0 and p[1] < 0x90) or (first == 0xF4 and p[1] > 0x8F):
        return 0
    return 4


cdef inline Text _skip_plain(Text p, Text end) noexcept nogil:
    """The first byte from `p` on that is special, or the end."""
    cdef uint64_t word, low, quote, backslash
    while end - p >= 8:
        memcpy(&word, p, 8)
        # The high bit of each byte that is below 0x20, a quote or a backslash (or, wrongly, follows such a one).
        low = word - <uint64_t> 0x2020202020202020
        quote = word ^ <uint64_t> 0x2222222222222222
        backslash = word ^ <uint64_t> 0x5C5C5C5C5C5C5C5C
        quote -= <uint64_t> 0x0101010101010101
        backslash -= <uint64_t> 0x0101010101010101
        if (word | low | quote | backslash) & <uint64_t> 0x8080808080808080:
            break
        p += 8
    while p < end and not _special[p[0]]:
        p += 1
    return p


cdef bint _is_utf8(Text p, Text end) noexcept nogil:
    cdef uint64_t word
    cdef Py_ssize_t size
    while p < end:
        if end - p >= 8:
            memcpy(&word, p, 8)
            if not word & <uint64_t> 0x8080808080808080:
                p += 8
                continue
        if p[0] < 0x80:
            p += 1
            continue
        size = _utf8_bytes(p, end)
        if not size:
            return False
        p += size
    return True


cdef int _put_string(Scratch *s, Text p, Py_ssize_t size) except -1:
    """A JSON string, escaped as orjson does it; 0 if the text is not UTF-8."""
    cdef Text end = p + size
    cdef Text start
    cdef Py_ssize_t length
    cdef uint8_t escape
    cdef const char *hex_digits = "0123456789abcdef"
    _reserve(s, size + 2)
    s.out[s.used] = c'"'
    s.used += 1
    while True:
        start = p
        while True:
            p = _skip_plain(p, end)
            if p >= end or _special[p[0]] != 2:
                break
            length = _utf8_bytes(p, end)
            if not length:
                return 0
            p += length
        _put(s, start, p - start)
        if p >= end:
            break
        escape = _escapes[p[0]]
        _reserve(s, 6)
        s.out[s.used] = c'\\'
        s.out[s.used + 1] = escape
        s.used += 2
        if escape == c'u':
            s.out[s.used] = c'0'
            s.out[s.used + 1] = c'0'
            s.out[s.used + 2] = hex_digits[p[0] >> 4]
            s.out[s.used + 3] = hex_digits[p[0] & 15]
            s.used += 4
        p += 1
    _put_byte(s, c'"')
    return 1


cdef bint _is_number(Text p, Py_ssize_t size) noexcept nogil:
    """An integer's digits, with a minus or without."""
    cdef Text end = p + size
    if size and p[0] == c'-':
        p += 1
    if p == end:
        return False
    while p < end:
        if not c'0' <= p[0] <= c'9':
            return False
        p += 1
    return True
