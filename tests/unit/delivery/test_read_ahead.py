"""How long reading may wait for a trigger, on a clock of the test's own."""

from bridge.delivery.read_ahead import GROWING_SECONDS, STILL_SECONDS, Patience

BOUND = 1000


def looks(patience: Patience, *looks: tuple[float, int, int]) -> list[bool]:
    """What is said to each of (seconds, settled so far, bytes retained)."""
    return [patience.is_over(*look) for look in looks]


def test_reading_may_wait_for_ever_while_the_slot_retains_little():
    assert looks(Patience(BOUND), (0.0, 0, BOUND), (1e6, 0, BOUND)) == [False, False]


def test_a_target_that_takes_nothing_is_waited_for_shortly_once_the_slot_retains_much():
    patience = Patience(BOUND)
    assert looks(
        patience, (0.0, 5, 0), (STILL_SECONDS - 0.1, 5, BOUND + 1), (STILL_SECONDS, 5, BOUND), (9.0, 5, BOUND + 1)
    ) == [False, False, False, True]


def test_a_target_that_works_off_what_the_slot_retains_is_waited_for():
    patience = Patience(BOUND)
    falling = [(float(second), second, 10 * BOUND - second) for second in range(1000)]
    assert not any(looks(patience, *falling))


def test_a_target_that_does_not_keep_pace_is_waited_for_until_that_is_clear():
    patience = Patience(BOUND)
    growing = [(float(second), second, 2 * BOUND + second) for second in range(int(GROWING_SECONDS) + 1)]
    assert looks(patience, *growing) == [False] * int(GROWING_SECONDS) + [True]


def test_a_new_wait_starts_with_nothing_held_against_the_target():
    patience = Patience(BOUND)
    looks(patience, (0.0, 5, BOUND + 1), (STILL_SECONDS - 1, 5, BOUND + 1))
    patience.forget()
    assert looks(patience, (STILL_SECONDS, 5, BOUND + 1), (2 * STILL_SECONDS, 5, BOUND + 1)) == [False, True]
