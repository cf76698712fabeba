-- What an on-failure destination has still to be told of a letter, besides what the letter itself says: JSON, without row
-- values. Null where there is no destination, or it knows.
ALTER TABLE {schema}.dead_letters ADD COLUMN report text;

-- Empty most of the time, so that looking for work costs nothing.
CREATE INDEX ON {schema}.dead_letters (slot, event_id, id) WHERE report IS NOT NULL;
