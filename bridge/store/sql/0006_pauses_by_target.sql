-- A pause that a target asked for is over where its trigger calls another one.
-- A hash of what names the target; null where an operator paused the trigger, or a guard, and for pauses of before.
ALTER TABLE {schema}.pauses ADD COLUMN target text;
