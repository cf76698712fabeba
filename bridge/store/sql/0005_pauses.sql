-- Triggers that wait until somebody resumes them: because an operator paused them, or their target asked for it.
CREATE TABLE {schema}.pauses (
    slot text NOT NULL,
    trigger text NOT NULL,
    -- In our words; no row values.
    reason text NOT NULL,
    remedy text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, trigger)
);
